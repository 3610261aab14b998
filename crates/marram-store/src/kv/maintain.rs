//! What time does to keys: entries expire, and what is left of removed ones is let go.

use marram_core::Name;
use rusqlite::{Connection, params};

use super::Keys;
use super::write::{At, Writing};
use crate::StoreError;
use crate::limits::{KV_MAINTAINED_MAX, KV_TOMBSTONE_KEPT};

/// What one step of maintenance did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KvMaintained {
    /// Entries whose time was over, each with its event.
    pub expired: usize,
    /// Tombstones that were let go.
    pub collected: usize,
    /// Entries whose time is over and whose event a stream does not take, in this round so far. They wait for a later one.
    pub refused: usize,
    /// There is more to do: another step may follow at once.
    pub more: bool,
}

impl Keys {
    /// One step of maintenance, of a bounded size: removes entries whose time is over, with their `expired` events, and
    /// tombstones older than [`KV_TOMBSTONE_KEPT`]. Expired entries already read as absent before.
    ///
    /// A round goes through everything whose time is over, in as many steps; it ends with one that says there is no more.
    pub async fn maintain(&self) -> Result<KvMaintained, StoreError> {
        let keys = self.clone();
        self.writer.free(move |tx| step(&keys.at(tx))).await
    }

    /// When [`Keys::maintain`] next has something to do, in nanoseconds since the Unix epoch; a write with a time to live
    /// may bring that forward.
    pub fn next_due_unix_ns(&self) -> Result<Option<u64>, StoreError> {
        self.readers.read(|db| {
            let next = |sql| Ok::<Option<u64>, StoreError>(db.prepare_cached(sql)?.query_row([], |row| row.get(0))?);
            let expiry = next("SELECT min(expires_unix_ns) FROM kv_entry WHERE expires_unix_ns IS NOT NULL")?;
            let tombstone = next("SELECT min(since_unix_ns) FROM kv_tombstone")?;
            let tombstone = tombstone.map(|since| since.saturating_add(KV_TOMBSTONE_KEPT.as_nanos() as u64));
            Ok(expiry.into_iter().chain(tombstone).min())
        })
    }
}

fn step(at: &At<'_>) -> Result<KvMaintained, StoreError> {
    let now = i64::try_from(at.now_unix_ns).unwrap_or(i64::MAX);
    let round = at.shared.round().take().unwrap_or_default();
    let due = due(at.tx, now, &round.after)?;
    let more = due.len() == KV_MAINTAINED_MAX;
    let mut done = KvMaintained { refused: round.refused, more, ..KvMaintained::default() };
    for Due { bucket, key, .. } in &due {
        let bucket = Name::new(bucket).map_err(|error| StoreError::Damaged(error.to_string()))?;
        let expired = at.tx.part(|_| {
            let mut writing = Writing::new(at, &bucket);
            let expired = writing.expire(key)?;
            writing.finish().map(|()| expired)
        })?;
        match expired {
            Ok(expired) => done.expired += usize::from(expired),
            Err(StoreError::StreamFull(..) | StoreError::TooLarge(_) | StoreError::TooMany(_)) => done.refused += 1,
            Err(error) => return Err(error),
        }
    }
    if more && done.refused > 0 {
        // What was refused is still there, and would be found again before all others.
        *at.shared.round() = due.into_iter().last().map(|after| Round { after, refused: done.refused });
    }
    let old = now.saturating_sub(KV_TOMBSTONE_KEPT.as_nanos() as i64);
    let sql = "DELETE FROM kv_tombstone WHERE (bucket, key) IN
        (SELECT bucket, key FROM kv_tombstone WHERE since_unix_ns <= ?1 ORDER BY since_unix_ns LIMIT ?2)";
    done.collected = at.tx.prepare_cached(sql)?.execute(params![old, KV_MAINTAINED_MAX])?;
    done.more |= done.collected == KV_MAINTAINED_MAX;
    Ok(done)
}

/// How far a round has come that leaves something behind.
#[derive(Default)]
pub(super) struct Round {
    after: Due,
    refused: usize,
}

/// An entry whose time is over; the default comes before all.
#[derive(Default)]
struct Due {
    expires_unix_ns: i64,
    bucket: String,
    key: String,
}

/// The next that are due behind `after`, in order.
fn due(db: &Connection, now: i64, after: &Due) -> Result<Vec<Due>, StoreError> {
    let sql = "SELECT expires_unix_ns, bucket, key FROM kv_entry
        WHERE expires_unix_ns <= ?1 AND (expires_unix_ns, bucket, key) > (?2, ?3, ?4)
        ORDER BY expires_unix_ns, bucket, key LIMIT ?5";
    let mut query = db.prepare_cached(sql)?;
    let rows = query
        .query_map(params![now, after.expires_unix_ns, after.bucket, after.key, KV_MAINTAINED_MAX], |row| {
            Ok(Due { expires_unix_ns: row.get(0)?, bucket: row.get(1)?, key: row.get(2)? })
        })?;
    Ok(rows.collect::<Result<_, _>>()?)
}
