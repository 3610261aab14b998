//! The path of one request: find its target, make it the function's, invoke, and send the answer on.

use std::cell::RefCell;
use std::convert::Infallible;
use std::future::Future;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use http::header::{CONNECTION, CONTENT_LENGTH};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Version};
use http_body::Body as _;
use hyper::body::Incoming;
use marram_core::port::{Body, Call, empty_body};
use marram_core::problem::REQUEST_ID_HEADER;
use marram_core::trace::{RequestId, TraceContext};
use marram_core::{Failure, Kind, Retry};

use crate::body::{self, Fault, Reply, RequestBody};
use crate::forwarded::Origin;
use crate::state::State;
use crate::table::{Captures, Found, Target};
use crate::{head, headers, pace, problem};

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// A request from its arrival to the end of its answer. Dropping it tells the observer.
pub(crate) struct Ongoing {
    pub(crate) state: Arc<State>,
    pub(crate) h2: bool,
    /// The answer is complete.
    pub(crate) ended: bool,
    target: Option<Arc<Target>>,
    id: RequestId,
    arrived: Instant,
    status: u16,
    failure: Option<Kind>,
    /// The function was never asked.
    refused: bool,
}

/// A request that may be invoked.
struct Ready {
    target: Arc<Target>,
    request: Request<Body>,
    call: Call,
    /// `None` where there is no body to go wrong.
    fault: Option<Fault>,
}

/// Why a request may not.
struct Refused {
    failure: Failure,
    allow: Option<String>,
}

/// What hyper calls for each request of a connection.
pub(crate) fn service(
    state: Arc<State>,
) -> impl hyper::service::Service<
    Request<Incoming>,
    Response = Response<Reply>,
    Error = Infallible,
    Future = impl Future<Output = Result<Response<Reply>, Infallible>> + Send + 'static,
> {
    let origin = RefCell::new(Origin::new(state.remote, state.local, &state.shared.config.trusted_proxies));
    hyper::service::service_fn(move |request: Request<Incoming>| {
        let mut ongoing = Ongoing::begin(&state, request.version() == Version::HTTP_2);
        let head = request.method() == Method::HEAD;
        let prepared = prepare(&mut ongoing, &mut origin.borrow_mut(), request);
        async move {
            Ok(match prepared {
                Ok(ready) => run(ongoing, ready, head).await,
                Err(refused) => {
                    ongoing.refused = true;
                    refuse(ongoing, &refused.failure, refused.allow.as_deref(), head)
                }
            })
        }
    })
}

/// Everything that can be said about a request before it runs, without waiting for anything.
fn prepare(ongoing: &mut Ongoing, origin: &mut Origin, mut request: Request<Incoming>) -> Result<Ready, Refused> {
    let state = ongoing.state.clone();
    let shared = &state.shared;
    head::check(&request, state.limits())?;
    // In this order: what the client's `connection` names is removed before the front adds anything.
    headers::clean_request(request.headers_mut());
    let remote = origin.stamp(&mut request, &shared.config.trusted_proxies)?;

    let mut captures = Captures::default();
    let table = shared.routes.0.load();
    let host = request.uri().host().unwrap_or_default();
    let (target, params) = match table.find(host, request.uri().path(), request.method(), &mut captures) {
        Found::Target(target, params) => (target, params),
        Found::OtherMethods(allow) => {
            let failure = Failure::new(Kind::MethodNotAllowed, format!("the methods of this path are {allow}"));
            return Err(Refused { failure, allow: Some(allow) });
        }
        Found::Nothing => return Err(Failure::new(Kind::NotFound, "no route matches this host and path").into()),
    };
    ongoing.target = Some(target.clone());
    if request.body().size_hint().lower() > target.body_bytes_max {
        return Err(body::too_large(target.body_bytes_max).into());
    }

    if !params.is_empty() {
        let path = request.uri().path().to_owned();
        for (name, segment) in params.iter().zip(captures.of(&path)) {
            let value = HeaderValue::from_str(segment)
                .map_err(|error| Failure::new(Kind::BadRequest, "a path parameter is not text").because(error))?;
            request.headers_mut().insert(name.clone(), value);
        }
    }
    let trace = trace(request.headers_mut(), ongoing);
    let crowd = state.is_in_crowd();
    let call = Call { request: ongoing.id, trace, arrived: ongoing.arrived, remote: Some(remote), depth: 0, crowd };
    let (request, fault) = limit_body(request, target.body_bytes_max, &state);
    Ok(Ready { target: target.clone(), request, call, fault })
}

/// W3C Trace Context §2: the caller's trace with a span of our own, or a new one; `tracestate` only with its trace.
fn trace(headers: &mut HeaderMap, ongoing: &Ongoing) -> TraceContext {
    let entropy = &ongoing.state.shared.entropy;
    let mut sent = headers.get_all(TRACEPARENT).iter();
    let parent = sent.next().filter(|_| sent.next().is_none()).and_then(|value| TraceContext::parse(value.as_bytes()));
    let trace = match parent {
        Some(parent) => parent.child(entropy.span_id()),
        None => {
            headers.remove(TRACESTATE);
            entropy.trace()
        }
    };
    headers.insert(TRACEPARENT, ascii(&trace.header()));
    trace
}

