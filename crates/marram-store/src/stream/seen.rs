//! Which events a stream has had lately, so that the same one is not stored twice.
//!
//! A hint in memory: identity to position, in two generations of which the older goes as a whole. What counts is the row: a
//! hit is compared with what is stored at its position, so an entry of a write that was undone does no harm. After a restart
//! it is read again from the rows, those of removed events included.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use rusqlite::{Connection, OptionalExtension as _, params};

use super::encode::{self, Encoded};
use super::key::{StreamId, key, position};
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
                seen.young.entry(row.get(2)?).or_insert(position(row.get(0)?));
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

/// In the order of positions: a look at the first costs the same however many there are.
const IN_ORDER: &str = "SELECT key, stored_unix_ns FROM event_seen WHERE key BETWEEN ? AND ? ORDER BY key LIMIT ?";

/// Identities of a stream that are past their window, at most `max`: from the first key to the last, with no others between.
///
/// Times rise with positions, but where a clock was set. What was stored while it was ahead is passed over; what else is
/// behind a younger one waits until that is past the window, too.
pub(super) fn past(
    db: &Connection,
    id: StreamId,
    window_ns: u64,
    now: u64,
    max: usize,
) -> Result<Option<(i64, i64)>, StoreError> {
    let from = after_the_future(db, id, now)?;
    let mut query = db.prepare_cached(IN_ORDER)?;
    let mut rows = query.query(params![from, key(id, u64::MAX), max])?;
    let mut found = None;
    while let Some(row) = rows.next()? {
        let (at, stored): (i64, u64) = (row.get(0)?, row.get(1)?);
        // As in `is_duplicate`.
        if now.saturating_sub(stored) < window_ns {
            break;
        }
        found = Some((found.map_or(at, |(first, _)| first), at));
    }
    Ok(found)
}

/// The first key that may have an identity that was not stored in what is the future by now. There may be millions before
/// it, so it is searched for in strides that double.
fn after_the_future(db: &Connection, id: StreamId, now: u64) -> Result<i64, StoreError> {
    let mut query = db.prepare_cached(IN_ORDER)?;
    // The first one from a key on, if it is of the future.
    let mut ahead = |from: i64| -> Result<Option<i64>, StoreError> {
        let row = query.query_row(params![from, key(id, u64::MAX), 1], |row| Ok((row.get(0)?, row.get(1)?)));
        Ok(row.optional()?.filter(|(_, stored): &(i64, u64)| *stored > now).map(|(at, _)| at))
    };
    let Some(mut low) = ahead(key(id, 0))? else { return Ok(key(id, 0)) };
    let mut stride = 1;
    while let Some(at) = ahead(low.saturating_add(stride))? {
        (low, stride) = (at, stride.saturating_mul(2));
    }
    let mut high = low.saturating_add(stride);
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        match ahead(middle)? {
            Some(at) if at < high => low = at,
            _ => high = middle,
        }
    }
    Ok(high)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Store, StoreConfig};

    const NOW: u64 = 1_700_000_000_000_000_000;
    const WINDOW: u64 = 1_000_000_000;
    const ID: StreamId = 32_767;

    /// How many events, and when each of them was stored.
    type Blocks<'a> = &'a [(u64, u64)];

    fn fill(db: &Connection, blocks: Blocks<'_>) {
        let mut next = 1;
        for (count, stored) in blocks {
            let sql = "INSERT INTO event_seen WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < ?1)
                SELECT ?2 + i, ?3, i FROM n";
            db.execute(sql, params![count, key(ID, next), stored]).unwrap();
            next += count;
        }
    }

    fn found(db: &Connection, max: usize) -> Option<(u64, u64)> {
        let past = past(db, ID, WINDOW, NOW, max).unwrap();
        past.map(|(first, last)| (position(first), position(last)))
    }

    #[tokio::test]
    async fn what_is_past_its_window_is_found_whatever_the_clock_was() {
        let (old, young, future) = (NOW - WINDOW, NOW - WINDOW + 1, NOW + 1);
        let cases: [(Blocks<'_>, Option<(u64, u64)>); 8] = [
            (&[], None),
            (&[(5_000, young)], None),
            (&[(1, old)], Some((1, 1))),
            (&[(5_000, old), (3, young)], Some((1, 2_000))),
            (&[(7, old), (3, young), (7, old)], Some((1, 7))),
            (&[(1, future), (9, old)], Some((2, 10))),
            (&[(4_321, future), (17, old), (5_000, young)], Some((4_322, 4_338))),
            (&[(5_000, future)], None),
        ];
        for (blocks, expected) in cases {
            let dir = tempfile::tempdir().unwrap();
            let store = Store::open(&StoreConfig::new(dir.path())).unwrap();
            let blocks = blocks.to_vec();
            let look = move |tx: &crate::Tx| {
                fill(tx, &blocks);
                Ok((found(tx, 2_000), tx.prepare_cached(IN_ORDER)?.get_status(rusqlite::StatementStatus::VmStep)))
            };
            let (past, steps) = store.writer().write(look).await.unwrap();
            assert_eq!(past, expected);
            // Some for each look, and for each row that is past.
            assert!(past.is_some() || steps < 2_000, "{steps} steps of the database for nothing");
        }
    }
}
