//! Which fields pass the front, and which are between two neighbours only (RFC 9110 §7.6.1).

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use marram_core::hop::HOP_BY_HOP;
use marram_core::{Failure, Kind};

/// What `connection` may not take away from a message. A trusted proxy that passes its client's `connection` on still says
/// who that is (CVE-2022-31813).
const NEVER_NAMED: [&str; 8] = [
    "host",
    "content-length",
    "authorization",
    "cookie",
    "forwarded",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
];

/// Removes from a request what is not for the function: fields of this connection, `expect`, which the front answers, and
/// `marram-*`, which only the front sets, with what [`imitates`] it. `te` stays as far as it is true: trailers do pass. What
/// the front sets comes after this, or `connection` could take it away.
pub(crate) fn clean_request(headers: &mut HeaderMap) {
    let mut hop = false;
    let mut ours = false;
    let mut cookie = false;
    for name in headers.keys() {
        match *name {
            header::CONNECTION
            | header::TRANSFER_ENCODING
            | header::UPGRADE
            | header::PROXY_AUTHENTICATE
            | header::PROXY_AUTHORIZATION
            | header::TE
            | header::EXPECT => hop = true,
            header::COOKIE => cookie = true,
            _ => {
                let name = name.as_str();
                match name.as_bytes()[0] {
                    b'm' => ours |= name.starts_with("marram-") || imitates(name),
                    b'x' => ours |= imitates(name),
                    b'k' | b'p' | b'h' => hop |= HOP_BY_HOP[5..].iter().any(|other| other == name),
                    _ => {}
                }
            }
        }
    }
    if hop {
        let trailers = wants_trailers(headers);
        remove_hop_by_hop(headers);
        headers.remove(header::EXPECT);
        headers.remove(header::TE);
        if trailers {
            headers.insert(header::TE, HeaderValue::from_static("trailers"));
        }
    }
    if ours {
        remove_where(headers, |name| name.as_str().starts_with("marram-") || imitates(name.as_str()));
    }
    if cookie {
        join_cookies(headers);
    }
}

/// RFC 9113 §8.2.3: several `cookie` fields are one, whose parts a semicolon separates. Joined by a comma, as other fields
/// are, they would be read wrongly.
fn join_cookies(headers: &mut HeaderMap) {
    if headers.get_all(header::COOKIE).iter().nth(1).is_none() {
        return;
    }
    let fields: Vec<&[u8]> = headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
    let one = HeaderValue::from_bytes(&fields.join(&b"; "[..])).expect("header values joined are a header value");
    headers.insert(header::COOKIE, one);
}

/// Removes from an answer what is not for the client, and makes its length true. Returns the declared length.
pub(crate) fn clean_answer(headers: &mut HeaderMap, exact: Option<u64>) -> Result<Option<u64>, Failure> {
    let hop = |name: &HeaderName| {
        matches!(
            *name,
            header::CONNECTION
                | header::TRANSFER_ENCODING
                | header::UPGRADE
                | header::PROXY_AUTHENTICATE
                | header::PROXY_AUTHORIZATION
        ) || HOP_BY_HOP[5..].contains(name)
    };
    if headers.keys().any(hop) {
        remove_hop_by_hop(headers);
    }
    let mut declared = headers.get_all(header::CONTENT_LENGTH).iter();
    let Some(first) = declared.next() else { return Ok(exact) };
    let length = first.to_str().ok().filter(|text| text.bytes().all(|b| b.is_ascii_digit()));
    match length.and_then(|text| text.parse().ok()) {
        Some(length) if declared.next().is_none() && exact.is_none_or(|exact| exact == length) => Ok(Some(length)),
        _ => Err(Failure::new(Kind::NoResponse, "the function's content-length is not the length of its answer")),
    }
}

/// Removes from trailers what frames or routes a message, or says who sent it (RFC 9110 §6.5.1).
pub(crate) fn clean_trailers(trailers: &mut HeaderMap) {
    remove_hop_by_hop(trailers);
    let framing = [header::TE, header::TRAILER, header::CONTENT_LENGTH, header::HOST, header::FORWARDED];
    remove_where(trailers, |name| framing.contains(name) || is_ours(name) || imitates(name.as_str()));
}

/// Fields that say something in the front's name.
fn is_ours(name: &HeaderName) -> bool {
    let name = name.as_str();
    name.starts_with("marram-") || name.starts_with("x-forwarded-") || name == "traceparent" || name == "tracestate"
}

