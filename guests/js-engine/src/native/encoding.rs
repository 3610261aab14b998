//! Bytes and text: UTF-8 both ways and base64.

use rquickjs::{Ctx, Exception, Function, Object, Result, String as JsString, TypedArray, Value};

use super::wrong_bytes;

/// Puts the functions on the prelude's `host` object.
pub(super) fn install<'js>(ctx: &Ctx<'js>, host: &Object<'js>) -> Result<()> {
    host.set("encode", Function::new(ctx.clone(), encode)?)?;
    host.set("decode", Function::new(ctx.clone(), decode)?)?;
    host.set("byteLength", Function::new(ctx.clone(), |text: Value<'_>| text_of(text).map(|t| t.len() as f64))?)?;
    host.set("atob", Function::new(ctx.clone(), from_base64)?)?;
    host.set("btoa", Function::new(ctx.clone(), to_base64)?)
}

/// Copies bytes into JavaScript.
pub(crate) fn bytes<'js>(ctx: &Ctx<'js>, bytes: &[u8]) -> Result<TypedArray<'js, u8>> {
    TypedArray::new_copy(ctx.clone(), bytes)
}

/// Lends the bytes of a `Uint8Array`.
#[allow(unsafe_code)]
pub(crate) fn with_bytes<T>(value: &Value<'_>, take: impl FnOnce(&[u8]) -> T) -> Result<T> {
    let array = value.as_object().and_then(|object| object.as_typed_array::<u8>()).ok_or_else(|| wrong_bytes(value))?;
    // SAFETY: no caller's `take` runs JavaScript.
    let bytes = unsafe { array.as_bytes() }.ok_or_else(|| wrong_bytes(value))?;
    Ok(take(bytes))
}

/// Any value as text, as `String(value)` gives it, lone surrogates replaced.
pub(crate) fn text_of(value: Value<'_>) -> Result<String> {
    let ctx = value.ctx().clone();
    let text = match value.into_string() {
        Some(text) => text,
        None => return Err(Exception::throw_type(&ctx, "the value is not a string")),
    };
    match text.to_string() {
        Ok(text) => Ok(text),
        Err(_) => well_formed(&ctx, text)?.to_string(),
    }
}

fn well_formed<'js>(ctx: &Ctx<'js>, text: JsString<'js>) -> Result<JsString<'js>> {
    let method: Function<'js> = ctx.eval("String.prototype.toWellFormed")?;
    method.call((rquickjs::function::This(text),))
}

fn encode<'js>(ctx: Ctx<'js>, text: Value<'js>) -> Result<TypedArray<'js, u8>> {
    TypedArray::new(ctx, text_of(text)?.into_bytes())
}

/// UTF-8 as the Encoding standard reads it; `fatal` throws, else what is malformed becomes U+FFFD.
fn decode<'js>(ctx: Ctx<'js>, input: Value<'js>, fatal: bool, keep_bom: bool) -> Result<JsString<'js>> {
    let text = with_bytes(&input, |bytes| {
        let bytes = if keep_bom { bytes } else { bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes) };
        match std::str::from_utf8(bytes) {
            Ok(text) => Some(JsString::from_str(ctx.clone(), text)),
            Err(_) if fatal => None,
            Err(_) => Some(JsString::from_str(ctx.clone(), &String::from_utf8_lossy(bytes))),
        }
    })?;
    text.unwrap_or_else(|| Err(Exception::throw_type(&ctx, "the bytes are not valid UTF-8")))
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// `btoa`: none when a code point lies past 255.
fn to_base64(text: String) -> Option<String> {
    let bytes = marram_js_abi::lines::value_bytes(&text)?;
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let bits = group.iter().chain([0, 0].iter()).take(3).fold(0u32, |bits, byte| bits << 8 | u32::from(*byte));
        for at in 0..4 {
            let digit = ALPHABET[(bits >> (18 - 6 * at) & 63) as usize];
            out.push(if at <= group.len() { char::from(digit) } else { '=' });
        }
    }
    Some(out)
}

/// `atob`, forgiving as the Infra standard has it; none when the text is not base64.
fn from_base64(text: String) -> Option<String> {
    let mut digits: Vec<u8> = text.bytes().filter(|b| !matches!(b, b'\t' | b'\n' | 0x0c | b'\r' | b' ')).collect();
    if digits.len() % 4 == 0 {
        let padding = digits.iter().rev().take(2).take_while(|b| **b == b'=').count();
        digits.truncate(digits.len() - padding);
    }
    if digits.len() % 4 == 1 {
        return None;
    }
    let (mut out, mut bits, mut count) = (String::with_capacity(digits.len()), 0u32, 0);
    for digit in digits {
        let value = ALPHABET.iter().position(|&letter| letter == digit)? as u32;
        bits = bits << 6 | value;
        count += 6;
        if count >= 8 {
            count -= 8;
            out.push(char::from((bits >> count & 255) as u8));
        }
    }
    Some(out)
}
