//! Failures as answers: `application/problem+json` (RFC 9457). They say what a caller may know, never the cause.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderName, HeaderValue, Response};
use serde::{Deserialize, Serialize};

use crate::trace::RequestId;
use crate::{Failure, Retry};

/// The media type of a problem.
pub const PROBLEM_JSON: &str = "application/problem+json";
/// The header in which every answer carries its request's id.
pub const REQUEST_ID_HEADER: HeaderName = HeaderName::from_static("marram-request-id");

/// What went wrong, on the wire.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Problem {
    /// The kind of failure as a URI.
    pub r#type: String,
    /// The kind of failure in words.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What happened and what to do; may have several lines.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
    /// Names this request in the node's log.
    pub request_id: RequestId,
}

impl Problem {
    /// What a caller is told of a failure.
    #[must_use]
    pub fn new(failure: &Failure, request: RequestId) -> Self {
        let kind = failure.kind();
        Self {
            r#type: format!("urn:marram:problem:{}", kind.label()),
            title: kind.title().to_owned(),
            status: kind.status(),
            detail: failure.message().to_owned(),
            request_id: request,
        }
    }

    /// The body of an answer: one line.
    #[must_use]
    pub fn json(&self) -> Bytes {
        let mut text = serde_json::to_string(self).expect("a struct of texts and numbers is JSON");
        text.push('\n');
        text.into()
    }
}

/// The whole answer to a request that failed.
#[must_use]
pub fn answer(failure: &Failure, request: RequestId) -> Response<Bytes> {
    let mut response = Response::new(Problem::new(failure, request).json());
    *response.status_mut() = failure.status();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
    let id = HeaderValue::from_bytes(&request.digits()).expect("hex digits are a header's value");
    headers.insert(REQUEST_ID_HEADER, id);
    if let Retry::After(wait) = failure.retry_after() {
        headers.insert(RETRY_AFTER, HeaderValue::from(whole_seconds(wait)));
    }
    response
}

/// RFC 9110 §10.2.3 knows only whole seconds: rounded up, since earlier would be too early, and never 0, which asks for a
/// tight loop.
fn whole_seconds(wait: Duration) -> u64 {
    (wait.as_secs() + u64::from(wait.subsec_nanos() > 0)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Kind;

    #[test]
    fn a_failure_is_an_answer_without_its_cause() {
        let failure = Failure::new(Kind::Overloaded, "wait a moment")
            .retry(Retry::After(Duration::from_millis(1_200)))
            .because(std::io::Error::other("/secret/path"));
        let answer = answer(&failure, RequestId(0xff));
        assert_eq!(answer.status().as_u16(), 503);
        assert_eq!(answer.headers()[CONTENT_TYPE], PROBLEM_JSON);
        assert_eq!(answer.headers()[RETRY_AFTER], "2");
        assert_eq!(answer.headers()[REQUEST_ID_HEADER], "00000000000000ff");
        let problem: Problem = serde_json::from_slice(answer.body()).expect("JSON");
        assert_eq!(problem, Problem::new(&failure, RequestId(0xff)));
        assert_eq!(
            std::str::from_utf8(answer.body()).expect("text"),
            "{\"type\":\"urn:marram:problem:overloaded\",\"title\":\"The function is at its limit of concurrent requests\",\
             \"status\":503,\"detail\":\"wait a moment\",\"request_id\":\"00000000000000ff\"}\n"
        );
    }

    #[test]
    fn what_is_not_there_is_not_said() {
        let failure = Failure::new(Kind::NotFound, "");
        let answer = answer(&failure, RequestId(1));
        assert!(!answer.headers().contains_key(RETRY_AFTER));
        assert!(!answer.body().windows(6).any(|part| part == b"detail"));
    }
}
