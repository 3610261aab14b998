//! Serves the admin API: connections, their limits, and the way of a request through authorization to the router.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Request, Response, header};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use marram_core::accept::AcceptPauses;
use marram_core::{Failure, Kind};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use axum::response::IntoResponse as _;

use super::problem::{self, Refusal};
use super::{Admin, FOLLOWERS_MAX, auth, open_paths, router};
use crate::node::Parts;

/// Connections at the same time: this API is for operators and their tools.
const CONNECTIONS_MAX: usize = 256;
/// How long a header section may take, and a connection may wait for one.
const HEADER_WAIT_MAX: Duration = Duration::from_secs(30);
/// How long a TLS handshake may take.
const HANDSHAKE_WAIT_MAX: Duration = Duration::from_secs(10);
/// Bytes of a header section.
const HEADER_BYTES_MAX: usize = 64 << 10;

/// The listener and its connections.
pub(crate) struct AdminServer {
    stop: CancellationToken,
    connections: TaskTracker,
}

/// What every connection refers to.
struct Front {
    admin: Arc<Admin>,
    router: TowerToHyperService<Router>,
    open_paths: Vec<&'static str>,
    places: Arc<Semaphore>,
    stop: CancellationToken,
    tls: Option<TlsAcceptor>,
}

/// Who sent a request; handlers find it among the request's extensions.
#[derive(Clone, Copy, Debug)]
pub(super) struct Remote(pub(super) SocketAddr);

impl AdminServer {
    /// Serves `listener`.
    pub(crate) fn start(parts: Arc<Parts>, listener: TcpListener, tls: Option<TlsAcceptor>) -> Self {
        let stop = CancellationToken::new();
        let connections = TaskTracker::new();
        let followers = Arc::new(Semaphore::new(FOLLOWERS_MAX));
        let admin = Arc::new(Admin { parts, followers, stop: stop.clone() });
        let front = Arc::new(Front {
            router: TowerToHyperService::new(router(Arc::clone(&admin))),
            admin,
            open_paths: open_paths(),
            places: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
            stop: stop.clone(),
            tls,
        });
        connections.spawn(accept(front, listener, connections.clone()));
        Self { stop, connections }
    }

    /// Accepts nothing more, lets answers finish within `at_most`, and cuts the rest.
    pub(crate) async fn stop(self, at_most: Duration) {
        self.stop.cancel();
        self.connections.close();
        if tokio::time::timeout(at_most, self.connections.wait()).await.is_err() {
            tracing::warn!("requests to the admin API were cut");
        }
    }
}

impl Drop for AdminServer {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn accept(front: Arc<Front>, listener: TcpListener, connections: TaskTracker) {
    let mut pauses = AcceptPauses::default();
    loop {
        let place = Arc::clone(&front.places).acquire_owned();
        let Some(place) = front.stop.run_until_cancelled(place).await else { return };
        let place = place.expect("the semaphore is never closed");
        match front.stop.run_until_cancelled(listener.accept()).await {
            None => return,
            Some(Ok((stream, remote))) => {
                pauses.accepted();
                connections.spawn(connection(Arc::clone(&front), stream, remote, place));
            }
            Some(Err(error)) => {
                let Some(pause) = pauses.after(&error) else { continue };
                tracing::warn!(%error, "the admin API could not accept a connection");
                front.stop.run_until_cancelled(tokio::time::sleep(pause)).await;
            }
        }
    }
}

async fn connection(front: Arc<Front>, stream: TcpStream, remote: SocketAddr, _place: OwnedSemaphorePermit) {
    let Some(tls) = &front.tls else { return serve(&front, stream, remote).await };
    match tokio::time::timeout(HANDSHAKE_WAIT_MAX, tls.accept(stream)).await {
        Ok(Ok(stream)) => serve(&front, stream, remote).await,
        Ok(Err(error)) => tracing::debug!(%remote, %error, "a TLS handshake with the admin API failed"),
        Err(_) => tracing::debug!(%remote, "a TLS handshake with the admin API took too long"),
    }
}

async fn serve(front: &Arc<Front>, stream: impl AsyncRead + AsyncWrite + Unpin, remote: SocketAddr) {
    let service = service_fn(|request| {
        let front = Arc::clone(front);
        async move { Ok::<_, std::convert::Infallible>(front.answer(request, remote).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_WAIT_MAX)
        .max_buf_size(HEADER_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let ended = match front.stop.run_until_cancelled(connection.as_mut()).await {
        Some(ended) => ended,
        None => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%remote, %error, "a connection to the admin API broke off");
    }
}

impl Front {
    /// Authorization, then the router. Whatever comes back is written down in one place.
    async fn answer(&self, request: Request<Incoming>, remote: SocketAddr) -> Response<Body> {
        let parts = &self.admin.parts;
        let id = parts.entropy.request_id();
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(Remote(remote));
        request.extensions_mut().insert(id);
        let open = self.open_paths.contains(&request.uri().path());
        let allowed = if open { Ok(()) } else { auth::check(parts.config.token.as_ref(), request.headers()) };
        let response = match check_host(request.headers()).and(allowed) {
            Ok(()) => self.router.call(request).await.unwrap_or_else(|never| match never {}),
            Err(failure) => Refusal(failure).into_response(),
        };
        problem::finish(response, id)
    }
}

/// RFC 9112 §3.2: of two hosts, whoever looks next might take the other one.
fn check_host(headers: &HeaderMap) -> Result<(), Failure> {
    match headers.get_all(header::HOST).iter().nth(1) {
        Some(_) => Err(Failure::new(Kind::BadRequest, "the request has more than one Host: send one")),
        None => Ok(()),
    }
}
