//! TLS of the node's own listeners, on ring. Files are read once, at start; what is wrong with one is said with its name.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{CertificateError, Error, RootCertStore, ServerConfig};

use crate::config::TlsFiles;
use crate::pem;

/// A certificate that is over sooner than this is said at start.
const SOON: Duration = Duration::from_secs(14 * DAY);
const DAY: u64 = 24 * 60 * 60;

/// A server with this certificate and key, which asks clients for certificates of `client_ca` but also takes those that show
/// none: what they may do then is not TLS's business.
pub(crate) fn server(files: &TlsFiles, client_ca: Option<&Path>, alpn: &[&[u8]]) -> anyhow::Result<ServerConfig> {
    let chain = pem::certificates(&files.cert)?;
    if let Some(what) = chain.first().and_then(|certificate| untimely(certificate, UnixTime::now())) {
        tracing::warn!("the certificate {} {what}", files.cert.display());
    }
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

/// What is wrong with a certificate's time, and what to do. Clients that verify it refuse one that is over.
fn untimely(certificate: &CertificateDer<'_>, now: UnixTime) -> Option<String> {
    let parsed = ParsedCertificate::try_from(certificate).ok()?;
    // Its time is looked at before its authority, so that none is needed.
    let at = |time| verify_server_cert_signed_by_trust_anchor(&parsed, &RootCertStore::empty(), &[], time, &[]).err();
    let soon = UnixTime::since_unix_epoch(Duration::from_secs(now.as_secs()) + SOON);
    let renew = "put a new one in its place and start the node again";
    match (at(now), at(soon)) {
        (Some(Error::InvalidCertificate(CertificateError::ExpiredContext { .. })), _) => {
            Some(format!("is over, and clients refuse it: {renew}; or this machine's clock is wrong"))
        }
        (Some(Error::InvalidCertificate(CertificateError::NotValidYetContext { .. })), _) => {
            Some("is not valid yet, and clients refuse it: this machine's clock or the certificate is wrong".to_owned())
        }
        (_, Some(Error::InvalidCertificate(CertificateError::ExpiredContext { not_after, .. }))) => {
            let days = not_after.as_secs().saturating_sub(now.as_secs()) / DAY;
            Some(format!("is over in {days} days: {renew}"))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_that_is_over_or_nearly_so_is_said() {
        let mut params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        (params.not_before, params.not_after) = (rcgen::date_time_ymd(2026, 1, 1), rcgen::date_time_ymd(2026, 3, 1));
        let made = params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap();
        // 2026-01-01.
        let from = 1_767_225_600;
        for (day, said) in [
            (-1, Some("is not valid yet")),
            (1, None),
            (44, None),
            (46, Some("is over in 13 days")),
            (60, Some("is over, and clients refuse it")),
        ] {
            let now = UnixTime::since_unix_epoch(Duration::from_secs((from + day * DAY as i64) as u64));
            let found = untimely(made.der(), now);
            assert_eq!(found.is_some(), said.is_some(), "day {day}: {found:?}");
            assert!(said.is_none_or(|said| found.as_deref().unwrap().starts_with(said)), "day {day}: {found:?}");
        }
    }
}
