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
}
