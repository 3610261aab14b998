//! A small client of a node's admin API: HTTP/1.1 over TCP or TLS, bodies streamed both ways.
//!
//! Requests follow each other on one connection; a lost connection is opened again, a request never sent twice.

mod answer;
mod connection;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use http::uri::Scheme;
use http::{Method, Request, StatusCode, Uri, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Empty, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::Mutex;

pub(crate) use answer::Answer;
use connection::Connection;

use crate::cli::NodeArgs;
use crate::exit::{Exit, Problem};
use crate::tls;

/// A body of a request.
pub(crate) type Body = UnsyncBoxBody<Bytes, anyhow::Error>;

/// A node that does not take a connection within this time is not there.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The admin API of one node.
pub(crate) struct Client {
    base: Uri,
    host: String,
    port: u16,
    authorization: Option<header::HeaderValue>,
    tls: Option<Arc<rustls::ClientConfig>>,
    /// The connection, while no request uses it.
    idle: Mutex<Option<SendRequest<Body>>>,
}

impl Client {
    /// A client for the node that the arguments name. Nothing is sent yet.
    pub(crate) fn new(args: &NodeArgs) -> anyhow::Result<Self> {
        let wrong = |why: &str| {
            Problem::new(Exit::Usage, format!("{:?} is not the URL of a node: {why}", args.node))
                .hint("write --node http://127.0.0.1:7070 or --node https://node.example.com")
        };
        let base: Uri = args.node.parse().map_err(|_| wrong("it is not a URL"))?;
        let secure = match base.scheme() {
            Some(scheme) if *scheme == Scheme::HTTP => false,
            Some(scheme) if *scheme == Scheme::HTTPS => true,
            _ => return Err(wrong("it has to start with http:// or https://").into()),
        };
        let host = base.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        if host.is_empty() || base.path().len() > 1 || base.query().is_some() {
            return Err(wrong("it has to be a scheme, a host and a port, and nothing more").into());
        }
        let port = base.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let tls = secure.then(|| tls::client_config(args.ca.as_deref())).transpose()?;
        let authorization = args.token.as_deref().filter(|token| !token.is_empty()).map(bearer).transpose()?;
        Ok(Self { base, host, port, authorization, tls, idle: Mutex::new(None) })
    }

    /// A client for a node in this process.
    pub(crate) fn local(admin: std::net::SocketAddr, token: Option<String>) -> anyhow::Result<Self> {
        Self::new(&NodeArgs { node: format!("http://{admin}"), token, ca: None })
    }

    /// `GET`, and the answer as JSON.
    pub(crate) async fn get(&self, path: &str) -> anyhow::Result<serde_json::Value> {
        self.send(Method::GET, path, empty()).await?.ok().await?.json().await
    }

    /// `method` with a JSON body, and the answer as JSON.
    pub(crate) async fn call(
        &self,
        method: Method,
        path: &str,
        body: &serde_json::Value,
    ) -> anyhow::Result<serde_json::Value> {
        let request =
            self.request(method, path).header(header::CONTENT_TYPE, "application/json").body(full(body.to_string()))?;
        self.exchange(request).await?.ok().await?.json().await
    }

    /// Sends a request with a body; whatever status it has, the answer is one.
    pub(crate) async fn send(&self, method: Method, path: &str, body: Body) -> anyhow::Result<Answer> {
        self.exchange(self.request(method, path).body(body)?).await
    }

    /// A request to this node, to be finished by the caller.
    pub(crate) fn request(&self, method: Method, path: &str) -> http::request::Builder {
        let authority = self.base.authority().map_or("", |authority| authority.as_str());
        let mut request = Request::builder().method(method).uri(path).header(header::HOST, authority);
        request = request.header(header::USER_AGENT, concat!("marram/", env!("CARGO_PKG_VERSION")));
        match &self.authorization {
            Some(value) => request.header(header::AUTHORIZATION, value),
            None => request,
        }
    }

    /// Sends a request. The connection is kept for the next one if the answer's body has ended by then.
    pub(crate) async fn exchange(&self, request: Request<Body>) -> anyhow::Result<Answer> {
        let mut idle = self.idle.lock().await;
        let kept = match idle.take() {
            Some(mut sender) => sender.ready().await.is_ok().then_some(sender),
            None => None,
        };
        let mut sender = match kept {
            Some(sender) => sender,
            None => self.connect().await?,
        };
        let answer = sender.send_request(request).await.map_err(|error| {
            let problem = if self.tls.is_none() && error.is_parse() { self.is_not_http() } else { self.broke() };
            anyhow::Error::new(error).context(problem)
        })?;
        *idle = Some(sender);
        Ok(Answer::new(answer))
    }

    fn broke(&self) -> Problem {
        Problem::new(Exit::Failed, format!("the connection to the node at {} broke", self.shown()))
            .hint("look whether it runs and what it logs, and try again: what was sent may not be there")
    }

    fn is_not_http(&self) -> Problem {
        let shown = self.shown();
        Problem::new(Exit::Unreachable, format!("what answers at {shown} does not speak HTTP"))
            .hint(format!("does it have TLS? write {}", shown.replacen("http:", "https:", 1)))
    }

    /// Its URL, as it is typed.
    fn shown(&self) -> String {
        self.base.to_string().trim_end_matches('/').to_owned()
    }

    async fn connect(&self) -> anyhow::Result<SendRequest<Body>> {
        let unreachable = |why: &dyn std::fmt::Display| {
            Problem::new(Exit::Unreachable, format!("no node answers at {}: {why}", self.shown()))
                .hint("start one with `marram up` or `marram node`, or name another with --node or MARRAM_NODE")
        };
        let stream = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect((self.host.as_str(), self.port)))
            .await
            .map_err(|_| unreachable(&"it takes no connection within 10 s"))?
            .map_err(|error| unreachable(&plain(&error)))?;
        let _ = stream.set_nodelay(true);
        let stream = Connection::new(stream);
        let Some(tls) = &self.tls else { return handshake(stream).await };
        let name = ServerName::try_from(self.host.clone()).context("the host of --node is not a name")?;
        let connector = tokio_rustls::TlsConnector::from(Arc::clone(tls));
        let stream = tokio::time::timeout(CONNECT_TIMEOUT, connector.connect(name, stream))
            .await
            .map_err(|_| unreachable(&"TLS does not start within 10 s"))?
            .map_err(|error| {
                let why = error.to_string();
                unreachable(&format!("TLS: {why}")).hint(tls_hint(&why))
            })?;
        handshake(stream).await
    }
}

