//! From an origin to an open connection: resolve, check, connect to exactly what was checked, TLS, HTTP.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::error::of_exchange;
use super::limits::ATTEMPT_STAGGER;
use super::link::{Link, Surroundings};
use super::target::{Host, Origin};
use super::{Grant, Outbound, OutboundError, link, tls};

impl Outbound {
    /// Opens a connection for `grant` within `wait` and takes it into the grant's pool.
    pub(super) async fn open(
        &self,
        grant: &Grant,
        origin: &Origin,
        wait: Duration,
    ) -> Result<Arc<Link>, OutboundError> {
        let opened = timeout(wait, self.open_unhurried(grant, origin)).await;
        let link = opened.map_err(|_| OutboundError::ConnectTimeout { origin: origin.to_string() })??;
        grant.pool.insert(origin, link.clone());
        Ok(link)
    }

    async fn open_unhurried(&self, grant: &Grant, origin: &Origin) -> Result<Arc<Link>, OutboundError> {
        let found = match &origin.host {
            Host::Address(address) => [*address].into(),
            Host::Name(name) => self.resolver.resolve(name, &grant.lookups).await?,
        };
        let allowed = grant.check_addresses(&origin.host, &found)?;
        let permit = self
            .connections
            .clone()
            .try_acquire_owned()
            .map_err(|_| OutboundError::TooManyConnections { who: "this node", max: self.connections_max })?;
        let tcp = connect_to_one(&allowed, origin.port).await.map_err(|error| not_connected(origin, &error))?;
        let around = Surroundings { pool: Arc::downgrade(&grant.pool), origin: origin.clone(), permit };
        let opened = if origin.tls {
            let stream = tls::handshake(&self.tls, origin, tcp).await?;
            let h2 = tls::chose_h2(&stream);
            link::open(stream, h2, around).await
        } else {
            link::open(tcp, false, around).await
        };
        opened.map_err(|error| of_exchange(&origin.to_string(), &origin.host.to_string(), &error))
    }
}

/// Connects to the first address that answers. They are tried in order, the next one as soon as one fails, or beside it
/// when it takes its time (RFC 8305 §5, without its reordering). Fails as the last one did.
async fn connect_to_one(addresses: &[IpAddr], port: u16) -> io::Result<TcpStream> {
    let mut rest = addresses.iter();
    let mut attempts = FuturesUnordered::new();
    let mut failed = io::Error::other("no address is left");
    loop {
        match rest.next() {
            Some(address) => attempts.push(TcpStream::connect(SocketAddr::new(*address, port))),
            None if attempts.is_empty() => return Err(failed),
            None => {}
        }
        tokio::select! {
            Some(attempt) = attempts.next() => match attempt {
                Ok(socket) => {
                    // Requests are written whole; waiting for more to send only delays them.
                    socket.set_nodelay(true)?;
                    return Ok(socket);
                }
                Err(error) => failed = error,
            },
            () = sleep(ATTEMPT_STAGGER), if rest.len() > 0 => {}
        }
    }
}

fn not_connected(origin: &Origin, error: &io::Error) -> OutboundError {
    let origin = origin.to_string();
    match error.kind() {
        io::ErrorKind::ConnectionRefused => OutboundError::ConnectionRefused { origin },
        io::ErrorKind::TimedOut => OutboundError::ConnectTimeout { origin },
        _ => OutboundError::Unreachable { origin, reason: error.to_string() },
    }
}
