//! The MQTT broker of a node: 3.1.1 and 5.0, over TCP, TLS and WebSockets.
//!
//! It knows durability only as [`MqttJournal`](marram_core::port::MqttJournal): a message, the places in the queues of the sessions that get it, the QoS 2
//! identifier of its sender, the retained message that it becomes and the event for streams are one commit, and nothing is
//! acknowledged before that commit is durable. It knows no stream and no function.
//!
//! What is where: `wire` takes packets apart, `connection` is one client's task, `engine` is the one place where
//! sessions, subscriptions, queues and retained messages change, `index` finds subscriptions, `event` says what a message
//! is as an event, `bridge` is a client of a broker that the site already has.
//!
//! ```no_run
//! # use std::sync::Arc;
//! # use marram_core::port::{Clock, Entropy, MqttJournal};
//! # use marram_mqtt::{AccessConfig, Broker, Limits, Permissions, Transport};
//! # async fn example(journal: Arc<dyn MqttJournal>, clock: Arc<dyn Clock>, entropy: Arc<dyn Entropy>) -> anyhow::Result<()> {
//! let access = AccessConfig { anonymous: Some(Permissions::all()), ..AccessConfig::default() };
//! let broker = Broker::start(Limits::default(), access, journal, clock, entropy).await?;
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:1883").await?;
//! broker.listen(listener, Transport::default());
//! // …
//! broker.stop().await; // 5.0 clients are told; what they sent is answered first
//! # Ok(()) }
//! ```

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod access;
mod bridge;
mod broker;
mod certificate;
mod connection;
mod engine;
mod event;
mod index;
mod limits;
mod listen;
mod outbox;
mod resident;
mod seldom;
mod shared;
mod stats;
mod topic;
mod websocket;
mod wire;

pub use access::{AccessConfig, AccessError, CertificateNames, Permissions, User, hash_password};
pub use bridge::{Bridge, BridgeConfig, BridgeError, Route};
pub use broker::{Broker, StartError};
pub use connection::{Io, Peer};
pub use engine::ClientState;
pub use event::MESSAGE_TYPE;
pub use limits::Limits;
pub use listen::{Origins, Transport};
pub use stats::Counts;
pub use wire::Version;
