//! Every limit that a function has, and every limit that a manifest has, with its reason.

use std::time::Duration;

use crate::quantity::{ByteSize, Span};

/// The limits under which a function runs. All of them hold at the same time; all can be set in the manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Linear memory of one instance, all memories together.
    pub memory: ByteSize,
    /// Wall-clock time from the request's arrival at the function to the end of its answer.
    pub deadline: Duration,
    /// CPU time of one invocation.
    pub cpu: Duration,
    /// Invocations at the same time.
    pub concurrency: u32,
    /// Requests that may wait for one of these; the next one is refused at once.
    pub queue: u32,
    /// Body of a request, and body of an answer held back for a slow reader.
    pub body: ByteSize,
    /// Log output of one invocation; the rest is counted and dropped.
    pub log: ByteSize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory: ByteSize(128 << 20),
            deadline: Duration::from_secs(30),
            cpu: Duration::from_secs(10),
            concurrency: 128,
            queue: 256,
            body: ByteSize(8 << 20),
            log: ByteSize(256 << 10),
        }
    }
}

/// What a manifest may ask for: smallest and largest value of each limit. `config.rs` of a node may lower the largest.
#[derive(Clone, Debug)]
pub struct LimitRange {
    /// A page of WebAssembly is the smallest memory; 4 GiB is what 32-bit addresses reach.
    pub memory: (ByteSize, ByteSize),
    /// A deadline below the resolution of enforcement says nothing.
    pub deadline: (Span, Span),
    /// As for the deadline; the tick is [`EPOCH_TICK`].
    pub cpu: (Span, Span),
    /// Each running invocation holds an instance of the pool.
    pub concurrency: (u32, u32),
    /// A waiting request holds a connection and its header section.
    pub queue: (u32, u32),
    /// Bodies stream, so the most is what a caller may reasonably upload.
    pub body: (ByteSize, ByteSize),
    /// A log is for reading.
    pub log: (ByteSize, ByteSize),
}

/// The range that every node accepts.
pub const LIMIT_RANGE: LimitRange = LimitRange {
    memory: (ByteSize(64 << 10), ByteSize(4 << 30)),
    deadline: (Span(Duration::from_millis(1)), Span(Duration::from_secs(3600))),
    cpu: (Span(Duration::from_millis(1)), Span(Duration::from_secs(3600))),
    concurrency: (1, 10_000),
    queue: (0, 100_000),
    body: (ByteSize(0), ByteSize(64 << 30)),
    log: (ByteSize(0), ByteSize(64 << 20)),
};

/// How often running code is interrupted to look at its deadline and CPU time. Limits hold to within 20 ms (MISSION);
/// a quarter of that leaves room for a late thread.
pub const EPOCH_TICK: Duration = Duration::from_millis(5);

