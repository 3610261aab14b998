//! What is seen of a node: log lines, meter records, usage, metrics.
//!
//! [`Telemetry`] implements the port [`Observe`]. Its two calls are on the hot path: they lock for the time of an addition,
//! never wait for a disk, and never grow past a limit. What overflows is counted (`marram_telemetry_lost_total`) and logged.
//! Sums of usage are complete even then. A background thread writes to `telemetry.db` once a second: `kill -9` takes the last
//! second, a power cut what the operating system had not written yet.
//!
//! Calls that read ([`Telemetry::logs`], [`Telemetry::usage`]) may read the disk for milliseconds: use a blocking thread.
//!
//! ```
//! # use std::sync::Arc;
//! # use std::time::Instant;
//! use marram_core::port::{Clock, Observe};
//! use marram_core::record::{Level, LogLine, Source};
//! use marram_core::{Digest, FunctionId, Name};
//! use marram_telemetry::{Followed, LogQuery, Telemetry, TelemetryConfig, UsageQuery};
//!
//! # struct SystemClock;
//! # impl Clock for SystemClock {
//! #     fn unix_ns(&self) -> u64 { 1_700_000_000_000_000_000 }
//! #     fn instant(&self) -> Instant { Instant::now() }
//! # }
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let dir = tempfile::tempdir()?;
//! # let state_dir = dir.path();
//! let (telemetry, task) = Telemetry::open(TelemetryConfig::new(state_dir), Arc::new(SystemClock))?;
//! let id = Arc::new(FunctionId { app: Name::new("shop")?, function: Name::new("price")?, revision: Digest::of(b"") });
//!
//! let mut follow = telemetry.follow(LogQuery { app: Some(id.app.clone()), ..LogQuery::default() })?;
//! telemetry.log(LogLine {
//!     time_unix_ns: 1_700_000_000_000_000_001,
//!     level: Level::Info,
//!     id,
//!     request: None,
//!     trace: None,
//!     source: Source::Stdout,
//!     context: String::new(),
//!     text: "hello".into(),
//! });
//! let Some(Followed::Line(line)) = follow.next().await else { panic!("no line") };
//! assert!(serde_json::to_string(&line)?.starts_with(r#"{"time":"2023-11-14T22:13:20.000000001Z","level":"info""#));
//!
//! assert!(telemetry.usage(&UsageQuery::default())?.is_empty());
//! assert!(telemetry.metrics().ends_with("# EOF\n"));
//! task.stop();
//! # Ok(())
//! # }
//! ```

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod background;
mod books;
mod disk;
mod entry;
mod error;
mod family;
mod follow;
pub mod limits;
mod logs;
mod losses;
mod meter;
mod metrics;
mod node_metrics;
mod query;
mod signal;
mod totals;
mod usage;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use marram_core::port::{Clock, Observe};
use marram_core::record::{LogLine, MeterRecord};
use marram_core::{FunctionId, Kind, Name};
use prometheus_client::registry::Registry;
use tokio::sync::watch;

pub use background::TelemetryTask;
pub use entry::{Invocation, InvocationQuery, LogEntry, LogQuery};
pub use error::TelemetryError;
pub use family::{Family, Labels, Values};
pub use follow::{Follow, Followed};
pub use marram_core::time::{Timestamp, TimestampError};
pub use metrics::METRICS_CONTENT_TYPE;
pub use node_metrics::HttpMetrics;
pub use usage::{Cost, PriceList, Usage, UsageQuery, Used};

use books::{Books, Minute};
use disk::Disk;
use logs::{Logs, Numbered};
use losses::Losses;
use meter::Meter;
use node_metrics::{Gauge, Gauges};
use signal::Signal;

/// How telemetry is opened.
#[derive(Clone, Debug)]
pub struct TelemetryConfig {
    /// The state directory, which exists; `telemetry.db` is made in it.
    pub dir: PathBuf,
    /// The program's version, for `marram_build_info`.
    pub version: String,
    /// Recent log lines in memory, by bytes.
    pub log_ring_bytes: usize,
    /// Log lines on the disk, by bytes after compression.
    pub log_disk_bytes: u64,
    /// Log lines on the disk, by age.
    pub log_disk_age: Duration,
}

impl TelemetryConfig {
    /// Telemetry in `dir`, with every default.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            version: env!("CARGO_PKG_VERSION").into(),
            log_ring_bytes: limits::LOG_RING_BYTES,
            log_disk_bytes: limits::LOG_DISK_BYTES,
            log_disk_age: limits::LOG_DISK_AGE,
        }
    }
}

/// What is seen of one node.
///
/// Locks are taken in this order: `disk`, `gathering`, `books`. Those of the meter and of the log hold nothing else.
pub struct Telemetry {
    clock: Arc<dyn Clock>,
    version: String,
    meter: Meter,
    logs: Arc<Logs>,
    books: Mutex<Books>,
    disk: Mutex<Disk>,
    /// Lines that are not on the disk yet. Whoever gathers holds it, so that lines keep their order.
    gathering: Mutex<Gathering>,
    losses: Losses,
    http: HttpMetrics,
    gauges: Gauges,
    this: Weak<Self>,
    signal: Signal,
    tip: watch::Receiver<u64>,
}

#[derive(Default)]
struct Gathering {
    unwritten: Vec<Arc<Numbered>>,
    unwritten_bytes: usize,
}

impl Observe for Telemetry {
    fn log(&self, line: LogLine) {
        self.logs.push(line);
        self.signal.raise();
    }

    fn meter(&self, record: MeterRecord) {
        self.meter.add(record);
        self.signal.raise();
    }

