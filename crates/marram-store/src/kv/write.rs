//! Changes of entries, within an operation of the writer.
//!
//! The entry, the clock and the events of a change are one transaction. The cache and the watches hear of it after the
//! commit, in the order of commits, before the caller does.

use std::sync::{Arc, PoisonError};

use bytes::Bytes;
use marram_core::Name;
use marram_core::limits::KV_WATCH_VALUE_BYTES_MAX;
use marram_core::port::kv::{Change, Expect, KeyChange, KeyEvent, Versions};
use marram_replica::{Entry, Shape, Stamp};
use rusqlite::params;

use super::cache::Cached;
use super::row::{self, Place};
use super::{Shared, check, encoding, event, view};
use crate::writer::Tx;
use crate::StoreError;

/// Whether a change left the entry as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Changed,
    Unchanged,
}

/// Changes of one bucket in one operation.
pub(super) struct Writing<'a> {
    tx: &'a Tx,
    shared: &'a Arc<Shared>,
    bucket: &'a Name,
    now_unix_ns: u64,
    last: Option<Stamp>,
    effects: Vec<Effect>,
}

/// What happens in memory after the commit.
struct Effect {
    key: String,
    cached: Cached,
    changes: Vec<KeyChange>,
}

impl<'a> Writing<'a> {
    pub(super) fn new(tx: &'a Tx, shared: &'a Arc<Shared>, bucket: &'a Name) -> Self {
        let now_unix_ns = shared.clock.unix_ns();
        Self { tx, shared, bucket, now_unix_ns, last: None, effects: Vec::new() }
    }

    /// Changes one entry, and returns the version that was written. `change` may fail; the operation fails with it then.
    pub(super) fn change(
        &mut self,
        key: &str,
        expect: Expect,
        change: impl FnOnce(&mut Entry, Stamp, bool) -> Result<Outcome, StoreError>,
    ) -> Result<Option<Stamp>, StoreError> {
        let (mut entry, place) = row::any(self.tx, self.bucket, key)?;
        let gone = entry.version();
        let mut changes = Vec::new();
        if entry.lapse(self.now_unix_ns) {
            changes.push(self.happened(key, KeyEvent::Expired, gone, None)?);
        }
        let was = entry.shape(self.now_unix_ns).is_some();
        self.expected(key, expect, was.then(|| entry.version()))?;
        let stamp = self.tick()?;
        let outcome = change(&mut entry, stamp, was)?;
        if outcome == Outcome::Changed {
            let what = match (was, entry.shape(self.now_unix_ns).is_some()) {
                (true, true) => Some(KeyEvent::Updated),
                (true, false) => Some(KeyEvent::Deleted),
                // A time to live of nothing: it is there and gone, and is swept like any other.
                (false, _) if entry.expires_unix_ns().is_some() || entry.shape(self.now_unix_ns).is_some() => {
                    Some(KeyEvent::Created)
                }
                (false, _) => None,
            };
            if let Some(what) = what {
                changes.push(self.happened(key, what, stamp, view::value(&entry, self.now_unix_ns))?);
            }
        }
        if outcome == Outcome::Changed || !changes.is_empty() {
            self.store(key, &entry, place, changes)?;
        }
        Ok((outcome == Outcome::Changed).then_some(stamp))
    }

    /// Ends the age of an entry whose time is over, and says whether there was one.
    pub(super) fn expire(&mut self, key: &str) -> Result<bool, StoreError> {
        let (mut entry, place) = row::any(self.tx, self.bucket, key)?;
        let gone = entry.version();
        let lapsed = entry.lapse(self.now_unix_ns);
        if lapsed {
            let change = self.happened(key, KeyEvent::Expired, gone, None)?;
            self.store(key, &entry, place, vec![change])?;
        }
        Ok(lapsed)
    }

