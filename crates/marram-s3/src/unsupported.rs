//! What a client asks for beside an operation, and this node does not have. s3s reads it and nobody would look at it, so that the
//! client would believe that its object is encrypted, locked or readable to others.

use http::{HeaderMap, Uri};
use marram_core::Name;
use s3s::{S3Result, s3_error};

use crate::{checksum, query};

/// Headers of encryption, ACLs, locks and renames begin so.
const PREFIXES: [&str; 5] = [
    "x-amz-copy-source-server-side-encryption-",
    "x-amz-grant-",
    "x-amz-object-lock-",
    "x-amz-rename-source",
    "x-amz-server-side-encryption",
];

/// What only a header can say: these, and what begins so. In the query of an URL that was signed beforehand nothing would read
/// them, and an empty object would be stored instead of a copy.
const ONLY_HEADERS: [&str; 5] = [
    "x-amz-copy-source",
    "x-amz-decoded-content-length",
    "x-amz-metadata-directive",
    "x-amz-mp-object-size",
    "x-amz-trailer",
];

/// Refuses a request that wants what there is not. Some SDKs move headers into the query of an URL that they sign.
pub(crate) fn check(uri: &Uri, headers: &HeaderMap) -> S3Result<()> {
    for (name, value) in headers {
        refuse(name.as_str(), value.as_bytes())?;
    }
    for (name, value) in query::pairs(uri) {
        refuse(&name.to_ascii_lowercase(), value.as_bytes())?;
    }
    for (name, value) in query::hoisted(uri) {
        if !value.is_empty() && ONLY_HEADERS.iter().any(|begin| name.starts_with(begin)) {
            return Err(s3_error!(
                NotImplemented,
                "\"{name}\" is read from a header, and not from the query: sign it as a header, and send it"
            ));
        }
    }
    check_copy(headers)
}

/// Whether it names a checksum that nobody would sum up.
fn is_unknown_sum(name: &str) -> bool {
    const ABOUT_IT: [&str; 3] = ["x-amz-checksum-algorithm", "x-amz-checksum-mode", "x-amz-checksum-type"];
    name.starts_with("x-amz-checksum-") && !ABOUT_IT.contains(&name) && checksum::of_header(name).is_none()
}

fn refuse(name: &str, value: &[u8]) -> S3Result<()> {
    let is_refused = match name {
        _ if value.is_empty() => false,
        // Only keys of the node reach an object, and whoever has the bucket has the object.
        "x-amz-acl" => !matches!(value, b"private" | b"bucket-owner-full-control"),
        "x-amz-bucket-object-lock-enabled" => !value.eq_ignore_ascii_case(b"false"),
        "x-amz-if-match-initiated-time"
        | "x-amz-if-match-last-modified-time"
        | "x-amz-if-match-size"
        | "x-amz-object-if-match"
        | "x-amz-tagging"
        | "x-amz-write-offset-bytes" => true,
        "x-amz-checksum-algorithm" | "x-amz-sdk-checksum-algorithm" => {
            std::str::from_utf8(value).ok().and_then(|name| checksum::known(name.trim())).is_none()
        }
        "x-amz-trailer" => {
            let names = String::from_utf8_lossy(value).to_ascii_lowercase();
            names.split(',').any(|name| is_unknown_sum(name.trim()))
        }
        name if is_unknown_sum(name) => true,
        name => PREFIXES.iter().any(|prefix| name.starts_with(prefix)),
    };
    if is_refused {
        return Err(s3_error!(NotImplemented, "this node does not have what \"{name}\" asks for: leave it out"));
    }
    Ok(())
}

