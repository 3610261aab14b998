//! Keys: buckets of entries that are CRDTs from the first day.
//!
//! `set` and `delete` write a last-writer-wins register, `increment` a PN-counter on top of it, `marram:crdt` sets and maps
//! (`marram_replica::Entry`). Stamps come from the node's hybrid clock, which is kept with every write: it never goes
//! back, not over restarts either. A node whose clock was set back writes stamps that run ahead of it until it has caught
//! up; [`Keys::clock_ahead_ms`] says by how much, and past a minute somebody should be told.
//!
//! Buckets are of this node only. What is left of a removed key is kept for [`crate::limits::KV_TOMBSTONE_KEPT`].

mod cache;
mod check;
mod collection;
mod encoding;
mod event;
mod maintain;
mod read;
mod row;
pub(crate) mod schema;
mod view;
mod watch;
mod write;

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use marram_core::capture::Source;
use marram_core::port::crdt::{Collection, CrdtChange};
use marram_core::port::kv::{Change, Entry, Expect, KeyPage, Version, Versions, Watched};
use marram_core::port::{Clock, Crdt, Kv};
use marram_core::{Failure, Name};
use marram_replica::{Hlc, NodeId, Stamp, Time};
use rusqlite::{Connection, OptionalExtension as _, params};
use tokio::sync::Semaphore;

use crate::StoreError;
use crate::limits::KV_QUEUED_BYTES_MAX;
use crate::read::Readers;
use crate::stream::Hub;
use crate::writer::{Effect, Tx, Writer};

use write::At;

pub use maintain::KvMaintained;

/// The keys of a node: the ports [`Kv`] and [`Crdt`].
#[derive(Clone)]
pub struct Keys {
    shared: Arc<Shared>,
    clock: Arc<dyn Clock>,
    writer: Arc<Writer>,
    readers: Arc<Readers>,
}

/// What every handle shares, and the writer's thread with them.
pub(crate) struct Shared {
    hlc: Mutex<Hlc>,
    cache: cache::Cache,
    watches: watch::Watches,
    hub: Arc<Hub>,
    /// Room for writes that are under way, in KiB.
    room: Arc<Semaphore>,
    changed: AtomicU64,
    missed: AtomicU64,
    /// Where a round of [`Keys::maintain`] goes on that leaves something behind.
    round: Mutex<Option<maintain::Round>>,
}

/// What is counted of keys, since the store was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeyCounts {
    /// Entries that were written, deleted or had expired; each once for every commit.
    pub changed: u64,
    /// Reads that the cache could not answer. Those that it could are not counted: they are too quick for that.
    pub missed: u64,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.shared, f)
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys").field("cache_bytes", &self.cache.bytes()).finish_non_exhaustive()
    }
}

impl Shared {
    pub(crate) fn open(db: &Connection, hub: Arc<Hub>, cache_bytes: u64) -> Result<Arc<Self>, StoreError> {
        let (cache, watches) = (cache::Cache::new(cache_bytes), watch::Watches::new());
        let room = Arc::new(Semaphore::new(KV_QUEUED_BYTES_MAX >> 10));
        let (changed, missed, round) = Default::default();
        Ok(Arc::new(Self { hlc: Mutex::new(open_clock(db)?), cache, watches, hub, room, changed, missed, round }))
    }

