//! What a conditional request asks for (RFC 9110 §13). s3s knows no lists of etags, so these are read as they came.

use http::HeaderMap;
use marram_core::port::blobs::Object;
use s3s::S3ErrorCode;
use s3s::dto::Timestamp;

use crate::meta;

/// The conditions of one request.
pub(crate) struct Conditions<'a> {
    pub(crate) if_match: Option<&'a [u8]>,
    pub(crate) if_none_match: Option<&'a [u8]>,
    pub(crate) if_modified_since: Option<&'a Timestamp>,
    pub(crate) if_unmodified_since: Option<&'a Timestamp>,
}

/// The list of etags in this header. That it comes once, s3s has seen to.
pub(crate) fn etags<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a [u8]> {
    headers.get(name).map(http::HeaderValue::as_bytes).filter(|list| !list.is_empty())
}

impl Conditions<'_> {
    /// Whether there is none.
    pub(crate) const fn is_empty(&self) -> bool {
        self.if_match.is_none()
            && self.if_none_match.is_none()
            && self.if_modified_since.is_none()
            && self.if_unmodified_since.is_none()
    }

    /// Whether the object is what is asked for, in the order of RFC 9110 §13.2.2; otherwise the error's code.
    pub(crate) fn check(&self, object: &Object) -> Result<(), S3ErrorCode> {
        let modified = meta::header_time(object.modified_unix_ns);
        let holds = match (self.if_match, self.if_unmodified_since) {
            (Some(list), _) => names(list, &object.etag, false),
            (None, Some(since)) => modified <= *since,
            (None, None) => true,
        };
        if !holds {
            return Err(S3ErrorCode::PreconditionFailed);
        }
        let is_old = match (self.if_none_match, self.if_modified_since) {
            (Some(list), _) => names(list, &object.etag, true),
            (None, Some(since)) => modified <= *since,
            (None, None) => false,
        };
        if is_old { Err(S3ErrorCode::NotModified) } else { Ok(()) }
    }
}

/// Whether a list names this etag, or all of them. Some clients leave the quotes out. Weak etags count where the
/// comparison is weak (RFC 9110 §8.8.3.2).
fn names(list: &[u8], etag: &str, weak: bool) -> bool {
    let mut rest = list.trim_ascii();
    if rest == b"*" {
        return true;
    }
    while !rest.is_empty() {
        let (is_weak, tag) = rest.strip_prefix(b"W/").map_or((false, rest), |tag| (true, tag));
        let (tag, end) = tag.strip_prefix(b"\"").map_or((tag, b','), |quoted| (quoted, b'"'));
        let length = tag.iter().position(|byte| *byte == end).unwrap_or(tag.len());
        let (value, after) = tag.split_at(length);
        if value.trim_ascii_end() == etag.as_bytes() && (weak || !is_weak) {
            return true;
        }
        let next = after.iter().position(|byte| *byte == b',').map_or(after.len(), |at| at + 1);
        rest = after[next..].trim_ascii_start();
    }
    false
}

#[cfg(test)]
mod tests {
    use marram_core::port::blobs::{Attributes, Version};

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

    const fn none() -> Conditions<'static> {
        Conditions { if_match: None, if_none_match: None, if_modified_since: None, if_unmodified_since: None }
    }

    #[test]
    fn conditions_are_looked_at_in_the_order_of_the_standard() {
        let (right, wrong): (&[u8], &[u8]) = (b"\"e\"", b"\"x\"");
        let (then, before) = (meta::time(1_700_000_000_000_000_000), meta::time(1_600_000_000_000_000_000));
        assert_eq!(check(&none()), "200");
        assert_eq!(check(&Conditions { if_match: Some(right), if_unmodified_since: Some(&before), ..none() }), "200");
        assert_eq!(check(&Conditions { if_match: Some(wrong), ..none() }), "412");
        assert_eq!(check(&Conditions { if_unmodified_since: Some(&before), ..none() }), "412");
        // The header has whole seconds.
        assert_eq!(check(&Conditions { if_unmodified_since: Some(&then), ..none() }), "200");
        assert_eq!(check(&Conditions { if_modified_since: Some(&then), ..none() }), "304");
        assert_eq!(check(&Conditions { if_modified_since: Some(&before), ..none() }), "200");
        assert_eq!(
            check(&Conditions { if_none_match: Some(right), if_modified_since: Some(&before), ..none() }),
            "304"
        );
        assert_eq!(check(&Conditions { if_none_match: Some(wrong), if_modified_since: Some(&then), ..none() }), "200");
    }

    #[test]
    fn a_list_names_each_of_its_etags_and_a_weak_one_is_no_match() {
        for (list, if_match, if_none_match) in [
            ("*", "200", "304"),
            ("e", "200", "304"),
            ("\"x\", \"e\"", "200", "304"),
            ("\"e\" , \"x\"", "200", "304"),
            ("\"x\",\"e\",\"y\"", "200", "304"),
            ("x, e", "200", "304"),
            ("W/\"e\"", "412", "304"),
            ("W/\"x\", W/\"e\"", "412", "304"),
            ("W/\"e\", \"e\"", "200", "304"),
            ("\"x\", \"y\"", "412", "200"),
            // One etag, with a comma in it.
            ("\"x, e\"", "412", "200"),
            ("\"x,e,y\"", "412", "200"),
            (",", "412", "200"),
        ] {
            let list = Some(list.as_bytes());
            let found =
                (check(&Conditions { if_match: list, ..none() }), check(&Conditions { if_none_match: list, ..none() }));
            assert_eq!(found, (if_match, if_none_match), "{list:?}");
        }
    }
}
