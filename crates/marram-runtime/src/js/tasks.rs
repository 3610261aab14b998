//! What goes on in a live instance when whoever began it has left: the rest of a turn, a request without its client, a
//! body whose reader takes or leaves it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Weak;
use std::task::{Context, Poll};
use std::time::Instant;

use marram_js_abi::{Event, Sink};
use tokio::task::AbortHandle;

use super::engine::State;
use super::live::Live;
use super::outgoing::Reader;

/// Spawns on the runtime that is here; without one, the process is ending and so is everything that waits.
pub(super) fn spawn(task: impl Future<Output = ()> + Send + 'static) -> Option<AbortHandle> {
    Some(tokio::runtime::Handle::try_current().ok()?.spawn(task).abort_handle())
}

/// A turn that goes on in a task of its own when whoever drove it goes away: other requests are in the instance too.
pub(super) struct Turn(pub(super) Option<Pin<Box<dyn Future<Output = ()> + Send>>>);

impl Future for Turn {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Some(turn) = &mut self.0 else { return Poll::Ready(()) };
        std::task::ready!(turn.as_mut().poll(cx));
        self.0 = None;
        Poll::Ready(())
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(turn) = self.0.take() {
            spawn(turn);
        }
    }
}

/// Tells JavaScript that the client went away before the answer.
pub(super) struct Leave<T: State> {
    pub(super) live: Weak<Live<T>>,
    pub(super) request: u32,
    pub(super) deadline: Instant,
    pub(super) armed: bool,
}

impl<T: State> Drop for Leave<T> {
    fn drop(&mut self) {
        if self.armed
            && let Some(live) = self.live.upgrade()
        {
            live.guard(self.request, self.deadline);
            live.tell(&Event::Cancel { request: self.request });
            live.nudge();
        }
    }
}

/// Watches a body that JavaScript sends.
pub(super) struct SinkReader<T: State> {
    pub(super) live: Weak<Live<T>>,
    pub(super) sink: Sink,
}

impl<T: State> Reader for SinkReader<T> {
    fn took(&self, bytes: usize) {
        let Some(live) = self.live.upgrade() else { return };
        live.tell(&Event::Drained { to: self.sink, bytes: u32::try_from(bytes).unwrap_or(u32::MAX) });
        live.nudge();
    }

    fn left(&self) {
        let Some(live) = self.live.upgrade() else { return };
        live.lock().feeds.remove(&self.sink);
        if let Sink::Response(request) = self.sink {
            live.tell(&Event::Cancel { request });
            live.nudge();
        }
    }
}
