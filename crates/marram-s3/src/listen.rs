//! Accepts connections, in clear text or with TLS, and serves HTTP/1.1 on them. Whoever opens connections and asks for
//! nothing must never keep others out: where there is no room, such a connection makes it.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use marram_core::accept::{AcceptPauses, network};
use rustls::ServerConfig;
use s3s::service::S3Service;
use s3s::{Body, S3Result, StdError, s3_error};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::time::Sleep;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::Limits;
use crate::body::Timed;
use crate::chunks::{self, Chunks};
use crate::verified::{Digests, Fault, Verified};
use crate::{error, parameters, range, signed, unsupported};

/// What every connection needs.
pub(crate) struct Front {
    pub(crate) service: S3Service,
    pub(crate) limits: Limits,
    pub(crate) room: Arc<Room>,
    pub(crate) tasks: TaskTracker,
    /// Ends listening, and connections once their request is answered.
    pub(crate) stop: CancellationToken,
    /// Ends connections as they are.
    pub(crate) cut: CancellationToken,
    /// Answers by the hundreds of their status.
    pub(crate) answers: [AtomicU64; 6],
}

/// Accepts until the stop.
pub(crate) async fn accept(front: Arc<Front>, listener: TcpListener, tls: Option<Arc<ServerConfig>>) {
    let stop = front.stop.clone();
    let mut pauses = AcceptPauses::default();
    loop {
        let Some(accepted) = stop.run_until_cancelled(listener.accept()).await else { return };
        match accepted {
            Ok((stream, remote)) => {
                pauses.accepted();
                let entered = stop.run_until_cancelled(front.room.enter(remote.ip(), &front.cut)).await;
                let Some(place) = entered else { return };
                let (front, tls) = (front.clone(), tls.clone());
                front.tasks.clone().spawn(async move {
                    let end = place.end.clone();
                    end.run_until_cancelled(connection(&front, stream, tls, &place)).await;
                });
            }
            Err(error) => {
                let Some(pause) = pauses.after(&error) else { continue };
                tracing::warn!(%error, "accepting S3 connections fails: raise the limit of open files (ulimit -n)?");
                stop.run_until_cancelled(tokio::time::sleep(pause)).await;
            }
        }
    }
}

