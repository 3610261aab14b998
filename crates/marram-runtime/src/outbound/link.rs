//! One open connection, HTTP/1.1 or HTTP/2, and the tasks that drive it. When the last reference to a [`Link`] goes, its
//! tasks end and its socket closes.

use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use futures::future::BoxFuture;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1, http2};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::body::RequestBody;
use super::limits::{
    H1_BUFFER_BYTES_MAX, H2_CONNECTION_WINDOW_BYTES, H2_SEND_BYTES_MAX, H2_STREAM_WINDOW_BYTES, H2_STREAMS_MAX,
    RESPONSE_HEADER_BYTES_MAX, RESPONSE_HEADERS_MAX,
};
use super::pool::Pool;
use super::target::Origin;

pub(super) struct Link {
    pub(super) id: u64,
    pub(super) opened: Instant,
    /// When to close, while nothing is under way.
    pub(super) idle_until: watch::Sender<Option<Instant>>,
    sender: Sender,
    stop: CancellationToken,
    /// Its share of the node's connections.
    _permit: OwnedSemaphorePermit,
}

enum Sender {
    H1(Mutex<http1::SendRequest<RequestBody>>),
    H2(http2::SendRequest<RequestBody>),
}

/// What a link needs besides its socket.
pub(super) struct Surroundings {
    pub(super) pool: Weak<Pool>,
    pub(super) origin: Origin,
    pub(super) permit: OwnedSemaphorePermit,
}

/// Starts HTTP on a socket and the task that drives it.
pub(super) async fn open<S>(socket: S, h2: bool, around: Surroundings) -> hyper::Result<Arc<Link>>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    static NEXT_ID: AtomicU64 = AtomicU64::new(0);
    let Surroundings { pool, origin, permit } = around;
    let stop = CancellationToken::new();
    let io = TokioIo::new(socket);
    let (sender, connection): (_, BoxFuture<'static, ()>) = if h2 {
        let (sender, connection) = h2_builder(Tasks { stop: stop.clone() }).handshake(io).await?;
        (Sender::H2(sender), Box::pin(async { drop(connection.await) }))
    } else {
        let (sender, connection) = h1_builder().handshake(io).await?;
        (Sender::H1(Mutex::new(sender)), Box::pin(async { drop(connection.await) }))
    };
    let (idle_until, watched) = watch::channel(None);
    let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
    tokio::spawn({
        let stop = stop.clone();
        async move {
            drive(connection, watched, stop).await;
            if let Some(pool) = pool.upgrade() {
                pool.remove(&origin, id);
            }
        }
    });
    Ok(Arc::new(Link { id, opened: Instant::now(), idle_until, sender, stop, _permit: permit }))
}

/// Drives until the connection ends, has been idle for too long, or is not wanted any more. What failed is told to the
/// exchanges on it, so the result is of no interest.
async fn drive(
    connection: BoxFuture<'static, ()>,
    mut idle_until: watch::Receiver<Option<Instant>>,
    stop: CancellationToken,
) {
    let mut connection = pin!(connection);
    loop {
        let until = *idle_until.borrow_and_update();
        let idle_for_too_long = async {
            match until {
                Some(until) => sleep_until(until).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            // What is not wanted any more is not started either: a request that comes now is handed back unsent.
            biased;
            () = stop.cancelled() => return,
            () = &mut connection => return,
            () = idle_for_too_long => return,
            changed = idle_until.changed() => if changed.is_err() { return },
        }
    }
}

impl Link {
    pub(super) fn is_h2(&self) -> bool {
        matches!(self.sender, Sender::H2(_))
    }

    pub(super) fn is_closed(&self) -> bool {
        match &self.sender {
            Sender::H1(sender) => sender.lock().unwrap_or_else(PoisonError::into_inner).is_closed(),
            Sender::H2(sender) => sender.is_closed(),
        }
    }

    /// Waits until the connection takes a request: at once, or as soon as its task has seen the end of the last one.
    pub(super) async fn ready(&self) -> hyper::Result<()> {
        match &self.sender {
            Sender::H1(sender) => {
                std::future::poll_fn(|ctx| sender.lock().unwrap_or_else(PoisonError::into_inner).poll_ready(ctx)).await
            }
            Sender::H2(sender) => sender.clone().ready().await,
        }
    }

    /// Sends one request. An error has it with it if nothing of it was sent.
    pub(super) async fn send(
        &self,
        request: Request<RequestBody>,
    ) -> Result<Response<Incoming>, TrySendError<Request<RequestBody>>> {
        match &self.sender {
            Sender::H1(sender) => {
                let answer = sender.lock().unwrap_or_else(PoisonError::into_inner).try_send_request(request);
                answer.await
            }
            Sender::H2(sender) => sender.clone().try_send_request(request).await,
        }
    }

    /// Closes it now, whatever is under way.
    pub(super) fn abort(&self) {
        self.stop.cancel();
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn h1_builder() -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .max_headers(RESPONSE_HEADERS_MAX)
        .max_header_size(RESPONSE_HEADER_BYTES_MAX)
        .max_buf_size(H1_BUFFER_BYTES_MAX);
    builder
}

fn h2_builder(tasks: Tasks) -> http2::Builder<Tasks> {
    let mut builder = http2::Builder::new(tasks);
    builder
        .initial_stream_window_size(H2_STREAM_WINDOW_BYTES)
        .initial_connection_window_size(H2_CONNECTION_WINDOW_BYTES)
        .initial_max_send_streams(H2_STREAMS_MAX)
        .max_send_buf_size(H2_SEND_BYTES_MAX)
        .max_header_list_size(RESPONSE_HEADER_BYTES_MAX as u32);
    builder
}

/// Where hyper's own tasks of an HTTP/2 connection run: they end with the link.
#[derive(Clone)]
struct Tasks {
    stop: CancellationToken,
}

impl<F: Future<Output: Send> + Send + 'static> hyper::rt::Executor<F> for Tasks {
    fn execute(&self, task: F) {
        let stop = self.stop.clone();
        tokio::spawn(async move {
            tokio::select! {
                _ = task => {}
                () = stop.cancelled() => {}
            }
        });
    }
}
