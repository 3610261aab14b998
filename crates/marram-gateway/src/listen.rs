//! Accepts connections, and drains them.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use marram_core::accept::AcceptPauses;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::connection::{Protocols, Tasks};
use crate::state::State;
use crate::{Drained, Shared};

/// After the deadline of a drain, tasks that were cut have this long to be dropped.
const CUT_TIME: Duration = Duration::from_secs(5);

/// A listener's connections.
struct Listener {
    shared: Arc<Shared>,
    protocols: Protocols,
    tasks: Tasks,
    open: Mutex<HashMap<u64, Arc<State>>>,
}

/// Accepts until `stop`, then drains.
pub(crate) async fn serve(shared: Arc<Shared>, listener: TcpListener, stop: CancellationToken) -> Drained {
    let limits = shared.config.limits.clone();
    let tasks = Tasks::default();
    let protocols = Protocols::new(&limits, tasks.clone());
    let ours = Arc::new(Listener { shared, protocols, tasks, open: Mutex::default() });
    stop.run_until_cancelled(accept(&ours, &listener)).await;
    drop(listener);
    ours.drain(limits.drain).await
}

/// Never returns; a listener's errors pass.
async fn accept(ours: &Arc<Listener>, listener: &TcpListener) {
    let permits = Arc::new(Semaphore::new(ours.shared.config.limits.connections));
    let mut pauses = AcceptPauses::default();
    let mut number = 0;
    loop {
        let Ok(permit) = permits.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, remote)) => {
                pauses.accepted();
                number += 1;
                let (ours, number) = (ours.clone(), number);
                let tasks = ours.tasks.0.clone();
                tasks.spawn(async move {
                    ours.connection(number, stream, remote).await;
                    drop(permit);
                });
            }
            Err(error) => {
                let Some(pause) = pauses.after(&error) else { continue };
                ours.shared.observer.accept_failed(&error);
                tracing::warn!(%error, "accepting connections fails: raise the limit of open files (ulimit -n)?");
                tokio::time::sleep(pause).await;
            }
        }
    }
}

impl Listener {
    async fn connection(&self, number: u64, stream: TcpStream, remote: SocketAddr) {
        // Answers are written whole; waiting for more to send would only delay them.
        let local = stream.set_nodelay(true).and_then(|()| stream.local_addr());
        let Ok(local) = local else { return }; // The client is gone.
        let state = Arc::new(State::new(self.shared.clone(), self.tasks.clone(), remote.ip(), local));
        self.shared.observer.opened();
        let guard = Open { listener: self, number };
        self.open.lock().unwrap_or_else(PoisonError::into_inner).insert(number, state.clone());
        if self.tasks.0.is_closed() {
            state.finish(); // The drain began before this connection was on the list.
        }
        self.protocols.serve(stream, state).await;
        drop(guard);
    }

    /// Lets requests in flight finish within `time`, and cuts off the rest.
    async fn drain(&self, time: Duration) -> Drained {
        self.tasks.0.close();
        self.each(State::finish);
        if tokio::time::timeout(time, self.tasks.0.wait()).await.is_ok() {
            return Drained { cut: 0 };
        }
        let mut cut = 0;
        self.each(|state| cut += usize::from(state.cut()));
        if tokio::time::timeout(CUT_TIME, self.tasks.0.wait()).await.is_err() {
            tracing::error!(tasks = self.tasks.0.len(), "requests go on after the drain was cut");
        }
        Drained { cut }
    }

    fn each(&self, mut tell: impl FnMut(&State)) {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.values().for_each(|state| tell(state));
    }
}

/// A connection in the list of those that a drain has to tell.
struct Open<'l> {
    listener: &'l Listener,
    number: u64,
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.listener.open.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.number);
        self.listener.shared.observer.closed();
    }
}