async fn connection(front: &Front, stream: TcpStream, tls: Option<Arc<ServerConfig>>, place: &Arc<Place>) {
    if stream.set_nodelay(true).is_err() {
        return; // The client is gone.
    }
    match tls {
        None => serve(front, stream, place).await,
        Some(tls) => {
            let hello = TlsAcceptor::from(tls).accept(stream);
            if let Ok(Ok(stream)) = tokio::time::timeout(front.limits.handshake_time, hello).await {
                serve(front, stream, place).await;
            }
        }
    }
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin + Send>(front: &Front, stream: S, place: &Arc<Place>) {
    let watched = Watched { stream, stall: front.limits.write_stall, waiting: None, place: Arc::clone(place) };
    let io = TokioIo::new(watched);
    let service = service_fn(|mut request: http::Request<Incoming>| {
        // The check of who asks finds it there.
        request.extensions_mut().insert(Arc::clone(place));
        async move {
            let response = answer(front, request).await;
            Ok::<_, Infallible>(response.map(|body| Answer { body, place: Arc::clone(place) }))
        }
    });
    let mut http1 = http1::Builder::new();
    http1
        .timer(TokioTimer::new())
        .header_read_timeout(front.limits.header_time)
        .max_buf_size(front.limits.header_bytes);
    let mut connection = std::pin::pin!(http1.serve_connection(io, service));
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = front.stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    // Clients break connections all the time.
    if let Err(error) = ended {
        tracing::debug!(%error, "an S3 connection ended early");
    }
}

async fn answer(front: &Front, mut request: http::Request<Incoming>) -> http::Response<Body> {
    let uri = request.uri().clone();
    let idle = front.limits.body_idle;
    // RFC 9110 §10.1.1. The AWS CLI of version 1 takes an answer that comes instead of a 100 for that of its next request, too.
    let expects = request.headers().get(http::header::EXPECT).is_some_and(|value| value.as_bytes() == b"100-continue");
    let is_empty = request.body().is_end_stream();
    let signed_max = chunks::come_in(request.headers()).then_some(front.limits.signed_chunk_bytes);
    let fault = Fault::default();
    let answered = match prepare(&mut request) {
        Err(error) => error.to_http_response().map_err(|error| s3s::HttpError::new(Box::new(error))),
        Ok(digests) => {
            let request = request.map(|body| {
                let body = Timed::new(body, idle);
                match (digests, signed_max) {
                    (Some(digests), _) => Body::http_body_unsync(Verified::new(body, digests, fault.clone())),
                    (None, Some(signed_max)) => Body::http_body_unsync(Chunks::new(body, signed_max)),
                    (None, None) => Body::http_body_unsync(body),
                }
            });
            // Boxed: it is far larger than the connection, which lives longer.
            Box::pin(front.service.call(request)).await
        }
    };
    let mut response = answered.unwrap_or_else(|error| {
        let error: StdError = error.into();
        tracing::error!(%error, "an S3 answer could not be written");
        let mut response = http::Response::new(Body::empty());
        *response.status_mut() = http::StatusCode::INTERNAL_SERVER_ERROR;
        response
    });
    let fault = fault.take();
    if fault.is_some() || !is_empty && is_about_the_body(&response) {
        let incomplete = || s3_error!(IncompleteBody, "the body did not come as it was announced and signed");
        let error = fault.unwrap_or_else(incomplete);
        response = error.to_http_response().unwrap_or(response);
    }
    if let Some(error) = error::explained(&response, &uri) {
        response = error.to_http_response().unwrap_or(response);
    }
    front.answers[usize::from(response.status().as_u16() / 100).min(5)].fetch_add(1, Ordering::Relaxed);
    if expects && (is_empty || !response.status().is_success()) {
        response.headers_mut().insert(http::header::CONNECTION, http::HeaderValue::from_static("close"));
    }
    response
}

/// Whether s3s could not gather a body in XML, because that broke off or is not what was signed. It calls that a failure within,
/// and says nothing of it; every failure of the node's own has a message.
fn is_about_the_body(response: &http::Response<Body>) -> bool {
    response.status() == http::StatusCode::INTERNAL_SERVER_ERROR
        && response.body().bytes().is_some_and(|body| !error::says_why(&body))
}

/// Refuses what s3s would take and this node does not, and takes out what only s3s would fail at. The digests that the body has
/// to have, where s3s does not look at them.
fn prepare(request: &mut http::Request<Incoming>) -> S3Result<Option<Digests>> {
    if is_form(request.headers()) {
        return Err(s3_error!(NotImplemented, "uploads by form are not supported: use PUT"));
    }
    let signed = signed::check(request.uri(), request.headers())?;
    unsupported::check(request.uri(), request.headers())?;
    parameters::check(request.method(), request.uri())?;
    // What was signed has to stay as it is: s3s has not looked at the signature yet.
    if !signed.iter().any(|name| name == "range") {
        let method = request.method().clone();
        range::tidy(&method, request.headers_mut());
    }
    Digests::of(request.method(), request.uri(), request.headers())
}

/// Whether s3s would take the body for a form, and gather it before it knows whose it is. Media types have no case
/// (RFC 9110 §8.3.1).
fn is_form(headers: &http::HeaderMap) -> bool {
    const FORM: &[u8] = b"multipart/form-data";
    let is_one = |value: &http::HeaderValue| {
        value.as_bytes().get(..FORM.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(FORM))
    };
    headers.get_all(http::header::CONTENT_TYPE).iter().any(is_one)
}

/// The connections that are open, on all listeners. Where one more comes than there is room for, one goes that waits for
/// a request: of those from the address with the most connections, the one that has waited longest. One with a request
/// under way is never closed for this.
pub(crate) struct Room {
    max: usize,
    open: Mutex<Open>,
    /// A connection is gone, or waits for a request.
    changed: Notify,
}

#[derive(Default)]
struct Open {
    connections: HashMap<u64, Connection>,
    /// Numbers connections, and the order in which they began to wait.
    last: u64,
}

struct Connection {
    network: IpAddr,
    state: State,
    end: CancellationToken,
}

/// What a connection is at.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// It has no request, a part of a head, or a request that no access key has signed, which is refused at once. Since
    /// when, as a number.
    Waiting(u64),
    /// A request is carried out.
    UnderWay,
    /// Its answer is made, and not yet sent whole.
    Answered,
}

