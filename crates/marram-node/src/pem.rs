//! Certificates in PEM files; what is wrong with one is said with its file's name.

use std::path::Path;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

/// Every certificate of a file, and at least one.
pub(crate) fn certificates(file: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let shown = file.display();
    let found = CertificateDer::pem_file_iter(file)
        .and_then(|certificates| certificates.collect::<Result<Vec<_>, _>>())
        .map_err(|error| anyhow::anyhow!("the certificate {shown} cannot be read: {error}"))?;
    anyhow::ensure!(
        !found.is_empty(),
        "{shown} has no certificate: it has to be PEM, with `-----BEGIN CERTIFICATE-----`"
    );
    Ok(found)
}
