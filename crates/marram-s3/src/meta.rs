//! What is said of an object: S3's headers, times and conditions, and back.

use std::time::{Duration, SystemTime};

use http::{HeaderName, HeaderValue, Uri};
use marram_core::Name;
use marram_core::port::blobs::{Attributes, Expect, Object};
use s3s::dto::{ETag, ETagCondition, Metadata, Timestamp, TimestampFormat};
use s3s::{S3Result, s3_error};

use crate::query;

/// What AWS says of an object that nobody has said a media type of.
pub(crate) const DEFAULT_TYPE: &str = "binary/octet-stream";

/// A bucket of a path that was checked already.
pub(crate) fn bucket(name: &str) -> S3Result<Name> {
    Name::new(name).map_err(|error| s3_error!(InvalidBucketName, "{error}"))
}

pub(crate) fn time(unix_ns: u64) -> Timestamp {
    Timestamp::from(SystemTime::UNIX_EPOCH + Duration::from_nanos(unix_ns))
}

/// To the second, as a header says it (RFC 9110 §5.6.7).
pub(crate) fn header_time(unix_ns: u64) -> Timestamp {
    time(unix_ns / 1_000_000_000 * 1_000_000_000)
}

pub(crate) fn etag(etag: &str) -> ETag {
    ETag::Strong(etag.to_owned())
}

/// The headers of a request that are kept.
pub(crate) struct Kept {
    pub(crate) cache_control: Option<String>,
    pub(crate) content_disposition: Option<String>,
    pub(crate) content_encoding: Option<String>,
    pub(crate) content_language: Option<String>,
    pub(crate) content_type: Option<String>,
    pub(crate) expires: Option<Timestamp>,
    pub(crate) metadata: Option<Metadata>,
}

/// The headers of an input that are kept.
macro_rules! kept {
    ($input:expr) => {
        $crate::meta::Kept {
            cache_control: $input.cache_control.clone(),
            content_disposition: $input.content_disposition.clone(),
            content_encoding: $input.content_encoding.clone(),
            content_language: $input.content_language.clone(),
            content_type: $input.content_type.clone(),
            expires: $input.expires.clone(),
            metadata: $input.metadata.clone(),
        }
    };
}
pub(crate) use kept;

impl Kept {
    pub(crate) fn attributes(self) -> Attributes {
        let expires = self.expires.and_then(|time| {
            let mut text = Vec::new();
            time.format(TimestampFormat::HttpDate, &mut text).ok()?;
            String::from_utf8(text).ok()
        });
        let headers = [
            ("cache-control", self.cache_control),
            ("content-disposition", self.content_disposition),
            ("content-encoding", self.content_encoding.and_then(without_chunks)),
            ("content-language", self.content_language),
            ("expires", expires),
        ];
        let headers = headers.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect();
        let mut user: Vec<_> = self.metadata.into_iter().flatten().collect();
        user.sort_unstable();
        Attributes { content_type: self.content_type, headers, user }
    }
}

/// Adds the user metadata that the query of a signed URL has; what a header says goes first.
pub(crate) fn with_query(metadata: Option<Metadata>, uri: &Uri) -> S3Result<Option<Metadata>> {
    let mut all = metadata.unwrap_or_default();
    for (name, value) in query::hoisted(uri) {
        let Some(key) = name.strip_prefix("x-amz-meta-").filter(|key| !key.is_empty()) else { continue };
        // It comes back as a header.
        if HeaderName::try_from(&name).is_err() || HeaderValue::try_from(&value).is_err() {
            return Err(s3_error!(InvalidArgument, "{name:?} of the query could not be a header: leave it out"));
        }
        all.entry(key.to_owned()).or_insert(value);
    }
    Ok((!all.is_empty()).then_some(all))
}

/// `aws-chunked` is how the body came, and not what it is.
fn without_chunks(encodings: String) -> Option<String> {
    let rest: Vec<_> = encodings.split(',').map(str::trim).filter(|encoding| *encoding != "aws-chunked").collect();
    (!rest.is_empty()).then(|| rest.join(","))
}

pub(crate) fn header(object: &Object, name: &str) -> Option<String> {
    object.attributes.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.clone())
}

