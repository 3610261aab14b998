//! CPU time, exactly: the thread's CPU clock around each poll of a guest.
//!
//! Fuel would count instructions at two to three times the cost. The clock is read twice a poll, and once a tick while
//! a guest runs on, which is where a limit is enforced.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use rustix::time::{ClockId, clock_gettime};

/// CPU time that the calling thread has used, in nanoseconds.
pub(crate) fn thread_ns() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0)
}

/// What an instance has used in the poll that is going on, and how much it may. Only the polling thread writes.
#[derive(Default)]
pub(crate) struct PollClock {
    started_ns: AtomicU64,
    allowed_ns: AtomicU64,
}

impl PollClock {
    /// Whether the poll that is going on has used more than it may. Called from the epoch callback, on the same thread.
    pub(crate) fn is_over(&self) -> bool {
        thread_ns().saturating_sub(self.started_ns.load(Ordering::Relaxed)) > self.allowed_ns.load(Ordering::Relaxed)
    }
}

/// Who pays for the CPU time of a poll.
pub(crate) trait Account {
    /// How much the next poll may use, in nanoseconds.
    fn allowed_ns(&self) -> u64;
    /// What it has used.
    fn charge(&self, ns: u64);
}

/// Polls a guest's future and charges its CPU time.
pub(crate) fn poll_charged<F: Future + ?Sized>(
    guest: Pin<&mut F>,
    clock: &PollClock,
    account: &(impl Account + ?Sized),
    cx: &mut Context<'_>,
) -> Poll<F::Output> {
    let started = thread_ns();
    clock.started_ns.store(started, Ordering::Relaxed);
    clock.allowed_ns.store(account.allowed_ns(), Ordering::Relaxed);
    let result = guest.poll(cx);
    account.charge(thread_ns().saturating_sub(started));
    result
}

/// Shared by the poller and the store's epoch callback.
pub(crate) type SharedPollClock = Arc<PollClock>;