impl Room {
    pub(crate) fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { max, open: Mutex::default(), changed: Notify::new() })
    }

    /// How many are open.
    pub(crate) fn count(&self) -> usize {
        self.lock().connections.len()
    }

    /// A place for one more; waits only while every connection has a request under way. It ends with `cut`, too.
    async fn enter(self: &Arc<Self>, address: IpAddr, cut: &CancellationToken) -> Arc<Place> {
        let network = network(address);
        loop {
            let changed = self.changed.notified();
            let entered = self.lock().enter(self.max, network, cut.child_token());
            if let Some((number, end)) = entered {
                return Arc::new(Place { room: Arc::clone(self), number, end });
            }
            changed.await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Open {
    fn enter(&mut self, max: usize, network: IpAddr, end: CancellationToken) -> Option<(u64, CancellationToken)> {
        if self.connections.len() >= max {
            let number = self.longest_waiting()?;
            self.connections.remove(&number)?.end.cancel();
        }
        let number = self.next();
        let state = State::Waiting(number);
        self.connections.insert(number, Connection { network, state, end: end.clone() });
        Some((number, end))
    }

    fn longest_waiting(&self) -> Option<u64> {
        let mut counts = HashMap::<IpAddr, usize>::new();
        for connection in self.connections.values() {
            *counts.entry(connection.network).or_default() += 1;
        }
        let waiting = self.connections.iter().filter_map(|(number, connection)| match connection.state {
            State::Waiting(since) => Some((counts[&connection.network], Reverse(since), *number)),
            State::UnderWay | State::Answered => None,
        });
        waiting.max().map(|(_, _, number)| number)
    }

    fn next(&mut self) -> u64 {
        self.last += 1;
        self.last
    }
}

/// A connection's place in the room, until it is dropped.
pub(crate) struct Place {
    room: Arc<Room>,
    number: u64,
    /// The connection is to end.
    end: CancellationToken,
}

impl Place {
    /// A request is carried out from here on; `false` if the connection has just made room for another.
    pub(crate) fn begin(&self) -> bool {
        self.change(|_, _| Some(State::UnderWay))
    }

    /// The answer is made.
    fn answered(&self) {
        self.change(|state, _| (state == State::UnderWay).then_some(State::Answered));
    }

    /// All that was to be sent is sent.
    fn sent(&self) {
        self.change(|state, turn| (state == State::Answered).then_some(State::Waiting(turn)));
    }

    fn change(&self, to: impl FnOnce(State, u64) -> Option<State>) -> bool {
        let mut open = self.room.lock();
        let turn = open.next();
        let Some(connection) = open.connections.get_mut(&self.number) else { return false };
        let Some(state) = to(connection.state, turn) else { return true };
        connection.state = state;
        drop(open);
        if matches!(state, State::Waiting(_)) {
            self.room.changed.notify_waiters();
        }
        true
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.room.lock().connections.remove(&self.number);
        self.room.changed.notify_waiters();
    }
}

/// The body of an answer; its end is that of the request.
struct Answer {
    body: Body,
    place: Arc<Place>,
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = StdError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, StdError>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.place.answered();
    }
}

/// A connection that fails once its peer takes nothing for too long.
struct Watched<S> {
    stream: S,
    stall: Duration,
    waiting: Option<Pin<Box<Sleep>>>,
    place: Arc<Place>,
}

impl<S> Watched<S> {
    fn watch<T>(&mut self, cx: &mut Context<'_>, done: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if done.is_ready() {
            self.waiting = None;
            return done;
        }
        let stall = self.stall;
        let waiting = self.waiting.get_or_insert_with(|| Box::pin(tokio::time::sleep(stall)));
        waiting.as_mut().poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let done = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.watch(cx, done)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let done = Pin::new(&mut self.stream).poll_flush(cx);
        if matches!(done, Poll::Ready(Ok(()))) {
            self.place.sent();
        }
        self.watch(cx, done)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let done = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.watch(cx, done)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let done = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.watch(cx, done)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn enter(room: &Arc<Room>, address: &str) -> Option<Arc<Place>> {
        use futures::FutureExt as _;
        room.enter(address.parse().unwrap(), &CancellationToken::new()).now_or_never()
    }

    #[test]
    fn whoever_has_the_most_connections_makes_room_with_the_one_that_waited_longest() {
        let room = Room::new(4);
        let other = enter(&room, "192.0.2.1").unwrap();
        let many = ["2001:db8::1", "2001:db8::2", "::ffff:192.0.2.1"].map(|address| enter(&room, address).unwrap());
        let closed = |place: &Place| place.end.is_cancelled();
        // The two of IPv6 are neighbours, and the last is the first in other words: of two each, it is the oldest.
        let newer = enter(&room, "192.0.2.2").unwrap();
        assert!(closed(&other) && !closed(&newer) && !many.iter().any(|place| closed(place)));
        // What was closed can neither begin nor take away the place of another.
        assert!(!other.begin());
        drop(other);
        assert_eq!(room.count(), 4);
        // A request under way stays; once it is answered, the connection has waited for the shortest time.
        assert!(many[0].begin());
        let newest = enter(&room, "192.0.2.3").unwrap();
        assert!(closed(&many[1]) && !closed(&many[0]));
        for place in [&many[2], &newer, &newest] {
            assert!(place.begin());
        }
        assert!(enter(&room, "192.0.2.4").is_none(), "all have a request under way");
        many[0].answered();
        assert!(enter(&room, "192.0.2.4").is_none(), "the answer is not sent");
        many[0].sent();
        let last = enter(&room, "192.0.2.4").unwrap();
        assert!(closed(&many[0]) && !closed(&last));
        drop(newer);
        assert_eq!(room.count(), 3);
    }
}
