//! Events that come in over HTTP, at the admin API and at the public front.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, header};
use marram_core::event::http as binding;
use marram_core::port::streams::Published;
use marram_core::trace::TraceContext;
use marram_core::{Event, Failure, Kind};

use crate::api::{PublishedEvent, PublishedEvents};

/// The events of a request: one in binary or structured mode, or a batch. Those that carry no trace belong to that of the
/// request.
pub(crate) fn read(headers: &HeaderMap, body: Bytes, trace: Option<&TraceContext>) -> Result<Vec<Event>, Failure> {
    let read = binding::decode(headers, body).map_err(|error| Failure::new(Kind::BadRequest, error.to_string()))?;
    let mut events = read.ok_or_else(|| {
        Failure::new(
            Kind::BadRequest,
            "this is not a CloudEvent: send its attributes as headers (ce-specversion, ce-id, ce-source, ce-type), or JSON \
             as application/cloudevents+json or application/cloudevents-batch+json",
        )
    })?;
    if let Some(trace) = trace {
        // It says something of the trace of the same request, and of no other.
        let state = trace_of(headers).filter(|of| of.trace == trace.trace).and_then(|_| state_of(headers));
        events.iter_mut().for_each(|event| event.continue_trace(trace, state.as_deref()));
    }
    Ok(events)
}

/// What a request's `tracestate` says; several are one (W3C Trace Context §3.3.1.1).
fn state_of(headers: &HeaderMap) -> Option<String> {
    let states: Result<Vec<_>, _> = headers.get_all("tracestate").iter().map(HeaderValue::to_str).collect();
    states.ok().filter(|states| !states.is_empty()).map(|states| states.join(","))
}

/// The trace that a request's `traceparent` names, if it names one (W3C Trace Context §3.2).
pub(crate) fn trace_of(headers: &HeaderMap) -> Option<TraceContext> {
    TraceContext::parse(headers.get("traceparent").map(HeaderValue::as_bytes)?)
}

/// The answer to a publish.
pub(crate) fn published(events: &[Published]) -> PublishedEvents {
    let published = events.iter().map(|event| PublishedEvent { position: event.position, duplicate: event.duplicate });
    PublishedEvents { published: published.collect() }
}

/// The credentials of `Authorization: Bearer …` (RFC 6750 §2.1; the scheme's case does not matter, RFC 9110 §11.1).
pub(crate) fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let shown = headers.get(header::AUTHORIZATION)?.as_bytes();
    let (scheme, credentials) = shown.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| credentials.trim_ascii())
}
