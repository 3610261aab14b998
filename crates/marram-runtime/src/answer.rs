//! From what a guest answers to what goes out: as a failure while nothing was sent, as a body that may still break off.

use std::future::Future as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header, response};
use http_body::{Body as HttpBody, Frame};
use http_body_util::BodyExt as _;
use marram_core::port::Body;
use marram_core::{Failure, Kind};
use tokio::time::Sleep;

use crate::body::{GuestBody, GuestError as _, Ready, RequestBody};
use crate::codes;
use crate::invocation::Invocation;
use crate::trap;

/// Stops the run that feeds a body when the body is dropped before its end.
pub(crate) trait StopRun: Send + 'static {
    /// Called at most once.
    fn stop(&mut self);
}

/// Whose body is sent to nobody, whatever its answer's headers declare (RFC 9110 §9.3.2).
pub(crate) fn is_head(request: &Request<RequestBody>) -> bool {
    request.method() == Method::HEAD
}

/// The answer of a run: its head, what is ready of its body, and the rest. Nothing of it was sent yet, so what is known to
/// be wrong with it is a failure, which its client can be told.
pub(crate) fn answer<B: GuestBody + Send + 'static>(
    parts: response::Parts,
    ready: Ready,
    rest: B,
    head: bool,
    invocation: Arc<Invocation>,
    run: Option<Box<dyn StopRun>>,
) -> Result<Response<Body>, Failure> {
    // Such an answer may declare the length of what it would have been.
    let bodiless = head || matches!(parts.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    let left = if bodiless { None } else { declared(&parts) };
    let rest = (!ready.complete).then_some(rest);
    let mut body = AnswerBody { ready, rest, left, bodiless, invocation, deadline: None, run, over: false };
    if !bodiless && let Some(failure) = body.wrong() {
        body.over = true;
        return Err(failure);
    }
    body.invocation.set_status(parts.status);
    let body = match body.take_full() {
        Some(bytes) => {
            body.run = None;
            body.invocation.add_bytes_out(bytes.len());
            body.invocation.succeed();
            marram_core::port::full_body(bytes)
        }
        None => body.boxed_unsync(),
    };
    Ok(Response::from_parts(parts, body))
}

/// The one `content-length` of an answer. What cannot be read as one is refused by who sends it.
fn declared(parts: &response::Parts) -> Option<u64> {
    let mut all = parts.headers.get_all(header::CONTENT_LENGTH).iter();
    let first = all.next()?.to_str().ok()?;
    if all.next().is_some() || !first.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    first.parse().ok()
}

/// The body of an answer on its way out: what was ready, then the rest, until its end or the deadline.
struct AnswerBody<B> {
    ready: Ready,
    rest: Option<B>,
    /// Bytes of the declared length that have not passed.
    left: Option<u64>,
    /// Nothing of it is sent.
    bodiless: bool,
    invocation: Arc<Invocation>,
    deadline: Option<Pin<Box<Sleep>>>,
    run: Option<Box<dyn StopRun>>,
    over: bool,
}

type Polled = Poll<Option<Result<Frame<Bytes>, Failure>>>;

impl<B: GuestBody> AnswerBody<B> {
    /// What is known to be wrong before anything was sent.
    fn wrong(&mut self) -> Option<Failure> {
        if let Some(failure) = self.ready.error.take() {
            return Some(failure);
        }
        let (bytes, left) = (self.ready.bytes as u64, self.left?);
        (bytes > left || (self.ready.complete && bytes < left)).then(codes::untrue_length)
    }

    /// The body, if all of it is there in one piece and nothing is wrong with it.
    fn take_full(&mut self) -> Option<Bytes> {
        let ready = &mut self.ready;
        let full = ready.complete && ready.error.is_none() && ready.trailers.is_none() && ready.frames.len() <= 1;
        full.then(|| ready.frames.pop_front().unwrap_or_default())
    }

    fn data(&mut self, bytes: Bytes) -> Polled {
        if let Some(left) = self.left {
            let Some(left) = left.checked_sub(bytes.len() as u64) else { return self.fail(codes::untrue_length()) };
            self.left = Some(left);
        }
        self.invocation.add_bytes_out(bytes.len());
        Poll::Ready(Some(Ok(Frame::data(bytes))))
    }

    /// What comes last must not come, as it would make a body that is too short look complete.
    fn last(&mut self, frame: Frame<Bytes>) -> Polled {
        if self.left.is_some_and(|left| left > 0) {
            return self.fail(codes::untrue_length());
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn end(&mut self) -> Polled {
        if self.left.is_some_and(|left| left > 0) {
            return self.fail(codes::untrue_length());
        }
        // It ended well: what the function still does after its answer is its own affair.
        (self.over, self.rest, self.run) = (true, None, None);
        self.invocation.succeed();
        Poll::Ready(None)
    }

    fn fail(&mut self, failure: Failure) -> Polled {
        (self.over, self.rest) = (true, None);
        self.invocation.fail(&failure);
        // What it failed with first, of which this is a consequence.
        let failure = self.invocation.failure().cloned().unwrap_or(failure);
        Poll::Ready(Some(Err(failure)))
    }

    fn poll_rest(&mut self, cx: &mut Context<'_>) -> Polled {
        let Some(rest) = &mut self.rest else { return self.end() };
        match Pin::new(rest).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                Ok(bytes) => self.data(bytes),
                Err(frame) => self.last(frame),
            },
            // A body whose run was stopped ends without an error of its own.
            Poll::Ready(None) => match self.invocation.failure().cloned() {
                Some(failure) => self.fail(failure),
                None => self.end(),
            },
            Poll::Ready(Some(Err(error))) => self.fail(error.into_failure()),
            Poll::Pending => {
                let deadline = self.invocation.deadline;
                let sleep = self.deadline.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline.into())));
                std::task::ready!(sleep.as_mut().poll(cx));
                self.fail(trap::deadline(&self.invocation.deployed.limits))
            }
        }
    }
}

impl<B: GuestBody> HttpBody for AnswerBody<B> {
    type Data = Bytes;
    type Error = Failure;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Polled {
        let this = &mut *self;
        if this.over {
            return Poll::Ready(None);
        }
        // Its run has ended: a client that took nothing for so long does not get the rest. A look at the clock for each
        // frame would cost more.
        if let Some(failure) = this.invocation.failure().filter(|failure| failure.kind() == Kind::Deadline) {
            let failure = failure.clone();
            return this.fail(failure);
        }
        if let Some(bytes) = this.ready.frames.pop_front() {
            return this.data(bytes);
        }
        if let Some(trailers) = this.ready.trailers.take() {
            return this.last(Frame::trailers(trailers));
        }
        match this.ready.error.take() {
            Some(failure) => this.fail(failure),
            None => this.poll_rest(cx),
        }
    }
}

impl<B> Drop for AnswerBody<B> {
    fn drop(&mut self) {
        // Who sends it need not ask for the end once everything has passed that there was to send.
        if !self.over && (self.bodiless || self.left == Some(0)) {
            (self.rest, self.run) = (None, None);
            self.invocation.succeed();
        }
        if let Some(mut run) = self.run.take() {
            run.stop();
        }
    }
}
