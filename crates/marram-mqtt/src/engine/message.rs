//! What is said to the engine, and what it answers.

use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::sync::Arc;

use bytestring::ByteString;
use marram_core::Failure;
use marram_core::port::mqtt::{ClientId, Message, Properties, Qos, Will};
use tokio::sync::oneshot;

use super::session::Key;
use crate::access::Identity;
use crate::outbox::Outbox;
use crate::wire::{AckKind, Options, Reason, Version};

/// Something for the engine.
pub(crate) enum Input {
    /// Of one connection, in the order in which they came.
    Commands(From, Vec<Command>),
    /// A client that may connect.
    Connect(Box<Hello>, oneshot::Sender<Result<Accepted, (Reason, &'static str)>>),
    /// A connection is gone.
    Ended(From),
    /// The node itself publishes.
    Publish(Box<Local>),
    /// What are the clients?
    Clients(oneshot::Sender<Vec<ClientState>>),
    /// How many messages wait in all queues.
    Queued(oneshot::Sender<u64>),
    /// Ends a client's connection, and its session if that is to be forgotten. Whether there is one.
    Disconnect(ClientId, bool, oneshot::Sender<bool>),
    /// Ends every connection; takes no new one.
    Drain,
    /// Writes what is left, and ends.
    Stop,
}

/// Which connection of which session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct From {
    pub(crate) key: Key,
    pub(crate) connection: u64,
}

/// What a client wants, checked as far as it can be without knowing others.
pub(crate) enum Command {
    Publish(Box<PublishCommand>),
    Ack(AckKind, NonZeroU16, Reason),
    Subscribe(Box<SubscribeCommand>),
    Unsubscribe(NonZeroU16, Vec<ByteString>),
    /// Not a wish of the client: it has taken everything that was on its way to it, and there is more for it.
    Taken,
    /// DISCONNECT, with the session expiry that it may set.
    Farewell(Reason, Option<u32>),
}

/// A PUBLISH that is allowed.
pub(crate) struct PublishCommand {
    pub(crate) topic: Arc<str>,
    pub(crate) payload: bytes::Bytes,
    pub(crate) qos: Qos,
    pub(crate) retain: bool,
    pub(crate) packet: Option<NonZeroU16>,
    pub(crate) expiry_s: Option<u32>,
    pub(crate) properties: Option<Box<Properties>>,
    /// Whether it may be published. One that may not be is answered in its turn.
    pub(crate) refused: Option<(Reason, &'static str)>,
    /// What it counts for in the connection's budget.
    pub(crate) bytes: usize,
}

/// A SUBSCRIBE; each filter is good, or has the reason why not.
pub(crate) struct SubscribeCommand {
    pub(crate) packet: NonZeroU16,
    pub(crate) id: u32,
    pub(crate) filters: Vec<(ByteString, Result<Options, Reason>)>,
}

/// A message of the node's own.
pub(crate) struct Local {
    pub(crate) message: Message,
    pub(crate) reply: oneshot::Sender<Result<(), Failure>>,
}

/// A client that has shown who it is.
pub(crate) struct Hello {
    /// Empty: one is assigned.
    pub(crate) client: ByteString,
    pub(crate) clean: bool,
    pub(crate) expiry_s: u32,
    pub(crate) will: Option<Will>,
    pub(crate) identity: Identity,
    pub(crate) link: Link,
}

/// A connection, as the engine knows it.
pub(crate) struct Link {
    pub(crate) connection: u64,
    pub(crate) outbox: Arc<Outbox>,
    pub(crate) version: Version,
    pub(crate) receive_max: u16,
    pub(crate) packet_bytes_max: u32,
    pub(crate) keep_alive_s: u16,
    pub(crate) address: Option<SocketAddr>,
    pub(crate) connected_unix_ns: u64,
    /// It is a bridge of this node.
    pub(crate) is_bridge: bool,
}

/// The engine has taken a client in.
#[derive(Debug)]
pub(crate) struct Accepted {
    pub(crate) from: From,
    pub(crate) session_present: bool,
    pub(crate) assigned: Option<ClientId>,
    pub(crate) expiry_s: u32,
}

/// A client, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientState {
    /// The client identifier.
    pub client: ClientId,
    /// The user that its session belongs to.
    pub user: Option<Arc<str>>,
    /// From where it is connected; `None` when it is not, or not over a network.
    pub address: Option<SocketAddr>,
    /// Which MQTT it speaks; `None` when it is not connected.
    pub version: Option<Version>,
    /// Since when it is connected, in nanoseconds since the Unix epoch; `None` when it is not.
    pub connected_unix_ns: Option<u64>,
    /// Its keep-alive in seconds; 0 for none.
    pub keep_alive_s: u16,
    /// Seconds that its session is kept without a connection; `u32::MAX` for ever.
    pub expiry_s: u32,
    /// Its subscriptions, as it wrote them.
    pub subscriptions: Vec<Arc<str>>,
    /// Messages in its queue that are not acknowledged, sent or not.
    pub queued: u64,
    /// Of these, sent.
    pub in_flight: usize,
    /// Messages that it did not get because its queue was full, since the node started.
    pub dropped: u64,
}
