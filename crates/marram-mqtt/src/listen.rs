//! Accepts connections: plain, with TLS, over WebSockets.

use std::io;
use std::sync::Arc;

use marram_core::accept::AcceptPauses;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::connection::{self, Io, Peer};
use crate::shared::Shared;
use crate::{certificate, websocket};

/// What a listener speaks below MQTT.
#[derive(Clone, Default)]
pub struct Transport {
    /// TLS; a client's certificate is looked at if this configuration asks for one.
    pub tls: Option<Arc<ServerConfig>>,
    /// WebSockets (MQTT 5.0 §6), and which web pages may open one.
    pub websocket: Option<Origins>,
}

/// Web pages whose scripts may connect. Browsers say the page's origin (RFC 6455 §10.2); what is no browser says none, and may.
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

/// Accepts until `stop`. Connections go on in `tasks`.
pub(crate) async fn accept(
    shared: Arc<Shared>,
    listener: TcpListener,
    transport: Transport,
    permits: Arc<Semaphore>,
    tasks: TaskTracker,
    stop: CancellationToken,
    cut: CancellationToken,
) {
    let mut pauses = AcceptPauses::default();
    loop {
        let Some(Ok(permit)) = stop.run_until_cancelled(permits.clone().acquire_owned()).await else { return };
        let Some(accepted) = stop.run_until_cancelled(listener.accept()).await else { return };
        match accepted {
            Ok((stream, _)) => {
                pauses.accepted();
                let (shared, transport, cut) = (shared.clone(), transport.clone(), cut.clone());
                tasks.spawn(async move {
                    // Boxed: the hello of TLS and WebSockets needs more room than the connection does afterwards.
                    let open = Box::pin(open(stream, &transport));
                    if let Ok(Ok((io, peer))) = tokio::time::timeout(shared.limits.connect_time, open).await {
                        cut.run_until_cancelled(connection::serve(shared, io, peer)).await;
                    }
                    drop(permit);
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
