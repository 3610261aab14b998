//! The names in a client's certificate.

use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

use crate::access::CertificateNames;

/// The names of a certificate that TLS has verified; none if it cannot be read.
pub(crate) fn names(certificate: &CertificateDer<'_>) -> CertificateNames {
    let Ok((_, parsed)) = X509Certificate::from_der(certificate) else { return CertificateNames::default() };
    let common = parsed.subject().iter_common_name().next().and_then(|name| name.as_str().ok()).map(Into::into);
    let alternative = parsed.subject_alternative_name().ok().flatten().map_or_else(Vec::new, |extension| {
        let names = extension.value.general_names.iter();
        names
            .filter_map(|name| match name {
                GeneralName::DNSName(name) | GeneralName::URI(name) | GeneralName::RFC822Name(name) => {
                    Some((*name).to_owned())
                }
                _ => None,
            })
            .collect()
    });
    CertificateNames { common, alternative }
}
