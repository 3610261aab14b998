//! What was read or written lately, in memory.
//!
//! The database is the truth, and this is never ahead of it: the writer's thread puts new values here after their commit
//! and before it answers. It is not behind either. A reader that looked into the database notes before what the stripe of
//! its key had seen, and leaves its find alone if a write came by since, or is under way: while a commit becomes visible,
//! one reader may have seen the new value already and another still bring the old one, and nobody must see a value go
//! back. So a find is kept only where nothing was written from before it was read until after; and where a write is under
//! way, what is here goes if the find differs: the commit is visible already, and the writer's thread just has not come here.

use std::hash::{BuildHasher as _, Hash, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use marram_core::Name;
use marram_core::port::crdt::Collection;
use marram_replica::Stamp;
use quick_cache::sync::Cache as QuickCache;
use quick_cache::{Equivalent, Weighter};

use crate::limits::{KV_CACHE_STRIPES, KV_CACHED_BYTES_MAX};

/// What a key holds for those who read it.
#[derive(Clone, Debug)]
pub(super) struct Cached {
    pub(super) version: Stamp,
    pub(super) expires_unix_ns: Option<u64>,
    pub(super) content: Content,
    /// About how much memory it takes.
    pub(super) bytes: usize,
}

#[derive(Clone, Debug)]
pub(super) enum Content {
    Absent,
    /// A value, or the decimal text of a counter.
    Value(Bytes),
    Collection(Arc<Collection>),
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Key {
    bucket: Name,
    key: Box<str>,
}

/// A key to look for. It hashes as [`Key`] does, since a name hashes as its text.
#[derive(Clone, Copy, Hash)]
struct Sought<'a> {
    bucket: &'a str,
    key: &'a str,
}

impl Equivalent<Key> for Sought<'_> {
    fn equivalent(&self, key: &Key) -> bool {
        *self.key == *key.key && self.bucket == key.bucket.as_str()
    }
}

#[derive(Clone)]
struct ByBytes;

impl Weighter<Key, Cached> for ByBytes {
    fn weight(&self, key: &Key, cached: &Cached) -> u64 {
        // A slot of the map, its place in the queue, the reference counts.
        const SLOT_BYTES: usize = 200;
        (SLOT_BYTES + key.key.len() + cached.bytes) as u64
    }
}

/// The writes of a group of keys.
#[derive(Debug, Default)]
struct Stripe {
    /// Those that are done.
    done: u64,
    /// Those whose commit is still to come.
    under_way: u32,
}

/// Writes that are under way, until it is dropped: after their commit, or when they are not to be.
pub(super) struct UnderWay {
    stripes: Arc<[Mutex<Stripe>]>,
    which: Vec<usize>,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        for which in &self.which {
            lock(&self.stripes[*which]).under_way -= 1;
        }
    }
}

/// What a stripe had seen before a reader looked into the database.
#[derive(Clone, Copy, Debug)]
pub(super) struct Before(u64);

pub(super) struct Cache {
    entries: QuickCache<Key, Cached, ByBytes>,
    stripes: Arc<[Mutex<Stripe>]>,
    hasher: RandomState,
}

impl Cache {
    /// A cache of at most about `bytes`; of 0 keeps nothing.
    pub(super) fn new(bytes: u64) -> Self {
        // An estimate only: room for it is taken at once, and more as it fills.
        const FIRST_ENTRIES: usize = 1_024;
        let stripes = (0..KV_CACHE_STRIPES).map(|_| Mutex::default()).collect();
        Self { entries: QuickCache::with_weighter(FIRST_ENTRIES, bytes, ByBytes), stripes, hasher: RandomState::new() }
    }

    pub(super) fn get(&self, bucket: &Name, key: &str) -> Option<Cached> {
        self.entries.get(&Sought { bucket: bucket.as_str(), key })
    }

    /// To be called before the database is read.
    pub(super) fn before(&self, bucket: &Name, key: &str) -> Before {
        Before(lock(&self.stripes[self.stripe(bucket, key)]).done)
    }

    /// Keeps what a reader found, unless something newer may be known.
    pub(super) fn found(&self, bucket: &Name, key: &str, before: Before, cached: &Cached) {
        let stripe = lock(&self.stripes[self.stripe(bucket, key)]);
        if stripe.under_way > 0 {
            let sought = Sought { bucket: bucket.as_str(), key };
            if self.entries.peek(&sought).is_some_and(|there| there.version != cached.version) {
                self.entries.remove(&sought);
            }
        } else if stripe.done == before.0 && cached.bytes <= KV_CACHED_BYTES_MAX {
            self.entries.insert(Key { bucket: bucket.clone(), key: key.into() }, cached.clone());
        }
    }

