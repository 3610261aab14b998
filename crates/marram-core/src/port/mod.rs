//! Ports: where crates that do not know each other meet. `marram-node` joins them.

pub mod blobs;
pub mod crdt;
pub mod kv;
pub mod mqtt;
pub mod streams;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::future::BoxFuture;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Empty, Full};

use crate::record::{LogLine, MeterRecord};
use crate::trace::{RequestId, SpanId, TraceContext};
use crate::{Failure, FunctionId, Kind};

pub use blobs::Blobs;
pub use crdt::Crdt;
pub use kv::Kv;
pub use mqtt::{MqttJournal, MqttPublish};
pub use streams::{Consumer, Streams};

/// A streamed body, of a request or of an answer. It is never gathered on its way.
pub type Body = UnsyncBoxBody<Bytes, Failure>;

/// A body of nothing.
#[must_use]
pub fn empty_body() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

/// A body that is there already.
#[must_use]
pub fn full_body(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// What comes with a request besides the HTTP message.
#[derive(Clone, Debug)]
pub struct Call {
    /// This request, in answers and logs.
    pub request: RequestId,
    /// The trace, with the span of this invocation.
    pub trace: TraceContext,
    /// When its header section had arrived; the deadline counts from here.
    pub arrived: Instant,
    /// Who sent it, if it came over a network.
    pub remote: Option<IpAddr>,
    /// How many functions of the app are already waiting for this call ([`crate::limits::INTERNAL_DEPTH_MAX`]).
    pub depth: u32,
    /// Whether so many clients are there that others are to be heard before this runs.
    pub crowd: bool,
}

/// One deployed function that can be run. Implemented by the runtime; held by the gateway's routes and by
/// triggers. Dropping the last reference lets it drain and unload.
pub trait Invoke: Send + Sync + 'static {
    /// Which function of which revision this is.
    fn id(&self) -> &Arc<FunctionId>;

    /// Runs the function on `request`. The answer's head comes as soon as the function sends it; its body may go on.
    ///
    /// Dropping the future before it resolves, or the body before it ends, ends the invocation with
    /// [`crate::Kind::ClientGone`].
    fn request(&self, request: http::Request<Body>, call: Call)
    -> BoxFuture<'_, Result<http::Response<Body>, Failure>>;
}

/// Takes what is seen of runs. Calls must be cheap and must never block: they happen on the hot path.
pub trait Observe: Send + Sync + 'static {
    /// A line of a function's log.
    fn log(&self, line: LogLine);
    /// The record of an invocation that has ended.
    fn meter(&self, record: MeterRecord);
    /// A request that failed before its invocation began: no place, code that does not load, a body over the limit.
    fn refused(&self, id: &Arc<FunctionId>, kind: Kind);
    /// A function's code was mapped because a request or a warm instance needed it, and that took so long. What a
    /// deployment maps does not count.
    fn initialized(&self, id: &Arc<FunctionId>, took: Duration);
}

/// Time of day and identifiers, passed in so that tests and simulations decide them.
pub trait Clock: Send + Sync + 'static {
    /// Nanoseconds since the Unix epoch.
    fn unix_ns(&self) -> u64;
    /// Monotonic time.
    fn instant(&self) -> Instant;
}

/// Randomness, passed in. Identifiers need to be unlikely to collide, not secret.
pub trait Entropy: Send + Sync + 'static {
    /// 64 random bits.
    fn u64(&self) -> u64;

    /// A new request id.
    fn request_id(&self) -> RequestId {
        RequestId(self.u64())
    }

    /// A new span id, never zero.
    fn span_id(&self) -> SpanId {
        SpanId(self.u64().max(1))
    }

    /// A new trace, never zero.
    fn trace(&self) -> TraceContext {
        let trace = (u128::from(self.u64()) << 64) | u128::from(self.u64());
        TraceContext { trace: crate::trace::TraceId(trace.max(1)), span: self.span_id(), sampled: false }
    }
}
