//! Failures as answers of this front. Their shape is [`marram_core::problem`]'s.

use bytes::Bytes;
use http::header::{ALLOW, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue};
use marram_core::problem::{self, PROBLEM_JSON, Problem, REQUEST_ID_HEADER};
use marram_core::time::Timestamp;
use marram_core::trace::RequestId;
use marram_core::{Failure, Kind};

/// Headers and body of the answer to a failed request.
pub(crate) fn answer(failure: &Failure, request: RequestId, allow: Option<&str>) -> (HeaderMap, Bytes) {
    let (mut head, body) = problem::answer(failure, request).into_parts();
    if let Some(allow) = allow.and_then(|allow| HeaderValue::from_str(allow).ok()) {
        head.headers.insert(ALLOW, allow);
    }
    if failure.kind() == Kind::Unauthorized {
        // RFC 9110 §15.5.2: it says how to show who one is.
        head.headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"marram\""));
    }
    (head.headers, body)
}

/// A whole HTTP/1.1 answer, for bytes that never became a request. The connection closes after it.
pub(crate) fn raw(failure: &Failure, request: RequestId, now: Timestamp) -> Bytes {
    let body = Problem::new(failure, request).json();
    let status = failure.status();
    let head = format!(
        "HTTP/1.1 {} {}\r\ncontent-type: {PROBLEM_JSON}\r\ncontent-length: {}\r\nconnection: close\r\n\
         {REQUEST_ID_HEADER}: {request}\r\ndate: {}\r\n\r\n",
        status.as_str(),
        status.canonical_reason().unwrap_or("Error"),
        body.len(),
        now.http_date(),
    );
    let mut answer = head.into_bytes();
    answer.extend_from_slice(&body);
    answer.into()
}
