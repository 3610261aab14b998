//! What a request is refused for by its head alone, whatever route it takes.
//!
//! HTTP/1.1 bytes were checked before ([`crate::framing`]); HTTP/2 has to meet the same terms here.

use http::header::CONTENT_LENGTH;
use http::uri::PathAndQuery;
use http::{Method, Request, Version};
use marram_core::{Failure, Kind};

use crate::{Limits, request_line};

/// Whether a request may go on, whatever it is for.
pub(crate) fn check<B>(request: &Request<B>, limits: &Limits) -> Result<(), Failure> {
    let bad = |message: &'static str| Err(Failure::new(Kind::BadRequest, message));
    if request.method() == Method::CONNECT {
        return bad("there are no tunnels here");
    }
    if request.headers().len() > limits.headers {
        return Err(Failure::new(Kind::HeadersTooLarge, "there are too many header fields"));
    }
    let uri = request.uri();
    if uri.path_and_query().is_some_and(|target| target.as_str().len() > limits.uri_bytes) {
        return Err(Failure::new(Kind::UriTooLong, "the request target is too long"));
    }
    if uri.scheme_str().is_some_and(|scheme| scheme != "http" && scheme != "https") {
        return bad("the scheme is neither http nor https");
    }
    if request.version() == Version::HTTP_2 {
        check_http2(request)?;
    }
    if has_dot_segment(uri.path()) {
        return bad("the path has `.` or `..` segments");
    }
    Ok(())
}

/// What HTTP/1.1 is refused for before hyper sees it, or has no way to say.
fn check_http2<B>(request: &Request<B>) -> Result<(), Failure> {
    let bad = |message: &'static str| Err(Failure::new(Kind::BadRequest, message));
    let target = request.uri().path_and_query().map_or("/", PathAndQuery::as_str);
    if !request_line::has_target_bytes(target.as_bytes()) {
        return bad("the request target has characters that must be escaped");
    }
    if target == "*" && request.method() != Method::OPTIONS {
        return bad("the request target is not a path");
    }
    if request.headers().get_all(CONTENT_LENGTH).iter().nth(1).is_some() {
        return bad("content-length is there twice");
    }
    // RFC 9113 §8.2.1. In HTTP/1.1 such blanks are not part of the value.
    let blank = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    if request.headers().values().any(|v| blank(v.as_bytes().first()) || blank(v.as_bytes().last())) {
        return bad("a header value begins or ends with a blank");
    }
    Ok(())
}

/// Whether a segment is `.` or `..`, escaped or not: functions would read the path differently from the routes.
fn has_dot_segment(path: &str) -> bool {
    let suspect = |pair: &[u8]| pair[0] == b'/' && matches!(pair[1], b'.' | b'%');
    let is_dots = |segment: &str| {
        let plain = segment.replace("%2e", ".").replace("%2E", ".");
        plain == "." || plain == ".."
    };
    path.as_bytes().windows(2).any(suspect) && path.split('/').any(is_dots)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Over HTTP/2 with these fields, and what is told of it.
    #[track_caller]
    fn check_h2(target: &str, fields: &[(&str, &str)], expected: Result<(), &str>) {
        let request = Request::get(target).version(Version::HTTP_2);
        let request = fields.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        let told = check(&request.body(()).expect(target), &Limits::default());
        match expected {
            Ok(()) => assert!(told.is_ok(), "{target} {fields:?}: {told:?}"),
            Err(part) => {
                assert!(told.is_err_and(|failure| failure.message().contains(part)), "{target} {fields:?}: not {part}");
            }
        }
    }

    #[test]
    fn http2_is_held_to_what_http1_is() {
        check_h2("http://a/b?c=`", &[("content-length", "3"), ("x", "a b"), ("y", "")], Ok(()));
        check_h2("http://a/", &[("content-length", "3"), ("content-length", "3")], Err("twice"));
        for value in [" a", "a ", "\ta", "a\t", " "] {
            check_h2("http://a/", &[("x", value)], Err("blank"));
        }
        for target in ["http://a/\u{e9}", "http://a/?\u{e9}", "http://a/\""] {
            check_h2(target, &[], Err("must be escaped"));
        }
        check_h2("*", &[], Err("not a path"));
    }
}
