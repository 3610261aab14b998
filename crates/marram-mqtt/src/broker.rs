//! The broker as the node sees it.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use marram_core::port::mqtt::{ClientId, Message, MqttJournal, MqttPublish, Publication};
use marram_core::port::{Clock, Entropy};
use marram_core::{Failure, Kind};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::access::{Access, AccessConfig, AccessError};
use crate::bridge::{self, Account, Bridge, BridgeConfig, BridgeError};
use crate::connection::{self, Io, Peer};
use crate::engine::{ClientState, Engine, Input, Local};
use crate::limits::{ENGINE_QUEUE_MAX, Limits, PARTIAL_BYTES_MAX};
use crate::listen::{self, Places, Transport};
use crate::shared::Shared;
use crate::stats::{Counts, Stats};
use crate::{topic, wire};

/// After the deadline of a drain, tasks that were cut have this long to be dropped, and then the engine to write what is left.
const CUT_TIME: Duration = Duration::from_secs(5);

/// A broker. Clones are the same one.
#[derive(Clone)]
pub struct Broker(Arc<Inner>);

struct Inner {
    shared: Arc<Shared>,
    entropy: Arc<dyn Entropy>,
    places: Arc<Places>,
    bridges: Mutex<Vec<BridgeConfig>>,
    connections: TaskTracker,
    listeners: TaskTracker,
    engine: TaskTracker,
    /// No connection is accepted any more.
    stop: CancellationToken,
    /// Connections are dropped.
    cut: CancellationToken,
    /// What the engine has not written is not waited for any more.
    give_up: CancellationToken,
}

/// Why a broker does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Its users are not what they should be.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// What it kept cannot be read.
    #[error("the sessions of MQTT clients cannot be read: {}", .0.detail().unwrap_or_else(|| .0.to_string()))]
    Journal(Failure),
}

impl Broker {
    /// A broker that knows what `journal` has kept. `clock`'s monotonic time has to pass as tokio's does.
    pub async fn start(
        limits: Limits,
        access: AccessConfig,
        journal: Arc<dyn MqttJournal>,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
    ) -> Result<Self, StartError> {
        let access = Access::new(access, &*entropy)?;
        let stats = Arc::new(Stats::default());
        let (sender, inputs) = mpsc::channel(ENGINE_QUEUE_MAX);
        let starting =
            Box::pin(Engine::start(limits.clone(), journal, clock.clone(), &*entropy, stats.clone(), inputs));
        let engine = starting.await.map_err(StartError::Journal)?;
        let shared = Arc::new(Shared {
            limits: limits.clone(),
            clock,
            stats,
            engine: sender,
            partial: Arc::new(Semaphore::new(PARTIAL_BYTES_MAX / 1024)),
            access: std::sync::RwLock::new(Arc::new(access)),
            own: std::sync::RwLock::default(),
        });
        let inner = Inner {
            shared,
            entropy,
            places: Arc::new(Places::new(limits.connections)),
            bridges: Mutex::default(),
            connections: TaskTracker::new(),
            listeners: TaskTracker::new(),
            engine: TaskTracker::new(),
            stop: CancellationToken::new(),
            cut: CancellationToken::new(),
            give_up: CancellationToken::new(),
        };
        let give_up = inner.give_up.clone();
        inner.engine.spawn(async move {
            give_up.run_until_cancelled(engine.run()).await;
        });
        Ok(Self(Arc::new(inner)))
    }

    /// Accepts connections of `listener` until the broker stops.
    pub fn listen(&self, listener: TcpListener, transport: Transport) {
        let inner = &self.0;
        let accept = listen::accept(
            inner.shared.clone(),
            listener,
            transport,
            inner.places.clone(),
            inner.connections.clone(),
            inner.stop.clone(),
            inner.cut.clone(),
        );
        inner.listeners.spawn(accept);
    }

    /// Serves one connection to its end.
    pub fn serve<S: Io>(&self, io: S, peer: Peer) -> impl Future<Output = ()> + Send + use<S> {
        connection::serve(self.0.shared.clone(), Box::new(io), peer)
    }

    /// Starts a bridge to another broker, which runs until this one stops.
    pub fn bridge(&self, config: BridgeConfig) -> Result<Bridge, BridgeError> {
        bridge::start(self, config, self.0.stop.child_token())
    }

    /// Takes note of a bridge, if it can be beside those that are there.
    pub(crate) fn admit(&self, config: &BridgeConfig) -> Result<(), BridgeError> {
        let mut bridges = self.0.bridges.lock().unwrap_or_else(PoisonError::into_inner);
        bridge::check(config, &bridges, &self.0.shared.limits)?;
        bridges.push(config.clone());
        Ok(())
    }