    /// The writer is about to write these keys. To be kept until they are [`Cache::written`].
    pub(super) fn under_way<'k>(&self, bucket: &Name, keys: impl Iterator<Item = &'k String>) -> UnderWay {
        let which: Vec<usize> = keys.map(|key| self.stripe(bucket, key)).collect();
        for which in &which {
            lock(&self.stripes[*which]).under_way += 1;
        }
        UnderWay { stripes: Arc::clone(&self.stripes), which }
    }

    /// Keeps what has been committed; `None` is what is too large. Called in the order of commits.
    pub(super) fn written(&self, bucket: &Name, key: &str, cached: Option<Cached>) {
        let mut stripe = lock(&self.stripes[self.stripe(bucket, key)]);
        stripe.done += 1;
        if let Some(cached) = cached {
            self.entries.insert(Key { bucket: bucket.clone(), key: key.into() }, cached);
        } else {
            self.entries.remove(&Sought { bucket: bucket.as_str(), key });
        }
    }

    /// About how much is in use.
    pub(super) fn bytes(&self) -> u64 {
        self.entries.weight()
    }

    fn stripe(&self, bucket: &Name, key: &str) -> usize {
        self.hasher.hash_one(Sought { bucket: bucket.as_str(), key }) as usize % self.stripes.len()
    }
}

fn lock(stripe: &Mutex<Stripe>) -> MutexGuard<'_, Stripe> {
    stripe.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use marram_replica::{NodeId, Time};

    use super::*;

    fn cached(time: u64, value: &'static str) -> Cached {
        let version = Stamp { time: Time::from_bits(time), node: NodeId(1) };
        let value = Bytes::from_static(value.as_bytes());
        Cached { version, expires_unix_ns: None, bytes: value.len(), content: Content::Value(value) }
    }

    fn shown(cache: &Cache, bucket: &Name) -> Option<Bytes> {
        cache.get(bucket, "k").map(|cached| match cached.content {
            Content::Value(value) => value,
            other => panic!("{other:?}"),
        })
    }

    #[test]
    fn a_find_from_before_a_write_is_not_kept() {
        let (cache, bucket) = (Cache::new(1 << 20), Name::new("b").unwrap());
        let before = cache.before(&bucket, "k");
        // The reader has looked, a write comes by and is evicted again, and only then the reader reports.
        cache.written(&bucket, "k", Some(cached(2, "new")));
        cache.entries.remove(&Sought { bucket: "b", key: "k" });
        cache.found(&bucket, "k", before, &cached(1, "old"));
        assert_eq!(shown(&cache, &bucket), None);

        let before = cache.before(&bucket, "k");
        cache.found(&bucket, "k", before, &cached(2, "new"));
        assert_eq!(shown(&cache, &bucket), Some("new".into()));
    }

    #[test]
    fn nothing_that_was_read_is_kept_while_a_write_is_under_way() {
        let (cache, bucket) = (Cache::new(1 << 20), Name::new("b").unwrap());
        let key = "k".to_owned();
        // The write is not to be in the end: from then on finds are kept again.
        let under_way = cache.under_way(&bucket, [&key].into_iter());
        let before = cache.before(&bucket, "k");
        cache.found(&bucket, "k", before, &cached(1, "old"));
        assert_eq!(shown(&cache, &bucket), None);
        drop(under_way);
        cache.found(&bucket, "k", before, &cached(1, "old"));
        assert_eq!(shown(&cache, &bucket), Some("old".into()));
        cache.entries.remove(&Sought { bucket: "b", key: "k" });
        // A reader finds the new value before the writer's thread has told: the old one must not be read any more.
        cache.found(&bucket, "k", before, &cached(1, "old"));
        let under_way = cache.under_way(&bucket, [&key].into_iter());
        cache.found(&bucket, "k", before, &cached(1, "old"));
        assert_eq!(shown(&cache, &bucket), Some("old".into()));
        cache.found(&bucket, "k", before, &cached(2, "new"));
        assert_eq!(shown(&cache, &bucket), None);
        drop(under_way);
        // This one is: who looked while it was under way may have seen either.
        let under_way = cache.under_way(&bucket, [&key].into_iter());
        let before = cache.before(&bucket, "k");
        cache.written(&bucket, "k", Some(cached(2, "new")));
        drop(under_way);
        cache.entries.remove(&Sought { bucket: "b", key: "k" });
        cache.found(&bucket, "k", before, &cached(1, "old"));
        assert_eq!(shown(&cache, &bucket), None);
    }

    #[test]
    fn it_stays_within_its_bytes_and_leaves_large_values_out() {
        let (cache, bucket) = (Cache::new(1 << 20), Name::new("b").unwrap());
        for n in 0..100_000 {
            cache.written(&bucket, &format!("key {n}"), Some(cached(1, "a value")));
        }
        let bytes = cache.bytes();
        assert!((200_000..=1 << 20).contains(&bytes), "{bytes}");
        cache.written(&bucket, "k", Some(cached(1, "small")));
        // The small one must not stay.
        cache.written(&bucket, "k", None);
        assert_eq!(shown(&cache, &bucket), None);
        let mut large = cached(2, "large");
        large.bytes = KV_CACHED_BYTES_MAX + 1;
        let before = cache.before(&bucket, "k");
        cache.found(&bucket, "k", before, &large);
        assert_eq!(shown(&cache, &bucket), None);
    }
}
