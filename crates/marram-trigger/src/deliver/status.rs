//! What a delivery has done so far.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// Counters of one trigger, since it was started.
#[derive(Debug, Default)]
pub struct Counters {
    /// Events that were handed to the function, each time anew.
    pub(super) delivered: AtomicU64,
    pub(super) invocations: AtomicU64,
    pub(super) acked: AtomicU64,
    pub(super) retried: AtomicU64,
    pub(super) dead_lettered: AtomicU64,
    pub(super) held: AtomicU64,
    pub(super) outputs: AtomicU64,
    pub(super) outputs_unused: AtomicU64,
    pub(super) running: AtomicU64,
    last_failure: Mutex<Option<String>>,
}

/// The counters at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Events that were handed to the function, each time anew.
    pub delivered: u64,
    /// Runs of the function.
    pub invocations: u64,
    /// Events that it acknowledged.
    pub acked: u64,
    /// Deliveries that failed and are made again.
    pub retried: u64,
    /// Events that went to the dead-letter stream for what the function answered.
    pub dead_lettered: u64,
    /// Times that a delivery found no place and waited.
    pub held: u64,
    /// Events that were answered and published to the output.
    pub outputs: u64,
    /// Answers that were events, of a function without an output.
    pub outputs_unused: u64,
    /// Runs now.
    pub running: u64,
    /// Why the last delivery, settlement or pull failed.
    pub last_failure: Option<String>,
}

impl Counters {
    /// The counters now.
    #[must_use]
    pub fn read(&self) -> Counts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            delivered: read(&self.delivered),
            invocations: read(&self.invocations),
            acked: read(&self.acked),
            retried: read(&self.retried),
            dead_lettered: read(&self.dead_lettered),
            held: read(&self.held),
            outputs: read(&self.outputs),
            outputs_unused: read(&self.outputs_unused),
            running: read(&self.running),
            last_failure: self.last_failure.lock().map_or_else(|_| None, |text| text.clone()),
        }
    }

    pub(super) fn failed(&self, reason: &str) {
        if let Ok(mut last) = self.last_failure.lock()
            && last.as_deref() != Some(reason)
        {
            *last = Some(reason.to_owned());
        }
    }
}

pub(super) fn add(counter: &AtomicU64, n: usize) {
    counter.fetch_add(n as u64, Ordering::Relaxed);
}
