//! The background thread: gathers what callers left, flushes it once a second, enforces retention.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::watch;

use crate::limits::{FLUSH_INTERVAL, GATHER, RETENTION_INTERVAL};
use crate::{Telemetry, TelemetryError};

/// Owns the background thread. Dropping it stops the thread, too.
pub struct TelemetryTask {
    telemetry: Arc<Telemetry>,
    thread: Option<JoinHandle<()>>,
}

impl TelemetryTask {
    pub(crate) fn start(telemetry: &Arc<Telemetry>, tip: watch::Sender<u64>) -> Result<Self, TelemetryError> {
        let shared = Arc::clone(telemetry);
        let thread = std::thread::Builder::new()
            .name("telemetry".into())
            .spawn(move || run(&shared, &tip))
            .map_err(|error| TelemetryError::io("start its thread", error))?;
        telemetry.signal.attach(thread.thread().clone());
        Ok(Self { telemetry: Arc::clone(telemetry), thread: Some(thread) })
    }

    /// Writes everything down and ends the thread. Followers get what there is, then their end. Blocks until that is done.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        if let Some(thread) = self.thread.take() {
            self.telemetry.signal.stop();
            // The thread has no way to panic that is known; there is nothing to be done about one that did.
            let _ = thread.join();
        }
    }
}

impl Drop for TelemetryTask {
    fn drop(&mut self) {
        self.end();
    }
}

fn run(telemetry: &Telemetry, tip: &watch::Sender<u64>) {
    let clock = &telemetry.clock;
    let mut last_flush = clock.instant();
    let mut last_retention: Option<std::time::Instant> = None;
    let mut dirty = false;
    loop {
        let now = clock.instant();
        if last_retention.is_none_or(|last| now.saturating_duration_since(last) >= RETENTION_INTERVAL) {
            telemetry.enforce_retention();
            last_retention = Some(now);
        }
        telemetry.complain();
        if telemetry.signal.is_stopped() {
            break;
        }
        if !telemetry.signal.is_raised() {
            let until_flush = FLUSH_INTERVAL.saturating_sub(now.saturating_duration_since(last_flush));
            // A millisecond at least: a clock that stands still must not make this spin.
            telemetry.signal.wait(if dirty { until_flush.max(Duration::from_millis(1)) } else { RETENTION_INTERVAL });
        }
        if telemetry.signal.is_raised() {
            telemetry.signal.wait(GATHER);
        }
        if telemetry.signal.take() {
            dirty = true;
            tip.send_replace(telemetry.gather());
        }
        let now = clock.instant();
        if dirty && now.saturating_duration_since(last_flush) >= FLUSH_INTERVAL {
            // What could not be written stays, and is tried again a second later.
            dirty = telemetry.flush_or_complain().is_err();
            last_flush = now;
        }
    }
    tip.send_replace(telemetry.gather());
    // Logged by the call itself; there is no later.
    let _ = telemetry.flush_or_complain();
}