fn limit_body(request: Request<Incoming>, bytes_max: u64, state: &State) -> (Request<Body>, Option<Fault>) {
    let (parts, incoming) = request.into_parts();
    if incoming.is_end_stream() {
        return (Request::from_parts(parts, empty_body()), None);
    }
    let fault = Arc::new(OnceLock::new());
    let limited = RequestBody::new(incoming, bytes_max, state.limits().body_idle, fault.clone());
    (Request::from_parts(parts, Body::new(limited)), Some(fault))
}

/// Runs the function and makes its answer the client's.
async fn run(ongoing: Ongoing, ready: Ready, head: bool) -> Response<Reply> {
    let Ready { target, request, call, fault } = ready;
    let state = &ongoing.state;
    if let Some(wait) = state.pace.wait(&target, || ongoing.arrived) {
        tokio::time::sleep(pace::spread(wait.min(state.limits().pace), state.shared.entropy.u64())).await;
    }
    let answer = target.invoke.request(request, call).await;
    // What the function makes of a body that went wrong is not what the client has to hear.
    if let Some(failure) = fault.as_ref().and_then(|fault| fault.get()) {
        return refuse(ongoing, failure, None, head);
    }
    match answer {
        Ok(answer) => pass_on(ongoing, answer, head),
        Err(failure) => {
            if let (Kind::Overloaded, Retry::After(wait)) = (failure.kind(), failure.retry_after()) {
                state.pace.refused(&target, state.shared.clock.instant() + wait);
            }
            refuse(ongoing, &failure, None, head)
        }
    }
}

fn pass_on(mut ongoing: Ongoing, answer: Response<Body>, head: bool) -> Response<Reply> {
    let (mut parts, body) = answer.into_parts();
    if parts.status.is_informational() {
        let failure = Failure::new(Kind::NoResponse, "the function answered with an interim status");
        return refuse(ongoing, &failure, None, head);
    }
    // RFC 9110 §6.4.1: these never have a body, whatever the function sends.
    let bodiless = head || matches!(parts.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    let exact = if bodiless && body.is_end_stream() { None } else { body.size_hint().exact() };
    let length = match headers::clean_answer(&mut parts.headers, exact) {
        Ok(length) => length,
        Err(failure) => return refuse(ongoing, &failure, None, head),
    };
    ongoing.status = parts.status.as_u16();
    parts.headers.insert(REQUEST_ID_HEADER, ascii(&ongoing.id.digits()));
    parts.version = Version::HTTP_11;
    if !bodiless {
        return Response::from_parts(parts, Reply::streamed(body, length, ongoing));
    }
    match length {
        // RFC 9110 §8.6: not even in the answer to a HEAD.
        _ if parts.status == StatusCode::NO_CONTENT => drop(parts.headers.remove(CONTENT_LENGTH)),
        Some(length) if head => drop(parts.headers.insert(CONTENT_LENGTH, HeaderValue::from(length))),
        _ => {}
    }
    if !body.is_end_stream() {
        ongoing.state.drain(body);
    }
    Response::from_parts(parts, Reply::empty(ongoing))
}

/// Answers with a problem.
fn refuse(mut ongoing: Ongoing, failure: &Failure, allow: Option<&str>, head: bool) -> Response<Reply> {
    if failure.kind() == Kind::Internal {
        tracing::error!(request = %ongoing.id, failure = ?failure, "a request failed in this node");
    }
    let (mut headers, bytes) = problem::answer(failure, ongoing.id, allow);
    if !ongoing.h2 && leaves_bytes(failure.kind()) {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    let status = failure.status();
    ongoing.status = status.as_u16();
    ongoing.fail(failure.kind());
    let reply = if head { Reply::empty(ongoing) } else { Reply::whole(bytes, ongoing) };
    let mut response = Response::new(reply);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

/// Whether the connection may hold bytes after this failure of which nobody knows what they are.
fn leaves_bytes(kind: Kind) -> bool {
    use Kind::{BadRequest, BodyTooLarge, ClientTimeout, HeadersTooLarge, UriTooLong};
    matches!(kind, BadRequest | BodyTooLarge | ClientTimeout | HeadersTooLarge | UriTooLong)
}

/// For the digits and dashes of identifiers.
fn ascii(text: &[u8]) -> HeaderValue {
    HeaderValue::from_bytes(text).expect("hex digits and dashes are header characters")
}

impl From<Failure> for Refused {
    fn from(failure: Failure) -> Self {
        Self { failure, allow: None }
    }
}

impl Ongoing {
    fn begin(state: &Arc<State>, h2: bool) -> Self {
        state.begin();
        let shared = &state.shared;
        let (id, arrived) = (shared.entropy.request_id(), shared.clock.instant());
        let (ended, refused) = (false, false);
        Self { state: state.clone(), h2, ended, target: None, id, arrived, status: 0, failure: None, refused }
    }

    /// Notes what went wrong; the first failure is the one that counts.
    pub(crate) fn fail(&mut self, kind: Kind) {
        self.failure.get_or_insert(kind);
    }
}

impl Drop for Ongoing {
    fn drop(&mut self) {
        let now = self.state.shared.clock.instant();
        let unfinished = (!self.ended).then_some(Kind::ClientGone);
        self.state.shared.observer.request(&crate::RequestEnd {
            id: self.target.as_ref().map(|target| target.invoke.id()),
            status: self.status,
            failure: self.failure.or(unfinished),
            refused: self.refused,
            duration: now.saturating_duration_since(self.arrived),
            h2: self.h2,
        });
        self.state.end(now);
    }
}
