//! JavaScript functions: instances of the engine from `guests/js-engine`, and the loop of events and actions around them.
//!
//! [`engine`] links the engine's module; [`instance`] is one realm with a script in it, asked one turn at a time;
//! [`live`] lets several requests share it; [`operations`] carries out what JavaScript asks for, [`timers`] when it is
//! time; [`outgoing`] and [`incoming`] are the bodies. What an instance may do comes through [`Host`], its limits through
//! [`State`].
//!
//! JavaScript must never make the host wait: a turn runs on the caller's task, yields at each epoch, and everything that
//! takes time happens outside of it.

mod engine;
mod image;
mod incoming;
mod instance;
mod live;
mod operations;
mod outgoing;
mod redirect;
mod scatter;
mod tasks;
mod timers;

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Request, Response};
use marram_core::port::Body;
use marram_core::{Failure, Kind};

use crate::cpu::Account;
use crate::uncaught::{self, IN_THE_LOG};

pub(crate) use engine::{JsEngine, State};
pub(crate) use image::Image;
pub(crate) use incoming::Arriving;
pub(crate) use instance::{JsInstance, Script};
pub(crate) use live::{Incoming, Live};
pub(crate) use marram_js_abi::{Code, Level, ScriptError};

/// What JavaScript reaches through its host, and who pays for its turns. `request` is the number that [`Incoming`]
/// carries, or none when JavaScript runs on behalf of no request.
pub(crate) trait Host: Account + Send + Sync + 'static {
    /// Sends an HTTP request, if the function may. The error is for the developer.
    fn fetch(
        &self,
        request: Option<u32>,
        outgoing: Request<Body>,
    ) -> BoxFuture<'static, Result<Response<Body>, String>>;
    /// Uses a capability of the node. What it takes and gives is between its two ends.
    fn call(
        &self,
        request: Option<u32>,
        capability: &str,
        payload: Bytes,
    ) -> BoxFuture<'static, Result<Vec<u8>, Failure>>;
    /// Takes a line of the log.
    fn log(&self, request: Option<u32>, level: Level, text: &str);
    /// A request has failed, perhaps after its answer began. Told before anybody else hears of it.
    fn failed(&self, request: u32, failure: &Failure);
    /// A request was let go of at its deadline, whoever still holds its answer.
    fn given_up(&self, request: u32);
    /// The failure of a request that did not end in time.
    fn late(&self) -> Failure;
}

/// The failure that something thrown is: the developer reads the rest in the function's log.
fn thrown(error: &ScriptError) -> Failure {
    let ScriptError { name, message, stack, .. } = error;
    let failure = if name == "InternalError" && message == "out of memory" {
        let message = "the function asked for more than its limit of memory: raise `memory` in its limits";
        Failure::new(Kind::ResourceLimit, message)
    } else {
        Failure::new(Kind::Trap, format!("the function threw an error{IN_THE_LOG}"))
    };
    let stack = uncaught::of_javascript(stack);
    failure.because(format!("{name}: {message}\n{stack}").trim_end().to_owned())
}
