//! Which certificates of a node are believed.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

/// TLS for a client: the public roots, and those of `ca` (PEM) if there are any.
pub(crate) fn client_config(ca: Option<&Path>) -> anyhow::Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    if let Some(path) = ca {
        let certificates =
            CertificateDer::pem_file_iter(path).with_context(|| format!("cannot read {}", path.display()))?;
        let mut any = false;
        for certificate in certificates {
            any = true;
            let certificate = certificate.with_context(|| format!("{} is not PEM", path.display()))?;
            roots.add(certificate).with_context(|| format!("a certificate in {} cannot be used", path.display()))?;
        }
        anyhow::ensure!(
            any,
            "{} has no certificate: it has to be PEM, with `-----BEGIN CERTIFICATE-----`",
            path.display()
        );
    }
    let mut config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test")]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_a_certificate_is_no_authority() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ca.pem");
        for text in ["", "not PEM", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"] {
            std::fs::write(&file, text).unwrap();
            let error = client_config(Some(&file)).unwrap_err().to_string();
            assert!(error.contains("ca.pem has no certificate"), "{text:?}: {error}");
        }
    }
}
