//! A bridge to a broker that the site already has.
//!
//! It is a client of both: of that broker over the network, and of this one within the process. A message that comes from
//! either is published to the other and acknowledged once that one has acknowledged it: into this node it takes the same
//! durable path as any other, and out of it it waits in the queue of a session like any other's. Delivery is at least once:
//! QoS 2 goes over as QoS 1.

mod account;
mod check;
mod end;
mod open;
mod pair;
mod reader;

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;

use crate::access::Permissions;
use crate::broker::Broker;
use crate::connection::{Io, Peer};
use crate::limits::{
    BRIDGE_BACK_OFF, BRIDGE_BACK_OFF_MAX, BRIDGE_CONNECT_TIME, BRIDGE_PACKET_BYTES_MAX, BRIDGE_PIPE_BYTES,
    BRIDGE_RECEIVE_MAX,
};
use crate::wire::Version;
pub(crate) use account::Account;
pub use check::BridgeError;
pub(crate) use check::check;
use end::{End, EndError, Hello};

/// From a ping to its answer, or half of the keep-alive if that is less: then the broker is given up.
const PONG_TIME: Duration = Duration::from_secs(10);
/// From one ping to the next where no keep-alive was agreed on: there too it is noticed that a broker is gone.
const NO_KEEP_ALIVE: Duration = Duration::from_secs(3_600);
/// A bridge that was up for so long begins with the first wait when it is down. One that is up and down again waits
/// longer each time: every time all that is open comes again.
const STEADY_TIME: Duration = Duration::from_secs(10);

/// What is bridged, and to where.
#[derive(Clone)]
pub struct BridgeConfig {
    /// What it is called: the client identifier is `bridge-<name>`, there and here.
    pub name: String,
    /// Host and port of the other broker.
    pub address: String,
    /// TLS to it, and the name that its certificate has to have.
    pub tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
    /// What it speaks.
    pub version: Version,
    /// User and password there.
    pub user: Option<(String, String)>,
    /// What comes from there.
    pub inward: Vec<Route>,
    /// What goes there.
    pub outward: Vec<Route>,
    /// Seconds without a packet before a ping.
    pub keep_alive_s: u16,
}

impl std::fmt::Debug for BridgeConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "BridgeConfig({} to {})", self.name, self.address)
    }
}

/// Messages that go over, and under which name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Which, where they come from.
    pub filter: String,
    /// Put before the topic where they go to; may be empty.
    pub prefix: String,
}

/// A bridge that runs until its broker stops.
#[derive(Clone)]
pub struct Bridge(Arc<State>);

struct State {
    connected: AtomicBool,
    inward: AtomicU64,
    outward: AtomicU64,
    account: Account,
}

impl Bridge {
    /// Whether the other broker is connected.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.0.connected.load(Ordering::Relaxed)
    }

    /// Messages that came in and are kept, and messages that went out and were acknowledged; repetitions included.
    #[must_use]
    pub fn counts(&self) -> (u64, u64) {
        (self.0.inward.load(Ordering::Relaxed), self.0.outward.load(Ordering::Relaxed))
    }
}

/// Checks a configuration, and starts the bridge in the broker's tasks.
pub(crate) fn start(broker: &Broker, config: BridgeConfig, stop: CancellationToken) -> Result<Bridge, BridgeError> {
    broker.admit(&config)?;
    broker.reserve(client(&config));
    let state = Arc::new(State {
        connected: AtomicBool::new(false),
        inward: AtomicU64::new(0),
        outward: AtomicU64::new(0),
        account: broker.account(config.name.clone()),
    });
    let bridge = Bridge(state.clone());
    let running = run(broker.clone(), config, state);
    broker.spawn(async move {
        stop.run_until_cancelled(running).await;
    });
    Ok(bridge)
}

/// A broker of a bridge.
#[derive(Clone, Copy, Debug)]
enum Side {
    Here,
    There,
}

impl std::fmt::Display for Side {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Here => "this node's own broker",
            Self::There => "the other broker",
        })
    }
}

/// Why a bridge is down.
#[derive(Debug, thiserror::Error)]
#[error("{side} {error}")]
struct Down {
    side: Side,
    error: EndError,
}

impl Side {
    fn down(self, error: EndError) -> Down {
        Down { side: self, error }
    }
}

