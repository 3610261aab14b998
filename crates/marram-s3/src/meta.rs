//! What is said of an object: S3's headers, times and conditions, and back.

use std::time::{Duration, SystemTime};

use marram_core::Name;
use marram_core::port::blobs::{Attributes, Expect, Object};
use s3s::dto::{ETag, ETagCondition, Metadata, Timestamp, TimestampFormat};
use s3s::{S3ErrorCode, S3Result, s3_error};

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
fn header_time(unix_ns: u64) -> Timestamp {
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

/// What a conditional request asks for (RFC 9110 §13).
pub(crate) struct Conditions<'a> {
    pub(crate) if_match: Option<&'a ETagCondition>,
    pub(crate) if_none_match: Option<&'a ETagCondition>,
    pub(crate) if_modified_since: Option<&'a Timestamp>,
    pub(crate) if_unmodified_since: Option<&'a Timestamp>,
}

impl Conditions<'_> {
    /// Whether the object is what is asked for, in the order of RFC 9110 §13.2.2; otherwise the error's code.
    pub(crate) fn check(&self, object: &Object) -> Result<(), S3ErrorCode> {
        let is = |condition: &ETagCondition| match condition {
            ETagCondition::Any => true,
            ETagCondition::ETag(wanted) => wanted.value() == object.etag,
        };
        let modified = header_time(object.modified_unix_ns);
        let holds = match (self.if_match, self.if_unmodified_since) {
            (Some(condition), _) => is(condition),
            (None, Some(since)) => modified <= *since,
            (None, None) => true,
        };
        if !holds {
            return Err(S3ErrorCode::PreconditionFailed);
        }
        let is_old = match (self.if_none_match, self.if_modified_since) {
            (Some(condition), _) => is(condition),
            (None, Some(since)) => modified <= *since,
            (None, None) => false,
        };
        if is_old { Err(S3ErrorCode::NotModified) } else { Ok(()) }
    }
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
    use marram_core::port::blobs::Version;

    use super::*;

    fn check(conditions: &Conditions<'_>) -> &'static str {
        let object = Object {
            name: "k".into(),
            size: 1,
            digest: None,
            etag: "e".into(),
            attributes: Attributes::default(),
            checksum: None,
            modified_unix_ns: 1_700_000_000_900_000_000,
            version: Version(1),
        };
        match conditions.check(&object) {
            Ok(()) => "200",
            Err(S3ErrorCode::NotModified) => "304",
            Err(_) => "412",
        }
    }

    #[test]
    fn conditions_are_looked_at_in_the_order_of_the_standard() {
        let none =
            || Conditions { if_match: None, if_none_match: None, if_modified_since: None, if_unmodified_since: None };
        let (right, wrong) = (ETagCondition::ETag(etag("e")), ETagCondition::ETag(etag("x")));
        let (then, before) = (time(1_700_000_000_000_000_000), time(1_600_000_000_000_000_000));
        assert_eq!(check(&none()), "200");
        assert_eq!(check(&Conditions { if_match: Some(&right), if_unmodified_since: Some(&before), ..none() }), "200");
        assert_eq!(check(&Conditions { if_match: Some(&wrong), ..none() }), "412");
        assert_eq!(check(&Conditions { if_unmodified_since: Some(&before), ..none() }), "412");
        // The header has whole seconds.
        assert_eq!(check(&Conditions { if_unmodified_since: Some(&then), ..none() }), "200");
        assert_eq!(check(&Conditions { if_modified_since: Some(&then), ..none() }), "304");
        assert_eq!(check(&Conditions { if_modified_since: Some(&before), ..none() }), "200");
        assert_eq!(
            check(&Conditions { if_none_match: Some(&right), if_modified_since: Some(&before), ..none() }),
            "304"
        );
        assert_eq!(check(&Conditions { if_none_match: Some(&wrong), if_modified_since: Some(&then), ..none() }), "200");
        assert_eq!(check(&Conditions { if_none_match: Some(&ETagCondition::Any), ..none() }), "304");
    }

    #[test]
    fn how_a_body_came_is_not_kept() {
        assert_eq!(without_chunks("aws-chunked".into()), None);
        assert_eq!(without_chunks("aws-chunked, gzip".into()).as_deref(), Some("gzip"));
        assert_eq!(without_chunks("br,gzip".into()).as_deref(), Some("br,gzip"));
    }
}
