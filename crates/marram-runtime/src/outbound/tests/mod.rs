//! Outbound HTTP against servers on loopback, which every grant here opens with `allow.addresses`.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod access;
mod lookups;
mod pooling;
mod protocols;
mod trouble;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use marram_core::manifest::Allow;
use marram_core::outbound::OutboundRule;
use marram_core::port::{Body, empty_body};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use super::limits::GrantLimits;
use super::resolve::Lookup;
use super::{Grant, Outbound, OutboundConfig, OutboundError, Timeouts, TlsFault};

/// No test waits longer for anything.
const DEADLINE: Duration = Duration::from_secs(20);

/// A server, gone when dropped.
struct Server {
    at: SocketAddr,
    /// Connections so far, and those open now.
    connections: watch::Receiver<(usize, usize)>,
    accepting: JoinHandle<()>,
}

impl Server {
    /// Hands each connection, with its number, to `connected`.
    async fn raw<F, Fut>(connected: F) -> Self
    where
        F: Fn(TcpStream, usize) -> Fut + Send + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let (count, connections) = watch::channel((0, 0));
        let count = Arc::new(count);
        let accepting = tokio::spawn(async move {
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                count.send_modify(|(all, open)| (*all, *open) = (*all + 1, *open + 1));
                let number = count.borrow().0;
                let (serving, count) = (connected(socket, number), count.clone());
                tokio::spawn(async move {
                    serving.await;
                    count.send_modify(|(_, open)| *open -= 1);
                });
            }
        });
        Self { at, connections, accepting }
    }

    /// Answers requests; `respond` also gets the connection's number.
    async fn http<F, Fut>(tls: Option<TlsAcceptor>, respond: F) -> Self
    where
        F: Fn(Request<Incoming>, usize) -> Fut + Clone + Send + 'static,
        Fut: Future<Output = Response<Body>> + Send + 'static,
    {
        Self::raw(move |socket, number| {
            let (tls, respond) = (tls.clone(), respond.clone());
            async move {
                let Some(tls) = tls else { return answer(socket, false, number, respond).await };
                let Ok(stream) = tls.accept(socket).await else { return };
                let h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                answer(stream, h2, number, respond).await;
            }
        })
        .await
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.at)
    }

    fn named(&self, scheme: &str, host: &str) -> String {
        format!("{scheme}://{host}:{}/", self.at.port())
    }

    async fn until_open(&mut self, expected: usize) {
        let reached = self.connections.wait_for(|(_, open)| *open == expected);
        let reached = tokio::time::timeout(DEADLINE, reached).await.map(|seen| seen.map(|seen| *seen));
        reached.expect("the number of open connections was not reached").unwrap();
    }

    fn total(&self) -> usize {
        self.connections.borrow().0
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn answer<S, F, Fut>(socket: S, h2: bool, number: usize, respond: F)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Fn(Request<Incoming>, usize) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = Response<Body>> + Send + 'static,
{
    let service = service_fn(move |request| {
        let response = respond(request, number);
        async move { Ok::<_, std::convert::Infallible>(response.await) }
    });
    let io = TokioIo::new(socket);
    if h2 {
        drop(hyper::server::conn::http2::Builder::new(TokioExecutor::new()).serve_connection(io, service).await);
    } else {
        drop(hyper::server::conn::http1::Builder::new().serve_connection(io, service).await);
    }
}

fn allow(rules: &[&str], addresses: &[&str]) -> Allow {
    Allow {
        http: rules.iter().map(|rule| OutboundRule::parse(rule).unwrap()).collect(),
        addresses: addresses.iter().map(|net| net.parse().unwrap()).collect(),
        ..Allow::default()
    }
}

/// Any host at the server's port, on loopback.
fn open_grant(server: &Server) -> Arc<Grant> {
    Grant::new(&open_allow(server))
}

fn limited_grant(server: &Server, change: impl FnOnce(&mut GrantLimits)) -> Arc<Grant> {
    let mut limits = GrantLimits::default();
    change(&mut limits);
    Grant::with_limits(&open_allow(server), limits)
}

fn open_allow(server: &Server) -> Allow {
    let port = server.at.port();
    allow(&[&format!("http://*:{port}"), &format!("https://*:{port}")], &["127.0.0.0/8"])
}

fn outbound() -> Outbound {
    Outbound::new(OutboundConfig::default()).unwrap()
}

/// Every name has these addresses.
fn everything_at(addresses: &[&str]) -> Lookup {
    let addresses: Vec<IpAddr> = addresses.iter().map(|address| address.parse().unwrap()).collect();
    Arc::new(move |_, _| {
        let addresses = addresses.clone();
        Box::pin(async move { Ok(addresses) })
    })
}

fn outbound_with(lookup: Lookup) -> Outbound {
    Outbound::with_lookup(OutboundConfig::default(), lookup).unwrap()
}

fn get(url: &str) -> Request<Body> {
    Request::get(url).body(empty_body()).unwrap()
}

fn post(url: &str, body: Body) -> Request<Body> {
    Request::post(url).body(body).unwrap()
}

async fn send(out: &Outbound, grant: &Arc<Grant>, request: Request<Body>) -> Result<Response<Body>, OutboundError> {
    let sent = out.send(grant, request, Timeouts::default());
    tokio::time::timeout(DEADLINE, sent).await.expect("the request did not end")
}

async fn text(response: Response<Body>) -> String {
    let body = tokio::time::timeout(DEADLINE, response.into_body().collect()).await.expect("the body did not end");
    String::from_utf8(body.unwrap().to_bytes().to_vec()).unwrap()
}

/// A body that is written bit by bit.
fn channel_body() -> (futures::channel::mpsc::Sender<Frame>, Body) {
    let (sender, receiver) = futures::channel::mpsc::channel(0);
    (sender, http_body_util::StreamBody::new(receiver).boxed_unsync())
}

type Frame = Result<http_body::Frame<bytes::Bytes>, marram_core::Failure>;

fn data(text: &str) -> Frame {
    Ok(http_body::Frame::data(bytes::Bytes::copy_from_slice(text.as_bytes())))
}

/// The case of `wasi:http/types` `error-code` that is meant by each class.
fn wasi_name(error: &OutboundError) -> &'static str {
    match error {
        OutboundError::Denied { .. } => "HTTP-request-denied",
        OutboundError::AddressDenied { .. } => "destination-IP-prohibited",
        OutboundError::Dns { .. } => "DNS-error",
        OutboundError::ConnectionRefused { .. } => "connection-refused",
        OutboundError::Unreachable { .. } => "destination-unavailable",
        OutboundError::ConnectTimeout { .. } => "connection-timeout",
        OutboundError::FirstByteTimeout { .. } => "HTTP-response-timeout",
        OutboundError::ReadTimeout { .. } => "connection-read-timeout",
        OutboundError::Tls { fault: TlsFault::Certificate, .. } => "TLS-certificate-error",
        OutboundError::Tls { fault: TlsFault::Alert(_), .. } => "TLS-alert-received",
        OutboundError::Tls { fault: TlsFault::Protocol, .. } => "TLS-protocol-error",
        OutboundError::Protocol { .. } => "HTTP-protocol-error",
        OutboundError::HeadersTooLarge { .. } => "HTTP-response-header-section-size",
        OutboundError::BodyError(_) | OutboundError::RequestInvalid { .. } => "internal-error",
        OutboundError::UriInvalid { .. } => "HTTP-request-URI-invalid",
        OutboundError::TooManyConnections { .. } => "connection-limit-reached",
        OutboundError::ConnectionTerminated { .. } => "connection-terminated",
    }
}
