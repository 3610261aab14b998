//! Every limit of the store, with its reason.

use std::time::Duration;

/// Writes that may wait for the writer. At a few hundred bytes each this is megabytes, and more than a disk that is
/// still alive falls behind in a second.
pub const WRITE_QUEUE_MAX: usize = 8_192;

/// Writes in one transaction. Past about a thousand the cost of a commit has long been shared out, and the first in the
/// group only waits longer.
pub const WRITE_GROUP_MAX: usize = 1_024;

/// How long the writes of one transaction run before it is committed without the others that have queued: a thousand small
/// ones take as long, and large ones must not hold up everybody who came before them.
pub const WRITE_GROUP_TIME: Duration = Duration::from_millis(20);

/// Revisions of an app that are kept to roll back to, the current one included.
pub const REVISIONS_KEPT: usize = 10;

/// How long a blob that nothing refers to is kept: a client uploads components one by one and deploys them last.
pub const BLOB_GRACE: Duration = Duration::from_secs(3_600);

/// Connections that read at the same time before one more opens a connection of its own. Each holds a cache.
pub const READERS_KEPT: usize = 2;

/// Memory of the cache of keys, unless the configuration says otherwise: tens of thousands of small values, and a quarter of
/// what an idle node may have in memory only once it is used.
pub const KV_CACHE_BYTES: u64 = 8 << 20;

/// Larger values are read from the disk each time: a few of them would push everything else out of the cache.
pub const KV_CACHED_BYTES_MAX: usize = 64 << 10;

/// Groups of keys in which a write keeps readers of the disk from caching what they found: 24 KiB, and as many as there are
/// writes in a transaction.
pub const KV_CACHE_STRIPES: usize = 1_024;

/// Bytes of keys and values in writes that have not been applied yet; who comes then waits.
pub const KV_QUEUED_BYTES_MAX: usize = 32 << 20;

/// Watches of keys. Each wakes for every change of any key.
pub const KV_WATCHES_MAX: usize = 1_024;

/// Changes that wait for the slowest watch before it misses some: with keys and values of the largest size that a watch
/// brings along, 5 MiB.
pub const KV_WATCHED_CHANGES_MAX: usize = 1_024;

/// Entries that one step of maintenance removes, and tombstones that it lets go: everybody's writes wait for it.
pub const KV_MAINTAINED_MAX: usize = 256;

/// How long what is left of a removed key is kept. Buckets of this node alone would not need it at all: it is there for the
/// short while in which somebody may still compare, and must not grow with a bucket that is used as a queue.
pub const KV_TOMBSTONE_KEPT: Duration = Duration::from_secs(60);

/// Page cache of one connection. The operating system caches the file as well.
pub const PAGE_CACHE_KIB: u32 = 2_048;

/// The write-ahead log is cut back to this after a checkpoint, so that one burst does not keep its disk space. It is more than a log
/// of [`CHECKPOINT_PAGES`] with the group that made it long, so that it is not cut and grown again each time: a sync of a file that
/// grows writes its inode as well.
pub const WAL_KEPT_BYTES: u64 = 20 << 20;
const _: () = assert!(WAL_KEPT_BYTES > (CHECKPOINT_PAGES as u64 + WRITE_GROUP_MAX as u64 / 2) * (4_096 + 24));

/// How long a statement waits for another process (`marram doctor` reads a live node's database).
pub const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Streams of a node. Each has a few hundred bytes in memory, and all of them are looked at by maintenance.
pub const STREAMS_MAX: usize = 1_024;

/// Events of a stream that its row may be behind: a start counts them, at about a million a second. That a publish seldom
/// writes the row is a tenth of the cost of one that comes alone.
pub const ROW_BEHIND_EVENTS_MAX: u64 = 256;

/// Consumers of one stream. Each is looked at when a full stream makes room.
pub const CONSUMERS_PER_STREAM_MAX: usize = 256;

/// Events that one publish removes to make room. Rows of a few hundred bytes go at about a million a second, and
/// everybody's writes wait for that long; what is left is removed by maintenance.
pub const ROOM_EVENTS_MAX: usize = 10_000;

/// Ids of events that all streams together remember to recognise the same event again; about 20 MB when all are used. At a
/// steady 20,000 events a second that is 13 to 26 seconds: past that the window of de-duplication is shorter than asked for.
pub const IDENTITIES_MAX: usize = 1 << 19;

/// Rows from before the window of de-duplication that a start looks at: behind them may be younger ones, stored before a clock
/// was set back and then put right again, as by a machine that wakes up in 1970.
pub const SEEN_PAST_ROWS_MAX: usize = 1_000;

/// Events that a stream with a consumer in this process keeps in memory, so that a consumer that has caught up reads no disk.
pub const TAIL_EVENTS_MAX: usize = 512;

/// Their bytes.
pub const TAIL_BYTES_MAX: u64 = 512 << 10;

