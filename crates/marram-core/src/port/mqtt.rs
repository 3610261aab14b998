//! What the MQTT broker keeps: the store implements, the broker commits here before it acknowledges.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;

use crate::Failure;
use crate::event::Event;

/// Who a session belongs to: the client identifier (MQTT 5.0 §3.1.3.1).
pub type ClientId = Arc<str>;

/// Quality of service (MQTT 5.0 §4.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Qos {
    /// QoS 0: at most once.
    #[default]
    AtMostOnce,
    /// QoS 1: at least once.
    AtLeastOnce,
    /// QoS 2: exactly once.
    ExactlyOnce,
}

impl Qos {
    /// The level as a number, 0 to 2.
    #[must_use]
    pub const fn level(self) -> u8 {
        self as u8
    }

    /// The level of a number; `None` past 2.
    #[must_use]
    pub const fn from_level(level: u8) -> Option<Self> {
        match level {
            0 => Some(Self::AtMostOnce),
            1 => Some(Self::AtLeastOnce),
            2 => Some(Self::ExactlyOnce),
            _ => None,
        }
    }
}

/// What an application message says besides topic and payload (MQTT 5.0 §3.3.2.3).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Properties {
    /// The payload is UTF-8, says the publisher.
    pub utf8: bool,
    /// What the payload is; a media type, usually.
    pub content_type: Option<String>,
    /// Where an answer is expected.
    pub response_topic: Option<String>,
    /// Which question an answer is to.
    pub correlation: Option<Bytes>,
    /// Names and values of the publisher's own, in its order; names may repeat.
    pub user: Vec<(String, String)>,
}

/// An application message, checked where it came in.
#[derive(Clone, PartialEq, Eq)]
pub struct Message {
    /// Where to; without wildcards.
    pub topic: Arc<str>,
    /// The bytes.
    pub payload: Bytes,
    /// As it was published.
    pub qos: Qos,
    /// Whether it was published to be retained.
    pub retain: bool,
    /// Who published it; empty for the node itself.
    pub publisher: ClientId,
    /// When it came in, in nanoseconds since the Unix epoch.
    pub published_unix_ns: u64,
    /// When it is of no use any more, in nanoseconds since the Unix epoch.
    pub expires_unix_ns: Option<u64>,
    /// Everything else; `None` when there is nothing.
    pub properties: Option<Box<Properties>>,
}

impl Message {
    /// How many bytes it counts for in limits: topic, payload and properties, and a few for the rest.
    #[must_use]
    pub fn size(&self) -> usize {
        let properties = self.properties.as_deref().map_or(0, |p| {
            p.content_type.as_ref().map_or(0, String::len)
                + p.response_topic.as_ref().map_or(0, String::len)
                + p.correlation.as_ref().map_or(0, Bytes::len)
                + p.user.iter().map(|(name, value)| name.len() + value.len() + 4).sum::<usize>()
        });
        self.topic.len() + self.payload.len() + properties + 32
    }
}

/// Payloads are the users' and do not go to logs.
impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Message({:?}, {} bytes, {:?})", self.topic, self.payload.len(), self.qos)
    }
}

/// A will (MQTT 5.0 §3.1.2.5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Will {
    /// What is published.
    pub message: Arc<Message>,
    /// Seconds from the message's publication to its expiry; `None` for never. The will's message has no expiry itself.
    pub expiry_s: Option<u32>,
    /// Seconds from the end of the connection to its publication.
    pub delay_s: u32,
}

/// What is kept of a session besides its subscriptions and queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionRecord {
    /// Whose.
    pub client: ClientId,
    /// The user that it belongs to: nobody else may take it over.
    pub user: Option<Arc<str>>,
    /// Seconds that it is kept after its connection ends; `u32::MAX` for ever.
    pub expiry_s: u32,
    /// When its connection ended, in nanoseconds since the Unix epoch; `None` while it is connected.
    pub ended_unix_ns: Option<u64>,
    /// The greatest [`Enqueue::seq`] that may have been sent when it ended: what is up to there is sent again as a duplicate.
    pub sent_seq: u64,
    /// To be published if the connection ends without a farewell.
    pub will: Option<Will>,
}

/// A subscription of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscription {
    /// As the client wrote it, `$share/<group>/` included.
    pub filter: Arc<str>,
    /// What was granted.
    pub qos: Qos,
    /// Not what the client itself has published.
    pub no_local: bool,
    /// The retain flag stays as it was published.
    pub retain_as_published: bool,
    /// The client's number for it; 0 for none.
    pub id: u32,
    /// Retained messages are still to be delivered for it.
    pub replay: bool,
}

/// A place of a message in the queue of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Enqueue {
    /// Whose queue.
    pub client: ClientId,
    /// Its place; grows within a session. The packet identifier follows from it.
    pub seq: u64,
    /// How it is delivered: the lesser of the publisher's and the subscription's. Never [`Qos::AtMostOnce`].
    pub qos: Qos,
    /// The retain flag that it is delivered with.
    pub retain: bool,
    /// The identifiers of the subscriptions that took it.
    pub subscriptions: Vec<u32>,
    /// The filter of the shared subscription that took it, as in [`Subscription::filter`]; `None` for the session's own.
    pub shared: Option<Arc<str>>,
}

/// A message in a queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Queued {
    /// [`Enqueue::seq`].
    pub seq: u64,
    /// [`Enqueue::qos`].
    pub qos: Qos,
    /// [`Enqueue::retain`].
    pub retain: bool,
    /// [`Enqueue::subscriptions`].
    pub subscriptions: Vec<u32>,
    /// [`Enqueue::shared`].
    pub shared: Option<Arc<str>>,
    /// The client has it (PUBREC), and is to be told so (PUBREL).
    pub released: bool,
    /// The message; one allocation for all queues that it is in, where that can be.
    pub message: Arc<Message>,
}

