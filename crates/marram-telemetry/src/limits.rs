//! Every limit of telemetry, with its reason.

use std::time::Duration;

/// Log lines that wait for the background thread, by bytes and by number. At 50,000 lines a second it is more than a second of them.
pub const LOG_QUEUE_BYTES_MAX: usize = 8 << 20;
/// The same by number: short lines cost mostly their fixed part.
pub const LOG_QUEUE_LINES_MAX: usize = 65_536;
/// What a line costs besides its text: the struct, two allocations, its place in the ring.
pub const LOG_LINE_FIXED_BYTES: usize = 256;

/// Recent lines in memory, by bytes. Older ones are on the disk; an idle node has to stay below 20 MB with everything.
pub const LOG_RING_BYTES: usize = 4 << 20;
/// Lines on the disk, compressed, by bytes.
pub const LOG_DISK_BYTES: u64 = 64 << 20;
/// Lines on the disk, by age.
pub const LOG_DISK_AGE: Duration = Duration::from_secs(7 * 86_400);
/// A bucket is dropped whole; this many of them make the limit, so that a drop takes a small part of it.
pub const LOG_BUCKETS: u64 = 16;
/// A bucket is closed after this long, so that what is past its age goes soon.
pub const LOG_BUCKET_AGE: Duration = Duration::from_secs(3_600);
/// Text in one compressed block: small enough to be read for one line, large enough to compress.
pub const LOG_BLOCK_BYTES: usize = 256 << 10;
/// Lines that one query answers with.
pub const LOG_QUERY_LINES_MAX: usize = 10_000;
/// Lines that a follower is handed at once.
pub const FOLLOW_BATCH_MAX: usize = 512;

/// Meter records that wait in one shard for the background thread; the oldest give way. Totals are exact without them.
pub const RECORD_QUEUE_MAX: usize = 2_048;
/// Recent meter records in memory.
pub const RECORDS_KEPT: usize = 10_000;
/// Shards of the meter: more than the threads that run functions on most machines, so that they rarely meet.
pub const METER_SHARDS: usize = 16;

/// Functions with metrics of their own. Deployed functions are bounded already; this bounds what is left when many are
/// removed without [`crate::Telemetry::remove_app`]. Past it they share one series called `_other`.
pub const FUNCTIONS_MAX: usize = 10_000;
/// Totals that wait for a disk that cannot be written. Past it minutes are folded together; nothing is lost.
pub const USAGE_PENDING_MAX: usize = 20_000;
/// How long usage is kept by the minute; then by the hour.
pub const USAGE_MINUTES_AGE: Duration = Duration::from_secs(2 * 86_400);
/// How long usage is kept by the hour: a year, and some time to close the books.
pub const USAGE_HOURS_AGE: Duration = Duration::from_secs(400 * 86_400);

/// How often totals and lines are written to the disk: what `kill -9` can take.
pub const FLUSH_INTERVAL: Duration = Duration::from_secs(1);
/// How long the background thread lets lines and records gather before it looks: one wake-up for many.
pub const GATHER: Duration = Duration::from_millis(20);
/// How often retention is enforced.
pub const RETENTION_INTERVAL: Duration = Duration::from_secs(60);
/// How often a loss or a failing disk is logged.
pub const COMPLAINT_INTERVAL: Duration = Duration::from_secs(10);

/// How long a write waits for another process that reads or copies the database. What is not written stays, and is tried
/// again a second later; readers in this process wait behind it, so it is short.
pub const BUSY_TIMEOUT: Duration = Duration::from_millis(250);

/// Page cache of the telemetry database.
pub const PAGE_CACHE_KIB: u32 = 512;
