//! Which bytes of an object are asked for (RFC 9110 §14). s3s fails at a range that the standard wants ignored, so that is taken
//! out before s3s sees it.

use http::header::{IF_RANGE, RANGE};
use http::{HeaderMap, HeaderValue, Method};
use marram_core::port::blobs::Object;

/// No content is as large, and s3s takes no larger number.
const POSITION_MAX: u64 = i64::MAX as u64;

/// Leaves `Range` only where it is one range of bytes, and this a `GET` (RFC 9110 §14.2). It must not be a header that was signed.
pub(crate) fn tidy(method: &Method, headers: &mut HeaderMap) {
    if !matches!(*method, Method::GET | Method::HEAD) || !headers.contains_key(RANGE) {
        return;
    }
    let mut values = headers.get_all(RANGE).iter();
    let value = values.next().filter(|_| method == Method::GET && values.next().is_none());
    let range = value.and_then(|value| one(value.to_str().ok()?));
    match range.and_then(|range| HeaderValue::try_from(range).ok()) {
        Some(range) => drop(headers.insert(RANGE, range)),
        None => drop(headers.remove(RANGE)),
    }
}

/// One range of bytes as s3s takes it: an end that is too large is the end of the content. `None` is for what is to be ignored:
/// other units, several ranges, and what is no range.
fn one(text: &str) -> Option<String> {
    let (unit, range) = text.split_once('=')?;
    let (first, last) = range.trim_ascii().split_once('-')?;
    let are_digits = [first, last].iter().all(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    if !unit.eq_ignore_ascii_case("bytes") || !are_digits {
        return None;
    }
    // Digits that are no number are too many.
    let number = |text: &str| text.parse().unwrap_or(POSITION_MAX).min(POSITION_MAX);
    match (first, last) {
        ("", "") => None,
        ("", last) => Some(format!("bytes=-{}", number(last))),
        (first, "") => Some(format!("bytes={}-", number(first))),
        (first, last) => {
            let (first, last) = (number(first), number(last));
            (first <= last).then(|| format!("bytes={first}-{last}"))
        }
    }
}

/// Whether the client still has the other part of this content (RFC 9110 §13.1.5). By a date nobody can say so: a content may be
/// replaced twice in a second.
pub(crate) fn fits(headers: &HeaderMap, object: &Object) -> bool {
    let etag = || format!("\"{}\"", object.etag);
    headers.get(IF_RANGE).is_none_or(|value| value.as_bytes() == etag().as_bytes())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_single_range_of_bytes_is_ignored() {
        for (text, expected) in [
            ("bytes=0-1", Some("bytes=0-1")),
            ("Bytes= 5- ", Some("bytes=5-")),
            ("bytes=-10", Some("bytes=-10")),
            ("bytes=007-8", Some("bytes=7-8")),
            ("bytes=3-18446744073709551616", Some("bytes=3-9223372036854775807")),
            ("bytes=9223372036854775808-", Some("bytes=9223372036854775807-")),
            ("bytes=-99999999999999999999", Some("bytes=-9223372036854775807")),
            ("bytes=0-1,3-4", None),
            ("bytes=5-2", None),
            ("bytes=a-b", None),
            ("bytes=+1-2", None),
            ("bytes=--1", None),
            ("bytes=-", None),
            ("bytes=", None),
            ("bytes", None),
            ("lines=0-1", None),
            ("", None),
        ] {
            assert_eq!(one(text).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn a_range_is_for_a_get_and_comes_once() {
        let left = |method: Method, values: &[&'static str]| {
            let mut headers: HeaderMap = values.iter().map(|value| (RANGE, HeaderValue::from_static(value))).collect();
            tidy(&method, &mut headers);
            headers.get(RANGE).map(|value| value.to_str().unwrap().to_owned())
        };
        assert_eq!(left(Method::GET, &["bytes=0-1"]).as_deref(), Some("bytes=0-1"));
        assert_eq!(left(Method::GET, &["lines=0-1"]), None);
        assert_eq!(left(Method::HEAD, &["bytes=0-1"]), None);
        assert_eq!(left(Method::GET, &["bytes=0-1", "bytes=0-1"]), None);
        assert_eq!(left(Method::GET, &[]), None);
    }
}
