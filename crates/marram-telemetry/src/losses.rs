//! What could not be kept: counted, shown as a metric, logged once in a while.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use crate::limits::COMPLAINT_INTERVAL;
use crate::{Telemetry, TelemetryError};

#[derive(Default)]
pub(crate) struct Losses {
    log_lines: AtomicU64,
    log_lines_unwritten: AtomicU64,
    failed_writes: AtomicU64,
    complaint: Mutex<Complaint>,
}

/// When something was last logged, and what the counters were then.
#[derive(Default)]
struct Complaint {
    at: Option<Instant>,
    said: [u64; 4],
    error: String,
}

impl Losses {
    /// Lines that found the queue full.
    pub(crate) fn log_lines(&self, lines: u64) {
        self.log_lines.fetch_add(lines, Ordering::Relaxed);
    }

    /// Lines that followers saw but the disk did not take.
    pub(crate) fn log_lines_unwritten(&self, lines: u64) {
        self.log_lines_unwritten.fetch_add(lines, Ordering::Relaxed);
    }

    /// A write to the disk failed.
    pub(crate) fn write_failed(&self, error: String) {
        self.failed_writes.fetch_add(1, Ordering::Relaxed);
        self.complaint.lock().unwrap_or_else(PoisonError::into_inner).error = error;
    }
}

impl Telemetry {
    /// What was lost, by what it was.
    pub(crate) fn losses(&self) -> [(&'static str, u64); 4] {
        [
            ("log_lines", self.losses.log_lines.load(Ordering::Relaxed)),
            ("log_lines_on_disk", self.losses.log_lines_unwritten.load(Ordering::Relaxed)),
            ("recent_invocations", self.books().records_lost),
            ("writes", self.losses.failed_writes.load(Ordering::Relaxed)),
        ]
    }

    pub(crate) fn flush_or_complain(&self) -> Result<(), TelemetryError> {
        self.bring_in();
        let written = self.write();
        if let Err(error) = &written {
            self.losses.write_failed(error.to_string());
        }
        written
    }

    /// Logs losses, once an interval at most.
    pub(crate) fn complain(&self) {
        let lost = self.losses();
        let now = self.clock.instant();
        let mut complaint = self.losses.complaint.lock().unwrap_or_else(PoisonError::into_inner);
        let counts = lost.map(|(_, count)| count);
        // Recent invocations make room for later ones in the course of things; the metric is enough for them.
        let news = [0, 1, 3].into_iter().any(|what| counts[what] != complaint.said[what]);
        if !news || complaint.at.is_some_and(|at| now.saturating_duration_since(at) < COMPLAINT_INTERVAL) {
            return;
        }
        let since = |what: usize| counts[what] - complaint.said[what];
        tracing::warn!(
            log_lines = since(0),
            log_lines_on_disk = since(1),
            failed_writes = since(3),
            last_error = complaint.error,
            "telemetry could not keep everything"
        );
        complaint.at = Some(now);
        complaint.said = counts;
    }
}
