//! Accepts connections, in clear text or with TLS, and serves HTTP/1.1 on them.

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use http_body::Body as _;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use marram_core::accept::AcceptPauses;
use rustls::ServerConfig;
use s3s::service::S3Service;
use s3s::{Body, S3Result, s3_error};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::Sleep;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::Limits;
use crate::body::Timed;
use crate::chunks::{self, Chunks};
use crate::verified::{Digests, Fault, Verified};
use crate::{range, signed, unsupported};

/// What every connection needs.
pub(crate) struct Front {
    pub(crate) service: S3Service,
    pub(crate) limits: Limits,
    pub(crate) tasks: TaskTracker,
    /// Ends listening, and connections once their request is answered.
    pub(crate) stop: CancellationToken,
    /// Ends connections as they are.
    pub(crate) cut: CancellationToken,
    /// Answers by the hundreds of their status.
    pub(crate) answers: [AtomicU64; 6],
}

/// Accepts until the stop.
pub(crate) async fn accept(
    front: Arc<Front>,
    listener: TcpListener,
    tls: Option<Arc<ServerConfig>>,
    permits: Arc<Semaphore>,
) {
    let stop = front.stop.clone();
    let mut pauses = AcceptPauses::default();
    loop {
        let Some(Ok(permit)) = stop.run_until_cancelled(permits.clone().acquire_owned()).await else { return };
        let Some(accepted) = stop.run_until_cancelled(listener.accept()).await else { return };
        match accepted {
            Ok((stream, _)) => {
                pauses.accepted();
                let (front, tls) = (front.clone(), tls.clone());
                front.tasks.clone().spawn(async move {
                    let cut = front.cut.clone();
                    cut.run_until_cancelled(connection(&front, stream, tls)).await;
                    drop(permit);
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

async fn connection(front: &Arc<Front>, stream: TcpStream, tls: Option<Arc<ServerConfig>>) {
    if stream.set_nodelay(true).is_err() {
        return; // The client is gone.
    }
    match tls {
        None => serve(front, stream).await,
        Some(tls) => {
            let hello = TlsAcceptor::from(tls).accept(stream);
            if let Ok(Ok(stream)) = tokio::time::timeout(front.limits.handshake_time, hello).await {
                serve(front, stream).await;
            }
        }
    }
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin + Send>(front: &Arc<Front>, stream: S) {
    let io = TokioIo::new(Watched { stream, stall: front.limits.write_stall, waiting: None });
    let service = service_fn(|request| answer(front, request));
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

async fn answer(front: &Arc<Front>, mut request: http::Request<Incoming>) -> Result<http::Response<Body>, Infallible> {
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
        let error: s3s::StdError = error.into();
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
    front.answers[usize::from(response.status().as_u16() / 100).min(5)].fetch_add(1, Ordering::Relaxed);
    if expects && (is_empty || !response.status().is_success()) {
        response.headers_mut().insert(http::header::CONNECTION, http::HeaderValue::from_static("close"));
    }
    Ok(response)
}

/// Whether s3s could not gather a body in XML, because that broke off or is not what was signed. It calls that a failure within,
/// and says nothing of it; every failure of the node's own has a message.
fn is_about_the_body(response: &http::Response<Body>) -> bool {
    let says = |body: bytes::Bytes| body.windows(9).any(|part| part == b"<Message>");
    response.status() == http::StatusCode::INTERNAL_SERVER_ERROR
        && response.body().bytes().is_some_and(|body| !says(body))
}

/// Refuses what s3s would take and this node does not, and takes out what only s3s would fail at. The digests that the body has
/// to have, where s3s does not look at them.
fn prepare(request: &mut http::Request<Incoming>) -> S3Result<Option<Digests>> {
    if is_form(request.headers()) {
        return Err(s3_error!(NotImplemented, "uploads by form are not supported: use PUT"));
    }
    let signed = signed::check(request.uri(), request.headers())?;
    unsupported::check(request.uri(), request.headers())?;
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

/// A connection that fails once its peer takes nothing for too long.
struct Watched<S> {
    stream: S,
    stall: Duration,
    waiting: Option<Pin<Box<Sleep>>>,
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
