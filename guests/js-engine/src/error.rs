//! What JavaScript threw, as the host reports it: with the line and the column in the developer's own file.

use marram_js_abi::ScriptError;
use rquickjs::{CaughtError, Ctx, Error, Value};

/// The longest message or stack that is passed on, in bytes: a function must not flood the log by throwing.
const TEXT_BYTES_MAX: usize = 8 * 1024;

/// The pending exception, or what `error` says by itself.
pub(crate) fn caught(ctx: &Ctx<'_>, error: Error, file: &str) -> ScriptError {
    match CaughtError::from_error(ctx, error) {
        CaughtError::Exception(exception) => thrown(exception.into_object().into_value(), file),
        CaughtError::Value(value) => thrown(value, file),
        CaughtError::Error(error) => {
            ScriptError { name: "InternalError".into(), message: error.to_string(), ..ScriptError::default() }
        }
    }
}

/// Describes a thrown value, which may be anything.
pub(crate) fn thrown(value: Value<'_>, file: &str) -> ScriptError {
    let text = |value: Value<'_>| super::native::text_of(value).unwrap_or_default();
    let Some(object) = value.as_object() else {
        return ScriptError { name: "Uncaught".into(), message: limited(text(value)), ..ScriptError::default() };
    };
    let property = |name: &str| object.get::<_, Value<'_>>(name).ok().filter(|v| v.is_string()).map(text);
    let stack = limited(property("stack").unwrap_or_default());
    let (line, column) = position(&stack, file).unwrap_or_default();
    ScriptError {
        name: limited(property("name").unwrap_or_else(|| "Uncaught".into())),
        message: limited(property("message").unwrap_or_else(|| text(value.clone()))),
        stack,
        line,
        column,
    }
}

/// The first place in the stack that is in the developer's file: `file:line:column`.
fn position(stack: &str, file: &str) -> Option<(u32, u32)> {
    stack.match_indices(file).find_map(|(at, _)| {
        let mut numbers = stack[at + file.len()..].strip_prefix(':')?.split(|c: char| !c.is_ascii_digit());
        Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
    })
}

fn limited(mut text: String) -> String {
    if text.len() > TEXT_BYTES_MAX {
        let cut = (0..=TEXT_BYTES_MAX).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
        text.truncate(cut);
    }
    text
}
