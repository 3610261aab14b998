//! The wait before something that failed is tried again.

use std::time::Duration;

use tokio::time::Instant;

use crate::deliver::run::spread;
use crate::limits::STORE;

/// Longer each time, until it succeeds.
pub(super) struct Pause {
    next: Duration,
    pub(super) until: Option<Instant>,
}

impl Pause {
    pub(super) const fn new() -> Self {
        Self { next: STORE.0, until: None }
    }

    pub(super) fn reset(&mut self) {
        *self = Self::new();
    }

    pub(super) fn wait(&mut self, after: Duration, random: u64) {
        self.until = Some(Instant::now() + spread(self.next, random).max(after).min(STORE.1));
        self.next = (self.next * 2).min(STORE.1);
    }

    pub(super) fn is_over(&self, now: Instant) -> bool {
        self.until.is_none_or(|until| until <= now)
    }
}
