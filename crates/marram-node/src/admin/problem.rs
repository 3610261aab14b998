//! From a failure to `application/problem+json` (RFC 9457).
//!
//! A handler returns a [`Refusal`]; what makes it an answer is outside of it, where the request's id is known. There it
//! is also logged, once.

use axum::body::Body;
use axum::http::{HeaderValue, Response, header};
use axum::response::IntoResponse;
use marram_core::problem::REQUEST_ID_HEADER;
use marram_core::trace::RequestId;
use marram_core::{Failure, Kind};

/// Why a request was not done. An answer of its own only after [`finish`].
#[derive(Debug)]
pub(super) struct Refusal(pub(super) Failure);

impl Refusal {
    pub(super) fn new(kind: Kind, message: impl Into<std::sync::Arc<str>>) -> Self {
        Self(Failure::new(kind, message))
    }
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        Self(failure)
    }
}

/// The failure rides along as an extension until [`finish`] writes it down.
impl IntoResponse for Refusal {
    fn into_response(self) -> axum::response::Response {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = self.0.status();
        response.extensions_mut().insert(self.0);
        response
    }
}

/// A browser shows what it gets here in an origin of its own, and runs no script of it: functions answer with what they
/// like, and their pages must not speak for this API.
const SANDBOX: HeaderValue = HeaderValue::from_static("sandbox");
const NO_SNIFFING: HeaderValue = HeaderValue::from_static("nosniff");

/// Writes the failure that an answer carries, if it carries one, and gives every answer its request's id and what keeps a
/// browser from taking it for a page of this API.
pub(super) fn finish(mut response: Response<Body>, request: RequestId) -> Response<Body> {
    if let Some(failure) = response.extensions_mut().remove::<Failure>() {
        if failure.kind() == Kind::Internal {
            tracing::error!(%request, kind = failure.kind().label(), detail = failure.detail(), "{}", failure.message());
        }
        // RFC 9110 §15.5.6: which methods there are goes with the status, and only the router knows them.
        let allow = response.headers_mut().remove(header::ALLOW);
        response = problem(&failure, request);
        response.headers_mut().extend(allow.map(|methods| (header::ALLOW, methods)));
    }
    let id = HeaderValue::from_bytes(&request.digits()).expect("hex digits are a header's value");
    let headers = response.headers_mut();
    headers.insert(REQUEST_ID_HEADER, id);
    // Beside a policy that a function has: a browser holds to each of them.
    headers.append(header::CONTENT_SECURITY_POLICY, SANDBOX);
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, NO_SNIFFING);
    response
}

/// The shape is [`marram_core::problem`]'s, as at the front.
fn problem(failure: &Failure, request: RequestId) -> Response<Body> {
    let mut response = marram_core::problem::answer(failure, request).map(Body::from);
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if failure.kind() == Kind::Unauthorized {
        headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"marram\""));
    }
    response
}
