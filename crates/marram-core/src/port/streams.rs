//! Durable streams of events: the store implements, sources publish, `deliver` consumes.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;

use crate::Failure;
use crate::event::Event;
use crate::stream::{ConsumerId, ConsumerPolicy, Start, StreamName, StreamPolicy};

/// Where a published event is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Published {
    /// Counts up from 1 in each stream, without gaps among events that are kept and not deduplicated.
    pub position: u64,
    /// The same event was there already; this is its position.
    pub duplicate: bool,
}

/// An event as a stream keeps it.
#[derive(Clone, Debug, PartialEq)]
pub struct Stored {
    /// Its place in the stream.
    pub position: u64,
    /// When it was stored, in nanoseconds since the Unix epoch.
    pub stored_unix_ns: u64,
    /// The event.
    pub event: Arc<Event>,
}

/// An event on its way to a consumer. It has to be settled; what is not is delivered again after the ack wait.
#[derive(Clone, Debug, PartialEq)]
pub struct Delivery {
    /// The event and its place.
    pub stored: Stored,
    /// Which delivery of the event to this consumer this is, from 1. A settlement of an earlier one has no effect.
    pub attempt: u32,
}

/// What became of a delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Settlement {
    /// Done.
    Ack,
    /// Deliver it again, no earlier than this (`Retry-After`) and than the consumer's back-off; past the last delivery it
    /// goes to the dead-letter stream with `reason`.
    Retry {
        /// What the function asked for.
        after: Option<Duration>,
        /// Why, in one line.
        reason: String,
    },
    /// To the dead-letter stream, at once, with the reason in one line.
    DeadLetter {
        /// Why, in one line.
        reason: String,
    },
    /// Still at it: the ack wait begins again.
    InProgress,
    /// It did not get as far as the function: owed again at once, and this delivery does not count. Nothing needs to be
    /// durable for it.
    Release,
}

/// The settlement of one delivery, or of all that had one answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settle {
    /// [`Stored::position`].
    pub position: u64,
    /// [`Delivery::attempt`].
    pub attempt: u32,
    /// Position and attempt of every other delivery that the same answer is about.
    pub others: Vec<(u64, u32)>,
    /// What became of them.
    pub settlement: Settlement,
    /// Published in the same transaction as an acknowledgement: what the function answered, for its output. Empty for
    /// others. It is published if any of the deliveries was still to be settled. Where it cannot be published as a whole,
    /// nothing of the settlement happens.
    pub outputs: Vec<(StreamName, Event)>,
}

impl Settle {
    /// Position and attempt of each delivery.
    pub fn deliveries(&self) -> impl Iterator<Item = (u64, u32)> + '_ {
        std::iter::once((self.position, self.attempt)).chain(self.others.iter().copied())
    }

    /// How many deliveries it is about.
    #[must_use]
    pub fn count(&self) -> usize {
        1 + self.others.len()
    }
}

/// What a stream holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamState {
    /// Its name.
    pub name: StreamName,
    /// What it keeps.
    pub policy: StreamPolicy,
    /// The position of the oldest event that is kept; one past `last` when there is none.
    pub first: u64,
    /// The position of the newest event that ever was; 0 before the first.
    pub last: u64,
    /// Events that are kept.
    pub events: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Events removed while a consumer was still owed them, since the stream was made; each counts once.
    pub dropped: u64,
    /// Publishes refused for want of room, since this process started.
    pub rejected: u64,
    /// Publishes that were the same event again, since this process started.
    pub duplicates: u64,
    /// Who consumes it.
    pub consumers: Vec<ConsumerState>,
}

