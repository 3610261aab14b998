//! Digests and HMAC for `crypto.subtle`. Comparing takes the same time wherever the difference lies.

use hmac::{Hmac, Mac};
use rquickjs::{Ctx, Exception, Function, Object, Result, TypedArray, Value};
use sha1::Sha1;
use sha2::{Digest, Sha256, Sha384, Sha512};

use super::encoding::with_bytes;

/// Puts the functions on the prelude's `host` object.
pub(super) fn install<'js>(ctx: &Ctx<'js>, host: &Object<'js>) -> Result<()> {
    host.set("digest", Function::new(ctx.clone(), digest)?)?;
    host.set("hmac", Function::new(ctx.clone(), sign)?)?;
    host.set("sameBytes", Function::new(ctx.clone(), same)?)
}

fn digest<'js>(ctx: Ctx<'js>, algorithm: String, input: Value<'js>) -> Result<TypedArray<'js, u8>> {
    let sum = with_bytes(&input, |bytes| match algorithm.as_str() {
        "SHA-1" => Some(Sha1::digest(bytes).to_vec()),
        "SHA-256" => Some(Sha256::digest(bytes).to_vec()),
        "SHA-384" => Some(Sha384::digest(bytes).to_vec()),
        "SHA-512" => Some(Sha512::digest(bytes).to_vec()),
        _ => None,
    })?;
    TypedArray::new(ctx.clone(), sum.ok_or_else(|| unknown(&ctx, &algorithm))?)
}

fn sign<'js>(ctx: Ctx<'js>, algorithm: String, key: Value<'js>, input: Value<'js>) -> Result<TypedArray<'js, u8>> {
    let key = with_bytes(&key, <[u8]>::to_vec)?;
    let tag = with_bytes(&input, |bytes| match algorithm.as_str() {
        "SHA-1" => tag::<Hmac<Sha1>>(&key, bytes),
        "SHA-256" => tag::<Hmac<Sha256>>(&key, bytes),
        "SHA-384" => tag::<Hmac<Sha384>>(&key, bytes),
        "SHA-512" => tag::<Hmac<Sha512>>(&key, bytes),
        _ => None,
    })?;
    TypedArray::new(ctx.clone(), tag.ok_or_else(|| unknown(&ctx, &algorithm))?)
}

fn tag<M: Mac + hmac::digest::KeyInit>(key: &[u8], bytes: &[u8]) -> Option<Vec<u8>> {
    let mut mac = <M as Mac>::new_from_slice(key).ok()?;
    mac.update(bytes);
    Some(mac.finalize().into_bytes().to_vec())
}

fn same(left: Value<'_>, right: Value<'_>) -> Result<bool> {
    let left = with_bytes(&left, <[u8]>::to_vec)?;
    with_bytes(&right, |right| {
        left.len() == right.len() && left.iter().zip(right).fold(0, |difference, (a, b)| difference | (a ^ b)) == 0
    })
}

fn unknown(ctx: &Ctx<'_>, algorithm: &str) -> rquickjs::Error {
    Exception::throw_type(ctx, &format!("{algorithm} is not supported; use SHA-1, SHA-256, SHA-384 or SHA-512"))
}