/// What to do about what a handshake of TLS ended with.
fn tls_hint(why: &str) -> &'static str {
    const HINTS: [(&str, &str); 6] = [
        (
            "CaUsedAsEndEntity",
            "the node shows the certificate of an authority as its own: make it with basicConstraints=CA:FALSE",
        ),
        ("not valid for name", "write a name that the certificate has in --node, or make one that has this name"),
        (
            "certificate expired",
            "give the node a new certificate and start it again; if its certificate is still good, this machine's clock is wrong",
        ),
        ("not valid yet", "compare this machine's clock with the beginning of the node's certificate"),
        ("corrupt message", "it speaks no TLS: write http://"),
        ("handshake eof", "does it speak TLS? if not, write http://"),
    ];
    let known = HINTS.iter().find(|(said, _)| why.contains(said));
    known.map_or("name the certificate of its authority with --ca", |(_, hint)| hint)
}

async fn handshake(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> anyhow::Result<SendRequest<Body>> {
    let (sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.context("the node does not speak HTTP/1.1")?;
    // It ends when the sender is dropped; what breaks it reaches the request that it breaks.
    tokio::spawn(async move { drop(connection.await) });
    Ok(sender)
}

fn bearer(token: &str) -> anyhow::Result<header::HeaderValue> {
    let wrong = || {
        Problem::new(Exit::Usage, "the token has characters that no token has")
            .hint("look for a line break in MARRAM_TOKEN")
    };
    let mut value = header::HeaderValue::from_str(&format!("Bearer {token}")).map_err(|_| wrong())?;
    value.set_sensitive(true);
    Ok(value)
}

/// What the system says, without its number: `connection refused`.
fn plain(error: &std::io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_lowercase()
}

/// A body of nothing.
pub(crate) fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

/// A body that is there already.
pub(crate) fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// `text` as one segment of a path or as a value of a query (RFC 3986 §2.3).
pub(crate) fn escape(text: &str) -> String {
    text.bytes().fold(String::with_capacity(text.len()), |mut out, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
        out
    })
}

/// `path?name=value&…` of those that have a value.
pub(crate) fn with_query(path: &str, pairs: &[(&str, Option<String>)]) -> String {
    let query: Vec<_> =
        pairs.iter().filter_map(|(name, value)| value.as_ref().map(|v| format!("{name}={}", escape(v)))).collect();
    if query.is_empty() { path.to_owned() } else { format!("{path}?{}", query.join("&")) }
}

/// What an error status of the admin API ends a command with.
pub(crate) fn exit_of(status: StatusCode) -> Exit {
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Exit::Denied,
        StatusCode::NOT_FOUND => Exit::NotFound,
        StatusCode::CONFLICT => Exit::Conflict,
        StatusCode::BAD_REQUEST | StatusCode::PAYLOAD_TOO_LARGE | StatusCode::UNPROCESSABLE_ENTITY => Exit::Invalid,
        _ => Exit::Failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handshake_that_fails_has_the_hint_of_its_reason() {
        for (why, hint) in [
            ("invalid peer certificate: UnknownIssuer", "--ca"),
            ("invalid peer certificate: Other(OtherError(CaUsedAsEndEntity))", "basicConstraints=CA:FALSE"),
            (
                "invalid peer certificate: certificate not valid for name \"127.0.0.1\"",
                "a name that the certificate has",
            ),
            ("invalid peer certificate: certificate expired: verification time 1795844421 (UNIX)", "a new certificate"),
            ("invalid peer certificate: certificate not valid yet: verification time 1 (UNIX)", "this machine's clock"),
            ("received corrupt message of type InvalidContentType", "it speaks no TLS: write http://"),
        ] {
            assert!(tls_hint(why).contains(hint), "{why}");
        }
    }
}
