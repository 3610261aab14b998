//! Which events a stream has had lately, so that the same one is not stored twice.
//!
//! A hint in memory: identity to position, in two generations of which the older goes as a whole. What counts is the row: a
//! hit is compared with what is stored at its position, so an entry of a write that was undone does no harm. After a restart
//! it is read again from the rows, those of removed events included.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use rusqlite::{Connection, OptionalExtension as _, params};

use super::encode::{self, Encoded};
use super::key::{StreamId, key};
use crate::StoreError;
use crate::limits::{IDENTITIES_MAX, SEEN_PAST_ROWS_MAX};

/// Identities are hashes already.
#[derive(Default)]
struct Already(u64);

impl Hasher for Already {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_i64(&mut self, hash: i64) {
        self.0 = hash.cast_unsigned();
    }
}

type Generation = HashMap<i64, u64, BuildHasherDefault<Already>>;

#[derive(Default)]
pub(super) struct Seen {
    young: Generation,
    old: Generation,
    /// When the first of the young was stored.
    since_unix_ns: u64,
}

impl Seen {
    /// What the rows of the window say, up to the most that is remembered.
    pub(super) fn load(db: &Connection, id: StreamId, window_ns: u64, now: u64) -> Result<Self, StoreError> {
        let mut seen = Self::default();
        let (mut left, mut since) = (IDENTITIES_MAX / 2, u64::MAX);
        for table in ["event", "event_seen"] {
            let mut past = 0;
            let sql = format!(
                "SELECT key, stored_unix_ns, identity FROM {table} WHERE key BETWEEN ? AND ? ORDER BY key DESC LIMIT ?"
            );
            let mut query = db.prepare_cached(&sql)?;
            let mut rows = query.query(params![key(id, 0), key(id, u64::MAX), left])?;
            while let Some(row) = rows.next()? {
                let stored: u64 = row.get(1)?;
                if now.saturating_sub(stored) >= window_ns {
                    past += 1;
                    if past > SEEN_PAST_ROWS_MAX {
                        break;
                    }
                    continue;
                }
                seen.young.entry(row.get(2)?).or_insert(super::key::position(row.get(0)?));
                since = since.min(stored);
                left = left.saturating_sub(1);
            }
        }
        if since < u64::MAX {
            seen.since_unix_ns = since;
        }
        Ok(seen)
    }

    pub(super) fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }

    /// Where an event with this identity was put, perhaps.
    pub(super) fn position(&self, identity: i64) -> Option<u64> {
        self.young.get(&identity).or_else(|| self.old.get(&identity)).copied()
    }

    pub(super) fn insert(&mut self, identity: i64, position: u64, window_ns: u64, now: u64) {
        if self.young.is_empty() {
            self.since_unix_ns = now;
        } else if self.young.len() >= IDENTITIES_MAX / 2 || now.saturating_sub(self.since_unix_ns) >= window_ns {
            self.age();
            self.since_unix_ns = now;
        }
        self.young.insert(identity, position);
    }

    /// Forgets the older generation.
    pub(super) fn age(&mut self) {
        self.old = std::mem::take(&mut self.young);
    }

    /// Forgets what is past the window, for a stream that nobody writes to.
    pub(super) fn prune(&mut self, window_ns: u64, now: u64) {
        let age = now.saturating_sub(self.since_unix_ns);
        if age >= window_ns.saturating_mul(2) {
            *self = Self::default();
        } else if age >= window_ns {
            self.age();
            self.since_unix_ns = now;
        }
    }
}

/// Whether `event` is what was stored at `position` within the window.
pub(super) fn is_duplicate(
    db: &Connection,
    (id, position): (StreamId, u64),
    event: &Encoded,
    (window_ns, now): (u64, u64),
) -> Result<bool, StoreError> {
    let recent = |stored: u64| now.saturating_sub(stored) < window_ns;
    let mut query = db.prepare_cached("SELECT stored_unix_ns, event FROM event WHERE key = ?")?;
    let mut rows = query.query([key(id, position)])?;
    if let Some(row) = rows.next()? {
        let stored = row.get_ref(1)?.as_blob().map_err(rusqlite::Error::from)?;
        return Ok(recent(row.get(0)?) && encode::is_same(stored, &event.event)?);
    }
    let sql = "SELECT stored_unix_ns, identity FROM event_seen WHERE key = ?";
    let gone =
        db.prepare_cached(sql)?.query_row([key(id, position)], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
    Ok(gone.is_some_and(|(stored, identity): (u64, i64)| recent(stored) && identity == event.identity))
}