/// Connects for ever.
async fn run(broker: Broker, config: BridgeConfig, state: Arc<State>) {
    // The session here exists from now on, so that nothing is missed while the other broker is away.
    if let Ok(here) = connect_here(&broker, &config, u16::MAX, u32::MAX).await {
        here.close().await;
    }
    let mut back_off = BRIDGE_BACK_OFF;
    loop {
        let Err(error) = once(&broker, &config, &state, &mut back_off).await;
        tracing::warn!(%error, bridge = config.name, "the bridge to an MQTT broker is down");
        state.connected.store(false, Ordering::Relaxed);
        // By up to half more, so that nodes that lost their broker together do not come back together.
        let jitter = broker.random() % (back_off.as_millis() as u64 / 2 + 1);
        tokio::time::sleep(back_off + Duration::from_millis(jitter)).await;
        back_off = (back_off * 2).min(BRIDGE_BACK_OFF_MAX);
    }
}

async fn once(
    broker: &Broker,
    config: &BridgeConfig,
    state: &State,
    back_off: &mut Duration,
) -> Result<Infallible, Down> {
    let connecting = connect_there(config, broker.packet_bytes_max());
    let there = tokio::time::timeout(BRIDGE_CONNECT_TIME, connecting).await.unwrap_or(Err(EndError::Time));
    let there = there.map_err(|error| Side::There.down(error))?;
    // Here no more is taken than goes out: what is too large for the other broker would end its connection again and again.
    let here = connect_here(broker, config, there.receive_max, there.packet_bytes_max).await;
    let here = here.map_err(|error| Side::Here.down(error))?;
    state.connected.store(true, Ordering::Relaxed);
    let mut carrying = pin!(pair::run(here, there, config, state));
    match tokio::time::timeout(STEADY_TIME, carrying.as_mut()).await {
        Ok(down) => down,
        Err(_) => {
            *back_off = BRIDGE_BACK_OFF;
            carrying.await
        }
    }
}

/// What the bridge is called by both brokers.
fn client(config: &BridgeConfig) -> String {
    format!("bridge-{}", config.name)
}

async fn connect_there(config: &BridgeConfig, packet_bytes_max: u32) -> Result<End, EndError> {
    let stream = TcpStream::connect(&config.address).await?;
    stream.set_nodelay(true)?;
    let io: Box<dyn Io> = match &config.tls {
        None => Box::new(stream),
        Some((tls, name)) => Box::new(TlsConnector::from(tls.clone()).connect(name.clone(), stream).await?),
    };
    let hello = Hello {
        client: client(config),
        version: config.version,
        keep_alive_s: config.keep_alive_s,
        user: config.user.clone(),
        receive_max: BRIDGE_RECEIVE_MAX,
        packet_bytes_max: room(packet_bytes_max, &config.inward),
    };
    End::connect(io, hello, config.inward.iter().map(|route| route.filter.as_str())).await
}

/// The session in this broker may do what the bridge is for, and nobody else can have it.
async fn connect_here(
    broker: &Broker,
    config: &BridgeConfig,
    receive_max: u16,
    packet_bytes_max: u32,
) -> Result<End, EndError> {
    let (ours, theirs) = tokio::io::duplex(BRIDGE_PIPE_BYTES);
    let client = client(config);
    let permissions = Permissions {
        publish: vec!["#".into()],
        subscribe: config.outward.iter().map(|route| route.filter.clone()).collect(),
    };
    broker.spawn(broker.serve(theirs, Peer::inner(client.as_str().into(), permissions)));
    let hello = Hello {
        client,
        version: Version::V5,
        keep_alive_s: 0,
        user: None,
        receive_max: receive_max.min(BRIDGE_RECEIVE_MAX),
        packet_bytes_max: room(packet_bytes_max, &config.outward),
    };
    End::connect(Box::new(ours), hello, config.outward.iter().map(|route| route.filter.as_str())).await
}

/// Bytes of a packet that are `max` at most when they have gone over: with the longest prefix before the topic, and what a
/// length and 5.0 may need more.
fn room(max: u32, routes: &[Route]) -> u32 {
    let prefix = routes.iter().map(|route| route.prefix.len()).max().unwrap_or(0);
    let more = u32::try_from(prefix + LENGTHS_BYTES).unwrap_or(u32::MAX);
    max.min(BRIDGE_PACKET_BYTES_MAX).saturating_sub(more).max(1)
}

/// The length of a packet may take a byte more, and 5.0 has one for the length of the properties.
const LENGTHS_BYTES: usize = 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_said_which_broker_it_was() {
        let text = |side: Side| side.down(EndError::Farewell(0x93)).to_string();
        assert_eq!(text(Side::Here), "this node's own broker ended the connection: reason 0x93");
        assert_eq!(text(Side::There), "the other broker ended the connection: reason 0x93");
    }
}
