//! Bodies on their way: the request's, as the connection takes it from the function, and the answer's, as the function
//! takes it from the connection. Nothing is gathered; both ends learn at once when the other one stops.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures::task::AtomicWaker;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use marram_core::port::Body;
use marram_core::{Failure, Kind};
use tokio::sync::Notify;
use tokio::time::{Instant, Sleep, sleep};

use super::OutboundError;
use super::exchange::{End, Lease};

/// What the two directions of one exchange know of each other.
#[derive(Default)]
pub(super) struct Progress {
    /// A part of the request's body was taken by the connection.
    pub(super) sent_more: Notify,
    /// The connection is done with the request's body.
    request_done: AtomicBool,
    /// Nobody wants the answer any more.
    abandoned: AtomicBool,
    abandoned_waker: AtomicWaker,
    /// Why the request's body failed. HTTP/2 would only say that the stream was reset.
    failed: Mutex<Option<Failure>>,
}

impl Progress {
    pub(super) fn is_request_done(&self) -> bool {
        self.request_done.load(Ordering::Acquire)
    }

    /// Ends the request's body with an error, which resets its stream.
    pub(super) fn abandon(&self) {
        self.abandoned.store(true, Ordering::Release);
        self.abandoned_waker.wake();
    }

    pub(super) fn failure(&self) -> Option<Failure> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The request's body, held to the length that its header declares.
pub(super) struct RequestBody {
    body: Body,
    declared: Option<u64>,
    bytes: u64,
    progress: Arc<Progress>,
}

impl RequestBody {
    pub(super) fn new(body: Body, declared: Option<u64>, progress: Arc<Progress>) -> Self {
        Self { body, declared, bytes: 0, progress }
    }

    fn fail(&self, failure: Failure) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        *self.progress.failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(failure.clone());
        Poll::Ready(Some(Err(failure)))
    }

    fn is_short(&self) -> bool {
        self.declared.is_some_and(|declared| self.bytes < declared)
    }
}

impl HttpBody for RequestBody {
    type Data = Bytes;
    type Error = Failure;

    fn poll_frame(mut self: Pin<&mut Self>, ctx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        self.progress.abandoned_waker.register(ctx.waker());
        if self.progress.abandoned.load(Ordering::Acquire) {
            return self.fail(Failure::new(Kind::ClientGone, "the request was given up"));
        }
        let wrong_length =
            |what| Failure::new(Kind::NoResponse, format!("the body of a request is {what} than its content-length"));
        match ready!(Pin::new(&mut self.body).poll_frame(ctx)) {
            Some(Ok(frame)) => {
                self.bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
                if self.declared.is_some_and(|declared| self.bytes > declared) {
                    return self.fail(wrong_length("longer"));
                }
                if frame.is_trailers() && self.is_short() {
                    return self.fail(wrong_length("shorter"));
                }
                self.progress.sent_more.notify_one();
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(failure)) => self.fail(failure),
            None if self.is_short() => self.fail(wrong_length("shorter")),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream() && !self.is_short()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        self.progress.request_done.store(true, Ordering::Release);
    }
}

/// The answer's body. The exchange is over when it has ended, failed, or is dropped.
pub(crate) struct ResponseBody {
    /// Until the end.
    flow: Option<(Incoming, Lease)>,
    between_bytes: Duration,
    /// Made at the first wait, armed during each.
    timer: Option<Pin<Box<Sleep>>>,
    waiting: bool,
}

impl ResponseBody {
    pub(super) fn new(incoming: Incoming, lease: Lease, between_bytes: Duration) -> Self {
        let mut body = Self { flow: Some((incoming, lease)), between_bytes, timer: None, waiting: false };
        if body.flow.as_ref().is_some_and(|(incoming, _)| incoming.is_end_stream()) {
            body.complete();
        }
        body
    }

    /// As a body whose errors are failures with the [`OutboundError`] as their cause.
    #[must_use]
    pub(crate) fn boxed(self) -> Body {
        self.map_err(Failure::from).boxed_unsync()
    }

    /// Nothing more comes: the connection can be used again.
    fn complete(&mut self) {
        if let Some((_, mut lease)) = self.flow.take() {
            lease.end = End::Complete;
        }
    }

    fn poll_timer(&mut self, ctx: &mut Context<'_>) -> Poll<()> {
        let between_bytes = self.between_bytes;
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep(between_bytes)));
        if !self.waiting {
            timer.as_mut().reset(Instant::now() + between_bytes);
            self.waiting = true;
        }
        timer.as_mut().poll(ctx)
    }
}

impl HttpBody for ResponseBody {
    type Data = Bytes;
    type Error = OutboundError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        ctx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, OutboundError>>> {
        let Some((incoming, lease)) = &mut self.flow else { return Poll::Ready(None) };
        match Pin::new(&mut *incoming).poll_frame(ctx) {
            Poll::Ready(Some(Ok(frame))) => {
                let last = incoming.is_end_stream() || frame.is_trailers();
                self.waiting = false;
                if last {
                    self.complete();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                let error = lease.classify(&error);
                self.flow = None;
                Poll::Ready(Some(Err(error)))
            }
            Poll::Ready(None) => {
                self.complete();
                Poll::Ready(None)
            }
            Poll::Pending => {
                ready!(self.poll_timer(ctx));
                let Some((_, mut lease)) = self.flow.take() else { return Poll::Ready(None) };
                lease.end = End::Stuck;
                Poll::Ready(Some(Err(OutboundError::ReadTimeout { origin: lease.origin.to_string() })))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.flow.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        self.flow.as_ref().map_or(SizeHint::with_exact(0), |(incoming, _)| incoming.size_hint())
    }
}
