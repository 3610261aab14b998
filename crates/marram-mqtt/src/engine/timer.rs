//! What happens later: sessions expire, wills become due.

use std::collections::BTreeMap;
use std::time::Instant;

use marram_core::port::mqtt::ClientId;

use super::session::Key;

/// What becomes due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Timer {
    /// A session without a connection has been kept for as long as it asked for.
    Expiry(Key),
    /// The delay of a will is over.
    Will(Key),
    /// Retained messages, or a part of a queue that could not be read, are tried again.
    Retry(Key),
    /// The queue of a session that has ended could not be read or handed over, and is tried again.
    HandOver(ClientId),
    /// Messages of groups that could not be handed on are tried again.
    Strays,
}

/// A timer that is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Set(Instant, u64);

/// Timers by their time.
#[derive(Default)]
pub(super) struct Timers {
    set: BTreeMap<Set, Timer>,
    number: u64,
}

impl Timers {
    pub(super) fn set(&mut self, at: Instant, timer: Timer) -> Set {
        self.number += 1;
        let set = Set(at, self.number);
        self.set.insert(set, timer);
        set
    }

    pub(super) fn unset(&mut self, set: Set) {
        self.set.remove(&set);
    }

    pub(super) fn next(&self) -> Option<Instant> {
        self.set.first_key_value().map(|(set, _)| set.0)
    }

    pub(super) fn due(&mut self, now: Instant) -> Option<Timer> {
        let entry = self.set.first_entry().filter(|entry| entry.key().0 <= now)?;
        Some(entry.remove())
    }
}
