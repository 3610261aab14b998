//! What every test here needs: a clock that is set by hand, lines, records.
#![allow(clippy::unwrap_used, dead_code)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use marram_core::port::Clock;
use marram_core::record::{Level, LogLine, MeterRecord, Outcome, Source, Start};
use marram_core::trace::{RequestId, SpanId, TraceId};
use marram_core::{Digest, FunctionId, Name};
use marram_telemetry::{Telemetry, TelemetryConfig, TelemetryTask};

pub const SECOND: u64 = 1_000_000_000;
pub const NOW: u64 = 1_700_000_000 * SECOND;

/// Time of day by hand; monotonic time is real, as the background thread sleeps on it.
pub struct HandClock(pub AtomicU64);

impl HandClock {
    pub fn at(unix_ns: u64) -> Arc<Self> {
        Arc::new(Self(AtomicU64::new(unix_ns)))
    }

    pub fn set(&self, unix_ns: u64) {
        self.0.store(unix_ns, Ordering::SeqCst);
    }
}

impl Clock for HandClock {
    fn unix_ns(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }

    fn instant(&self) -> Instant {
        Instant::now()
    }
}

pub fn open(dir: &tempfile::TempDir) -> (Arc<Telemetry>, TelemetryTask) {
    Telemetry::open(TelemetryConfig::new(dir.path()), HandClock::at(NOW)).unwrap()
}

pub fn id(app: &str, function: &str) -> Arc<FunctionId> {
    let name = |text| Name::new(text).unwrap();
    Arc::new(FunctionId { app: name(app), function: name(function), revision: Digest::of(b"revision") })
}

pub fn line(id: &Arc<FunctionId>, number: u64, text: impl Into<String>) -> LogLine {
    LogLine {
        time_unix_ns: NOW + number,
        level: Level::Info,
        id: Arc::clone(id),
        request: Some(RequestId(number)),
        trace: Some(TraceId(u128::from(number))),
        source: Source::Stdout,
        context: String::new(),
        text: text.into(),
    }
}

pub fn record(id: &Arc<FunctionId>, number: u64) -> MeterRecord {
    MeterRecord {
        id: Arc::clone(id),
        request: RequestId(number),
        trace: TraceId(7),
        span: SpanId(number.max(1)),
        start_unix_ns: NOW + number,
        wall_ns: 100_000,
        cpu_ns: 60_000,
        queued_ns: 10,
        memory_peak_bytes: 2 << 20,
        bytes_in: 3,
        bytes_out: 11,
        log_bytes_dropped: number % 2,
        status: 200,
        start: Start::Fresh,
        outcome: Outcome::Answered,
    }
}
