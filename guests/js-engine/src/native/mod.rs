//! What the prelude does faster, or only, in Rust: text, URLs, digests, randomness, clocks. Pure but for the last two.

mod crypto;
mod encoding;
mod random;
mod rejections;
mod url;

use rquickjs::{Ctx, Exception, Function, Object, Result, Value};
use std::cell::RefCell;

pub(crate) use encoding::{bytes, text_of, with_bytes};
pub(crate) use random::forget_seed;
pub(crate) use rejections::{report_rejections, track_rejections};

thread_local! {
    static FILE: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Remembers the name of the developer's file.
pub(crate) fn set_file(file: &str) {
    FILE.with_borrow_mut(|name| file.clone_into(name));
}

/// The name of the developer's file.
pub(crate) fn file() -> String {
    FILE.with_borrow(String::clone)
}

/// Puts the functions on the prelude's `host` object.
pub(crate) fn install<'js>(ctx: &Ctx<'js>, host: &Object<'js>) -> Result<()> {
    encoding::install(ctx, host)?;
    url::install(ctx, host)?;
    crypto::install(ctx, host)?;
    random::install(ctx, host)?;
    host.set("isProxy", Function::new(ctx.clone(), |value: Value<'_>| value.is_proxy())?)?;
    host.set("now", Function::new(ctx.clone(), || crate::imports::now_us() / 1000.0)?)?;
    host.set("monotonic", Function::new(ctx.clone(), || crate::imports::monotonic() / 1000.0)?)
}

/// Reads a module that an engine of this build compiled.
#[allow(unsafe_code)]
pub(crate) fn read_compiled<'js>(ctx: &Ctx<'js>, bytes: &[u8]) -> Result<rquickjs::Module<'js>> {
    // QuickJS may keep pointing into the bytes that it reads, so they stay for the instance's life.
    let bytes: &'static [u8] = Box::leak(bytes.to_vec().into_boxed_slice());
    // SAFETY: the host passes only what this engine wrote. Should it not, the damage ends at this instance's memory, which
    // holds nothing but the function itself.
    unsafe { rquickjs::Module::load(ctx.clone(), bytes) }
        .map_err(|_| Exception::throw_internal(ctx, "the compiled module is not of this engine; compile it again"))
}

/// A `Value` that has to be a typed array, for the errors' text.
fn wrong_bytes(value: &Value<'_>) -> rquickjs::Error {
    Exception::throw_type(value.ctx(), "the value is not a Uint8Array, or its buffer is detached")
}
