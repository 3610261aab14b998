//! Changes of entries, within an operation of the writer.
//!
//! The entry, the clock and the events of a change are one transaction. The cache and the watches hear of it after the
//! commit, in the order of commits, before the caller does.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use marram_core::Name;
use marram_core::capture::Source;
use marram_core::limits::KV_WATCH_VALUE_BYTES_MAX;
use marram_core::port::kv::{Change, Expect, KeyChange, KeyEvent, Versions};
use marram_replica::{Entry, Shape, Stamp};

use super::cache::Cached;
use super::row::{self, Place};
use super::{Shared, check, encoding, event, view};
use crate::StoreError;
use crate::stream::{Encoded, append};
use crate::writer::Tx;

/// Whether a change left the entry as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Changed,
    Unchanged,
}

/// An operation of the writer, and when it happens.
pub(super) struct At<'a> {
    pub(super) tx: &'a Tx,
    pub(super) shared: &'a Arc<Shared>,
    pub(super) now_unix_ns: u64,
}

/// Changes of one bucket in one operation.
pub(super) struct Writing<'a> {
    at: &'a At<'a>,
    bucket: &'a Name,
    last: Option<Stamp>,
    /// For the cache: only the last state of each key, since those in between are never committed. `None` is one that is too
    /// large for it.
    cached: BTreeMap<String, Option<Cached>>,
    /// For watches: all of them.
    changes: Vec<KeyChange>,
}

impl<'a> Writing<'a> {
    pub(super) const fn new(at: &'a At<'a>, bucket: &'a Name) -> Self {
        Self { at, bucket, last: None, cached: BTreeMap::new(), changes: Vec::new() }
    }

    /// Changes one entry, and returns the version that was written. `change` may fail; the operation fails with it then.
    pub(super) fn change(
        &mut self,
        key: &str,
        expect: Expect,
        change: impl FnOnce(&mut Entry, Stamp, bool) -> Result<Outcome, StoreError>,
    ) -> Result<Option<Stamp>, StoreError> {
        let (mut entry, place) = row::any(self.at.tx, self.bucket, key)?;
        let gone = entry.version();
        let mut changes = Vec::new();
        if entry.lapse(self.at.now_unix_ns) {
            changes.push(self.happened(key, KeyEvent::Expired, gone, None)?);
        }
        // What is there now has not expired, and what is written counts as there, however short its time.
        let was = entry.content().is_some();
        self.expected(key, expect, was.then(|| entry.version()))?;
        let stamp = self.tick()?;
        let outcome = change(&mut entry, stamp, was)?;
        if outcome == Outcome::Changed {
            let what = match (was, entry.content().is_some()) {
                (true, true) => Some(KeyEvent::Updated),
                (true, false) => Some(KeyEvent::Deleted),
                (false, true) => Some(KeyEvent::Created),
                (false, false) => None,
            };
            if let Some(what) = what {
                changes.push(self.happened(key, what, stamp, view::value(&entry))?);
            }
        }
        if outcome == Outcome::Changed || !changes.is_empty() {
            self.store(key, &entry, place, changes)?;
        }
        Ok((outcome == Outcome::Changed).then_some(stamp))
    }

    /// [`Writing::change`] to a plain value: without a look at what there is, if nobody wants to know.
    fn put(
        &mut self,
        key: &str,
        value: Bytes,
        expires_unix_ns: Option<u64>,
        expect: Expect,
    ) -> Result<Option<Stamp>, StoreError> {
        let is_heard = self.at.shared.watches.any() || self.at.shared.hub.captures().any(Source::Key);
        if is_heard || expect != Expect::Any {
            return self.change(key, expect, |entry, stamp, _| {
                entry.set(stamp, Some(value), expires_unix_ns);
                Ok(Outcome::Changed)
            });
        }
        let stamp = self.tick()?;
        // A later age leaves nothing of what was before it.
        let entry = Entry::of_plain(stamp, value, expires_unix_ns);
        let state = encoding::encode(&entry)?;
        row::overwrite(self.at.tx, self.bucket, key, &entry, &state)?;
        self.cache(key, &entry, state.len());
        Ok(Some(stamp))
    }

    /// Ends the age of an entry whose time is over, and says whether there was one.
    pub(super) fn expire(&mut self, key: &str) -> Result<bool, StoreError> {
        let (mut entry, place) = row::any(self.at.tx, self.bucket, key)?;
        let gone = entry.version();
        let lapsed = entry.lapse(self.at.now_unix_ns);
        if lapsed {
            let change = self.happened(key, KeyEvent::Expired, gone, None)?;
            self.store(key, &entry, place, vec![change])?;
        }
        Ok(lapsed)
    }

    /// Keeps the clock with what it was used for, and hands over what is to happen after the commit.
    pub(super) fn finish(self) -> Result<(), StoreError> {
        if self.cached.is_empty() {
            return Ok(());
        }
        if let Some(last) = self.last {
            self.at.tx.stamped(last);
        }
        let (shared, bucket) = (Arc::clone(self.at.shared), self.bucket.clone());
        let (cached, changes) = (self.cached, self.changes);
        let under_way = shared.cache.under_way(&bucket, cached.keys());
        self.at.tx.after_commit(move || {
            shared.changed.fetch_add(cached.len() as u64, Ordering::Relaxed);
            for (key, cached) in cached {
                shared.cache.written(&bucket, &key, cached);
            }
            drop(under_way);
            for change in changes {
                shared.watches.announce(bucket.clone(), change);
            }
        });
        Ok(())
    }

