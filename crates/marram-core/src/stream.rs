//! Streams and their consumers: names, what a stream keeps, how a consumer is served.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::event::SubjectFilter;
use crate::name::{Name, NameError};

/// The name of a stream: a [`Name`], or one followed by `.dead` for the dead-letter stream of that stream.
///
/// Streams belong to the node, not to an app: what one app publishes another may consume, if it is granted that.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamName(Arc<str>);

impl StreamName {
    const DEAD: &str = ".dead";

    /// Checks `text` and makes it a name.
    pub fn new(text: &str) -> Result<Self, NameError> {
        Name::new(text.strip_suffix(Self::DEAD).unwrap_or(text))?;
        Ok(Self(text.into()))
    }

    /// The stream that timers which fired are published to (docs/adr/0013).
    #[must_use]
    pub fn schedule() -> Self {
        Self::of_source("schedule")
    }

    pub(crate) fn of_source(name: &'static str) -> Self {
        Self(name.into())
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether a source of the node publishes here, and nobody else may.
    #[must_use]
    pub fn is_source(&self) -> bool {
        matches!(&*self.0, "schedule" | "mqtt" | "keys" | "objects")
    }

    /// Whether this is a dead-letter stream.
    #[must_use]
    pub fn is_dead_letter(&self) -> bool {
        self.0.ends_with(Self::DEAD)
    }

    /// Where what this stream's consumers gave up on goes; `None` of a dead-letter stream: what is there is one already.
    #[must_use]
    pub fn dead_letter(&self) -> Option<Self> {
        (!self.is_dead_letter()).then(|| Self(format!("{}{}", self.0, Self::DEAD).into()))
    }
}

impl From<&Name> for StreamName {
    fn from(name: &Name) -> Self {
        Self(name.as_str().into())
    }
}

impl fmt::Display for StreamName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for StreamName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

impl Serialize for StreamName {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for StreamName {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(from)?;
        Self::new(&text).map_err(serde::de::Error::custom)
    }
}

impl schemars::JsonSchema for StreamName {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "StreamName".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "pattern": "^[a-z]([a-z0-9-]*[a-z0-9])?([.]dead)?$" })
    }
}

/// What happens to a publish that would go over what the stream keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Overflow {
    /// Events that every consumer has settled make room, the oldest first. When all that is left is still owed to a
    /// consumer, or the stream has none, the publish is refused ([`crate::Kind::StreamFull`]).
    #[default]
    Reject,
    /// The oldest events make room, settled or not; what was owed is counted as dropped.
    DropOldest,
}

/// What a stream keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamPolicy {
    /// Bytes of all events ([`crate::event::Event::size`]).
    pub bytes_max: u64,
    /// Older events are removed: with [`Overflow::Reject`] only those that no consumer is owed.
    pub age_max: Duration,
    /// What happens past the limit.
    pub overflow: Overflow,
    /// How long the pair of source and id of an event is remembered: the same again is not stored twice.
    pub dedupe: Duration,
}

impl StreamPolicy {
    /// Of a stream that nobody declares any more: the default, but for what this keeps beyond it. Nothing goes because an app did.
    #[must_use]
    pub fn released(self) -> Self {
        let default = Self::default();
        Self { bytes_max: self.bytes_max.max(default.bytes_max), age_max: self.age_max.max(default.age_max), ..default }
    }
}

impl Default for StreamPolicy {
    fn default() -> Self {
        Self {
            bytes_max: 1 << 30,
            age_max: Duration::from_secs(7 * 86_400),
            overflow: Overflow::Reject,
            dedupe: Duration::from_secs(120),
        }
    }
}

/// Who consumes: unique on a node, and the same for the next revision of the function. `<app>/<function>/<source>`, where
/// the source is the trigger as the manifest has it, such as `mqtt:plant/+/vibration`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConsumerId(pub Arc<str>);

impl fmt::Display for ConsumerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// Where a consumer begins that was not there before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// At the oldest event that is kept.
    First,
    /// After the newest.
    Next,
    /// At this position.
    Position(u64),
    /// At the first event that was stored at this time or later, in nanoseconds since the Unix epoch.
    Time(u64),
}

/// How a consumer is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsumerPolicy {
    /// Which subjects it takes; the others count as settled.
    pub filter: SubjectFilter,
    /// Where it begins, if it is new.
    pub start: Start,
    /// Whether an event waits for the settlement of the one before it with the same subject.
    pub order_by_subject: bool,
    /// Deliveries that may be unsettled at the same time.
    pub in_flight_max: u32,
    /// A delivery that is not settled by then is made again.
    pub ack_wait: Duration,
    /// Deliveries of an event before it goes to the dead-letter stream; at least 1.
    pub deliveries_max: u32,
    /// The wait before the second delivery; it doubles up to `backoff_max`, and is spread by a random half.
    pub backoff_min: Duration,
    /// The longest wait between two deliveries, `Retry-After` included.
    pub backoff_max: Duration,
}

impl Default for ConsumerPolicy {
    fn default() -> Self {
        Self {
            filter: SubjectFilter::All,
            start: Start::First,
            order_by_subject: false,
            in_flight_max: 256,
            ack_wait: Duration::from_secs(60),
            deliveries_max: 8,
            backoff_min: Duration::from_millis(100),
            backoff_max: Duration::from_secs(60),
        }
    }
}
