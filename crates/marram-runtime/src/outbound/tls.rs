//! TLS to other servers: rustls on ring, the public authorities, and the site's own.

use std::sync::Arc;

use anyhow::Context as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::OutboundError;
use super::error::{find, of_tls};
use super::target::{Host, Origin};

/// How HTTP/2 is named in ALPN (RFC 9113 §3.1).
const H2: &[u8] = b"h2";

/// One configuration for all functions: what is verified does not depend on who asks.
pub(super) fn connector(extra_roots: Vec<CertificateDer<'static>>) -> anyhow::Result<TlsConnector> {
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    for (at, root) in extra_roots.into_iter().enumerate() {
        roots.add(root).with_context(|| format!("extra root {} of outbound TLS is not a CA certificate", at + 1))?;
    }
    let mut config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .context("ring has no cipher suites for TLS")?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![H2.to_vec(), b"http/1.1".to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}

/// Shakes hands for `origin`, whose host is what the certificate has to name: a name, which is also sent (SNI), or an
/// address, which is not (RFC 6066 §3).
pub(super) async fn handshake(
    connector: &TlsConnector,
    origin: &Origin,
    tcp: TcpStream,
) -> Result<TlsStream<TcpStream>, OutboundError> {
    let host = origin.host.to_string();
    let name = match &origin.host {
        Host::Address(address) => ServerName::from(*address),
        Host::Name(name) => ServerName::try_from(name.to_string()).map_err(|_| OutboundError::UriInvalid {
            uri: origin.to_string(),
            why: "its host cannot be in a certificate",
        })?,
    };
    connector.connect(name, tcp).await.map_err(|error| match find::<rustls::Error>(&error) {
        Some(tls) => of_tls(&host, tls),
        None => OutboundError::ConnectionTerminated { origin: origin.to_string(), reason: error.to_string() },
    })
}

/// Whether the server chose HTTP/2.
pub(super) fn chose_h2(stream: &TlsStream<TcpStream>) -> bool {
    stream.get_ref().1.alpn_protocol() == Some(H2)
}