/// Where a consumer stands. Every event that it takes is acked, dead-lettered, dropped, in flight, retrying, held, or after
/// `handed`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsumerState {
    /// Who.
    pub id: ConsumerId,
    /// Every event up to here is settled.
    pub cursor: u64,
    /// What is after this has not been handed out yet. What the filter does not take may be counted as handed out.
    pub handed: u64,
    /// Delivered and not settled.
    pub in_flight: u64,
    /// To be delivered again, now or later.
    pub retrying: u64,
    /// Waiting for an earlier event of their subject.
    pub held: u64,
    /// Acknowledged, since it was made.
    pub acked: u64,
    /// Sent to the dead-letter stream, since it was made.
    pub dead_lettered: u64,
    /// Removed by their stream before they were settled, since it was made.
    pub dropped: u64,
    /// Deliveries after the first of an event, since this process started.
    pub redelivered: u64,
    /// Nothing is delivered until it is resumed.
    pub paused: bool,
}

/// The streams of a node.
pub trait Streams: Send + Sync + 'static {
    /// Makes the stream or changes what it keeps. Durable when it resolves.
    fn declare(&self, stream: &StreamName, policy: StreamPolicy) -> BoxFuture<'_, Result<(), Failure>>;

    /// Stores `events`, all or none, in this order, and resolves once they are durable. A stream that nobody declared is
    /// made with the default policy.
    ///
    /// Fails with [`crate::Kind::StreamFull`] past the limit of the stream, [`crate::Kind::BodyTooLarge`] for more than it could
    /// ever keep, [`crate::Kind::StorageFull`] when the disk is full, [`crate::Kind::Overloaded`] when the writer's queue is.
    fn publish(&self, stream: &StreamName, events: Vec<Event>) -> BoxFuture<'_, Result<Vec<Published>, Failure>>;

    /// Up to `max` kept events from `from` on, oldest first, up to about 4 MiB. Blocks for a read of the disk.
    fn read(&self, stream: &StreamName, from: Start, max: usize) -> Result<Vec<Stored>, Failure>;

    /// Resolves when the stream has an event past `position`.
    fn wait(&self, stream: &StreamName, position: u64) -> BoxFuture<'_, Result<(), Failure>>;

    /// Takes up a consumer, making it if it is new. A change of policy keeps the cursor.
    fn consumer(
        &self,
        stream: &StreamName,
        id: &ConsumerId,
        policy: ConsumerPolicy,
    ) -> BoxFuture<'_, Result<Arc<dyn Consumer>, Failure>>;

    /// The consumer of this id, as it is.
    fn find_consumer(&self, stream: &StreamName, id: &ConsumerId) -> Option<Arc<dyn Consumer>>;

    /// Puts the dead letters of a stream back into it, as they were published, and resolves with their number once that is
    /// durable. Every consumer is delivered them again.
    fn redrive(&self, stream: &StreamName) -> BoxFuture<'_, Result<u64, Failure>>;

    /// Forgets a consumer, and what it was owed.
    fn remove_consumer(&self, stream: &StreamName, id: &ConsumerId) -> BoxFuture<'_, Result<(), Failure>>;

    /// Removes a stream with all that it keeps, its consumers and its captures.
    fn remove(&self, stream: &StreamName) -> BoxFuture<'_, Result<(), Failure>>;

    /// Every stream, by name. Blocks for a read of the disk.
    fn list(&self) -> Result<Vec<StreamState>, Failure>;
}

/// One consumer of one stream.
pub trait Consumer: Send + Sync + 'static {
    /// Up to `max` deliveries, oldest first; waits until there is one, the consumer is not paused, and fewer than
    /// `in_flight_max` are unsettled. Dropping the future takes nothing.
    fn pull(&self, max: usize) -> BoxFuture<'_, Result<Vec<Delivery>, Failure>>;

    /// Settles deliveries; resolves once that is durable. A failure settles none of them.
    fn settle(&self, settlements: Vec<Settle>) -> BoxFuture<'_, Result<(), Failure>>;

    /// Stops or resumes delivery; durable.
    fn pause(&self, paused: bool) -> BoxFuture<'_, Result<(), Failure>>;

    /// Replays: everything from `from` on is owed again, and what is in flight counts no more.
    fn seek(&self, from: Start) -> BoxFuture<'_, Result<(), Failure>>;

    /// Where it stands.
    fn state(&self) -> ConsumerState;
}
