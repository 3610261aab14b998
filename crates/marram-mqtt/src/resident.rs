//! A message in memory for clients. It counts there once, however many of them have it, and until none has.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use marram_core::port::mqtt::Message;

use crate::stats::{self, Stats};

/// A message, and its bytes in a counter while it lives.
pub(crate) struct Resident {
    message: Arc<Message>,
    bytes: usize,
    is_reserve: bool,
    stats: Arc<Stats>,
}

impl Resident {
    /// In the memory that clients have their parts of.
    pub(crate) fn new(message: Arc<Message>, stats: &Arc<Stats>) -> Arc<Self> {
        Self::counted(message, false, stats)
    }

    /// In what is kept back for those whose part is too small for their next message ([`crate::Limits::has_reserve`]).
    pub(crate) fn reserve(message: Arc<Message>, stats: &Arc<Stats>) -> Arc<Self> {
        Self::counted(message, true, stats)
    }

    fn counted(message: Arc<Message>, is_reserve: bool, stats: &Arc<Stats>) -> Arc<Self> {
        let held = Self { bytes: message.size(), message, is_reserve, stats: stats.clone() };
        stats::add(held.counter(), held.bytes as u64);
        Arc::new(held)
    }

    fn counter(&self) -> &AtomicU64 {
        if self.is_reserve { &self.stats.reserve } else { &self.stats.memory }
    }

    pub(crate) fn message(&self) -> &Arc<Message> {
        &self.message
    }

    /// What it counts for in limits.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Deref for Resident {
    type Target = Message;

    fn deref(&self) -> &Message {
        &self.message
    }
}

impl Drop for Resident {
    fn drop(&mut self) {
        stats::sub(self.counter(), self.bytes as u64);
    }
}

impl std::fmt::Debug for Resident {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.message.fmt(f)
    }
}
