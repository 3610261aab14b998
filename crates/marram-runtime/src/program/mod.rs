//! Loaded code of a function, and its live instances.

pub(crate) mod component02;
pub(crate) mod component03;
mod inbox;
pub(crate) mod javascript;
mod loader;
mod occupants;
mod watcher;
mod worker;

use std::sync::Arc;
use std::time::Instant;

use http::{Request, Response};
use marram_core::Failure;
use marram_core::port::Body;

use crate::body::RequestBody;
use crate::function::Environment;
use crate::invocation::Invocation;

/// One of the ways to run code. The code stays mapped as long as this lives.
pub(crate) enum Program {
    Component02(Arc<component02::Component02>),
    Component03(Arc<component03::Component03>),
    JavaScript(javascript::JavaScript),
}

impl Program {
    /// Runs the function on a request.
    pub(crate) async fn serve(
        &self,
        environment: &Arc<Environment>,
        request: Request<RequestBody>,
        invocation: Arc<Invocation>,
    ) -> Result<Response<Body>, Failure> {
        match self {
            Self::Component02(program) => program.serve(environment, request, invocation).await,
            Self::Component03(program) => program.serve(environment, request, invocation).await,
            Self::JavaScript(program) => program.serve(environment, request, invocation).await,
        }
    }

    /// Finds mistakes in a source before its first request does. JavaScript was evaluated when it was loaded.
    pub(crate) async fn check(&self, environment: &Arc<Environment>) -> Result<(), Failure> {
        match self {
            Self::Component02(program) => program.check(environment).await,
            Self::Component03(_) | Self::JavaScript(_) => Ok(()),
        }
    }

    /// Instances that wait for a request.
    pub(crate) fn idle(&self) -> usize {
        match self {
            Self::Component02(program) => program.idle(),
            Self::Component03(program) => program.idle(),
            Self::JavaScript(program) => program.idle(),
        }
    }

    /// Whether fewer wait than are to be kept warm. Costs nothing where none are.
    pub(crate) fn idle_below(&self, warm: u32) -> bool {
        warm > 0 && self.idle() < warm as usize
    }

    /// Drops instances that have waited since before `before`, but for the number to be kept warm.
    pub(crate) fn reap(&self, before: Instant, keep: usize) {
        match self {
            Self::Component02(program) => program.reap(before, keep),
            Self::Component03(program) => program.reap(before, keep),
            Self::JavaScript(program) => program.reap(before, keep),
        }
    }

    /// Makes one more instance ready.
    pub(crate) async fn warm(&self, environment: &Arc<Environment>) -> Result<(), Failure> {
        match self {
            Self::Component02(program) => program.warm(environment).await,
            Self::Component03(program) => program.warm(environment).await,
            Self::JavaScript(program) => program.warm(environment).await,
        }
    }
}
