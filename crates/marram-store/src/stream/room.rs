//! Making room: what goes when a stream would keep more than it may, or longer.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use marram_core::stream::Overflow;
use rusqlite::{Connection, params};

use super::append::window_ns;
use super::consumer::Cell;
use super::encode;
use super::key::{StreamId, key, position};
use super::ledger::{Head, Ledger};
use crate::limits::ROOM_EVENTS_MAX;
use crate::{StoreError, Tx};

/// The oldest events of a stream, of which some are to go.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Oldest {
    /// The last of them.
    pub(super) through: u64,
    pub(super) events: u64,
    pub(super) bytes: u64,
    newest_unix_ns: u64,
}

/// Makes room for `bytes` more, or fails with [`StoreError::StreamFull`] and has removed nothing.
pub(super) fn make(tx: &Tx, ledger: &mut Ledger, id: StreamId, bytes: u64, now: u64) -> Result<(), StoreError> {
    let head = ledger.head(id);
    let over = (head.counters.bytes + bytes).saturating_sub(head.policy.bytes_max);
    if over == 0 {
        return Ok(());
    }
    let fits = bytes <= head.policy.bytes_max;
    let oldest = oldest(tx, head, removable(head), ROOM_EVENTS_MAX, |oldest, _, _| oldest.bytes < over)?;
    if !fits || oldest.bytes < over {
        head.shared.rejected.fetch_add(1, Ordering::Relaxed);
        return Err(StoreError::StreamFull(head.shared.name.clone()));
    }
    remove(tx, ledger, id, oldest, now)
}

/// The last position that may go.
pub(super) fn removable(head: &Head) -> u64 {
    match head.policy.overflow {
        Overflow::DropOldest => head.counters.last,
        Overflow::Reject => head.settled().unwrap_or(0),
    }
}

/// The oldest events up to `last`, at most `max`, for as long as `more` of those so far and the position and time of the
/// next says so.
pub(super) fn oldest(
    db: &Connection,
    head: &Head,
    last: u64,
    max: usize,
    more: impl Fn(&Oldest, u64, u64) -> bool,
) -> Result<Oldest, StoreError> {
    let mut found = Oldest::default();
    let (id, first) = (head.shared.id, head.counters.first);
    if last < first {
        return Ok(found);
    }
    let sql = "SELECT key, size, stored_unix_ns FROM event WHERE key BETWEEN ? AND ? ORDER BY key LIMIT ?";
    let mut query = db.prepare_cached(sql)?;
    let mut rows = query.query(params![key(id, first), key(id, last), max])?;
    while let Some(row) = rows.next()? {
        let stored: u64 = row.get(2)?;
        if !more(&found, position(row.get(0)?), stored) {
            break;
        }
        found.through = position(row.get(0)?);
        found.events += 1;
        found.bytes += row.get::<_, u64>(1)?;
        found.newest_unix_ns = found.newest_unix_ns.max(stored);
    }
    Ok(found)
}

/// Removes them.
pub(super) fn remove(tx: &Tx, ledger: &mut Ledger, id: StreamId, oldest: Oldest, now: u64) -> Result<(), StoreError> {
    if oldest.events == 0 {
        return Ok(());
    }
    let head = ledger.head(id);
    let (from, to) = (key(id, head.counters.first), key(id, oldest.through));
    let owed = owed(tx, head, oldest.through, (from, to))?;
    let window = window_ns(&head.policy);
    if now.saturating_sub(oldest.newest_unix_ns) < window {
        let sql = "INSERT OR REPLACE INTO event_seen SELECT key, stored_unix_ns, identity FROM event
            WHERE key BETWEEN ?1 AND ?2 AND stored_unix_ns > ?3";
        tx.prepare_cached(sql)?.execute(params![from, to, now.saturating_sub(window)])?;
    }
    tx.prepare_cached("DELETE FROM event WHERE key BETWEEN ? AND ?")?.execute([from, to])?;
    for (cell, owed) in &owed.by_consumer {
        let change = cell.window().mark_dropped(oldest.through, *owed);
        ledger.change(cell, change);
    }
    let head = ledger.touch(id);
    head.counters.dropped += owed.events;
    head.counters.first = oldest.through + 1;
    head.counters.events -= oldest.events;
    head.counters.bytes -= oldest.bytes;
    Ok(())
}

/// What is dropped though somebody was still owed it.
#[derive(Default)]
struct Owed {
    events: u64,
    by_consumer: Vec<(Arc<Cell>, u64)>,
}

fn owed(db: &Connection, head: &Head, through: u64, (from, to): (i64, i64)) -> Result<Owed, StoreError> {
    let behind = head.shared.cells().into_iter().filter(|cell| cell.cursor_within() < through);
    let mut owed = Owed { events: 0, by_consumer: behind.map(|cell| (cell, 0)).collect() };
    if owed.by_consumer.is_empty() {
        return Ok(owed);
    }
    let mut query = db.prepare_cached("SELECT key, event FROM event WHERE key BETWEEN ? AND ?")?;
    let mut rows = query.query([from, to])?;
    while let Some(row) = rows.next()? {
        let subject = encode::subject(row.get_ref(1)?.as_blob().map_err(rusqlite::Error::from)?)?;
        let at = position(row.get(0)?);
        let mut any = false;
        for (cell, count) in &mut owed.by_consumer {
            let owes = cell.window().owes(at, subject);
            *count += u64::from(owes);
            any |= owes;
        }
        owed.events += u64::from(any);
    }
    Ok(owed)
}
