//! Redirects of a fetch (fetch.spec.whatwg.org §4.4, HTTP-redirect fetch). Each step is a request of its own to the host, so
//! that the grant is checked anew.

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use marram_core::port::{Body, empty_body, full_body};
use marram_js_abi::Redirect;
use url::Url;

use super::Host;

/// As browsers have it.
const REDIRECTS_MAX: u32 = 20;

/// How a fetch is to be sent.
pub(super) struct Sending {
    pub(super) request: Option<u32>,
    pub(super) redirect: Redirect,
    /// The body, where it can be sent again.
    pub(super) again: Option<Bytes>,
}

/// Sends, and follows redirects if asked to. Answers with where the answer came from, or empty when from where it was asked.
pub(super) async fn follow(
    host: &dyn Host,
    sending: Sending,
    outgoing: Request<Body>,
) -> Result<(Response<Body>, String), String> {
    let (mut method, headers, mut again) = (outgoing.method().clone(), outgoing.headers().clone(), sending.again);
    let mut headers: HeaderMap = headers;
    let mut at = Url::parse(&outgoing.uri().to_string()).map_err(|error| error.to_string())?;
    let mut response = host.fetch(sending.request, outgoing).await?;
    for _ in 0..REDIRECTS_MAX {
        let Some(next) = target(&response, &at)? else {
            return Ok((response, String::new()));
        };
        match sending.redirect {
            Redirect::Manual => return Ok((response, String::new())),
            Redirect::Error => {
                return Err(format!("{at} redirects to {next}, and the fetch was made with redirect: \"error\""));
            }
            Redirect::Follow => {}
        }
        let status = response.status();
        let becomes_get = status == StatusCode::SEE_OTHER && method != Method::HEAD
            || (status == StatusCode::MOVED_PERMANENTLY || status == StatusCode::FOUND) && method == Method::POST;
        if becomes_get {
            (method, again) = (Method::GET, Some(Bytes::new()));
            for name in [
                header::CONTENT_TYPE,
                header::CONTENT_LENGTH,
                header::CONTENT_ENCODING,
                header::CONTENT_LANGUAGE,
                header::CONTENT_LOCATION,
            ] {
                headers.remove(name);
            }
        }
        if next.origin() != at.origin() {
            for name in [header::AUTHORIZATION, header::COOKIE, header::PROXY_AUTHORIZATION, header::HOST] {
                headers.remove(name);
            }
        }
        let Some(body) = again.clone() else {
            return Err(format!("{at} redirects to {next}, and a streamed body cannot be sent twice"));
        };
        let body = if body.is_empty() { empty_body() } else { full_body(body) };
        let mut request = Request::builder()
            .method(method.clone())
            .uri(next.as_str())
            .body(body)
            .map_err(|error| error.to_string())?;
        *request.headers_mut() = headers.clone();
        at = next;
        response = host.fetch(sending.request, request).await?;
        if target(&response, &at)?.is_none() {
            return Ok((response, at.into()));
        }
    }
    Err(format!("{at} is the end of more than {REDIRECTS_MAX} redirects"))
}

/// Where a response sends its reader, if anywhere.
fn target(response: &Response<Body>, at: &Url) -> Result<Option<Url>, String> {
    if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
        return Ok(None);
    }
    let Some(location) = response.headers().get(header::LOCATION) else { return Ok(None) };
    let location = String::from_utf8_lossy(location.as_bytes());
    let next = at.join(&location).map_err(|error| format!("{at} redirects to {location:?}: {error}"))?;
    if !matches!(next.scheme(), "http" | "https") {
        return Err(format!("{at} redirects to {next}, which is neither http nor https"));
    }
    Ok(Some(next))
}