/// s3s does not read the conditions on what a copy replaces, and takes only such sources as AWS could have.
fn check_copy(headers: &HeaderMap) -> S3Result<()> {
    let Some(source) = headers.get("x-amz-copy-source") else { return Ok(()) };
    if let Some(name) = ["if-match", "if-none-match"].into_iter().find(|name| headers.contains_key(*name)) {
        return Err(s3_error!(NotImplemented, "a copy does not take \"{name}\": leave it out"));
    }
    let source = query::decoded(source.to_str().unwrap_or_default());
    let source = source.strip_prefix('/').unwrap_or(&source);
    let bucket = source.split('/').next().unwrap_or_default();
    if Name::new(bucket).is_ok() && !s3s::path::check_bucket_name(bucket) {
        return Err(s3_error!(
            NotImplemented,
            "a copy cannot be from the bucket \"{bucket}\", whose name AWS does not allow: get the object, and put it"
        ));
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn refused(query: &str, headers: &[(&'static str, &'static str)]) -> bool {
        let uri = format!("/b/k?{query}").parse().unwrap();
        let header = |&(name, value)| (http::HeaderName::from_static(name), HeaderValue::from_static(value));
        match check(&uri, &headers.iter().map(header).collect()) {
            Ok(()) => false,
            Err(error) => {
                assert_eq!(error.code().as_str(), "NotImplemented");
                true
            }
        }
    }

    #[test]
    fn what_the_node_does_not_have_is_refused_and_what_sdks_say_by_themselves_is_taken() {
        for (name, value) in [
            ("x-amz-server-side-encryption", "AES256"),
            ("x-amz-server-side-encryption-customer-key-md5", "x"),
            ("x-amz-copy-source-server-side-encryption-customer-algorithm", "AES256"),
            ("x-amz-acl", "public-read"),
            ("x-amz-grant-read", "id=1"),
            ("x-amz-tagging", "a=b"),
            ("x-amz-object-lock-mode", "COMPLIANCE"),
            ("x-amz-rename-source", "b/k"),
            ("x-amz-bucket-object-lock-enabled", "true"),
            ("x-amz-write-offset-bytes", "5"),
            ("x-amz-if-match-size", "5"),
            ("x-amz-if-match-initiated-time", "x"),
            ("x-amz-checksum-sha512", "AAAA"),
            ("x-amz-checksum-md5", "AAAA"),
            ("x-amz-checksum-xxhash64", "AAAA"),
            ("x-amz-checksum-algorithm", "SHA512"),
            ("x-amz-sdk-checksum-algorithm", "XXHASH3"),
            ("x-amz-trailer", "x-other,x-amz-checksum-sha512"),
        ] {
            assert!(refused("", &[(name, value)]), "{name}");
            assert!(refused(&format!("a=b&{}={value}", name.to_uppercase()), &[]), "{name} in the query");
        }
        for (name, value) in [
            ("x-amz-acl", "private"),
            ("x-amz-acl", "bucket-owner-full-control"),
            ("x-amz-bucket-object-lock-enabled", "false"),
            ("x-amz-storage-class", "STANDARD"),
            ("x-amz-tagging", ""),
            ("x-amz-tagging-directive", "COPY"),
            ("x-amz-sdk-checksum-algorithm", "CRC32"),
            ("x-amz-checksum-algorithm", "crc64nvme"),
            ("x-amz-checksum-sha256", "AAAA"),
            ("x-amz-checksum-mode", "ENABLED"),
            ("x-amz-checksum-type", "COMPOSITE"),
            ("x-amz-trailer", "x-amz-checksum-crc32c, x-other"),
            ("x-amz-meta-x-amz-acl", "public-read"),
            ("if-none-match", "*"),
        ] {
            assert!(!refused("", &[(name, value)]), "{name}");
        }
    }

    #[test]
    fn what_only_a_header_can_say_is_refused_in_a_signed_query() {
        for name in ["x-amz-copy-source", "X-Amz-Copy-Source-If-Match", "x-amz-metadata-directive", "x-amz-trailer"] {
            assert!(refused(&format!("X-Amz-Signature=0&{name}=x"), &[]), "{name}");
            assert!(!refused(&format!("Signature=0&{name}=x"), &[]), "{name}: version 2 repeats the header there");
        }
        assert!(!refused("X-Amz-Signature=0&x-amz-meta-a=b&x-amz-checksum-crc32=AAAAAA", &[]));
    }

    #[test]
    fn a_copy_is_from_a_bucket_of_three_letters_or_more() {
        let from = |source: &'static str| refused("", &[("x-amz-copy-source", source)]);
        assert!(["a/k", "/ab/k", "%61/k", "a%2Fk", "xn--a/k"].into_iter().all(from));
        // s3s says of the last that it is no name.
        assert!(!["abc/k", "/abc/a/k", "abc/k?versionId=null", "A/k"].into_iter().any(from));
        assert!(refused("", &[("x-amz-copy-source", "abc/k"), ("if-none-match", "*")]));
    }
}
