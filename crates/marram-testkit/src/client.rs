//! A small HTTP client: one request, one answer, gathered.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client as Pooled;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

/// A request to be sent.
#[derive(Clone, Debug)]
pub struct Ask {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// An answer, all of it.
#[derive(Clone, Debug)]
pub struct Reply {
    /// Its status.
    pub status: u16,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

/// Sends requests to one address.
#[derive(Clone, Debug)]
pub struct Client {
    address: SocketAddr,
    headers: HeaderMap,
    pool: Pooled<HttpConnector, Full<Bytes>>,
}

/// A `GET` of this path.
#[must_use]
pub fn get(path: &str) -> Ask {
    Ask::new(Method::GET, path)
}

impl Ask {
    /// A request without headers and body.
    #[must_use]
    pub fn new(method: Method, path: &str) -> Self {
        Self { method, path: path.to_owned(), headers: HeaderMap::new(), body: Bytes::new() }
    }

    /// With this header.
    #[must_use]
    pub fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.insert(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
        self
    }

    /// The same at another path.
    #[must_use]
    pub fn at(mut self, path: &str) -> Self {
        self.path = path.to_owned();
        self
    }

    /// Its path, with its query.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// A header that it has, as text.
    #[must_use]
    pub fn get_header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// With this body.
    #[must_use]
    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    /// The same with its body changed, whatever its headers say of it.
    #[must_use]
    pub fn edit_body(mut self, change: impl FnOnce(Vec<u8>) -> Vec<u8>) -> Self {
        self.body = change(self.body.to_vec()).into();
        self
    }

    /// As it goes over a connection of HTTP/1.1 that is closed after it, also where no client would take the path.
    #[must_use]
    pub fn bytes(&self, host: SocketAddr) -> Vec<u8> {
        let mut bytes = format!("{} {} HTTP/1.1\r\nhost: {host}\r\n", self.method, self.path).into_bytes();
        for (name, value) in &self.headers {
            bytes.extend([name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
        }
        bytes.extend(format!("content-length: {}\r\nconnection: close\r\n\r\n", self.body.len()).into_bytes());
        bytes.extend(&self.body);
        bytes
    }

    /// With this body, as JSON.
    #[must_use]
    pub fn json(self, body: &serde_json::Value) -> Self {
        self.header("content-type", "application/json").body(body.to_string())
    }
}

impl Client {
    /// Sends to `address`.
    #[must_use]
    pub fn new(address: SocketAddr) -> Self {
        Self { address, headers: HeaderMap::new(), pool: Pooled::builder(TokioExecutor::new()).build_http() }
    }

    /// The same with a bearer token in every request.
    #[must_use]
    pub fn with_token(mut self, token: &str) -> Self {
        self.headers.insert("authorization", HeaderValue::from_str(&format!("Bearer {token}")).unwrap());
        self
    }

    /// Sends a request and gathers the answer.
    pub async fn send(&self, ask: Ask) -> Reply {
        self.try_send(ask.clone()).await.unwrap_or_else(|error| panic!("{ask:?} was not answered: {error:#}"))
    }

    /// The same, where no answer may be the answer.
    pub async fn try_send(&self, ask: Ask) -> anyhow::Result<Reply> {
        let (head, body) = self.open(ask).await?.into_parts();
        let body = body.collect().await?.to_bytes();
        Ok(Reply { status: head.status.as_u16(), headers: head.headers, body })
    }

    /// Sends a request; the answer's body is read by the caller.
    pub async fn open(&self, ask: Ask) -> anyhow::Result<http::Response<hyper::body::Incoming>> {
        let mut request = Request::new(Full::new(ask.body));
        *request.method_mut() = ask.method;
        *request.uri_mut() = format!("http://{}{}", self.address, ask.path).parse()?;
        *request.headers_mut() = self.headers.clone();
        request.headers_mut().extend(ask.headers);
        Ok(self.pool.request(request).await?)
    }

    /// A `GET` of this path.
    pub async fn get(&self, path: &str) -> Reply {
        self.send(get(path)).await
    }
}

impl Reply {
    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{self:?} is not JSON: {error}"))
    }

    /// A header as text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The same, if the status is this one.
    #[must_use]
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{self:?}");
        self
    }
}
