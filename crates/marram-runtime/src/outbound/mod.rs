//! Outbound HTTP: the requests that functions make to other servers.
//!
//! Everything is denied that the function's [`Grant`] does not list, and the *resolved* address is checked as well, so
//! that a name which points inside reaches nothing. A connection is made to exactly the address that was checked, and
//! belongs to the grant that it was made for: functions never share one, and its tasks end with the grant, or with the
//! last answer that is still being read. Nothing here follows a redirect, reads a proxy from the environment, keeps a
//! cookie, gathers a body, or knows the engine that runs the function.
//!
//! The way of a request: [`target`] (what the URI means) → [`grant`] (is it allowed, is there a permit) → [`pool`], or
//! [`resolve`] → [`address`] → [`connect`] → [`link`] → [`message`] (what goes on the wire) → [`body`].

mod address;
mod body;
mod connect;
mod error;
mod exchange;
mod grant;
mod limits;
mod link;
mod message;
mod pool;
mod resolve;
mod target;
#[cfg(test)]
mod tests;
mod tls;

use std::sync::Arc;

use http_body::Body as _;
use http_body_util::BodyExt as _;
use marram_core::port::Body;
use rustls::pki_types::CertificateDer;
use tokio::sync::Semaphore;

pub(crate) use error::{OutboundError, TlsFault};
pub(crate) use grant::Grant;
pub(crate) use limits::Timeouts;
pub(crate) use message::strip_hop_by_hop;

/// What a node decides about outbound HTTP.
#[derive(Clone, Debug)]
pub(crate) struct OutboundConfig {
    /// Authorities that are trusted besides the public ones: a site's own, as DER certificates.
    pub(crate) extra_roots: Vec<CertificateDer<'static>>,
    /// Connections of all functions together, idle ones included.
    pub(crate) connections_max: usize,
    /// Idle connections of all functions together. Fewer than `connections_max`, so that idle ones never stand in the
    /// way of those in use.
    pub(crate) idle_max: usize,
}

impl Default for OutboundConfig {
    fn default() -> Self {
        Self { extra_roots: Vec::new(), connections_max: limits::CONNECTIONS_MAX, idle_max: limits::IDLE_MAX }
    }
}

/// Makes a request to another function of the app as fit as one that goes over a network: what belongs to a connection
/// ends here, and a declared length is one that is kept.
pub(crate) fn clean(request: http::Request<Body>) -> Result<http::Request<Body>, OutboundError> {
    let (mut head, body) = request.into_parts();
    let declared = message::prepare(&mut head, &body)?;
    let unknown = body.size_hint().exact().is_none();
    let body = match declared.filter(|_| unknown) {
        Some(length) => body::RequestBody::new(body, Some(length), Arc::default()).boxed_unsync(),
        None => body,
    };
    Ok(http::Request::from_parts(head, body))
}

/// The node's side of outbound HTTP: TLS roots, name look-ups, and the bounds that all functions share. One per node.
pub(crate) struct Outbound {
    tls: tokio_rustls::TlsConnector,
    resolver: resolve::Resolver,
    connections: Arc<Semaphore>,
    connections_max: usize,
    idle: Arc<Semaphore>,
}

impl Outbound {
    /// Makes it ready. Fails if an extra root is not a certificate.
    pub(crate) fn new(config: OutboundConfig) -> anyhow::Result<Self> {
        Self::with_lookup(config, resolve::system())
    }

    fn with_lookup(config: OutboundConfig, lookup: resolve::Lookup) -> anyhow::Result<Self> {
        Ok(Self {
            tls: tls::connector(config.extra_roots)?,
            resolver: resolve::Resolver::new(lookup),
            connections: Arc::new(Semaphore::new(config.connections_max)),
            connections_max: config.connections_max,
            idle: Arc::new(Semaphore::new(config.idle_max)),
        })
    }

    /// Sends `request` for the function that holds `grant`. The answer's head comes as soon as the server sends it; its
    /// body streams, and an error in it is an [`OutboundError`] as the cause of a [`marram_core::Failure`].
    ///
    /// Dropping the future, or the body before its end, resets the stream (HTTP/2) or closes the connection (HTTP/1.1).
    pub(crate) async fn send(
        &self,
        grant: &Arc<Grant>,
        request: http::Request<Body>,
        timeouts: Timeouts,
    ) -> Result<http::Response<Body>, OutboundError> {
        Ok(self.exchange(grant, request, timeouts).await?.map(body::ResponseBody::boxed))
    }
}
