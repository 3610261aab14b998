//! JavaScript functions: instances of the engine from `guests/js-engine`, and the loop of events and actions around them.
//!
//! [`engine`] links the engine's module; [`instance`] is one realm with a script in it, asked one turn at a time;
//! [`live`] lets several requests share it; [`operations`] carries out what JavaScript asks for; [`outgoing`] and
//! [`incoming`] are the bodies. Nothing here names the rest of this crate: what an instance may do comes through
//! [`Host`], and its limits through the store that the caller sets up.
//!
//! JavaScript must never make the host wait: a turn runs on the caller's task, yields at each epoch, and everything that
//! takes time happens outside of it.

mod engine;
mod failure;
mod image;
mod incoming;
mod instance;
mod live;
mod operations;
mod outgoing;
mod redirect;

use futures::future::BoxFuture;
use http::{Request, Response};
use marram_core::port::Body;

pub(crate) use engine::{Imports, JsEngine};
pub(crate) use failure::JsFailure;
pub(crate) use image::Image;
pub(crate) use instance::{JsInstance, Script};
pub(crate) use live::{Incoming, Live};
pub(crate) use marram_js_abi::{Level, Redirect, ScriptError};

/// What JavaScript reaches through its host. `request` is the number that [`Incoming`] carries, or none when JavaScript
/// runs on behalf of no request.
pub(crate) trait Host: Send + Sync + 'static {
    /// Sends an HTTP request, if the function may. The error is for the developer.
    fn fetch(&self, request: Option<u32>, outgoing: Request<Body>) -> BoxFuture<'static, Result<Response<Body>, String>>;
    /// Takes a line of the log.
    fn log(&self, request: Option<u32>, level: Level, text: &str);
}

