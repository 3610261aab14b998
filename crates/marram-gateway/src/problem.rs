//! Failures as answers: `application/problem+json` (RFC 9457). They say what a caller may know, never the cause.

use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderValue};
use marram_core::trace::RequestId;
use marram_core::{Failure, Retry};

/// Headers and body of the answer to a failed request.
pub(crate) fn answer(failure: &Failure, request: RequestId, allow: Option<&str>) -> (HeaderMap, Bytes) {
    let mut headers = HeaderMap::with_capacity(8);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    if let Retry::After(wait) = failure.retry_after() {
        headers.insert(RETRY_AFTER, HeaderValue::from(whole_seconds(wait)));
    }
    if let Some(allow) = allow.and_then(|allow| HeaderValue::from_str(allow).ok()) {
        headers.insert(ALLOW, allow);
    }
    (headers, body(failure, request))
}

/// A whole HTTP/1.1 answer, for bytes that never became a request. The connection closes after it.
pub(crate) fn raw(failure: &Failure, request: RequestId) -> Bytes {
    let body = body(failure, request);
    let status = failure.status();
    let head = format!(
        "HTTP/1.1 {} {}\r\ncontent-type: application/problem+json\r\ncontent-length: {}\r\nconnection: close\r\n{}: {request}\r\n\r\n",
        status.as_str(),
        status.canonical_reason().unwrap_or("Error"),
        body.len(),
        crate::REQUEST_ID_HEADER,
    );
    let mut answer = head.into_bytes();
    answer.extend_from_slice(&body);
    answer.into()
}

fn body(failure: &Failure, request: RequestId) -> Bytes {
    let kind = failure.kind();
    let mut problem = serde_json::json!({
        "type": format!("urn:marram:problem:{}", kind.label()),
        "title": kind.title(),
        "status": kind.status(),
        "request_id": request,
    });
    if !failure.message().is_empty() {
        problem["detail"] = failure.message().into();
    }
    let mut text = problem.to_string();
    text.push('\n');
    text.into()
}

/// RFC 9110 §10.2.3 knows only whole seconds: rounded up, since earlier would be too early.
fn whole_seconds(wait: Duration) -> u64 {
    wait.as_secs() + u64::from(wait.subsec_nanos() > 0)
}
