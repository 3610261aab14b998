//! Accepts connections: plain, with TLS, over WebSockets.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use marram_core::accept::AcceptPauses;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::connection::{self, Io, Peer};
use crate::engine::{Owner, has_share};
use crate::shared::Shared;
use crate::{certificate, stats, websocket};

/// What a listener speaks below MQTT.
#[derive(Clone, Default)]
pub struct Transport {
    /// TLS; a client's certificate is looked at if this configuration asks for one.
    pub tls: Option<Arc<ServerConfig>>,
    /// WebSockets (MQTT 5.0 §6), and which web pages may open one.
    pub websocket: Option<Origins>,
}

/// Web pages whose scripts may connect. Browsers say the page's origin (RFC 6455 §10.2); what is no browser says none,
/// or this server itself by its address, and may.
#[derive(Clone, Debug, Default)]
pub enum Origins {
    /// Every page: its user has to have a name and a password for it.
    #[default]
    Any,
    /// These, as in `https://dashboard.example`.
    Listed(Arc<[String]>),
}

impl Origins {
    /// Whether a page of this origin may connect.
    #[must_use]
    pub fn admit(&self, origin: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Listed(listed) => listed.iter().any(|listed| listed == origin),
        }
    }
}

impl std::fmt::Debug for Transport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Transport {{ tls: {}, websocket: {:?} }}", self.tls.is_some(), self.websocket)
    }
}

/// Room for connections, of all listeners together.
pub(crate) struct Places {
    free: Arc<Semaphore>,
    max: usize,
    by_address: Mutex<HashMap<Owner, usize>>,
}

/// Of one connection, as long as it lives.
struct Place {
    places: Arc<Places>,
    address: Owner,
    _permit: OwnedSemaphorePermit,
}

impl Places {
    pub(crate) fn new(max: usize) -> Self {
        Self { free: Arc::new(Semaphore::new(max)), max, by_address: Mutex::default() }
    }

    /// A place for a connection from `address`, unless there are more from there than there is left for others.
    fn take(self: &Arc<Self>, permit: OwnedSemaphorePermit, address: SocketAddr) -> Option<Place> {
        let address = Owner::of(None, Some(address));
        let all = self.max.saturating_sub(self.free.available_permits() + 1);
        let mut by_address = self.by_address.lock().unwrap_or_else(PoisonError::into_inner);
        let own = by_address.get(&address).copied().unwrap_or_default();
        if !has_share(own, all, 1, self.max) {
            return None;
        }
        by_address.insert(address.clone(), own + 1);
        Some(Place { places: self.clone(), address, _permit: permit })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut by_address = self.places.by_address.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = by_address.get_mut(&self.address) {
            *own -= 1;
            if *own == 0 {
                by_address.remove(&self.address);
            }
        }
    }
}

/// Accepts until `stop`. Connections go on in `tasks`.
pub(crate) async fn accept(
    shared: Arc<Shared>,
    listener: TcpListener,
    transport: Transport,
    places: Arc<Places>,
    tasks: TaskTracker,
    stop: CancellationToken,
    cut: CancellationToken,
) {
    let mut pauses = AcceptPauses::default();
    loop {
        let Some(Ok(permit)) = stop.run_until_cancelled(places.free.clone().acquire_owned()).await else { return };
        let Some(accepted) = stop.run_until_cancelled(listener.accept()).await else { return };
        match accepted {
            Ok((stream, address)) => {
                pauses.accepted();
                let Some(place) = places.take(permit, address) else {
                    tracing::debug!(%address, "an address has as many MQTT connections as it may: closed");
                    stats::add(&shared.stats.refused, 1);
                    continue;
                };
                let (shared, transport, cut) = (shared.clone(), transport.clone(), cut.clone());
                tasks.spawn(async move {
                    // Boxed: the hello of TLS and WebSockets needs more room than the connection does afterwards.
                    let open = Box::pin(open(stream, &transport));
                    if let Ok(Ok((io, peer))) = tokio::time::timeout(shared.limits.connect_time, open).await {
                        cut.run_until_cancelled(connection::serve(shared, io, peer)).await;
                    }
                    drop(place);
                });
            }
            Err(error) => {
                let Some(pause) = pauses.after(&error) else { continue };
                tracing::warn!(%error, "accepting MQTT connections fails: raise the limit of open files (ulimit -n)?");
                stop.run_until_cancelled(tokio::time::sleep(pause)).await;
            }
        }
    }
}

async fn open(stream: TcpStream, transport: &Transport) -> io::Result<(Box<dyn Io>, Peer)> {
    // Packets are written together as far as they can be; waiting for more would only delay them.
    stream.set_nodelay(true)?;
    let mut peer = Peer::default();
    peer.address = Some(stream.peer_addr()?);
    let Some(tls) = &transport.tls else {
        return Ok((framed(stream, transport).await?, peer));
    };
    let stream = TlsAcceptor::from(tls.clone()).accept(stream).await?;
    let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
    peer.certificate = shown.map(certificate::names);
    Ok((framed(stream, transport).await?, peer))
}

async fn framed<S: Io + 'static>(stream: S, transport: &Transport) -> io::Result<Box<dyn Io>> {
    Ok(match &transport.websocket {
        Some(origins) => Box::new(websocket::accept(stream, origins).await?),
        None => Box::new(stream),
    })
}
