//! Bodies on their way through: a request's, held to its limits, and an answer's, watched to its end.

use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use marram_core::port::Body;
use marram_core::{Failure, Kind};
use tokio::time::{Instant, Sleep};

use crate::headers;
use crate::request::Ongoing;

/// What went wrong with a request's body. It decides the answer, whatever the function makes of it.
pub(crate) type Fault = Arc<OnceLock<Failure>>;

/// A request's body, no longer than its limit and no slower than its time-out.
pub(crate) struct RequestBody {
    incoming: Incoming,
    bytes_max: u64,
    bytes: u64,
    idle: Duration,
    /// Made when the client is first waited for.
    timer: Option<Pin<Box<Sleep>>>,
    waiting: bool,
    fault: Fault,
}

impl RequestBody {
    pub(crate) fn new(incoming: Incoming, bytes_max: u64, idle: Duration, fault: Fault) -> Self {
        Self { incoming, bytes_max, bytes: 0, idle, timer: None, waiting: false, fault }
    }

    fn fail(&self, failure: Failure) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        Poll::Ready(Some(Err(self.fault.get_or_init(|| failure).clone())))
    }

    /// The client is waited for: since when, and for how much longer?
    fn poll_idle(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let idle = self.idle;
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(idle)));
        if !self.waiting {
            timer.as_mut().reset(Instant::now() + idle);
            self.waiting = true;
        }
        timer.as_mut().poll(cx)
    }
}

