//! What time brings about: old events go, removed streams are emptied, cursors that moved without a settlement are written.
//!
//! In small steps, each an operation of its own, so that others' writes pass between them. Nothing here keeps a clock.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use marram_core::Failure;
use rusqlite::{Connection, OptionalExtension as _, params};

use super::append::window_ns;
use super::consumer::Change;
use super::hub::{Shared, lock};
use super::key::{StreamId, key};
use super::port::StoreStreams;
use super::{room, seen};
use crate::limits::{MAINTAIN_ROWS_MAX, MAINTAIN_STEPS_MAX};
use crate::{StoreError, Tx};

/// What a call of [`StoreStreams::maintain`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Maintained {
    /// Rows that are gone.
    pub rows: u64,
    /// There is more to do: call again soon.
    pub more: bool,
}

impl StoreStreams {
    /// Removes what is too old or too much, empties removed streams, and writes cursors. A bounded amount of each.
    pub async fn maintain(&self) -> Result<Maintained, Failure> {
        let now = self.parts.clock.unix_ns();
        let by_age = lock(&self.parts.trust).look(self.parts.now());
        let mut done = Maintained::default();
        for shared in self.parts.hub.streams() {
            let step = {
                let shared = Arc::clone(&shared);
                move |tx: &Tx| trim(tx, &shared, now, by_age)
            };
            if self.is_to_be_trimmed(&shared, now, by_age)? {
                self.repeat(step, &mut done).await?;
            }
        }
        if self.is_to_be_cleared(now)? {
            self.repeat(move |tx| clear(tx, now), &mut done).await?;
        }
        self.parts.writer.free(move |tx| save(tx, now)).await?;
        for shared in self.parts.hub.streams() {
            shared.cells().iter().for_each(|cell| cell.wake());
        }
        Ok(done)
    }

    async fn repeat(
        &self,
        step: impl Fn(&Tx) -> Result<usize, StoreError> + Clone + Send + 'static,
        done: &mut Maintained,
    ) -> Result<(), StoreError> {
        for _ in 0..MAINTAIN_STEPS_MAX {
            let rows = self.parts.writer.free(step.clone()).await?;
            done.rows += rows as u64;
            if rows < MAINTAIN_ROWS_MAX {
                return Ok(());
            }
        }
        done.more = true;
        Ok(())
    }

    /// A look without the writer. One row.
    fn is_to_be_trimmed(&self, shared: &Shared, now: u64, by_age: bool) -> Result<bool, StoreError> {
        let (counters, policy) = shared.committed();
        if counters.events == 0 {
            return Ok(false);
        }
        if counters.bytes + shared.room_wanted.load(Ordering::Relaxed) > policy.bytes_max {
            return Ok(true);
        }
        if !by_age {
            return Ok(false);
        }
        let sql = "SELECT stored_unix_ns FROM event WHERE key = ?";
        let oldest: Option<u64> = self.parts.readers.read(|db| {
            Ok(db.prepare_cached(sql)?.query_row([key(shared.id, counters.first)], |row| row.get(0)).optional()?)
        })?;
        Ok(oldest.is_some_and(|stored| is_old(stored, &policy, now)))
    }

    /// The same for [`clear`]: a row of each stream.
    fn is_to_be_cleared(&self, now: u64) -> Result<bool, StoreError> {
        self.parts.readers.read(|db| {
            let sql = "SELECT EXISTS (SELECT 1 FROM stream WHERE name IS NULL)";
            if db.prepare_cached(sql)?.query_row([], |row| row.get(0))? {
                return Ok(true);
            }
            for shared in self.parts.hub.streams() {
                if seen::past(db, shared.id, window_ns(&shared.committed().1), now, 1)?.is_some() {
                    return Ok(true);
                }
            }
            Ok(false)
        })
    }
}

fn is_old(stored: u64, policy: &marram_core::stream::StreamPolicy, now: u64) -> bool {
    let age = u64::try_from(policy.age_max.as_nanos()).unwrap_or(u64::MAX);
    now.saturating_sub(stored) >= age
}

/// Removes the oldest events of a stream that are past its age, if that is believed, or over its bytes with the room that
/// somebody wants, as far as they may go.
fn trim(tx: &Tx, shared: &Shared, now: u64, by_age: bool) -> Result<usize, StoreError> {
    let mut ledger = tx.ledger();
    if ledger.counters(shared.id).is_none() {
        return Ok(0);
    }
    let head = ledger.head(shared.id);
    let policy = head.policy;
    // Past its age goes what nobody is owed, though nobody has settled it either where there is no consumer.
    let last = head.settled().map_or(head.counters.last, |settled| room::removable(head).max(settled));
    let wanted = shared.room_wanted.load(Ordering::Relaxed);
    let over = (head.counters.bytes + wanted).saturating_sub(policy.bytes_max);
    let removable = room::removable(head);
    let oldest = room::oldest(tx, head, last, MAINTAIN_ROWS_MAX, |oldest, at, stored| {
        (by_age && is_old(stored, &policy, now)) || (oldest.bytes < over && at <= removable)
    })?;
    if oldest.events < MAINTAIN_ROWS_MAX as u64 {
        // It is there now, or cannot be made. Whoever still wants it asks again.
        let _ = shared.room_wanted.compare_exchange(wanted, 0, Ordering::Relaxed, Ordering::Relaxed);
    }
    room::remove(tx, &mut ledger, shared.id, oldest, now)?;
    Ok(usize::try_from(oldest.events).unwrap_or(usize::MAX))
}

/// Removes rows of removed streams, and identities that are past their window.
fn clear(tx: &Tx, now: u64) -> Result<usize, StoreError> {
    let mut left = MAINTAIN_ROWS_MAX;
    let sql = "SELECT id FROM stream WHERE name IS NULL";
    let removed: Vec<StreamId> = tx.prepare_cached(sql)?.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
    for id in removed {
        for table in ["event", "event_seen"] {
            left -= delete(tx, table, id, left)?;
        }
        if left > 0 {
            tx.prepare_cached("DELETE FROM stream WHERE id = ?")?.execute([id])?;
        }
    }
    let windows: Vec<(StreamId, u64)> =
        tx.ledger().streams_mut().map(|head| (head.shared.id, window_ns(&head.policy))).collect();
    for (id, window) in windows {
        let Some((from, to)) = seen::past(tx, id, window, now, left)? else { continue };
        left -= tx.prepare_cached("DELETE FROM event_seen WHERE key BETWEEN ? AND ?")?.execute([from, to])?;
    }
    Ok(MAINTAIN_ROWS_MAX - left)
}

/// The first rows of a stream that is no more.
fn delete(db: &Connection, table: &str, id: StreamId, max: usize) -> Result<usize, StoreError> {
    let sql = format!(
        "DELETE FROM {table} WHERE key IN (SELECT key FROM {table} WHERE key BETWEEN ? AND ? ORDER BY key LIMIT ?)"
    );
    Ok(db.prepare_cached(&sql)?.execute(params![key(id, 0), key(id, u64::MAX), max])?)
}

/// Writes cursors that moved past what a filter does not take; forgets identities that are past their window.
fn save(tx: &Tx, now: u64) -> Result<(), StoreError> {
    let mut ledger = tx.ledger();
    let mut behind = Vec::new();
    for head in ledger.streams_mut() {
        let window = window_ns(&head.policy);
        if let Some(seen) = &mut head.seen {
            seen.prune(window, now);
        }
        behind.extend(head.shared.cells().into_iter().filter(|cell| cell.is_behind()));
    }
    for cell in behind {
        ledger.change(&cell, Change::Saved);
    }
    Ok(())
}
