//! The socket as hyper sees it: it holds back header sections until they are whole and sound, notes when the client
//! stalls, and closes so that the last answer arrives.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes, BytesMut};
use marram_core::time::Timestamp;
use marram_core::{Failure, Kind};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::framing::{Framing, Refusal};
use crate::problem;
use crate::state::State;

/// Bytes that are read and thrown away while a connection closes; whoever sends more meets a reset. As many as a body may
/// have by default: many clients read no answer before they have sent all of theirs.
const LINGER_BYTES_MAX: usize = 8 << 20;

/// A connection's byte stream.
pub(crate) struct Socket<S> {
    stream: S,
    state: Arc<State>,
    /// `None` for HTTP/2, which frames by itself.
    framing: Option<Framing>,
    /// Bytes that were read and not passed on. The first `pass` of them may be.
    held: BytesMut,
    pass: usize,
    refused: Option<Refusal>,
    close: Close,
}

/// How far the closing has come.
enum Close {
    Open,
    /// The answer to what was refused.
    Answer(Bytes),
    Shutdown,
    Linger {
        bytes: usize,
    },
    Done,
}

impl<S> Socket<S> {
    /// A connection whose first bytes, `start`, have been read already.
    pub(crate) fn new(stream: S, state: Arc<State>, framing: Option<Framing>, start: &[u8]) -> Self {
        let mut socket = Self {
            stream,
            state,
            framing,
            held: BytesMut::from(start),
            pass: start.len(),
            refused: None,
            close: Close::Open,
        };
        socket.follow_held();
        socket
    }

    /// Decides how much of what is held may be passed on.
    fn follow_held(&mut self) {
        if let Some(framing) = &mut self.framing {
            let fed = framing.feed(&self.held);
            self.pass = fed.pass;
            self.refuse(fed.refused);
            self.note_head();
        }
    }

    fn refuse(&mut self, refused: Option<Refusal>) {
        if let Some(refusal) = refused {
            self.refused = Some(refusal);
            self.held.truncate(self.pass);
            self.state.shared.observer.refused(refusal.kind);
        }
    }

    /// Starts or stops the clock of an incomplete header section.
    fn note_head(&self) {
        if self.held.len() > self.pass && self.refused.is_none() {
            self.state.head.set(self.state.age());
        } else {
            self.state.head.clear();
        }
    }

    /// Whether hyper should see the end of the stream now.
    fn is_over(&mut self) -> bool {
        if self.state.is_slow() && self.refused.is_none() && self.framing.is_some() {
            let message = "the header section took too long to arrive";
            self.refuse(Some(Refusal { kind: Kind::ClientTimeout, message, in_body: false }));
            self.held.clear();
        }
        // A request whose body has not all arrived is in flight: a drain reads it to its end. What is behind it never begins.
        let in_body = self.framing.as_ref().is_some_and(Framing::in_body);
        self.refused.is_some() || (self.state.must_finish() && !in_body)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Socket<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            if this.pass > 0 {
                let now = this.pass.min(buf.remaining());
                buf.put_slice(&this.held[..now]);
                this.held.advance(now);
                this.pass -= now;
                return Poll::Ready(Ok(()));
            }
            if this.framing.is_some() && this.is_over() {
                if this.refused.is_some_and(|refusal| refusal.in_body) {
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, "malformed body")));
                }
                // While an answer is under way, hyper would take the end of the stream for the client's departure.
                if this.state.in_flight() > 0 {
                    this.state.await_end();
                    return Poll::Pending;
                }
                // `note_write` wakes.
                return if this.state.blocked.get().is_some() { Poll::Pending } else { Poll::Ready(Ok(())) };
            }
            let before = buf.filled().len();
            ready!(Pin::new(&mut this.stream).poll_read(cx, buf))?;
            let fresh = &buf.filled()[before..];
            let Some(framing) = this.framing.as_mut().filter(|_| !fresh.is_empty()) else {
                return Poll::Ready(Ok(()));
            };
            if this.held.is_empty() {
                let fed = framing.feed(fresh);
                if fed.refused.is_none() && fed.pass == fresh.len() {
                    return Poll::Ready(Ok(()));
                }
                this.held.extend_from_slice(&fresh[fed.pass..]);
                this.refuse(fed.refused);
                this.note_head();
                buf.set_filled(before + fed.pass);
                if fed.pass > 0 {
                    return Poll::Ready(Ok(()));
                }
            } else {
                this.held.extend_from_slice(fresh);
                buf.set_filled(before);
                this.follow_held();
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Socket<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let wrote = Pin::new(&mut this.stream).poll_write(cx, bytes);
        this.note_write(cx, wrote.is_pending());
        wrote
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let wrote = Pin::new(&mut this.stream).poll_write_vectored(cx, bytes);
        this.note_write(cx, wrote.is_pending());
        wrote
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_close(cx)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Socket<S> {
    fn note_write(&self, cx: &Context<'_>, blocked: bool) {
        if blocked {
            self.state.blocked.set(self.state.age());
        } else if self.state.blocked.get().is_some() {
            self.state.blocked.clear();
            if self.refused.is_some() {
                cx.waker().wake_by_ref(); // `poll_read` was waiting for this.
            }
        }
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            match &mut self.close {
                Close::Open => {
                    self.state.closing.set(self.state.age());
                    self.close = match self.refused.filter(|refusal| !refusal.in_body) {
                        Some(refusal) => {
                            let failure = Failure::new(refusal.kind, refusal.message);
                            let shared = &self.state.shared;
                            let now = Timestamp(shared.clock.unix_ns());
                            Close::Answer(problem::raw(&failure, shared.entropy.request_id(), now))
                        }
                        None => Close::Shutdown,
                    };
                }
                Close::Answer(bytes) if bytes.is_empty() => self.close = Close::Shutdown,
                Close::Answer(bytes) => {
                    let wrote = ready!(Pin::new(&mut self.stream).poll_write(cx, bytes))?;
                    bytes.advance(wrote);
                }
                Close::Shutdown => {
                    ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
                    let unread = self.refused.is_some() || self.framing.as_ref().is_some_and(|f| !f.between_requests());
                    self.close = if unread { Close::Linger { bytes: 0 } } else { Close::Done };
                }
                // RFC 9112 §9.6: a reset, which unread bytes cause, could destroy the answer before the client reads it.
                Close::Linger { bytes } => {
                    let mut waste = [0; 4096];
                    let mut buf = ReadBuf::new(&mut waste);
                    ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buf))?;
                    *bytes += buf.filled().len();
                    if buf.filled().is_empty() || *bytes > LINGER_BYTES_MAX {
                        self.close = Close::Done;
                    }
                }
                Close::Done => return Poll::Ready(Ok(())),
            }
        }
    }
}