    fn hlc(&self) -> MutexGuard<'_, Hlc> {
        self.hlc.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn round(&self) -> MutexGuard<'_, Option<maintain::Round>> {
        self.round.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads the node's clock and id, making both the first time.
fn open_clock(db: &Connection) -> Result<Hlc, StoreError> {
    let kept: Option<[u8; 16]> = db.query_row("SELECT last FROM kv_clock", [], |row| row.get(0)).optional()?;
    let last = match kept {
        Some(kept) => Stamp::from_bytes(kept),
        None => {
            let mut id = [0; 8];
            getrandom::fill(&mut id)
                .map_err(|error| StoreError::Invalid(format!("the system gives no randomness: {error}")))?;
            let first = Stamp { time: Time::default(), node: NodeId(u64::from_le_bytes(id)) };
            db.execute("INSERT INTO kv_clock VALUES (1, ?)", params![first.to_bytes()])?;
            first
        }
    };
    Ok(Hlc::new(last.node, last.time))
}

/// Keeps how far the clock has come: no stamp after this one is given again, whatever happens to the node's clock.
pub(crate) fn keep_clock(db: &Connection, last: Stamp) -> Result<(), StoreError> {
    db.prepare_cached("UPDATE kv_clock SET last = ?")?.execute([last.to_bytes()])?;
    Ok(())
}

impl Keys {
    pub(crate) fn new(shared: Arc<Shared>, clock: Arc<dyn Clock>, writer: Arc<Writer>, readers: Arc<Readers>) -> Self {
        Self { shared, clock, writer, readers }
    }

    /// Which copy of the data this is: drawn when the store was made.
    #[must_use]
    pub fn node(&self) -> NodeId {
        self.shared.hlc().node()
    }

    /// How far the stamps of writes run ahead of the node's clock: milliseconds under load, more after the clock was set
    /// back. Order is kept either way, and nodes refuse stamps of others that are more than
    /// [`marram_replica::REMOTE_DRIFT_MAX_MS`] ahead of their own.
    #[must_use]
    pub fn clock_ahead_ms(&self) -> u64 {
        self.shared.hlc().ahead_ms(self.clock.unix_ns() / 1_000_000)
    }

    /// About how many bytes the cache holds.
    #[must_use]
    pub fn cache_bytes(&self) -> u64 {
        self.shared.cache.bytes()
    }

    /// What was counted.
    #[must_use]
    pub fn counts(&self) -> KeyCounts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        KeyCounts { changed: read(&self.shared.changed), missed: read(&self.shared.missed) }
    }

    /// An operation of the writer begins.
    fn at<'a>(&'a self, tx: &'a Tx) -> At<'a> {
        At { tx, shared: &self.shared, now_unix_ns: self.clock.unix_ns() }
    }