/// Events that a consumer has open past its cursor: in flight, waiting for another delivery, or behind one of their subject. At
/// the limit it pulls nothing new until one of them is settled. 4,096 are about 500 KB in memory, and at most 80 KB in its row.
pub const WINDOW_MAX: usize = 4_096;

/// Events that a consumer reads ahead: what two or four batches take.
pub const AHEAD_EVENTS_MAX: usize = 512;

/// Their bytes.
pub const AHEAD_BYTES_MAX: u64 = 1 << 20;

/// Rows that one read looks at for a filter that takes few of them: some milliseconds.
pub const AHEAD_ROWS_MAX: usize = 8_192;

/// Reads for consumers at the same time. Each holds a connection and a thread; they are short.
pub const CONSUMER_READS_MAX: usize = 4;

/// Bytes of what [`marram_core::port::Streams::read`] returns at once.
pub const READ_BYTES_MAX: u64 = 4 << 20;

/// Bytes of a consumer's name: an app, a function, and a filter.
pub const CONSUMER_NAME_BYTES_MAX: usize = 2_048;

/// Bytes of the reason that a dead letter has.
pub const REASON_BYTES_MAX: usize = 1_024;

/// Rows that one operation of maintenance removes; others' writes wait for it, a few milliseconds.
pub const MAINTAIN_ROWS_MAX: usize = 2_000;

/// A wall clock that went forward by this much more than the time that passed has jumped: clocks that are slewed stay below.
pub const CLOCK_JUMP_MIN: Duration = Duration::from_secs(60);

/// How long after a jump nothing is removed for its age: whoever set the clock wrong has noticed by then.
pub const CLOCK_TRUSTED_AFTER: Duration = Duration::from_secs(3_600);

/// Operations of one call of maintenance for one stream.
pub const MAINTAIN_STEPS_MAX: usize = 16;

/// Bytes of a part of an MQTT queue that is read at once.
pub const MQTT_READ_BYTES_MAX: u64 = 1 << 20;
/// A commit of the broker of no more changes may be made on the broker's own thread, when nobody else writes and the disk is quick:
/// what one client or a few have on their way. Larger ones are worth a thread that prepares the next meanwhile.
pub const MQTT_NEAR_CHANGES_MAX: usize = 32;
/// Pages of the log at which it is copied to the database: 16 MiB. Each copy costs two syncs: at SQLite's 1,000 it would be four times
/// as many.
pub const CHECKPOINT_PAGES: i64 = 4_096;

/// Pages of the log at which it is copied where the disk is nearly full: 2 MiB, which [`RESERVE_BYTES`] has room for.
pub const CHECKPOINT_PAGES_TIGHT: i64 = 512;

/// Bytes that are held for taking things away from a full disk: what a group of deletions writes, and the copy of the log
/// before it.
pub const RESERVE_BYTES: u64 = 4 << 20;

/// Free bytes of the disk below which the log is kept short: what a full-grown log takes, and what several groups add to it.
pub const ROOM_BYTES_MIN: u64 = 64 << 20;

/// Deletions in one transaction on a full disk. Each may change some pages of its own.
pub const FREE_GROUP_MAX: usize = 64;

/// Writes in one transaction on a full disk that take a part of something away and write the rest anew: [`RESERVE_BYTES`] has
/// room for two of the largest in the log, and for what the database grows by before the pages of the old are free.
pub const SHRINK_GROUP_MAX: usize = 2;

/// Additions in one transaction on a full disk whose database has room: so many of the largest events fit into [`RESERVE_BYTES`].
pub const ADD_GROUP_MAX_SHORT: usize = 3;

/// Free pages of the database from which on such additions do not make it grow: twice what [`RESERVE_BYTES`] has room for.
pub const FREE_PAGES_MIN: i64 = 2_048;

/// Pages of the log at which readers are waited for, so that it can be emptied: 64 MiB.
pub const LOG_PAGES_MAX: i64 = 16_384;

/// How long the writer waits for them: everybody's writes wait with it, and reads take milliseconds.
pub const EMPTY_LOG_WAIT: Duration = Duration::from_millis(100);

/// Bytes of a content that are read at once, and that are gathered before they are written: a tenth of a millisecond of a
/// blocking thread, and at most two of these in memory for each upload.
pub const OBJECT_CHUNK_BYTES: usize = 256 << 10;

/// Uploads in parts that one operation of maintenance aborts: with 10,000 parts each, tens of milliseconds.
pub const OBJECT_UPLOADS_SWEPT_MAX: usize = 1;

/// Bytes of a database that is looked through before a node starts: a tenth of a second, a second on a memory card.
pub const CHECKED_AT_OPEN_MAX: u64 = 32 << 20;

/// Bytes of one that is looked through beside what the node does: some seconds, in which its log grows.
pub const CHECKED_AT_START_MAX: u64 = 512 << 20;
