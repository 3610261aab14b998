//! The query of a request, taken apart as s3s does.

use http::Uri;

/// The names and values, in the order in which they come.
pub(crate) fn pairs(uri: &Uri) -> Vec<(String, String)> {
    let pair = |text: &str| {
        let (name, value) = text.split_once('=').unwrap_or((text, ""));
        (decoded(name), decoded(value))
    };
    uri.query().unwrap_or_default().split('&').filter(|text| !text.is_empty()).map(pair).collect()
}

/// Headers that the signer of an URL of version 4 has moved into its query, as some SDKs do; their names in small letters. They
/// are signed there. In the query of another request they mean nothing.
pub(crate) fn hoisted(uri: &Uri) -> Vec<(String, String)> {
    let pairs = pairs(uri);
    if !pairs.iter().any(|(name, _)| name == "X-Amz-Signature") {
        return Vec::new();
    }
    let small = pairs.into_iter().map(|(name, value)| (name.to_ascii_lowercase(), value));
    small.filter(|(name, _)| name.starts_with("x-amz-")).collect()
}

/// One of those, if it is there and says something.
pub(crate) fn hoisted_value(uri: &Uri, name: &str) -> Option<String> {
    hoisted(uri).into_iter().find(|(found, value)| found == name && !value.is_empty()).map(|(_, value)| value)
}

/// Takes the encoding of forms away (WHATWG URL §5.1); what is none stays.
pub(crate) fn decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let (mut decoded, mut at) = (Vec::with_capacity(bytes.len()), 0);
    while at < bytes.len() {
        let digit = |at: usize| bytes.get(at).and_then(|byte| char::from(*byte).to_digit(16));
        let (byte, length) = match (bytes[at], digit(at + 1), digit(at + 2)) {
            (b'%', Some(high), Some(low)) => ((high * 16 + low) as u8, 3),
            (b'+', ..) => (b' ', 1),
            (byte, ..) => (byte, 1),
        };
        decoded.push(byte);
        at += length;
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_taken_apart_before_it_is_decoded() {
        let uri = Uri::from_static("/b/k?a=1%26b=2&&c&d+e=%2B%zz%4&%41=%C3%A4=%FF");
        let found = pairs(&uri);
        let found: Vec<_> = found.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(found, [("a", "1&b=2"), ("c", ""), ("d e", "+%zz%4"), ("A", "ä=\u{fffd}")]);
        assert!(pairs(&Uri::from_static("/b/k")).is_empty());
    }

    #[test]
    fn headers_are_in_the_query_of_an_url_that_was_signed_there() {
        let uri = Uri::from_static("/b/k?X-Amz-Signature=0&X-AMZ-Meta-A=B+c&x-id=PutObject&x-amz-meta-d=");
        assert_eq!(hoisted_value(&uri, "x-amz-meta-a").as_deref(), Some("B c"));
        assert_eq!(hoisted_value(&uri, "x-amz-meta-d"), None);
        assert_eq!(hoisted(&uri).len(), 3, "the signature itself is one");
        // An URL of version 2 does not cover it, and a signature in a header is of another kind of request.
        for other in ["/b/k?Signature=0&x-amz-meta-a=b", "/b/k?x-amz-meta-a=b"] {
            assert!(hoisted(&Uri::from_static(other)).is_empty(), "{other}");
        }
    }
}
