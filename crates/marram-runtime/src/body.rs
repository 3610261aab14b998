//! Bodies on their way in and out: counted, limited, and never gathered unless they are already complete.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt as _;
use marram_core::port::Body;
use marram_core::quantity::ByteSize;
use marram_core::{Failure, Kind};
use wasmtime_wasi_http::WasiBody;

use crate::codes::{failure_of, wasi_error};
use crate::invocation::Invocation;

/// How much of an answer is taken up before its head is sent on, if the guest has it ready: a small answer then goes
/// out in one write, with its length, and its run never leaves the connection's task.
const READY_BYTES_MAX: usize = 64 << 10;

/// A body of ours as `wasi:http` takes it.
pub(crate) fn to_wasi(body: Body) -> WasiBody {
    body.map_err(|failure| wasi_error(&failure)).boxed_unsync()
}

/// A body of a guest as everybody else takes it.
pub(crate) fn from_wasi(body: WasiBody) -> Body {
    body.map_err(|error| failure_of(&error)).boxed_unsync()
}

/// The body of a request on its way to the function: counted, and cut at the limit.
pub(crate) struct RequestBody {
    inner: Body,
    /// Weak, because a guest may keep the request long after its run: a language with a garbage collector does.
    invocation: Weak<Invocation>,
    limit: ByteSize,
}

impl RequestBody {
    /// Refuses at once what says that it is too long.
    pub(crate) fn new(inner: Body, invocation: &Arc<Invocation>) -> Result<Self, Failure> {
        let limit = invocation.deployed.limits.body;
        if inner.size_hint().lower() > limit.0 {
            return Err(too_large(limit));
        }
        Ok(Self { inner, invocation: Arc::downgrade(invocation), limit })
    }

    pub(crate) fn into_wasi(self) -> WasiBody {
        self.map_err(|failure| wasi_error(&failure)).boxed_unsync()
    }
}

fn too_large(limit: ByteSize) -> Failure {
    Failure::new(Kind::BodyTooLarge, format!("the body is larger than the {limit} that this function takes"))
}

impl HttpBody for RequestBody {
    type Data = Bytes;
    type Error = Failure;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        let Some(invocation) = self.invocation.upgrade() else {
            let failure = Failure::new(Kind::ClientGone, "the run that this body belongs to is over");
            return Poll::Ready(Some(Err(failure)));
        };
        let frame = std::task::ready!(Pin::new(&mut self.inner).poll_frame(cx));
        if let Some(Ok(frame)) = &frame
            && let Some(bytes) = frame.data_ref()
            && invocation.add_bytes_in(bytes.len()) > self.limit.0
        {
            return Poll::Ready(Some(Err(too_large(self.limit))));
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// A body that comes out of a guest, with errors of its own kind.
pub(crate) trait GuestBody: HttpBody<Data = Bytes, Error: GuestError> + Unpin {}

impl<B: HttpBody<Data = Bytes, Error: GuestError> + Unpin> GuestBody for B {}

/// How a guest breaks its answer off.
pub(crate) trait GuestError {
    fn into_failure(self) -> Failure;
}

impl GuestError for wasmtime_wasi_http::Error {
    fn into_failure(self) -> Failure {
        failure_of(&self)
    }
}

impl GuestError for Failure {
    fn into_failure(self) -> Failure {
        self
    }
}

/// What of an answer's body is there already.
#[derive(Default)]
pub(crate) struct Ready {
    pub(crate) frames: VecDeque<Bytes>,
    pub(crate) bytes: usize,
    pub(crate) trailers: Option<HeaderMap>,
    pub(crate) complete: bool,
    pub(crate) error: Option<Failure>,
}

impl Ready {
    /// Takes frames until the body ends, has none, or has enough. Returns whether anything came.
    pub(crate) fn take<B: GuestBody>(&mut self, body: &mut B, cx: &mut Context<'_>) -> bool {
        let mut came = false;
        while !self.complete && self.bytes < READY_BYTES_MAX {
            match Pin::new(&mut *body).poll_frame(cx) {
                Poll::Pending => break,
                Poll::Ready(None) => self.complete = true,
                Poll::Ready(Some(Err(error))) => {
                    self.error = Some(error.into_failure());
                    self.complete = true;
                }
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(bytes) if bytes.is_empty() => {}
                    Ok(bytes) => {
                        self.bytes += bytes.len();
                        self.frames.push_back(bytes);
                    }
                    Err(frame) => self.trailers = frame.into_trailers().ok(),
                },
            }
            came = true;
        }
        came
    }
}
