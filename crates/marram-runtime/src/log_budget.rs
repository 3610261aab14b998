//! How much log output somebody may still write, and what was too much of it.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use marram_core::limits::Limits;

/// The budget of one run, or of an instance while no run pays.
pub(crate) struct LogBudget {
    bytes_left: AtomicI64,
    bytes_dropped: AtomicU64,
}

/// What [`LogBudget::room`] says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LogRoom {
    Enough,
    Last,
    None,
}

impl LogBudget {
    pub(crate) fn new(limits: &Limits) -> Self {
        let bytes = i64::try_from(limits.log.0).unwrap_or(i64::MAX);
        Self { bytes_left: AtomicI64::new(bytes), bytes_dropped: AtomicU64::new(0) }
    }

    /// Whether this many bytes still fit; if not, they are counted. The first time they do not, `LogRoom::Last` says so.
    pub(crate) fn room(&self, bytes: usize) -> LogRoom {
        let wanted = i64::try_from(bytes).unwrap_or(i64::MAX);
        let before = self.bytes_left.fetch_sub(wanted, Ordering::Relaxed);
        if before >= wanted {
            return LogRoom::Enough;
        }
        self.bytes_dropped.fetch_add(bytes as u64, Ordering::Relaxed);
        if before >= 0 { LogRoom::Last } else { LogRoom::None }
    }

    /// What did not fit since this was asked last.
    pub(crate) fn take_dropped(&self) -> u64 {
        self.bytes_dropped.swap(0, Ordering::Relaxed)
    }

    /// Takes over what somebody else had to drop.
    pub(crate) fn add_dropped(&self, bytes: u64) {
        self.bytes_dropped.fetch_add(bytes, Ordering::Relaxed);
    }
}