/// Fields that are such ones where `_` is read as `-`. CGI and WSGI do that: `marram_trigger` and `marram-trigger` are both
/// `HTTP_MARRAM_TRIGGER` (RFC 3875 §4.1.18).
fn imitates(name: &str) -> bool {
    if !name.contains('_') {
        return false;
    }
    let read = name.replace('_', "-");
    read.starts_with("marram-") || read.starts_with("x-forwarded-") || read == "x-real-ip"
}

fn remove_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .flat_map(|value| value.as_bytes().split(|b| *b == b','))
        .filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok())
        .filter(|name| !NEVER_NAMED.contains(&name.as_str()))
        .collect();
    for name in named.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
}

fn remove_where(headers: &mut HeaderMap, unwanted: impl Fn(&HeaderName) -> bool) {
    let names: Vec<HeaderName> = headers.keys().filter(|name| unwanted(name)).cloned().collect();
    for name in names {
        headers.remove(name);
    }
}

/// Removes every `x-forwarded-*` and what else would say where a request came from.
pub(crate) fn remove_forwarded(headers: &mut HeaderMap) {
    let claims = |name: &HeaderName| name.as_str().starts_with("x-forwarded-") || name.as_str() == "x-real-ip";
    if headers.keys().any(claims) {
        remove_where(headers, claims);
    }
}

fn wants_trailers(headers: &HeaderMap) -> bool {
    let is_trailers = |part: &[u8]| part.trim_ascii().eq_ignore_ascii_case(b"trailers");
    headers.get_all(header::TE).iter().any(|value| value.as_bytes().split(|b| *b == b',').any(is_trailers))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(text: &str) -> HeaderMap {
        let parse = |line: &str| {
            let (name, value) = line.split_once(": ").expect(line);
            (name.parse::<HeaderName>().expect(name), HeaderValue::from_str(value).expect(value))
        };
        text.lines().map(parse).collect()
    }

    fn check_request(before: &str, after: &str) {
        let mut headers = map(before);
        clean_request(&mut headers);
        assert_eq!(headers, map(after), "of:\n{before}");
    }

    #[test]
    fn requests_lose_what_belongs_to_the_connection() {
        check_request("host: a\naccept: b", "host: a\naccept: b");
        check_request("connection: close, X-Mine\nx-mine: 1\nx-other: 2", "x-other: 2");
        check_request("connection: host, cookie, content-length\nhost: a\ncookie: b", "host: a\ncookie: b");
        check_request("keep-alive: 5\nproxy-connection: x\nhttp2-settings: x\nupgrade: h2c\nexpect: 100-continue", "");
        check_request("proxy-authorization: x\ntransfer-encoding: chunked", "");
        check_request("te: gzip, Trailers;q=1", "");
        check_request("te: gzip, Trailers", "te: trailers");
        check_request("marram-param-id: 1\nMarram-Anything: 2\nmarramesque: 3", "marramesque: 3");
        check_request("connection: a\nconnection: b\na: 1\nb: 2\nc: 3", "c: 3");
        let origin = "forwarded: for=a\nx-forwarded-for: a\nx-forwarded-host: b\nx-forwarded-proto: https";
        let names = "forwarded, X-Forwarded-For, x-forwarded-host, x-forwarded-proto";
        check_request(&format!("connection: {names}\n{origin}"), origin);
    }

    #[test]
    fn several_cookie_fields_are_one() {
        check_request("cookie: a=1", "cookie: a=1");
        check_request("cookie: a=1\nx: y\ncookie: b=2; c=3\ncookie: d=\"4\"", "cookie: a=1; b=2; c=3; d=\"4\"\nx: y");
    }

    #[test]
    fn lengths_of_answers_are_true() {
        let check = |text: &str, exact, expected: Option<Option<u64>>| {
            assert_eq!(clean_answer(&mut map(text), exact).ok(), expected, "{text} {exact:?}");
        };
        check("a: b", None, Some(None));
        check("a: b", Some(3), Some(Some(3)));
        check("content-length: 3", Some(3), Some(Some(3)));
        check("content-length: 3", None, Some(Some(3)));
        check("content-length: 3", Some(4), None);
        check("content-length: 3\ncontent-length: 3", None, None);
        check("content-length: -3", None, None);
        check("content-length: +3", None, None);
    }
}
