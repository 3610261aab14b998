//! How many invocations of a function run at the same time, and how many may wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use marram_core::limits::Limits;
use marram_core::{Failure, Kind};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A permit for each running invocation, first come first served, with a bounded queue in front.
pub(crate) struct Gate {
    permits: Arc<Semaphore>,
    concurrency: u32,
    queued: AtomicU32,
    queue_max: u32,
}

/// The right to run; dropping it lets the next one in.
pub(crate) type Permit = OwnedSemaphorePermit;

impl Gate {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            permits: Arc::new(Semaphore::new(limits.concurrency as usize)),
            concurrency: limits.concurrency,
            queued: AtomicU32::new(0),
            queue_max: limits.queue,
        }
    }

    /// A permit, at once or after waiting in the queue until `deadline`.
    pub(crate) async fn enter(&self, deadline: Instant) -> Result<Permit, Failure> {
        if let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() {
            return Ok(permit);
        }
        let _place =
            Place::take(&self.queued, self.queue_max).ok_or_else(|| self.overloaded("and its queue is full"))?;
        let permit = Arc::clone(&self.permits).acquire_owned();
        match tokio::time::timeout_at(deadline.into(), permit).await {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_)) => Err(Failure::new(Kind::Draining, "this revision of the function is stopping")),
            Err(_) => Err(self.overloaded("and none ended before this request's deadline")),
        }
    }

    pub(crate) fn running(&self) -> u32 {
        let free = u32::try_from(self.permits.available_permits()).unwrap_or(u32::MAX);
        self.concurrency.saturating_sub(free)
    }

    pub(crate) fn queued(&self) -> u32 {
        self.queued.load(Ordering::Relaxed)
    }

    fn overloaded(&self, why: &str) -> Failure {
        let message = format!("{} requests run at the same time, {why}: try again later", self.concurrency);
        Failure::new(Kind::Overloaded, message)
    }
}

/// A place in the queue, given back on drop.
struct Place<'a>(&'a AtomicU32);

impl<'a> Place<'a> {
    fn take(queued: &'a AtomicU32, max: u32) -> Option<Self> {
        queued.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| (n < max).then_some(n + 1)).ok()?;
        Some(Self(queued))
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