    /// Keeps the clock with what it was used for, and hands over what is to happen after the commit.
    pub(super) fn finish(self) -> Result<(), StoreError> {
        if let Some(last) = self.last {
            self.tx.prepare_cached("UPDATE kv_clock SET last = ?")?.execute(params![last.to_bytes()])?;
        }
        let (shared, bucket, effects) = (Arc::clone(self.shared), self.bucket.clone(), self.effects);
        if !effects.is_empty() {
            self.tx.after_commit(move || {
                for effect in effects {
                    shared.cache.written(&bucket, &effect.key, effect.cached);
                    for change in effect.changes {
                        shared.watches.announce(bucket.clone(), change);
                    }
                }
            });
        }
        Ok(())
    }

    fn tick(&mut self) -> Result<Stamp, StoreError> {
        let wall_ms = self.now_unix_ns / 1_000_000;
        let mut clock = self.shared.hlc.lock().unwrap_or_else(PoisonError::into_inner);
        let stamp = clock.tick(wall_ms).map_err(|error| StoreError::Invalid(error.to_string()))?;
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
        let subject = event::subject(self.bucket, key);
        super::capture(self.tx, &subject, || {
            event::event(self.bucket, subject.clone(), what, version, value.clone(), self.now_unix_ns)
        })?;
        let value = value.filter(|value| value.len() <= KV_WATCH_VALUE_BYTES_MAX);
        Ok(KeyChange { key: key.to_owned(), event: what, version: view::version(version), value })
    }

    fn store(&mut self, key: &str, entry: &Entry, from: Place, changes: Vec<KeyChange>) -> Result<(), StoreError> {
        let mut bytes = 0;
        if entry.shape(0).is_some() {
            let state = encoding::encode(entry)?;
            if matches!(entry.shape(0), Some(Shape::Set(_) | Shape::Map(_))) {
                check::value(self.bucket, key, state.len())?;
            }
            row::put(self.tx, self.bucket, key, entry, &state, from)?;
            bytes = state.len();
        } else {
            row::bury(self.tx, self.bucket, key, entry, from, self.now_unix_ns)?;
        }
        let changes = if self.shared.watches.any() { changes } else { Vec::new() };
        self.effects.push(Effect { key: key.to_owned(), cached: view::cached(Some(entry), bytes), changes });
        Ok(())
    }
}

/// A batch of puts and deletes.
pub(super) fn apply(
    tx: &Tx,
    shared: &Arc<Shared>,
    bucket: &Name,
    changes: Vec<Change>,
) -> Result<Versions, StoreError> {
    let mut writing = Writing::new(tx, shared, bucket);
    let now = writing.now_unix_ns;
    let mut versions = Vec::with_capacity(changes.len());
    for change in changes {
        let written = match change {
            Change::Put { key, value, ttl, expect } => writing.change(&key, expect, |entry, stamp, _| {
                // SQLite's integers end in 2262.
                let expires = ttl.map(|ttl| {
                    u64::try_from(ttl.as_nanos()).map_or(u64::MAX, |ttl| now.saturating_add(ttl)).min(i64::MAX as u64)
                });
                entry.set(stamp, Some(value), expires);
                Ok(Outcome::Changed)
            })?,
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

/// An increment; returns the sum.
pub(super) fn increment(
    tx: &Tx,
    shared: &Arc<Shared>,
    bucket: &Name,
    key: &str,
    delta: i64,
) -> Result<i64, StoreError> {
    let mut writing = Writing::new(tx, shared, bucket);
    let mut sum = 0;
    writing.change(key, Expect::Any, |entry, stamp, _| {
        entry.increment(stamp, delta).map_err(|error| conflict(bucket, key, &error))?;
        if let Some(Shape::Counter(now)) = entry.shape(0) {
            sum = now;
        }
        Ok(Outcome::Changed)
    })?;
    writing.finish()?;
    Ok(sum)
}

pub(super) fn conflict(bucket: &Name, key: &str, why: &dyn std::fmt::Display) -> StoreError {
    StoreError::Conflict(format!("the key {} of bucket \"{bucket}\" cannot be changed so: {why}", check::shown(key)))
}
