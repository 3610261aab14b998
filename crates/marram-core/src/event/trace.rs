//! The Distributed Tracing extension: the trace goes on through the queue (CloudEvents, `extensions/distributed-tracing.md`).

use super::{Attribute, Event};
use crate::limits::EVENT_EXTENSIONS_MAX;
use crate::trace::TraceContext;

const PARENT: &str = "traceparent";
const STATE: &str = "tracestate";

impl Event {
    /// The trace in which the event happened; `None` if there is none, or none that can be read.
    #[must_use]
    pub fn trace(&self) -> Option<TraceContext> {
        match self.extensions.get(PARENT)? {
            Attribute::Text(header) => TraceContext::parse(header.as_bytes()),
            Attribute::Boolean(_) | Attribute::Integer(_) => None,
        }
    }

    /// What vendors say of the trace.
    #[must_use]
    pub fn trace_state(&self) -> Option<&str> {
        match self.extensions.get(STATE)? {
            Attribute::Text(state) => Some(state),
            Attribute::Boolean(_) | Attribute::Integer(_) => None,
        }
    }

    /// Puts the event into a trace, if it is in none. One that has as many extension attributes as it may stays in none: a
    /// trace is worth less than an event.
    pub fn continue_trace(&mut self, trace: &TraceContext) {
        if self.extensions.len() < EVENT_EXTENSIONS_MAX && !self.extensions.contains_key(PARENT) {
            let header = String::from_utf8_lossy(&trace.header()).into_owned();
            self.extensions.insert(PARENT.into(), Attribute::Text(header));
        }
    }
}