pub(crate) fn metadata(object: &Object) -> Option<Metadata> {
    let user = &object.attributes.user;
    (!user.is_empty()).then(|| user.iter().cloned().collect())
}

/// Fills what a get and a head have in common.
macro_rules! describe {
    ($object:expr, $output:expr, $with_checksum:expr) => {{
        let object: &marram_core::port::blobs::Object = $object;
        $output.accept_ranges = Some("bytes".to_owned());
        $output.cache_control = $crate::meta::header(object, "cache-control");
        $output.content_disposition = $crate::meta::header(object, "content-disposition");
        $output.content_encoding = $crate::meta::header(object, "content-encoding");
        $output.content_language = $crate::meta::header(object, "content-language");
        $output.expires = $crate::meta::header(object, "expires")
            .and_then(|text| s3s::dto::Timestamp::parse(s3s::dto::TimestampFormat::HttpDate, &text).ok());
        let content_type = object.attributes.content_type.clone();
        $output.content_type = Some(content_type.unwrap_or_else(|| $crate::meta::DEFAULT_TYPE.to_owned()));
        $output.e_tag = Some($crate::meta::etag(&object.etag));
        $output.last_modified = Some($crate::meta::time(object.modified_unix_ns));
        $output.metadata = $crate::meta::metadata(object);
        if $with_checksum {
            $crate::checksum::say!(&object.checksum, $output);
            $output.checksum_type = object.checksum.as_ref().map($crate::meta::checksum_type);
        }
    }};
}
pub(crate) use describe;

pub(crate) fn checksum_type(checksum: &marram_core::port::blobs::Checksum) -> s3s::dto::ChecksumType {
    use s3s::dto::ChecksumType;
    let of_parts = checksum.value.contains('-');
    ChecksumType::from_static(if of_parts { ChecksumType::COMPOSITE } else { ChecksumType::FULL_OBJECT })
}

/// What a write expects.
pub(crate) fn expect(if_match: Option<&ETagCondition>, if_none_match: Option<&ETagCondition>) -> S3Result<Expect> {
    match (if_match, if_none_match) {
        (None, None) => Ok(Expect::Any),
        (Some(ETagCondition::Any), None) => Ok(Expect::Present),
        (Some(ETagCondition::ETag(etag)), None) => Ok(Expect::Etag(etag.value().to_owned())),
        (None, Some(ETagCondition::Any)) => Ok(Expect::Absent),
        (_, Some(_)) => {
            Err(s3_error!(NotImplemented, "of If-None-Match, a write takes \"*\" only, and no If-Match beside it"))
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn metadata_is_taken_from_a_signed_query_too() {
        let said = |query: &str| -> S3Result<String> {
            let header = Metadata::from_iter([("a".to_owned(), "header".to_owned())]);
            let uri = format!("/b/k?{query}").parse().unwrap();
            let mut found: Vec<_> = with_query(Some(header), &uri)?.into_iter().flatten().collect();
            found.sort_unstable();
            Ok(found.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(" "))
        };
        assert_eq!(said("X-Amz-Signature=0&x-amz-meta-b=c%20d").unwrap(), "a=header b=c d");
        assert_eq!(said("X-Amz-Signature=0&x-amz-meta-a=query&x-amz-meta-=x").unwrap(), "a=header");
        assert_eq!(said("x-amz-meta-b=c").unwrap(), "a=header");
        for bad in ["x-amz-meta-b=c%0d%0ad", "x-amz-meta-b%20c=d"] {
            let refused = said(&format!("X-Amz-Signature=0&{bad}")).unwrap_err();
            assert_eq!(refused.code().as_str(), "InvalidArgument", "{bad}");
        }
        assert!(with_query(None, &Uri::from_static("/b/k")).unwrap().is_none());
    }

    #[test]
    fn how_a_body_came_is_not_kept() {
        assert_eq!(without_chunks("aws-chunked".into()), None);
        assert_eq!(without_chunks("aws-chunked, gzip".into()).as_deref(), Some("gzip"));
        assert_eq!(without_chunks("br,gzip".into()).as_deref(), Some("br,gzip"));
    }
}