impl HttpBody for RequestBody {
    type Data = Bytes;
    type Error = Failure;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        let this = self.get_mut();
        if this.fault.get().is_some() {
            return Poll::Ready(None);
        }
        let mut frame = match Pin::new(&mut this.incoming).poll_frame(cx) {
            Poll::Ready(None) => return Poll::Ready(None),
            Poll::Ready(Some(Ok(frame))) => frame,
            Poll::Ready(Some(Err(error))) => return this.fail(of_hyper(error)),
            Poll::Pending => {
                return match this.poll_idle(cx) {
                    Poll::Pending => Poll::Pending,
                    Poll::Ready(()) => this.fail(Failure::new(Kind::ClientTimeout, "the body stopped arriving")),
                };
            }
        };
        this.waiting = false;
        if let Some(data) = frame.data_ref() {
            this.bytes += data.len() as u64;
            if this.bytes > this.bytes_max {
                return this.fail(too_large(this.bytes_max));
            }
        } else if let Some(trailers) = frame.trailers_mut() {
            headers::clean_trailers(trailers);
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

/// The failure of a body that is longer than its function takes.
pub(crate) fn too_large(bytes_max: u64) -> Failure {
    Failure::new(Kind::BodyTooLarge, format!("a body that is sent here has at most {bytes_max} bytes"))
}

fn of_hyper(error: hyper::Error) -> Failure {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(&error);
    let malformed = std::iter::from_fn(|| {
        let this = source?;
        source = this.source();
        Some(this)
    })
    .filter_map(|cause| cause.downcast_ref::<std::io::Error>())
    .any(|cause| matches!(cause.kind(), std::io::ErrorKind::InvalidData | std::io::ErrorKind::InvalidInput));
    if malformed {
        Failure::new(Kind::BadRequest, "the body's framing is malformed").because(error)
    } else {
        Failure::new(Kind::ClientGone, "the client went away before its body was complete").because(error)
    }
}

/// HTTP/2 asks for a frame of a body before the client's window has room for it, keeps it until there is room for a byte,
/// and then takes it whole. In pieces of this size, which is that of its own frames, a slow reader makes it keep no more
/// than two.
const PIECE_BYTES: usize = 16 << 10;

/// An answer's body. When it is dropped, the request has ended.
pub(crate) struct Reply {
    inner: Inner,
    request: Ongoing,
    /// Bytes of the declared length that have not passed.
    left: Option<u64>,
    /// What is to come of a frame that was too large to be passed on at once.
    rest: Bytes,
    /// Noted for the watch: there is something that the client has not taken. That lasts until hyper asks for the next
    /// frame or drops the body. HTTP/2 only: in HTTP/1.1 a client that takes nothing blocks the socket.
    unread: bool,
}

enum Inner {
    Empty,
    Whole(Bytes),
    Streamed(Body),
}

impl Reply {
    /// An answer without a body.
    pub(crate) fn empty(mut request: Ongoing) -> Self {
        request.ended = true;
        Self { inner: Inner::Empty, request, left: None, rest: Bytes::new(), unread: false }
    }

    /// An answer that is there already.
    pub(crate) fn whole(bytes: Bytes, request: Ongoing) -> Self {
        let mut reply = Self { inner: Inner::Whole(bytes), request, left: None, rest: Bytes::new(), unread: false };
        reply.note_unread(true);
        reply
    }

    /// A function's answer. `length` is what its headers declare.
    pub(crate) fn streamed(body: Body, length: Option<u64>, mut request: Ongoing) -> Self {
        request.ended = body.is_end_stream();
        let mut reply = Self { inner: Inner::Streamed(body), request, left: length, rest: Bytes::new(), unread: false };
        // Before the headers go: nothing wakes the watch for what is noted after them.
        reply.note_unread(!reply.request.ended);
        reply
    }

    /// The next piece of the rest.
    fn piece(&mut self) -> Frame<Bytes> {
        self.note_unread(true);
        Frame::data(self.rest.split_to(self.rest.len().min(PIECE_BYTES)))
    }

    /// Whether the function has sent everything.
    fn is_over(&self) -> bool {
        match &self.inner {
            Inner::Empty => true,
            Inner::Whole(bytes) => bytes.is_empty(),
            Inner::Streamed(body) => self.request.ended || body.is_end_stream(),
        }
    }

    /// Notes whether the client has something to take from now on. It took what was noted before.
    fn note_unread(&mut self, unread: bool) {
        if !self.request.h2 {
            return;
        }
        let state = &self.request.state;
        match (std::mem::replace(&mut self.unread, unread), unread) {
            (false, true) => state.unread(),
            (true, false) => state.read(),
            (true, true) => state.took(),
            (false, false) => {}
        }
    }

    /// Takes note of what passes. hyper drops a body as soon as it looks complete to it.
    fn note_frame(&mut self, cx: &mut Context<'_>, bytes: Option<u64>) {
        let Inner::Streamed(body) = &mut self.inner else { return };
        self.request.ended = bytes.is_none() || body.is_end_stream();
        if let (Some(left), Some(bytes)) = (self.left.as_mut(), bytes) {
            *left = left.saturating_sub(bytes);
            // hyper will not ask for the end of an HTTP/1.1 body whose length has passed: a function that ends there
            // with nothing more to do has answered, and has not lost its client.
            if *left == 0 && !self.request.h2 && !self.request.ended {
                self.request.ended = matches!(Pin::new(body).poll_frame(cx), Poll::Ready(None));
            }
        }
        self.note_unread(bytes.is_some_and(|bytes| bytes > 0));
    }
}

impl HttpBody for Reply {
    type Data = Bytes;
    type Error = Failure;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        let this = self.get_mut();
        if !this.rest.is_empty() {
            return Poll::Ready(Some(Ok(this.piece())));
        }
        let mut polled = match &mut this.inner {
            Inner::Streamed(_) if this.request.ended => return Poll::Ready(None),
            Inner::Streamed(body) => Pin::new(body).poll_frame(cx),
            Inner::Empty => return Poll::Ready(None),
            Inner::Whole(bytes) => {
                this.request.ended = true;
                let bytes = std::mem::take(bytes);
                this.note_unread(!bytes.is_empty());
                return Poll::Ready((!bytes.is_empty()).then(|| Ok(Frame::data(bytes))));
            }
        };
        match &mut polled {
            Poll::Pending => this.note_unread(false),
            Poll::Ready(None) => {
                this.request.ended = true;
                this.note_unread(false);
            }
            Poll::Ready(Some(Ok(frame))) => {
                this.note_frame(cx, frame.data_ref().map(|data| data.len() as u64));
                if let Some(data) = frame.data_mut().filter(|data| this.request.h2 && data.len() > PIECE_BYTES) {
                    this.rest = std::mem::take(data);
                    *frame = this.piece();
                }
            }
            Poll::Ready(Some(Err(failure))) => {
                this.request.fail(failure.kind());
                this.note_unread(false);
            }
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.is_over()
    }

    fn size_hint(&self) -> SizeHint {
        match &self.inner {
            Inner::Empty => SizeHint::with_exact(0),
            Inner::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Inner::Streamed(body) => body.size_hint(),
        }
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        self.note_unread(false);
        self.request.ended &= self.rest.is_empty();
        let Inner::Streamed(body) = std::mem::replace(&mut self.inner, Inner::Empty) else { return };
        // All that was promised has been sent; the function may still have something to do.
        if self.left == Some(0) && self.rest.is_empty() && !self.request.ended {
            self.request.ended = true;
            self.request.state.drain(body);
        }
    }
}

/// Lets a function finish whose answer nobody reads any more. Its deadline ends it.
pub(crate) async fn drain(mut body: Body) {
    while let Some(Ok(_)) = body.frame().await {}
}