/// What a message does to the retained message of its topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Retain {
    /// Nothing.
    #[default]
    Keep,
    /// It becomes the retained message.
    Set,
    /// There is none any more.
    Clear,
}

/// One message with everything that belongs to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publish {
    /// The message; kept once, however many queues it is in.
    pub message: Arc<Message>,
    /// The same as an event, when [`MqttJournal::captured`] said so; goes to every stream that captures the topic.
    pub event: Option<Box<Event>>,
    /// The queues that it is put in.
    pub queues: Vec<Enqueue>,
    /// What it does to the retained message.
    pub retain: Retain,
    /// A QoS 2 message: the sender's session remembers this packet identifier.
    pub received: Option<(ClientId, u16)>,
    /// It was the will of this session, which has none any more.
    pub will_of: Option<ClientId>,
}

/// One change. Each happens wholly or not at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A message.
    Publish(Box<Publish>),
    /// A session begins, or its record is another now.
    Session {
        /// What is kept from now on.
        record: Box<SessionRecord>,
        /// Whatever there was of the client is forgotten first.
        fresh: bool,
    },
    /// A session ends, with its queue, subscriptions, packet identifiers and will.
    End(ClientId),
    /// A subscription is made, or replaced by one of the same filter.
    Subscribe(ClientId, Subscription),
    /// A subscription is removed.
    Unsubscribe(ClientId, Arc<str>),
    /// The client has the QoS 2 message of this place (PUBREC).
    Release(ClientId, u64),
    /// The messages of these places are delivered, or dropped: the queue is rid of them.
    Settle(ClientId, Vec<u64>),
    /// The sender will not send the QoS 2 message of this packet identifier again (PUBREL).
    Forget(ClientId, u16),
    /// A retained message has expired.
    Expire(Arc<str>),
}

/// A session as it was kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredSession {
    /// Its record.
    pub record: SessionRecord,
    /// Its subscriptions.
    pub subscriptions: Vec<Subscription>,
    /// Packet identifiers of QoS 2 messages that are not released yet ([`Publish::received`]).
    pub received: Vec<u16>,
    /// Messages in its queue.
    pub queued: u64,
    /// Their bytes ([`Message::size`]).
    pub queued_bytes: u64,
    /// The least place in its queue; 0 when it is empty.
    pub first_seq: u64,
    /// The greatest place in its queue; 0 when it is empty.
    pub last_seq: u64,
    /// Some of them came by a shared subscription ([`Enqueue::shared`]).
    pub shared: bool,
}

/// What a broker starts from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Loaded {
    /// Every session.
    pub sessions: Vec<StoredSession>,
    /// Every retained message.
    pub retained: Vec<Arc<Message>>,
}

/// A change that was not made while the others of its commit were.
#[derive(Clone, Debug)]
pub struct Refused {
    /// Which, counted from 0.
    pub index: usize,
    /// Why: [`crate::Kind::StreamFull`], for one.
    pub failure: Failure,
}

/// What the broker keeps. Nothing is acknowledged to a client before the commit that holds it has resolved.
pub trait MqttJournal: Send + Sync + 'static {
    /// Whether a stream captures this topic. Called for every message: it takes well below a microsecond and never waits.
    fn captured(&self, topic: &str) -> bool;

    /// Everything but the queues. Called once, before anything else.
    fn load(&self) -> BoxFuture<'static, Result<Loaded, Failure>>;

    /// Makes `changes` in their order and resolves once they are durable, with those that were refused. A failure means
    /// that none was made.
    ///
    /// Commits take effect in the order of the calls: the broker calls the next before this one has resolved, and polls
    /// them in that order. When there is more to write than the disk takes, the future waits; it does not fail.
    fn commit(&self, changes: Vec<Change>) -> BoxFuture<'static, Result<Vec<Refused>, Failure>>;

    /// Up to `max` messages of a client's queue past the place `after`, in order, up to about 1 MiB; at least one if there
    /// is one. Sees every commit that has resolved before the call.
    fn read(&self, client: &ClientId, after: u64, max: usize) -> BoxFuture<'static, Result<Vec<Queued>, Failure>>;
}

/// A message of the node's own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Publication {
    /// Where to; no wildcards.
    pub topic: String,
    /// The bytes.
    pub payload: Bytes,
    /// QoS.
    pub qos: Qos,
    /// Whether it is kept for those who subscribe later.
    pub retain: bool,
    /// Seconds until it is of no use.
    pub expiry_s: Option<u32>,
    /// Everything else.
    pub properties: Option<Box<Properties>>,
    /// Who it is from, in the event's source; empty for the node itself.
    pub publisher: String,
}

/// Publishes to MQTT topics on behalf of the node and its functions. The broker implements.
pub trait MqttPublish: Send + Sync + 'static {
    /// Resolves once the message is durable in the queue of every session that gets it and in every stream that captures
    /// its topic, and is on its way to those that are connected.
    ///
    /// Fails with [`crate::Kind::Invalid`] for what is not a topic name, for properties that a client could not send and an
    /// expiry of 0, [`crate::Kind::BodyTooLarge`] for a payload that no packet takes, [`crate::Kind::StreamFull`] when a
    /// stream that captures the topic is full, and [`crate::Kind::StorageFull`] when the disk is.
    fn publish(&self, publication: Publication) -> BoxFuture<'static, Result<(), Failure>>;
}
