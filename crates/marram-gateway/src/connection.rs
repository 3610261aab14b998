//! One connection: which protocol it speaks, and the watch over its time-outs.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::BytesMut;
use hyper::rt::Executor;
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};
use tokio_util::task::TaskTracker;

use crate::framing::Framing;
use crate::request;
use crate::socket::Socket;
use crate::state::{State, Watch};
use crate::{Limits, body};

/// What an HTTP/2 connection starts with (RFC 9113 §3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A connection that its own parts wake is polled again so often before others have their turn.
const OWN_TURNS_MAX: u32 = 4;

/// The two protocols as configured.
pub(crate) struct Protocols {
    http1: http1::Builder,
    http2: http2::Builder<Tasks>,
}

/// Tasks of HTTP/2 requests and of functions that finish unread answers. The listener waits for them.
#[derive(Clone, Default)]
pub(crate) struct Tasks(pub(crate) TaskTracker);

impl<F: Future<Output: Send> + Send + 'static> Executor<F> for Tasks {
    fn execute(&self, task: F) {
        self.0.spawn(task);
    }
}

impl State {
    /// Lets a function finish whose answer nobody reads.
    pub(crate) fn drain(&self, unread: marram_core::port::Body) {
        self.tasks.0.spawn(body::drain(unread));
    }
}

impl Protocols {
    pub(crate) fn new(limits: &Limits, tasks: Tasks) -> Self {
        let mut http1 = http1::Builder::new();
        // Header time-outs are the watch's: hyper's would make a timer for every request.
        http1.header_read_timeout(None).max_buf_size(limits.send_buffer_bytes);
        let mut http2 = http2::Builder::new(tasks);
        http2
            .timer(TokioTimer::new())
            .max_concurrent_streams(limits.h2_streams)
            .max_pending_accept_reset_streams(limits.h2_resets)
            .max_local_error_reset_streams(limits.h2_resets)
            .max_header_list_size(u32::try_from(limits.header_bytes).unwrap_or(u32::MAX))
            .max_send_buf_size(limits.send_buffer_bytes)
            .keep_alive_interval(limits.h2_ping)
            .keep_alive_timeout(limits.h2_ping);
        Self { http1, http2 }
    }

    /// Serves a connection until it closes.
    pub(crate) async fn serve<S>(&self, mut stream: S, state: Arc<State>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let mut sleep = pin!(tokio::time::sleep(state.limits().header_time));
        let Some((start, h2)) = sniff(&mut stream, &state, sleep.as_mut()).await else { return };
        let service = request::service(state.clone());
        if h2 {
            let socket = TokioIo::new(Socket::new(stream, state.clone(), None, &start));
            watch(&state, pin!(self.http2.serve_connection(socket, service)), sleep).await;
        } else {
            let framing = Some(Framing::new(state.limits()));
            let socket = TokioIo::new(Socket::new(stream, state.clone(), framing, &start));
            watch(&state, pin!(self.http1.serve_connection(socket, service)), sleep).await;
        }
    }
}

/// Reads until it is clear which protocol it is. `None`: the client went away, or said too little for too long.
async fn sniff<S: AsyncRead + Unpin>(
    stream: &mut S,
    state: &State,
    mut sleep: Pin<&mut Sleep>,
) -> Option<(BytesMut, bool)> {
    let mut start = [0; 1024];
    let mut buf = ReadBuf::new(&mut start);
    poll_fn(|cx| {
        state.register(cx.waker());
        loop {
            let got = buf.filled().len();
            if state.must_finish() || state.must_cut() || sleep.as_mut().poll(cx).is_ready() {
                return Poll::Ready(None);
            }
            std::task::ready!(Pin::new(&mut *stream).poll_read(cx, &mut buf)).ok();
            let told = buf.filled().len().min(PREFACE.len());
            let h2 = buf.filled()[..told] == PREFACE[..told];
            match buf.filled().len() {
                now if now == got => return Poll::Ready(None),
                _ if !h2 || told == PREFACE.len() => return Poll::Ready(Some((BytesMut::from(buf.filled()), h2))),
                _ => {}
            }
        }
    })
    .await
}

/// The two kinds of connection, as the watch needs them.
trait Connection {
    fn poll_serve(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()>;
    fn finish(self: Pin<&mut Self>);
}

impl<I, S, B> Connection for http1::Connection<I, S>
where
    S: hyper::service::HttpService<hyper::body::Incoming, ResBody = B>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    I: hyper::rt::Read + hyper::rt::Write + Unpin,
    B: http_body::Body + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    fn poll_serve(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.poll(cx).map(note)
    }

    fn finish(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

impl<I, S, B> Connection for http2::Connection<I, S, Tasks>
where
    S: hyper::service::HttpService<hyper::body::Incoming, ResBody = B>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    I: hyper::rt::Read + hyper::rt::Write + Unpin,
    B: http_body::Body + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    Tasks: hyper::rt::bounds::Http2ServerConnExec<S::Future, B>,
{
    fn poll_serve(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.poll(cx).map(note)
    }

    fn finish(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

/// Clients break connections all the time; each request that is hit is counted by itself.
fn note(ended: hyper::Result<()>) {
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early");
    }
}

/// Polls the connection until it waits for somebody else. Its parts wake it while it is polled, hyper at the end of each
/// body; by way of the scheduler that would be another turn, and a thread of the runtime woken to see whether it can help.
///
/// In a crowd it is the scheduler's all the same: a request that wakes itself lets everybody else go first there.
fn poll_through<C: Connection>(state: &State, mut connection: Pin<&mut C>, own: &Waker) -> Poll<()> {
    let turns = if state.is_in_crowd() { 1 } else { OWN_TURNS_MAX };
    for _ in 0..turns {
        state.begin_turn();
        let polled = connection.as_mut().poll_serve(&mut Context::from_waker(own));
        if state.end_turn() || polled.is_ready() {
            return polled;
        }
    }
    state.wake();
    Poll::Pending
}

/// Drives a connection, and ends it when it is told to or a deadline of its state has passed.
async fn watch<C: Connection>(state: &Arc<State>, mut connection: Pin<&mut C>, mut sleep: Pin<&mut Sleep>) {
    let mut finishing = false;
    let mut armed = Duration::ZERO;
    let own = Waker::from(Arc::clone(state));
    poll_fn(|cx| {
        state.register(cx.waker());
        loop {
            if state.must_cut() {
                return Poll::Ready(());
            }
            if state.must_finish() && !finishing {
                finishing = true;
                connection.as_mut().finish();
            }
            if poll_through(state, connection.as_mut(), &own).is_ready() {
                return Poll::Ready(());
            }
            // The timer is only touched when a deadline comes closer than the one it is set for, which whole and
            // prompt requests never cause.
            let closer = state.due().is_some_and(|(due, _)| due < armed);
            if !closer && armed != Duration::ZERO && !sleep.is_elapsed() {
                return Poll::Pending;
            }
            let age = state.age();
            match state.watch(age) {
                Watch::At(due) => {
                    armed = due;
                    sleep.as_mut().reset(Instant::now() + (due - age));
                    if sleep.as_mut().poll(cx).is_pending() {
                        return Poll::Pending;
                    }
                }
                Watch::Idle => {
                    state.finish();
                    state.closing.set(age);
                }
                Watch::SlowHead => state.set_slow(),
                Watch::Cut => return Poll::Ready(()),
            }
        }
    })
    .await;
}
