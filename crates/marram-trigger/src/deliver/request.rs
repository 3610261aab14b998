//! From events to the request that a function gets: one by itself, or a batch where the trigger has batches.

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HOST, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request};
use marram_core::event::{ChangedKey, Event, http as codec};
use marram_core::port::streams::Delivery;
use marram_core::port::{Body, Call, full_body};
use marram_core::trace::TraceContext;

use super::{Shared, Target};

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
pub(super) const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
const TRIGGER: HeaderName = HeaderName::from_static("marram-trigger");
const ATTEMPT: HeaderName = HeaderName::from_static("marram-attempt");

/// The request for `deliveries`, or why the function cannot have them.
pub(super) fn build(
    shared: &Shared,
    target: &Target,
    deliveries: &[Delivery],
) -> Result<(Request<Body>, Call), String> {
    let mut headers = HeaderMap::with_capacity(16);
    headers.insert(HOST, target.host.clone());
    let body = encode(shared, deliveries, &mut headers).map_err(|error| error.to_string())?;
    if body.len() as u64 > target.body_bytes_max {
        let (is, may) = (body.len(), target.body_bytes_max);
        return Err(format!("its body has {is} bytes, and the function's limit `body` is {may}"));
    }
    headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
    if let Ok(source) = HeaderValue::from_bytes(shared.plan.source.as_bytes()) {
        headers.insert(TRIGGER, source);
    }
    let trace = trace(shared, deliveries, &mut headers);
    if let Ok(value) = HeaderValue::from_bytes(&trace.header()) {
        headers.insert(TRACEPARENT, value);
    }
    let mut request = Request::new(full_body(body));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = target.uri.clone();
    *request.headers_mut() = headers;
    if let [one] = deliveries
        && shared.plan.keys
        && shared.plan.batch.is_none()
        && let Some(change) = ChangedKey::of(&one.stored.event)
    {
        request.extensions_mut().insert(change);
    }
    let call = Call {
        request: shared.entropy.request_id(),
        trace,
        arrived: shared.clock.instant(),
        remote: None,
        depth: 0,
        crowd: false,
    };
    Ok((request, call))
}

fn encode(
    shared: &Shared,
    deliveries: &[Delivery],
    headers: &mut HeaderMap,
) -> Result<Bytes, marram_core::event::EventError> {
    match deliveries {
        [one] if shared.plan.batch.is_none() => {
            headers.insert(ATTEMPT, HeaderValue::from(one.attempt));
            codec::encode(&one.stored.event, headers)
        }
        many => Ok(codec::encode_batch(many.iter().map(|delivery| &*delivery.stored.event), headers)),
    }
}

/// The invocation's span in the trace of the event, or of all events if it is the same; otherwise a trace of its own.
fn trace(shared: &Shared, deliveries: &[Delivery], headers: &mut HeaderMap) -> TraceContext {
    let mut traces = deliveries.iter().map(|delivery| delivery.stored.event.trace());
    let first = traces.next().flatten();
    let Some(parent) = first.filter(|first| traces.all(|other| other.is_some_and(|other| other.trace == first.trace)))
    else {
        return shared.entropy.trace();
    };
    if let [one] = deliveries
        && let Some(state) = one.stored.event.trace_state()
        && let Ok(state) = HeaderValue::from_str(state)
    {
        headers.insert(TRACESTATE, state);
    }
    parent.child(shared.entropy.span_id())
}

/// Roughly how many bytes an event takes in a batch.
pub(super) fn size(event: &Event) -> u64 {
    // Names and quotes, and data in base64.
    event.size() * 4 / 3 + 200
}
