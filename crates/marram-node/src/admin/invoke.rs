//! `/v1/apps/{app}/functions/{function}/invoke/…`: a request to one function, whatever its routes are.

use std::collections::HashMap;
use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::uri::{PathAndQuery, Scheme};
use axum::http::{HeaderMap, HeaderName, Method, Request, Response, Uri, header};
use http_body_util::BodyExt as _;
use marram_core::port::{Call, Invoke as _};
use marram_core::trace::{RequestId, TraceContext};
use marram_core::{Failure, Kind};

use super::input::Segments;
use super::operation::{Content, Operation};
use super::problem::Refusal;
use super::server::Remote;
use super::{Admin, input};

/// What concerns one connection only (RFC 9110 §7.6.1), and what is between the caller and this API: the token is not
/// the function's to see.
const NOT_PASSED_ON: [HeaderName; 8] = [
    header::CONNECTION,
    header::UPGRADE,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::AUTHORIZATION,
];

const PATH: &str = "/v1/apps/{app}/functions/{function}/invoke/{*path}";
/// The function's own `/`, which the pattern above does not match.
const ROOT: &str = "/v1/apps/{app}/functions/{function}/invoke/";

pub(super) fn operations() -> Vec<Operation> {
    let methods = [
        (Method::GET, "invokeGet", "invokeRootGet"),
        (Method::POST, "invokePost", "invokeRootPost"),
        (Method::PUT, "invokePut", "invokeRootPut"),
        (Method::PATCH, "invokePatch", "invokeRootPatch"),
        (Method::DELETE, "invokeDelete", "invokeRootDelete"),
        (Method::HEAD, "invokeHead", "invokeRootHead"),
        (Method::OPTIONS, "invokeOptions", "invokeRootOptions"),
    ];
    let summary = "Passes the request on to the function, and its answer back";
    let operation = |method: &Method, path, id| {
        let operation = Operation::new(method.clone(), path, id, summary, invoke);
        let operation =
            if *method == Method::GET || *method == Method::HEAD { operation } else { operation.takes_bytes() };
        operation.answer(200, "What the function answers, with its own status", Some(Content::Bytes("*/*")))
    };
    methods
        .iter()
        .flat_map(|(method, path, root)| [operation(method, PATH, *path), operation(method, ROOT, *root)])
        .collect()
}

async fn invoke(
    State(admin): State<Arc<Admin>>,
    Segments(names): Segments<HashMap<String, String>>,
    Extension(Remote(remote)): Extension<Remote>,
    Extension(id): Extension<RequestId>,
    request: Request<Body>,
) -> Result<Response<Body>, Refusal> {
    let named = |key: &str| input::name(names.get(key).map_or("", String::as_str));
    let (app, function) = (named("app")?, named("function")?);
    let observed = admin.parts.reconciler.app(&app)?;
    let running = observed.running.as_ref().map_err(Clone::clone)?;
    let found = running.functions.get(&function).cloned().ok_or_else(|| {
        let there: Vec<_> = running.functions.keys().map(ToString::to_string).collect();
        Refusal::new(
            Kind::NotFound,
            format!("app \"{app}\" has no function \"{function}\": it has {}", there.join(", ")),
        )
    })?;

    let (mut parts, body) = request.into_parts();
    parts.uri = uri_for_function(&parts.uri, &parts.headers)?;
    let traced = parts.headers.get("traceparent").and_then(|header| TraceContext::parse(header.as_bytes()));
    let trace = traced.map_or_else(|| admin.parts.entropy.trace(), |trace| trace.child(admin.parts.entropy.span_id()));
    strip(&mut parts.headers);
    let traceparent = axum::http::HeaderValue::from_bytes(&trace.header()).expect("hex digits and dashes");
    parts.headers.insert("traceparent", traceparent);
    parts.extensions.clear();
    let body = body.map_err(|error| Failure::new(Kind::ClientGone, "the body broke off").because(error)).boxed_unsync();
    let call = Call {
        request: id,
        trace,
        arrived: admin.parts.clock.instant(),
        remote: Some(remote.ip()),
        depth: 0,
        crowd: false,
    };

    let answer = found.request(Request::from_parts(parts, body), call).await?;
    let (mut head, body) = answer.into_parts();
    strip(&mut head.headers);
    Ok(Response::from_parts(head, Body::new(body)))
}

/// `http://<host>/<what follows "invoke">`: absolute, as a function sees it from the front.
fn uri_for_function(uri: &Uri, headers: &HeaderMap) -> Result<Uri, Failure> {
    let bad = || Failure::new(Kind::BadRequest, "the path or host of the request cannot be passed on");
    let path = uri.path().splitn(8, '/').nth(7).unwrap_or_default();
    let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    let path: PathAndQuery = format!("/{path}{query}").parse().map_err(|_| bad())?;
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or("localhost");
    Uri::builder().scheme(Scheme::HTTP).authority(host).path_and_query(path).build().map_err(|_| bad())
}

fn strip(headers: &mut HeaderMap) {
    let listed: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in listed.iter().chain(&NOT_PASSED_ON) {
        headers.remove(name);
    }
    headers.remove("keep-alive");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_after_invoke_is_the_functions() {
        let headers: HeaderMap = [(header::HOST, "n:7070".parse().expect("a value"))].into_iter().collect();
        for (from, to) in [
            ("/v1/apps/a/functions/f/invoke/", "http://n:7070/"),
            ("/v1/apps/a/functions/f/invoke/x//y%2F?q=1&r", "http://n:7070/x//y%2F?q=1&r"),
        ] {
            let uri = uri_for_function(&from.parse().expect("a path"), &headers).expect("it can be passed on");
            assert_eq!(uri.to_string(), to);
        }
    }

    #[test]
    fn what_is_of_the_connection_stays_here() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "close, x-own"),
            ("x-own", "1"),
            ("authorization", "Bearer t"),
            ("x-other", "2"),
            ("keep-alive", "1"),
        ] {
            headers.insert(name, value.parse().expect("a value"));
        }
        strip(&mut headers);
        assert_eq!(headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["x-other"]);
    }
}
