//! The Distributed Tracing extension: the trace goes on through the queue (CloudEvents, `extensions/distributed-tracing.md`).

use super::{Attribute, Event};
use crate::limits::{EVENT_ATTRIBUTE_BYTES_MAX, EVENT_EXTENSIONS_MAX};
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

    /// Puts the event into a trace, if it is in none, with what vendors say of it. One that has as many extension attributes
    /// as it may stays in none, and a state that is no attribute is left out: a trace is worth less than an event.
    pub fn continue_trace(&mut self, trace: &TraceContext, state: Option<&str>) {
        if self.extensions.contains_key(PARENT) || self.extensions.len() >= EVENT_EXTENSIONS_MAX {
            return;
        }
        let header = String::from_utf8_lossy(&trace.header()).into_owned();
        self.extensions.insert(PARENT.into(), Attribute::Text(header));
        // One that is here already belongs to another trace, or to none.
        self.extensions.remove(STATE);
        let fits = |state: &&str| {
            !state.is_empty() && state.len() <= EVENT_ATTRIBUTE_BYTES_MAX && !state.contains(char::is_control)
        };
        if self.extensions.len() < EVENT_EXTENSIONS_MAX
            && let Some(state) = state.filter(fits)
        {
            self.extensions.insert(STATE.into(), Attribute::Text(state.into()));
        }
    }
}
