//! The first line of an HTTP/1 request: `METHOD target HTTP/1.x`.
//!
//! What hyper would refuse is refused here, so that the client is told why. It never decides where a target leads.

use http::Uri;
use marram_core::Kind;

use crate::framing::Refused;

pub(crate) const URI_TOO_LONG: Refused = (Kind::UriTooLong, "the request target is too long");

/// Method, version and spaces of a request line; a method of ours has at most 24 bytes.
pub(crate) const LINE_BESIDES_URI: usize = 40;

/// Whether the line says HTTP/1.1, and not HTTP/1.0.
pub(crate) fn parse(line: &[u8], uri_max: usize) -> Result<bool, Refused> {
    let wrong = (Kind::BadRequest, "the request line is not `METHOD target HTTP/1.1`");
    let method_end = line.iter().position(|b| *b == b' ').ok_or(wrong)?;
    let (method, rest) = (&line[..method_end], &line[method_end + 1..]);
    let (target, version) = rest.split_at(rest.iter().position(|b| *b == b' ').unwrap_or(rest.len()));
    if target.len() > uri_max {
        return Err(URI_TOO_LONG);
    }
    if method.is_empty() || target.is_empty() || !method.iter().all(|b| TOKEN[usize::from(*b)]) {
        return Err(wrong);
    }
    let version_11 = match version {
        b" HTTP/1.1" => true,
        b" HTTP/1.0" => false,
        _ => return Err(wrong),
    };
    if method == b"CONNECT" {
        return Err((Kind::BadRequest, "there are no tunnels here"));
    }
    if !has_target_bytes(target) {
        return Err((Kind::BadRequest, "the target of the request line has characters that must be escaped"));
    }
    if !has_form(method, target) {
        return Err((Kind::BadRequest, "the target of the request line is neither a path nor an absolute URL"));
    }
    Ok(version_11)
}

/// Whether no byte of a target would have had to be escaped. Of what RFC 3986 excludes, browsers leave some as it is (URL
/// Standard, percent-encode sets of path and query): this passes.
pub(crate) fn has_target_bytes(target: &[u8]) -> bool {
    // Without an early exit, so that it runs over many bytes at once.
    let plain = |b: u8| (b > b' ') & (b < 0x7f) & (b != b'"') & (b != b'#') & (b != b'<') & (b != b'>');
    let path = target.split(|b| *b == b'?').next().unwrap_or_default();
    target.iter().fold(true, |good, b| good & plain(*b)) && !path.contains(&b'`')
}

/// RFC 9112 §3.2: a path, an absolute URL, or `*` of the whole server. A host alone is for `CONNECT` only; others would
/// take it for a path.
fn has_form(method: &[u8], target: &[u8]) -> bool {
    match target {
        [b'/', ..] => true,
        b"*" => method == b"OPTIONS",
        _ => Uri::try_from(target).is_ok_and(|uri| uri.scheme_str().is_some_and(|scheme| !scheme.is_empty())),
    }
}

/// RFC 9110 §5.6.2: the characters of a token.
pub(crate) const TOKEN: [bool; 256] = {
    let mut table = [false; 256];
    let mut at = 0;
    while at < 128 {
        let byte = at as u8;
        table[at] = byte.is_ascii_alphanumeric();
        at += 1;
    }
    let others = b"!#$%&'*+-.^_`|~";
    at = 0;
    while at < others.len() {
        table[others[at] as usize] = true;
        at += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(line: &str, expected: Result<bool, &str>) {
        let told = parse(line.as_bytes(), 100).map_err(|(_, message)| message);
        match expected {
            Ok(version_11) => assert_eq!(told, Ok(version_11), "{line}"),
            Err(part) => assert!(told.is_err_and(|message| message.contains(part)), "{line}: {told:?}"),
        }
    }

    #[test]
    fn targets_are_paths_or_absolute_urls() {
        for target in
            ["/", "//a", "/a:b", "/a?b=`{}|^\\[]", "/{a}|b", "http://a", "HTTP://a/b?c", "http://a:80?b", "ftp://a/"]
        {
            check(&format!("GET {target} HTTP/1.1"), Ok(true));
            check(&format!("GET {target} HTTP/1.0"), Ok(false));
        }
        check("OPTIONS * HTTP/1.1", Ok(true));
        for target in
            ["*", "**", "shop.example", "shop.example:80", "a/b", "?a", "http:/a", "http://", "http:///a", "://a"]
        {
            check(&format!("GET {target} HTTP/1.1"), Err("neither a path"));
        }
        for target in ["http://a:b:c/", "http://[::1/", "http://a:x:80/", &format!("{}://a/", "x".repeat(70))] {
            check(&format!("GET {target} HTTP/1.1"), Err("neither a path"));
        }
        for target in ["a:1", "/", "http://a/", "a:b:c"] {
            check(&format!("CONNECT {target} HTTP/1.1"), Err("tunnels"));
        }
    }

    #[test]
    fn characters_that_must_be_escaped_are_refused() {
        for target in
            ["/#", "/a#b", "/<", "/>", "/\"", "/`", "/a?\"", "/a?<", "/a?>", "/a?#", "http://a/#", "/\u{e9}", "/\u{7f}"]
        {
            check(&format!("GET {target} HTTP/1.1"), Err("must be escaped"));
        }
    }

    /// What passes here, hyper takes as well: it would refuse it without a word.
    #[test]
    fn every_path_that_passes_is_a_uri() {
        for byte in 0..=255 {
            for target in [&[b'/', byte][..], &[b'/', b'?', byte]] {
                assert!(!has_target_bytes(target) || Uri::try_from(target).is_ok(), "{target:?}");
            }
        }
    }
}