    /// Runs a task whose end the broker waits for.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let cut = self.0.cut.clone();
        self.0.connections.spawn(async move {
            cut.run_until_cancelled(task).await;
        });
    }

    /// From now on `client` is a part of this node.
    pub(crate) fn reserve(&self, client: String) {
        self.0.shared.own.write().unwrap_or_else(PoisonError::into_inner).insert(client);
    }

    /// What is said of the messages of a bridge.
    pub(crate) fn account(&self, bridge: String) -> Account {
        let shared = &self.0.shared;
        Account::new(bridge, shared.stats.clone(), shared.clock.clone())
    }

    /// Bytes of a packet that it takes.
    pub(crate) fn packet_bytes_max(&self) -> u32 {
        self.0.shared.limits.packet_bytes
    }

    pub(crate) fn random(&self) -> u64 {
        self.0.entropy.u64()
    }

    /// Other users, from now on. Who is connected stays so, with what it may do.
    pub fn set_access(&self, access: AccessConfig) -> Result<(), AccessError> {
        let access = Arc::new(Access::new(access, &*self.0.entropy)?);
        *self.0.shared.access.write().unwrap_or_else(PoisonError::into_inner) = access;
        Ok(())
    }

    /// What [`MqttPublish::publish`] says.
    pub async fn publish(&self, publication: Publication) -> Result<(), Failure> {
        let shared = &self.0.shared;
        if !topic::is_name(&publication.topic) || publication.topic.starts_with('$') {
            return Err(Failure::new(
                Kind::Invalid,
                "an MQTT topic has 1 to 1024 bytes, at most 64 levels, no `+`, `#` or control characters, and does not begin \
                 with `$`",
            ));
        }
        if publication.payload.len() > shared.limits.packet_bytes as usize {
            return Err(Failure::new(Kind::BodyTooLarge, "an MQTT message is larger than a packet may be"));
        }
        if let Some(Err(fault)) = publication.properties.as_deref().map(wire::check_properties) {
            let why = format!("an MQTT message cannot have these properties: {}", fault.why);
            return Err(Failure::new(Kind::Invalid, why));
        }
        if publication.expiry_s == Some(0) {
            let why = "an MQTT message with an expiry of 0 seconds would reach nobody: give it 1 or more, or none";
            return Err(Failure::new(Kind::Invalid, why));
        }
        let now = shared.clock.unix_ns();
        let message = Message {
            topic: publication.topic.into(),
            payload: publication.payload,
            qos: publication.qos,
            retain: publication.retain,
            publisher: publication.publisher.into(),
            published_unix_ns: now,
            expires_unix_ns: publication.expiry_s.map(|s| now.saturating_add(u64::from(s) * 1_000_000_000)),
            properties: publication.properties,
        };
        let (reply, answer) = oneshot::channel();
        self.ask(Input::Publish(Box::new(Local { message, reply })), answer).await?
    }

    /// Every client that has a session, by name.
    pub async fn clients(&self) -> Result<Vec<ClientState>, Failure> {
        let (reply, answer) = oneshot::channel();
        let mut clients = self.ask(Input::Clients(reply), answer).await?;
        clients.sort_unstable_by(|a, b| a.client.cmp(&b.client));
        Ok(clients)
    }

    /// How many messages wait in the queues of all sessions, sent or not, and are not acknowledged.
    pub async fn queued(&self) -> Result<u64, Failure> {
        let (reply, answer) = oneshot::channel();
        self.ask(Input::Queued(reply), answer).await
    }

    /// Ends the connection of a client, and with `forget` its session too. Whether there was a session.
    pub async fn disconnect(&self, client: &str, forget: bool) -> Result<bool, Failure> {
        let (reply, answer) = oneshot::channel();
        self.ask(Input::Disconnect(ClientId::from(client), forget, reply), answer).await
    }

    async fn ask<T>(&self, input: Input, answer: oneshot::Receiver<T>) -> Result<T, Failure> {
        let stopped = || Failure::new(Kind::Draining, "the MQTT broker has stopped");
        self.0.shared.engine.send(input).await.map_err(|_| stopped())?;
        answer.await.map_err(|_| stopped())
    }

    /// What it has counted.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.0.shared.stats.counts()
    }

    /// [`Self::stop_within`] [`Limits::drain`].
    pub async fn stop(&self) -> usize {
        self.stop_within(self.0.shared.limits.drain).await
    }

    /// Accepts nothing more; answers what clients have sent, tells those of 5.0, and closes within `time`.
    /// Sessions and wills stay for the next start. Every task has ended when it resolves. How many connections were cut.
    ///
    /// What a disk does not take is not acknowledged, and given up after some seconds.
    pub async fn stop_within(&self, time: Duration) -> usize {
        let inner = &self.0;
        inner.stop.cancel();
        inner.listeners.close();
        inner.listeners.wait().await;
        inner.connections.close();
        let drain = async {
            // An engine that is gone has no connections. One whose commits do not end takes nothing in.
            let _ = inner.shared.engine.send(Input::Drain).await;
            inner.connections.wait().await;
        };
        let drained = tokio::time::timeout(time, drain).await.is_ok();
        let cut = if drained { 0 } else { inner.connections.len() };
        inner.cut.cancel();
        if tokio::time::timeout(CUT_TIME, inner.connections.wait()).await.is_err() {
            tracing::error!(tasks = inner.connections.len(), "MQTT connections go on after they were cut");
        }
        inner.engine.close();
        let written = async {
            let _ = inner.shared.engine.send(Input::Stop).await;
            inner.engine.wait().await;
        };
        if tokio::time::timeout(CUT_TIME, written).await.is_err() {
            tracing::error!("commits of MQTT clients do not end: what was not acknowledged is not kept");
            inner.give_up.cancel();
            inner.engine.wait().await;
        }
        cut
    }
}

impl MqttPublish for Broker {
    fn publish(&self, publication: Publication) -> BoxFuture<'static, Result<(), Failure>> {
        let broker = self.clone();
        Box::pin(async move { Self::publish(&broker, publication).await })
    }
}
