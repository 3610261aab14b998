//! Captures: what happens in a source becomes an event of a stream, in the same transaction as the thing itself.
//!
//! An MQTT message, a changed key or a stored object is first of all what it is. Where a function or a stream asks for it,
//! it is also an event, and the two are durable together or not at all (docs/adr/0013).

use crate::event::SubjectFilter;
use crate::stream::StreamName;

/// What is captured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// Messages of MQTT; the subject is the topic.
    Mqtt,
    /// Changes of keys; the subject is `<bucket>/<key>`.
    Key,
    /// Objects created and deleted; the subject is `<bucket>/<name>`.
    Object,
}

impl Source {
    /// The stream that this source's captures go to where no other is named.
    #[must_use]
    pub fn stream(self) -> StreamName {
        StreamName::of_source(match self {
            Self::Mqtt => "mqtt",
            Self::Key => "keys",
            Self::Object => "objects",
        })
    }
}

/// One capture. A thing that several captures of one stream take is one event there.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Capture {
    /// Where it happens.
    pub source: Source,
    /// Which subjects.
    pub filter: SubjectFilter,
    /// The stream that gets the event.
    pub stream: StreamName,
}
