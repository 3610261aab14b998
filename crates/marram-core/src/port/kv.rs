//! Keys: buckets of entries, each of them a CRDT from the first day. The store implements, functions and the admin API use.

use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt as _, TryFutureExt as _};

use crate::{Failure, Name};

/// Which write of an entry this is: a hybrid logical clock and the node that wrote, in the order of last-writer-wins.
/// Opaque to callers; a greater one is later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(pub [u8; 16]);

/// The value of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The bytes. A counter reads as its decimal text.
    pub value: Bytes,
    /// Which write they are from.
    pub version: Version,
    /// When the entry goes away, in nanoseconds since the Unix epoch.
    pub expires_unix_ns: Option<u64>,
}

/// What has to be there for a write to happen; otherwise it fails with [`crate::Kind::Conflict`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Expect {
    /// Whatever.
    #[default]
    Any,
    /// No entry.
    Absent,
    /// The entry of this version.
    Version(Version),
}

/// One change in a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Sets the value.
    Put {
        /// The key.
        key: String,
        /// The value.
        value: Bytes,
        /// After this long the entry goes away.
        ttl: Option<Duration>,
        /// What has to be there.
        expect: Expect,
    },
    /// Removes the entry; no entry is fine.
    Delete {
        /// The key.
        key: String,
        /// What has to be there.
        expect: Expect,
    },
}

/// The version that each change of a batch wrote, in their order; `None` for a delete of nothing.
pub type Versions = Vec<Option<Version>>;

/// A page of keys, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyPage {
    /// The keys.
    pub keys: Vec<String>,
    /// There are more: ask again with the last of these.
    pub more: bool,
}

/// What happened to a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyEvent {
    /// It was not there, and now is.
    Created,
    /// It was there, and changed.
    Updated,
    /// Somebody removed it.
    Deleted,
    /// Its time was over.
    Expired,
}

impl KeyEvent {
    /// `created`, `updated`, `deleted` or `expired`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Updated => "updated",
            Self::Deleted => "deleted",
            Self::Expired => "expired",
        }
    }
}

/// A change of a key that is durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyChange {
    /// The key.
    pub key: String,
    /// What happened.
    pub event: KeyEvent,
    /// Which write; of a key that expired, the one that is gone.
    pub version: Version,
    /// The new value, up to [`crate::limits::KV_WATCH_VALUE_BYTES_MAX`]. `None` for larger ones and for collections, which
    /// can be read, and where nothing is left.
    pub value: Option<Bytes>,
}

/// What a watch says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Watched {
    /// A key changed.
    Changed(KeyChange),
    /// The reader was too slow: this many changes of all buckets went by unseen. What is of interest has to be read again.
    Missed(u64),
}

/// The keys of a node. A bucket is there once it is used. Keys are UTF-8 of 1 to [`crate::limits::KEY_BYTES_MAX`] bytes without
/// control characters, since a key is in the subject of its events (CloudEvents 1.0.2 §2.1); values have at most
/// [`crate::limits::KV_VALUE_BYTES_MAX`].
///
/// A time to live is counted on the node's clock, from the write on: when that clock is set forward, entries expire early.
pub trait Kv: Send + Sync + 'static {
    /// The entry of a key. From the cache it takes no more than a microsecond; otherwise it blocks for a read of the disk.
    /// Fails with [`crate::Kind::Conflict`] where the key holds a collection ([`crate::port::Crdt`]).
    fn get(&self, bucket: &Name, key: &str) -> Result<Option<Entry>, Failure>;

    /// All of `changes`, in this order, in one transaction, or none; resolves once they are durable, with what each wrote.
    /// At most [`crate::limits::KV_BATCH_CHANGES_MAX`] of together [`crate::limits::KV_BATCH_BYTES_MAX`] bytes.
    fn apply(&self, bucket: &Name, changes: Vec<Change>) -> BoxFuture<'_, Result<Versions, Failure>>;

    /// Adds to a counter, making it at 0 if it is not there; resolves once durable, with the sum. A value that is a decimal
    /// number counts on from there. Fails with [`crate::Kind::Conflict`] where the key holds something that is not a number,
    /// or the sum would leave the range of `i64`.
    fn increment(&self, bucket: &Name, key: &str, delta: i64) -> BoxFuture<'_, Result<i64, Failure>> {
        let sum = self.increment_to(bucket, key, delta, i64::MIN);
        sum.map_ok(|sum| sum.expect("no sum is below the least there is")).boxed()
    }

    /// [`Kv::increment`] to `least` or more. `None`, with nothing changed, where the sum would be below that.
    fn increment_to(
        &self,
        bucket: &Name,
        key: &str,
        delta: i64,
        least: i64,
    ) -> BoxFuture<'_, Result<Option<i64>, Failure>>;

    /// Up to `max` keys that begin with `prefix`, after the key `after`, in the order of their bytes; at most
    /// [`crate::limits::KV_LIST_KEYS_MAX`]. Blocks for a read of the disk.
    fn list(&self, bucket: &Name, prefix: &str, after: Option<&str>, max: usize) -> Result<KeyPage, Failure>;

    /// Every bucket that has entries, by name. Blocks for a read of the disk.
    fn buckets(&self) -> Result<Vec<Name>, Failure>;

    /// Every change from now on of keys that begin with `prefix`, each after it is durable, in the order of their commits.
    /// Ends when the node has let go of its keys. Fails with [`crate::Kind::Overloaded`] when too many are watching.
    fn watch(&self, bucket: &Name, prefix: &str) -> Result<BoxStream<'static, Watched>, Failure>;
}