    fn refused(&self, id: &Arc<FunctionId>, kind: Kind) {
        self.meter.add_refused(id, kind);
        self.signal.raise();
    }

    fn initialized(&self, id: &Arc<FunctionId>, took: Duration) {
        self.meter.add_init(id, took);
        self.signal.raise();
    }
}

impl Telemetry {
    /// Opens `telemetry.db` and starts the background thread, which the returned handle owns.
    ///
    /// A damaged database is moved aside. On a disk that is full it is opened later, and until then everything is kept in memory,
    /// within its limits. One of a newer version is refused.
    pub fn open(config: TelemetryConfig, clock: Arc<dyn Clock>) -> Result<(Arc<Self>, TelemetryTask), TelemetryError> {
        let age_ns = u64::try_from(config.log_disk_age.as_nanos()).unwrap_or(u64::MAX);
        let disk = Disk::open(&config.dir.join("telemetry.db"), config.log_disk_bytes, age_ns)?;
        let next = disk.next_log_number(clock.unix_ns())?;
        let (tip, tip_seen) = watch::channel(next);
        let telemetry = Arc::new_cyclic(|this| Self {
            clock,
            version: config.version,
            meter: Meter::default(),
            logs: Arc::new(Logs::new(next, config.log_ring_bytes)),
            books: Mutex::default(),
            disk: Mutex::new(disk),
            gathering: Mutex::default(),
            losses: Losses::default(),
            http: HttpMetrics::default(),
            gauges: Gauges::default(),
            this: this.clone(),
            signal: Signal::default(),
            tip: tip_seen,
        });
        let task = TelemetryTask::start(&telemetry, tip)?;
        Ok((telemetry, task))
    }

    /// The counters of the HTTP front.
    pub fn http(&self) -> &HttpMetrics {
        &self.http
    }

    /// Shows a value that somebody else owns. `name` is a metric's name with its unit; it replaces one of the same name.
    pub fn gauge(&self, name: &'static str, help: &'static str, read: impl Fn() -> f64 + Send + Sync + 'static) {
        self.gauges.set(Gauge { name, help, read: Box::new(read) });
    }

    /// Forgets the metrics of an app that was removed. Its usage and its log lines stay for as long as they are kept.
    pub fn remove_app(&self, app: &Name) {
        self.bring_in();
        self.books().series.retain(|key, _| key.app() != app.as_str());
    }

    /// All metrics as OpenMetrics text ([`METRICS_CONTENT_TYPE`]).
    #[must_use]
    pub fn metrics(&self) -> String {
        self.metrics_with(Vec::new())
    }

    /// The same, and those of somebody else.
    #[must_use]
    pub fn metrics_with(&self, more: Vec<Family>) -> String {
        self.bring_in();
        let mut registry = Registry::default();
        registry.register_collector(Box::new(metrics::Metrics(self.this.clone())));
        registry.register_collector(Box::new(family::Families(more)));
        let mut text = String::new();
        // Writing to a string does not fail; what was written so far is the best answer if it ever does.
        let _ = prometheus_client::encoding::text::encode(&mut text, &registry);
        text
    }

    /// Writes everything down now: log lines and usage. The background thread does this once a second.
    pub fn flush(&self) -> Result<(), TelemetryError> {
        self.gather();
        self.write()
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        lock(&self.books)
    }

    /// Brings what the meter counted into the books.
    fn bring_in(&self) {
        let now = Minute::of(self.clock.unix_ns());
        let mut books = self.books();
        for shard in self.meter.take() {
            books.bring_in(shard, now);
        }
    }

    /// Brings in what callers left, and says which number the next log line will have.
    fn gather(&self) -> u64 {
        self.bring_in();
        let mut gathering = lock(&self.gathering);
        let taken = self.logs.gather();
        self.losses.log_lines(taken.dropped);
        for line in taken.lines {
            let bytes = logs::bytes(&line.line);
            if gathering.unwritten_bytes + bytes > limits::LOG_QUEUE_BYTES_MAX * 2 {
                // The disk has not taken lines for a while. Followers still see them.
                self.losses.log_lines_unwritten(1);
                continue;
            }
            gathering.unwritten_bytes += bytes;
            gathering.unwritten.push(line);
        }
        taken.next
    }

    /// Writes what was gathered. What cannot be written is kept for the next time.
    fn write(&self) -> Result<(), TelemetryError> {
        // The disk first: whoever waits for it finds everything that was taken before written.
        let mut disk = lock(&self.disk);
        let lines = std::mem::take(&mut *lock(&self.gathering));
        let now = self.clock.unix_ns();
        let logs = if lines.unwritten.is_empty() { Ok(false) } else { disk.write_logs(&lines.unwritten, now) };
        let logs = match logs {
            Ok(true) => disk.drop_old_logs(now),
            Ok(false) => Ok(()),
            Err(error) => {
                self.put_back(lines);
                Err(error)
            }
        };
        let pending = self.books().take_pending();
        let usage = if pending.is_empty() { Ok(()) } else { disk.write_usage(pending.iter()) };
        if usage.is_err() {
            self.books().put_back(pending);
        }
        logs.and(usage)
    }

    fn put_back(&self, mut lines: Gathering) {
        let mut gathering = lock(&self.gathering);
        lines.unwritten.append(&mut gathering.unwritten);
        lines.unwritten_bytes += gathering.unwritten_bytes;
        *gathering = lines;
    }

    fn enforce_retention(&self) {
        let now = self.clock.unix_ns();
        let mut disk = lock(&self.disk);
        let result = disk.drop_old_logs(now).and_then(|()| disk.fold_old_usage(now));
        drop(disk);
        if let Err(error) = result {
            self.losses.write_failed(error.to_string());
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
