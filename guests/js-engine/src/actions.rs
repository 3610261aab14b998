//! The functions by which the prelude says actions. Each writes one message; none waits or answers.

use marram_js_abi::{Action, BodyOut, Level, Redirect, ScriptError, Sink, Source};
use rquickjs::{Ctx, Function, Object, Result, Value};

use crate::native::{file, text_of, with_bytes};
use crate::{error, say};

/// The longest text of one log line, in bytes; the host has its own, per request.
const LOG_BYTES_MAX: usize = 64 * 1024;

/// Puts the functions on the prelude's `host` object.
pub(crate) fn install<'js>(ctx: &Ctx<'js>, host: &Object<'js>) -> Result<()> {
    let set = |name: &str, function: Result<Function<'js>>| host.set(name, function?);
    set("respond", Function::new(ctx.clone(), respond))?;
    set("chunk", Function::new(ctx.clone(), chunk))?;
    set("end", Function::new(ctx.clone(), |key: f64| say(&Action::End { to: sink(key) })))?;
    set("broken", Function::new(ctx.clone(), |key: f64, message: String| {
        say(&Action::Broken { to: sink(key), message: &message });
    }))?;
    set("fetch", Function::new(ctx.clone(), fetch))?;
    set("abortFetch", Function::new(ctx.clone(), |op: u32| say(&Action::AbortFetch { op })))?;
    set("pull", Function::new(ctx.clone(), |key: f64| say(&Action::Pull { of: source(key) })))?;
    set("discard", Function::new(ctx.clone(), |key: f64| say(&Action::Discard { of: source(key) })))?;
    set("setTimer", Function::new(ctx.clone(), |op: u32, request: u32, after_ms: u32| {
        say(&Action::SetTimer { op, request, after_ms });
    }))?;
    set("clearTimer", Function::new(ctx.clone(), |op: u32| say(&Action::ClearTimer { op })))?;
    set("log", Function::new(ctx.clone(), log))?;
    set("done", Function::new(ctx.clone(), |request: u32| say(&Action::Done { request })))?;
    set("failed", Function::new(ctx.clone(), |request: u32, thrown: Value<'_>| {
        fail(request, error::thrown(thrown, &file()));
    }))?;
    set("call", Function::new(ctx.clone(), call))
}

/// Says that a request has failed.
pub(crate) fn fail(request: u32, error: ScriptError) {
    say(&Action::Failed { request, error });
}

/// Logs as an error.
pub(crate) fn complain(request: u32, text: &str) {
    say(&Action::Log { request, level: Level::Error, text });
}

/// The number by which the prelude knows an outgoing body: even for responses, odd for fetches.
pub(crate) fn sink_key(sink: Sink) -> f64 {
    match sink {
        Sink::Response(id) => f64::from(id) * 2.0,
        Sink::Fetch(op) => f64::from(op) * 2.0 + 1.0,
    }
}

fn sink(key: f64) -> Sink {
    let id = (key / 2.0) as u32;
    if key as u64 & 1 == 0 { Sink::Response(id) } else { Sink::Fetch(id) }
}

fn source(key: f64) -> Source {
    let id = (key / 2.0) as u32;
    if key as u64 & 1 == 0 { Source::Request(id) } else { Source::Fetch(id) }
}

fn respond(request: u32, status: u16, headers: String, kind: u8, body: Value<'_>) -> Result<()> {
    with_body(kind, body, |body| say(&Action::Respond { request, status, headers: &headers, body }))
}

fn fetch(ctx: Ctx<'_>, op: u32, request: u32, head: Vec<String>, redirect: u8, kind: u8, body: Value<'_>) -> Result<()> {
    let [method, url, headers] = head.as_slice() else {
        return Err(rquickjs::Exception::throw_internal(&ctx, "fetch takes a method, a URL and header lines"));
    };
    let redirect = match redirect {
        0 => Redirect::Follow,
        1 => Redirect::Error,
        _ => Redirect::Manual,
    };
    with_body(kind, body, |body| {
        say(&Action::Fetch { op, request, method, url, headers, body, redirect });
    })
}

fn chunk(key: f64, bytes: Value<'_>) -> Result<()> {
    with_bytes(&bytes, |bytes| say(&Action::Chunk { to: sink(key), bytes }))
}

fn log(request: u32, level: u8, text: Value<'_>) -> Result<()> {
    let level = match level {
        0 => Level::Debug,
        1 => Level::Info,
        2 => Level::Warn,
        _ => Level::Error,
    };
    let text = text_of(text)?;
    let end = (0..=LOG_BYTES_MAX.min(text.len())).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
    say(&Action::Log { request, level, text: &text[..end] });
    Ok(())
}

fn call(op: u32, request: u32, capability: String, payload: Value<'_>) -> Result<()> {
    with_bytes(&payload, |payload| say(&Action::Call { op, request, capability: &capability, payload }))
}

/// A body from the prelude: 0 nothing, 1 a string or bytes, 2 a stream, 3 the untouched source with this key.
fn with_body(kind: u8, body: Value<'_>, say: impl FnOnce(BodyOut<'_>)) -> Result<()> {
    match kind {
        0 => say(BodyOut::None),
        1 if body.is_string() => say(BodyOut::Full(text_of(body)?.as_bytes())),
        1 => return with_bytes(&body, |bytes| say(BodyOut::Full(bytes))),
        2 => say(BodyOut::Stream),
        _ => say(BodyOut::Pipe(source(body.as_number().unwrap_or_default()))),
    }
    Ok(())
}