/// Functions in an app: a person has to be able to read its manifest.
pub const FUNCTIONS_MAX: usize = 256;
/// Triggers of a function.
pub const TRIGGERS_MAX: usize = 64;
/// Bytes of a manifest.
pub const MANIFEST_BYTES_MAX: usize = 1 << 20;
/// Bytes of a component: larger ones take minutes to compile.
pub const COMPONENT_BYTES_MAX: usize = 256 << 20;
/// Entries of `config`, of `secrets`, and of each list below `allow`.
pub const ENTRIES_MAX: usize = 256;
/// Bytes of one value of `config` or of a secret.
pub const VALUE_BYTES_MAX: usize = 64 << 10;
/// Requests that one instance may serve before it is replaced.
pub const REUSE_MAX: u32 = 1_000_000;
/// Requests at the same time in one instance.
pub const CONCURRENT_MAX: u32 = 1_000;
/// Instances kept ready for a function.
pub const WARM_MAX: u32 = 256;
/// Resource handles of an instance: streams, headers, requests, timers.
pub const HANDLES_MAX: usize = 10_000;
/// Bytes that the host holds for an instance: messages, pages of names, objects on their way.
pub const HELD_BYTES_MAX: usize = 32 << 20;
/// Elements of all tables of an instance together.
pub const TABLE_ELEMENTS_MAX: usize = 100_000;
/// Bytes of one log line; a longer one is cut and marked.
pub const LOG_LINE_BYTES_MAX: usize = 16 << 10;
/// How deeply functions may call each other through `<function>.internal`.
pub const INTERNAL_DEPTH_MAX: u32 = 8;
/// Bytes of an event's data, wherever it comes from: larger things are objects, and the event names them.
pub const EVENT_DATA_BYTES_MAX: usize = 1 << 20;
/// Bytes of one attribute of an event.
pub const EVENT_ATTRIBUTE_BYTES_MAX: usize = 4 << 10;
/// Extension attributes of an event.
pub const EVENT_EXTENSIONS_MAX: usize = 64;
/// Events of one publish: what is stored together is held in memory together.
pub const EVENTS_PER_PUBLISH_MAX: usize = 1_000;
/// Bytes of the body of one publish: as many as one transaction should hold.
pub const PUBLISH_BYTES_MAX: usize = 8 << 20;
/// Events of one batch to a function: as many as may be published at once.
pub const BATCH_EVENTS_MAX: u32 = 1_000;
/// The longest wait for a batch to fill: a reading that waits longer is better served alone.
pub const BATCH_WAIT_MAX: Duration = Duration::from_secs(60);
/// Deliveries of one consumer that are not settled: all of them are in memory.
pub const IN_FLIGHT_MAX: u32 = 2_048;
/// Deliveries of one event before it is given up on.
pub const DELIVERIES_MAX: u32 = 1_000;
/// The shortest and the longest time for a settlement; it is extended for as long as the function runs.
pub const ACK_WAIT: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(3600));
/// The longest wait between two deliveries of an event.
pub const BACKOFF_MAX: Duration = Duration::from_secs(86_400);
/// Streams of an app, and buckets of one.
pub const DECLARED_MAX: usize = 256;
/// What a stream may be asked to keep: less than the largest event is no stream, and more than this no disk.
pub const STREAM_BYTES: (ByteSize, ByteSize) = (ByteSize(2 << 20), ByteSize(64 << 40));
/// How long a stream may be asked to keep it.
pub const STREAM_AGE: (Span, Span) = (Span(Duration::from_secs(1)), Span(Duration::from_secs(3650 * 86_400)));
/// How long identities of events may be remembered: each is an entry on the disk.
pub const DEDUPE_MAX: Span = Span(Duration::from_secs(7 * 86_400));
/// Bytes of a schedule, which is a line.
pub const SCHEDULE_BYTES_MAX: usize = 128;
/// Bytes of a key of a bucket.
pub const KEY_BYTES_MAX: usize = 1024;
/// Bytes of a key's value: larger things are objects.
pub const KV_VALUE_BYTES_MAX: usize = 1 << 20;
/// Changes of one batch of keys: they are one transaction, and everybody else's writes wait for it.
pub const KV_BATCH_CHANGES_MAX: usize = 1_000;
/// Bytes of the keys and values of one batch: they are in memory together.
pub const KV_BATCH_BYTES_MAX: usize = 8 << 20;
/// Keys of one page of a list.
pub const KV_LIST_KEYS_MAX: usize = 1_000;
/// Bytes of a value that a watch brings along: a thousand changes wait for slow readers, and these bytes with each.
pub const KV_WATCH_VALUE_BYTES_MAX: usize = 4 << 10;
/// Bytes of an object, and of one part of one: a disk of an edge node, and far from what a file system cannot hold.
pub const OBJECT_BYTES_MAX: u64 = 1 << 40;
/// Bytes of the name of an object, as in S3.
pub const OBJECT_NAME_BYTES_MAX: usize = 1024;
/// Bytes of everything that is said of an object: S3 takes 2 KiB of the user's own, and some headers beside it. It comes with
/// each entry of a list.
pub const OBJECT_ATTRIBUTES_BYTES_MAX: usize = 8 << 10;
/// Parts of an object, as in S3: each is a row and a file.
pub const OBJECT_PARTS_MAX: u32 = 10_000;
/// Entries of one page of a list, and objects of one delete, as in S3.
pub const OBJECT_LIST_MAX: usize = 1_000;
/// Buckets of a node, which are listed without pages.
pub const OBJECT_BUCKETS_MAX: usize = 1_000;
/// Uploads in parts that are begun in one bucket and not completed: each holds what was uploaded.
pub const OBJECT_UPLOADS_MAX: usize = 1_000;
/// How long an upload in parts is kept that nothing happens to: a client that comes back after a week begins anew.
pub const OBJECT_UPLOAD_KEPT: Duration = Duration::from_secs(7 * 86_400);