    /// Waits for room for `bytes`, then writes.
    async fn write<T, F>(&self, bytes: usize, operation: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&At<'_>) -> Result<T, StoreError> + Send + 'static,
    {
        self.write_as(Effect::Adds, bytes, operation).await
    }

    /// [`Keys::write`] of an operation of this effect.
    async fn write_as<T, F>(&self, effect: Effect, bytes: usize, operation: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&At<'_>) -> Result<T, StoreError> + Send + 'static,
    {
        self.writer.write_as(effect, self.in_room(bytes, operation).await?).await
    }

    /// The same for one that fails before it writes anything ([`Writer::write_bare`]).
    async fn write_bare<T, F>(&self, effect: Effect, bytes: usize, operation: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&At<'_>) -> Result<T, StoreError> + Send + 'static,
    {
        self.writer.write_bare(effect, self.in_room(bytes, operation).await?).await
    }

    /// Waits for room for `bytes`. An operation of the writer, which gives it back.
    async fn in_room<T, F>(
        &self,
        bytes: usize,
        operation: F,
    ) -> Result<impl FnOnce(&Tx) -> Result<T, StoreError> + Send + 'static, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&At<'_>) -> Result<T, StoreError> + Send + 'static,
    {
        let kib = u32::try_from(bytes.div_ceil(1 << 10)).unwrap_or(u32::MAX);
        let room = Arc::clone(&self.shared.room).acquire_many_owned(kib).await.map_err(|_| StoreError::Closed)?;
        let keys = self.clone();
        Ok(move |tx: &Tx| {
            let done = operation(&keys.at(tx));
            drop(room);
            done
        })
    }

    async fn apply_changes(&self, bucket: Name, changes: Vec<Change>) -> Result<Versions, StoreError> {
        let mut bytes = 0;
        for change in &changes {
            match change {
                Change::Put { key, value, .. } => {
                    check::key(&bucket, key)?;
                    check::value(&bucket, key, value.len())?;
                    bytes += key.len() + value.len();
                }
                Change::Delete { key, .. } => {
                    check::key(&bucket, key)?;
                    bytes += key.len();
                }
            }
        }
        check::batch(&bucket, changes.len(), bytes)?;
        let frees = changes.iter().all(|change| matches!(change, Change::Delete { .. }));
        let effect = if frees { Effect::Frees } else { Effect::Adds };
        // One change that nothing speaks against, and that no stream has to take with it, fails before it writes, or with the disk.
        let is_sure = matches!(
            &changes[..],
            [Change::Put { expect: Expect::Any, .. } | Change::Delete { expect: Expect::Any, .. }]
        );
        let is_sure = is_sure && !self.shared.hub.captures().any(Source::Key);
        let operation = move |at: &At<'_>| write::apply(at, &bucket, changes);
        if is_sure {
            self.write_bare(effect, bytes, operation).await
        } else {
            self.write_as(effect, bytes, operation).await
        }
    }

    async fn add(&self, bucket: Name, key: String, delta: i64, least: i64) -> Result<Option<i64>, StoreError> {
        check::key(&bucket, &key)?;
        self.write(key.len(), move |at| write::increment(at, &bucket, &key, delta, least)).await
    }

    async fn update_collection(
        &self,
        bucket: Name,
        key: String,
        changes: Vec<CrdtChange>,
    ) -> Result<Option<Version>, StoreError> {
        check::key(&bucket, &key)?;
        collection::check_fields(&bucket, &changes)?;
        let bytes = key.len() + collection::bytes(&changes);
        check::batch(&bucket, changes.len(), bytes)?;
        let effect = if changes.iter().all(collection::takes_away) { Effect::Shrinks } else { Effect::Adds };
        self.write_as(effect, bytes, move |at| collection::update(at, &bucket, &key, &changes)).await
    }
}

impl Kv for Keys {
    fn get(&self, bucket: &Name, key: &str) -> Result<Option<Entry>, Failure> {
        Ok(self.read_entry(bucket, key)?)
    }

    fn apply(&self, bucket: &Name, changes: Vec<Change>) -> BoxFuture<'_, Result<Versions, Failure>> {
        let bucket = bucket.clone();
        self.apply_changes(bucket, changes).map(|done| Ok(done?)).boxed()
    }

    fn increment_to(
        &self,
        bucket: &Name,
        key: &str,
        delta: i64,
        least: i64,
    ) -> BoxFuture<'_, Result<Option<i64>, Failure>> {
        self.add(bucket.clone(), key.to_owned(), delta, least).map(|done| Ok(done?)).boxed()
    }

    fn list(&self, bucket: &Name, prefix: &str, after: Option<&str>, max: usize) -> Result<KeyPage, Failure> {
        Ok(self.page(bucket, prefix, after, max)?)
    }

    fn buckets(&self) -> Result<Vec<Name>, Failure> {
        Ok(self.every_bucket()?)
    }

    fn watch(&self, bucket: &Name, prefix: &str) -> Result<BoxStream<'static, Watched>, Failure> {
        Ok(self.shared.watches.watch(bucket, prefix)?)
    }
}

impl Crdt for Keys {
    fn crdt_update(
        &self,
        bucket: &Name,
        key: &str,
        changes: Vec<CrdtChange>,
    ) -> BoxFuture<'_, Result<Option<Version>, Failure>> {
        self.update_collection(bucket.clone(), key.to_owned(), changes).map(|done| Ok(done?)).boxed()
    }

    fn crdt_read(&self, bucket: &Name, key: &str) -> Result<Option<Arc<Collection>>, Failure> {
        let content = self.find(bucket, key)?.content;
        match content {
            cache::Content::Absent => Ok(None),
            cache::Content::Collection(collection) => Ok(Some(collection)),
            cache::Content::Value(_) => {
                let key = check::shown(key);
                Err(StoreError::Conflict(format!(
                    "the key {key} of bucket \"{bucket}\" holds a value, not a set or a map"
                ))
                .into())
            }
        }
    }
}
