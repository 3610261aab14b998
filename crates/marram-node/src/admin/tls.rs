//! TLS of the admin API.

use std::sync::Arc;

use tokio_rustls::TlsAcceptor;

use crate::config::TlsFiles;
use crate::tls;

/// An acceptor with this certificate and key.
pub(crate) fn acceptor(files: &TlsFiles) -> anyhow::Result<TlsAcceptor> {
    Ok(TlsAcceptor::from(Arc::new(tls::server(files, None, &[b"http/1.1"])?)))
}
