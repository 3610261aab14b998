//! Streams and their consumers, on the wire.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `GET /v1/streams`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Streams {
    /// By name.
    pub streams: Vec<StreamView>,
}

/// A stream, what it keeps, and who consumes it.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct StreamView {
    /// Its name. A dead-letter stream is called as its stream, with `.dead`.
    pub name: String,
    /// Events that are kept.
    pub events: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The position of the oldest of them; one past `last` if there is none.
    pub first: u64,
    /// The position of the newest event that ever was; 0 before the first.
    pub last: u64,
    /// How many bytes it keeps.
    pub bytes_max: u64,
    /// How long it keeps them.
    pub age_max_ms: u64,
    /// What happens past the limit: `reject` or `drop-oldest`.
    pub overflow: String,
    /// Events removed while a consumer was still owed them.
    pub dropped: u64,
    /// Publishes refused for want of room since the node started.
    pub rejected: u64,
    /// Publishes of an event that was there already, since the node started.
    pub duplicates: u64,
    /// Who consumes it.
    pub consumers: Vec<ConsumerView>,
}

/// Where a consumer stands.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ConsumerView {
    /// `<app>/<function>/<trigger>`.
    pub id: String,
    /// Every event up to this position is settled.
    pub cursor: u64,
    /// What is after this position was not handed out yet.
    pub handed: u64,
    /// Delivered and not settled yet.
    pub in_flight: u64,
    /// To be delivered again, now or later.
    pub retrying: u64,
    /// Waiting for an earlier event of their subject.
    pub held: u64,
    /// Acknowledged.
    pub acked: u64,
    /// Sent to the dead-letter stream.
    pub dead_lettered: u64,
    /// Removed by their stream before they were settled.
    pub dropped: u64,
    /// Deliveries after the first of an event, since the node started.
    pub redelivered: u64,
    /// Nothing is delivered until it is resumed.
    pub paused: bool,
}

/// `POST /v1/streams/{stream}/events`: in the order in which they were sent. They are on the disk.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct PublishedEvents {
    /// One for each event.
    pub published: Vec<PublishedEvent>,
}

/// Where an event is.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
pub struct PublishedEvent {
    /// Its place in the stream.
    pub position: u64,
    /// It was there already, and was not stored again.
    pub duplicate: bool,
}

/// `POST /v1/streams/{stream}/replay`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReplayRequest {
    /// Whose cursor moves: a consumer's id.
    pub consumer: String,
    /// From where: `first`, `next`, a position, a time (RFC 3339 in UTC), or a span back from now, such as `1h`.
    pub from: String,
}

/// `POST /v1/streams/{stream}/pause`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PauseRequest {
    /// A consumer's id.
    pub consumer: String,
    /// `false` resumes.
    pub paused: bool,
}

/// `POST /v1/streams/{stream}/redrive`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Redriven {
    /// Dead letters that are in their stream again.
    pub redriven: u64,
}
