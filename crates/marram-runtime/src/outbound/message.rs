//! What goes on the wire and what comes off it: headers of one connection end here (RFC 9110 §7.6.1), `Host` follows
//! from the URI, and a declared length is one that can be kept.

use http::header::{CONNECTION, CONTENT_LENGTH, HOST, HeaderName, TE};
use http::request::Parts;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderValue, Method, Uri, Version};
use http_body::Body as _;
use marram_core::hop::HOP_BY_HOP;
use marram_core::port::Body;

use super::OutboundError;
use super::limits::REQUEST_HEADER_BYTES_MAX;
use super::target::Origin;

/// Makes the head of a request fit to be sent, and says how long its body has to be, where it declares that.
pub(super) fn prepare(head: &mut Parts, body: &Body) -> Result<Option<u64>, OutboundError> {
    let invalid = |why| Err(OutboundError::RequestInvalid { why });
    if head.method == Method::CONNECT {
        return invalid("a tunnel (CONNECT) is not a request that a function can make");
    }
    let bytes: usize = head.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    if bytes > REQUEST_HEADER_BYTES_MAX {
        return invalid("its header section is over 64 KiB: send what is large in the body");
    }
    // `TE` is of this connection too, but what it asks for can be had here: trailers, and nothing else.
    let trailers = header_lists(&head.headers, &TE, "trailers");
    strip_hop_by_hop(&mut head.headers);
    head.headers.remove(TE);
    if trailers {
        head.headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    let declared = match content_length(&head.headers) {
        Ok(declared) => declared,
        Err(why) => return invalid(why),
    };
    let Some(length) = declared else {
        // The client says that there is nothing where a body would be usual (RFC 9110 §8.6).
        if body.is_end_stream() && [Method::POST, Method::PUT, Method::PATCH].contains(&head.method) {
            head.headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
        return Ok(None);
    };
    if body.size_hint().exact().is_some_and(|exact| exact != length) {
        return invalid("its content-length is not the length of its body: leave the header out");
    }
    head.headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    Ok(Some(length))
}

/// Writes the target as the protocol wants it: HTTP/1.1 in origin form with `Host` (RFC 9112 §3.2.1), HTTP/2 in
/// pseudo-headers, which are made from the URI (RFC 9113 §8.3.1). Can be done again for another connection.
pub(super) fn address(head: &mut Parts, origin: &Origin, h2: bool) -> Result<(), OutboundError> {
    let path = head.uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
    let authority = origin.authority();
    let bad = |_: http::Error| OutboundError::UriInvalid { uri: origin.to_string(), why: "its host cannot be sent" };
    if h2 {
        let authority = Authority::try_from(authority.as_str()).map_err(|error| bad(error.into()))?;
        let scheme = if origin.tls { Scheme::HTTPS } else { Scheme::HTTP };
        head.uri = Uri::builder().scheme(scheme).authority(authority).path_and_query(path).build().map_err(bad)?;
        head.version = Version::HTTP_2;
        head.headers.remove(HOST);
        head.headers.remove(CONNECTION);
    } else {
        head.headers.insert(HOST, HeaderValue::try_from(authority).map_err(|error| bad(error.into()))?);
        head.uri = Uri::from(path);
        head.version = Version::HTTP_11;
        if head.headers.contains_key(TE) {
            head.headers.insert(CONNECTION, HeaderValue::from_static("te"));
        }
    }
    Ok(())
}

/// Takes off what was about the connection only: what `Connection` lists, and what every proxy knows to be so.
pub(crate) fn strip_hop_by_hop(headers: &mut HeaderMap) {
    let listed: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .flat_map(|value| value.as_bytes().split(|b| *b == b','))
        .filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok())
        .collect();
    for name in listed.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
}

/// One length, however often it is given (RFC 9110 §8.6).
fn content_length(headers: &HeaderMap) -> Result<Option<u64>, &'static str> {
    let mut length = None;
    for value in headers.get_all(CONTENT_LENGTH) {
        let digits = value.to_str().ok().filter(|text| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()));
        let Some(this) = digits.and_then(|text| text.parse::<u64>().ok()) else {
            return Err("its content-length is not a number");
        };
        if length.is_some_and(|other| other != this) {
            return Err("it has several values of content-length");
        }
        length = Some(this);
    }
    Ok(length)
}

fn header_lists(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|item| item.trim().eq_ignore_ascii_case(token))
}

#[cfg(test)]
mod tests {
    use marram_core::port::{empty_body, full_body};

    use super::*;

    fn prepared(
        method: &str,
        headers: &[(&str, &str)],
        body: &Body,
    ) -> Result<(HeaderMap, Option<u64>), OutboundError> {
        let mut request = http::Request::builder().method(method).uri("https://example.com/a?b");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (mut head, ()) = request.body(()).expect("a valid request").into_parts();
        let declared = prepare(&mut head, body)?;
        Ok((head.headers, declared))
    }

    #[test]
    fn headers_of_the_connection_end_here() {
        let sent = [
            ("connection", "close, X-Private, content-length"),
            ("x-private", "1"),
            ("keep-alive", "timeout=5"),
            ("transfer-encoding", "chunked"),
            ("content-length", "99"),
            ("upgrade", "websocket"),
            ("proxy-authorization", "Basic x"),
            ("te", "gzip, Trailers"),
            ("x-kept", "yes"),
        ];
        let (headers, declared) = prepared("GET", &sent, &empty_body()).expect("valid");
        let mut names: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!((names, declared), (vec!["te", "x-kept"], None));
        assert_eq!(headers[TE], "trailers");
    }

    #[test]
    fn a_declared_length_is_one_that_holds() {
        let length = |values: &[&str], body: &Body| {
            let headers: Vec<_> = values.iter().map(|value| ("content-length", *value)).collect();
            prepared("POST", &headers, body)
                .map(|(headers, declared)| (headers.get_all(CONTENT_LENGTH).iter().count(), declared))
        };
        assert_eq!(length(&["3", "3"], &full_body("abc")).expect("valid"), (1, Some(3)));
        assert_eq!(length(&[], &full_body("abc")).expect("valid"), (0, None));
        assert_eq!(length(&[], &empty_body()).expect("valid"), (1, None));
        for bad in [&["3", "4"][..], &["+3"], &["3, 3"], &["-1"], &[""], &["4"]] {
            assert!(matches!(length(bad, &full_body("abc")), Err(OutboundError::RequestInvalid { .. })), "{bad:?}");
        }
        assert!(matches!(prepared("CONNECT", &[], &empty_body()), Err(OutboundError::RequestInvalid { .. })));
    }
}
