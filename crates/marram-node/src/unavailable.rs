//! What stands at the routes of an app that cannot be brought up: requests are answered with what is wrong, and are not
//! taken by a less specific route of another app.

use std::sync::Arc;

use futures::future::{BoxFuture, ready};
use marram_core::port::{Body, Call, Invoke};
use marram_core::{Failure, FunctionId, Kind};

/// A function that fails every request.
pub(crate) struct Unavailable {
    id: Arc<FunctionId>,
}

impl Unavailable {
    pub(crate) fn new(id: FunctionId) -> Arc<Self> {
        Arc::new(Self { id: Arc::new(id) })
    }
}

impl Invoke for Unavailable {
    fn id(&self) -> &Arc<FunctionId> {
        &self.id
    }

    /// The reason is for the operator (`marram apps`); callers may be strangers.
    fn request(&self, _: http::Request<Body>, _: Call) -> BoxFuture<'_, Result<http::Response<Body>, Failure>> {
        Box::pin(ready(Err(Failure::new(Kind::Internal, "this app could not be started on this node"))))
    }
}
