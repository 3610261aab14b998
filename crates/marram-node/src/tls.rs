//! TLS of the node's own listeners, on ring. Files are read once, at start; what is wrong with one is said with its name.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};

use crate::config::TlsFiles;
use crate::pem;

/// A server with this certificate and key, which asks clients for certificates of `client_ca` but also takes those that show
/// none: what they may do then is not TLS's business.
pub(crate) fn server(files: &TlsFiles, client_ca: Option<&Path>, alpn: &[&[u8]]) -> anyhow::Result<ServerConfig> {
    let chain = pem::certificates(&files.cert)?;
    let key = PrivateKeyDer::from_pem_file(&files.key)
        .map_err(|error| anyhow::anyhow!("the private key {} cannot be read: {error}", files.key.display()))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .context("TLS 1.2 and 1.3 are not there")?;
    let builder = match client_ca {
        None => builder.with_no_client_auth(),
        Some(file) => {
            let mut roots = RootCertStore::empty();
            for certificate in pem::certificates(file)? {
                let added = roots.add(certificate);
                added.with_context(|| format!("a certificate of {} cannot be an authority", file.display()))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            builder.with_client_cert_verifier(verifier.allow_unauthenticated().build()?)
        }
    };
    let mut config = builder.with_single_cert(chain, key).with_context(|| {
        format!("certificate {} and key {} do not fit together", files.cert.display(), files.key.display())
    })?;
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    Ok(config)
}
