//! What the front lets others count. It keeps no counters of its own.

use std::sync::Arc;
use std::time::Duration;

use marram_core::{FunctionId, Kind};

/// Takes what the front sees. Calls are on the hot path: they must be cheap and must never block.
pub trait GatewayObserver: Send + Sync + 'static {
    /// A connection was accepted.
    fn opened(&self) {}
    /// A connection ended.
    fn closed(&self) {}
    /// An answer is complete, or has failed.
    fn request(&self, end: &RequestEnd<'_>);
    /// Bytes were refused that never became a request: malformed, too large, too slow.
    fn refused(&self, kind: Kind);
    /// Accepting failed, for want of descriptors for example.
    fn accept_failed(&self, _error: &std::io::Error) {}
}

/// One request, when its answer has ended.
#[derive(Clone, Copy, Debug)]
pub struct RequestEnd<'a> {
    /// The function, if a route matched.
    pub id: Option<&'a Arc<FunctionId>>,
    /// Status of the answer; 0 if the client went away before there was one.
    pub status: u16,
    /// What went wrong, if the front or the function failed.
    pub failure: Option<Kind>,
    /// Whether the front refused it, so that the function was never asked.
    pub refused: bool,
    /// From the arrival of the header section to the end of the answer's body.
    pub duration: Duration,
    /// Whether it came over HTTP/2.
    pub h2: bool,
}

/// Counts nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unobserved;

impl GatewayObserver for Unobserved {
    fn request(&self, _: &RequestEnd<'_>) {}
    fn refused(&self, _: Kind) {}
}
