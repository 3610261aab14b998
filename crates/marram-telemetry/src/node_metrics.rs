//! What the node itself counts: requests at its front, connections, and whatever else it wants to show.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use marram_core::Kind;

use crate::totals::{DURATION_NS, Histogram};

/// Counters of the HTTP front. Every call is a few atomic additions.
#[derive(Default)]
pub struct HttpMetrics {
    /// By the hundreds of the status; 0 where there was no answer.
    answers: [AtomicU64; 6],
    durations: [AtomicU64; DURATION_NS.len() + 1],
    duration_ns: AtomicU64,
    refused: [AtomicU64; Kind::ALL.len()],
    opened: AtomicU64,
    closed: AtomicU64,
    accept_failed: AtomicU64,
}

impl HttpMetrics {
    /// An answer is complete; `status` is 0 if the client went away before there was one.
    pub fn answered(&self, status: u16, took: Duration) {
        add(&self.answers[usize::from(status / 100).min(5)]);
        let ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        add(&self.durations[DURATION_NS.partition_point(|bound| *bound < ns)]);
        self.duration_ns.fetch_add(ns, Ordering::Relaxed);
    }

    /// Bytes were refused that never became a request.
    pub fn refused(&self, kind: Kind) {
        add(&self.refused[kind as usize]);
    }

    /// A connection was accepted.
    pub fn opened(&self) {
        add(&self.opened);
    }

    /// A connection ended.
    pub fn closed(&self) {
        add(&self.closed);
    }

    /// Accepting a connection failed.
    pub fn accept_failed(&self) {
        add(&self.accept_failed);
    }

    pub(crate) fn answers(&self) -> impl Iterator<Item = (&'static str, u64)> {
        ["none", "1xx", "2xx", "3xx", "4xx", "5xx"].into_iter().zip(self.answers.iter().map(read))
    }

    pub(crate) fn durations(&self) -> Histogram<19> {
        let mut histogram = Histogram::default();
        for (count, counter) in histogram.counts.iter_mut().zip(&self.durations) {
            *count = read(counter);
        }
        histogram.over = read(&self.durations[DURATION_NS.len()]);
        histogram.sum = read(&self.duration_ns).into();
        histogram
    }

    pub(crate) fn refusals(&self) -> impl Iterator<Item = (&'static str, u64)> {
        Kind::ALL.iter().map(|kind| kind.label()).zip(self.refused.iter().map(read)).filter(|(_, count)| *count > 0)
    }

    /// Accepted so far, open now, failed to accept.
    pub(crate) fn connections(&self) -> (u64, u64, u64) {
        // Read in this order, so that a connection that comes and goes meanwhile cannot make the difference negative.
        let closed = read(&self.closed);
        let opened = read(&self.opened);
        (opened, opened.saturating_sub(closed), read(&self.accept_failed))
    }
}

fn add(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

/// Asked for its value when metrics are read.
type Read = Box<dyn Fn() -> f64 + Send + Sync>;

/// Values that others own.
#[derive(Default)]
pub(crate) struct Gauges(Mutex<Vec<Gauge>>);

pub(crate) struct Gauge {
    pub(crate) name: &'static str,
    pub(crate) help: &'static str,
    pub(crate) read: Read,
}

impl Gauges {
    /// Adds a gauge, or replaces the one of this name.
    pub(crate) fn set(&self, gauge: Gauge) {
        let mut gauges = self.lock();
        gauges.retain(|old| old.name != gauge.name);
        gauges.push(gauge);
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Vec<Gauge>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Resident memory of this process in bytes (proc_pid_status(5), `VmRSS`), where the system tells it.
pub(crate) fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1_024)
}