    fn tick(&mut self) -> Result<Stamp, StoreError> {
        let wall_ms = self.at.now_unix_ns / 1_000_000;
        let stamp = self.at.shared.hlc().tick(wall_ms).map_err(|error| StoreError::Invalid(error.to_string()))?;
        self.last = Some(stamp);
        Ok(stamp)
    }

    fn expected(&self, key: &str, expect: Expect, found: Option<Stamp>) -> Result<(), StoreError> {
        let why = match (expect, found) {
            (Expect::Any, _) | (Expect::Absent, None) => return Ok(()),
            (Expect::Version(wanted), Some(found)) if view::version(found) == wanted => return Ok(()),
            (Expect::Absent, Some(_)) => "is there already",
            (Expect::Version(_), Some(_)) => "was changed by somebody else: read it again",
            (Expect::Version(_), None) => "is not there any more",
        };
        Err(StoreError::Conflict(format!("the key {} of bucket \"{}\" {why}", check::shown(key), self.bucket)))
    }

    /// Captures the change where somebody asks for it, and says what watches will hear.
    fn happened(
        &self,
        key: &str,
        what: KeyEvent,
        version: Stamp,
        value: Option<Bytes>,
    ) -> Result<KeyChange, StoreError> {
        self.capture(key, what, version, value.as_ref())?;
        let value = value.filter(|value| value.len() <= KV_WATCH_VALUE_BYTES_MAX);
        Ok(KeyChange { key: key.to_owned(), event: what, version: view::version(version), value })
    }

    fn capture(&self, key: &str, what: KeyEvent, version: Stamp, value: Option<&Bytes>) -> Result<(), StoreError> {
        let captures = self.at.shared.hub.captures();
        if !captures.any(Source::Key) {
            return Ok(());
        }
        let subject = event::subject(self.bucket, key);
        let mut event = None;
        for stream in captures.streams(Source::Key, &subject) {
            let now = self.at.now_unix_ns;
            if event.is_none() {
                let captured = event::event(self.bucket, subject.clone(), what, version, value.cloned(), now);
                event = Some(Encoded::new(captured)?);
            }
            if let Some(event) = &event {
                append(self.at.tx, stream, event, now)?;
            }
        }
        Ok(())
    }

    fn store(&mut self, key: &str, entry: &Entry, from: Place, changes: Vec<KeyChange>) -> Result<(), StoreError> {
        let mut bytes = 0;
        if entry.content().is_some() {
            let state = encoding::encode(entry)?;
            if matches!(entry.content(), Some(Shape::Set(_) | Shape::Map(_))) {
                check::value(self.bucket, key, state.len())?;
            }
            row::put(self.at.tx, self.bucket, key, entry, &state, from)?;
            bytes = state.len();
        } else {
            row::bury(self.at.tx, self.bucket, key, entry, from, self.at.now_unix_ns)?;
        }
        self.cache(key, entry, bytes);
        if self.at.shared.watches.any() {
            self.changes.extend(changes);
        }
        Ok(())
    }

    fn cache(&mut self, key: &str, entry: &Entry, state_bytes: usize) {
        let cached = view::fits(entry, state_bytes).then(|| view::cached(Some(entry), state_bytes));
        self.cached.insert(key.to_owned(), cached);
    }
}

/// A batch of puts and deletes.
pub(super) fn apply(at: &At<'_>, bucket: &Name, changes: Vec<Change>) -> Result<Versions, StoreError> {
    let mut writing = Writing::new(at, bucket);
    let now = at.now_unix_ns;
    let mut versions = Vec::with_capacity(changes.len());
    for change in changes {
        let written = match change {
            Change::Put { key, value, ttl, expect } => {
                // SQLite's integers end in 2262.
                let expires = ttl.map(|ttl| {
                    u64::try_from(ttl.as_nanos()).map_or(u64::MAX, |ttl| now.saturating_add(ttl)).min(i64::MAX as u64)
                });
                writing.put(&key, value, expires, expect)?
            }
            Change::Delete { key, expect } => writing.change(&key, expect, |entry, stamp, was| {
                if !was {
                    return Ok(Outcome::Unchanged);
                }
                entry.set(stamp, None, None);
                Ok(Outcome::Changed)
            })?,
        };
        versions.push(written.map(view::version));
    }
    writing.finish()?;
    Ok(versions)
}

/// An increment; returns the sum, or nothing where that would be below `least`.
pub(super) fn increment(
    at: &At<'_>,
    bucket: &Name,
    key: &str,
    delta: i64,
    least: i64,
) -> Result<Option<i64>, StoreError> {
    let mut writing = Writing::new(at, bucket);
    let mut sum = None;
    writing.change(key, Expect::Any, |entry, stamp, _| {
        let before = entry.number().map_err(|error| conflict(bucket, key, &error))?;
        if before.saturating_add(delta) < least {
            return Ok(Outcome::Unchanged);
        }
        entry.increment(stamp, delta).map_err(|error| conflict(bucket, key, &error))?;
        if let Some(Shape::Counter(now)) = entry.content() {
            sum = Some(now);
        }
        Ok(Outcome::Changed)
    })?;
    writing.finish()?;
    Ok(sum)
}

pub(super) fn conflict(bucket: &Name, key: &str, why: &dyn std::fmt::Display) -> StoreError {
    StoreError::Conflict(format!("the key {} of bucket \"{bucket}\" cannot be changed so: {why}", check::shown(key)))
}
