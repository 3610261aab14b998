//! Making room: what goes when a stream would keep more than it may, or longer.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use marram_core::stream::{Overflow, StreamName};
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

/// Why a stream that is full takes no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fullness {
    /// What it keeps is owed to its consumers.
    Owed,
    /// Nobody consumes it, and nothing goes by itself.
    Unread,
    /// More small events have to go than one publish removes. Maintenance removes them.
    MakingRoom,
}

impl fmt::Display for Fullness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Owed => "what it keeps is still owed: let its consumers catch up, or let it keep more",
            Self::Unread => {
                "nothing consumes it: deploy a function that does, let it keep more, or declare it with `overflow = \"drop-oldest\"`"
            }
            Self::MakingRoom => "room is being made for what is this large: try again in a moment",
        })
    }
}

/// Makes room for `count` events of `bytes` more together. Fails with [`StoreError::StreamFull`], or with
/// [`StoreError::TooLarge`] for what it could never keep, and has written nothing then; where there was only too much to
/// remove at once, the next maintenance does that.
pub(super) fn make(
    tx: &Tx,
    ledger: &mut Ledger,
    id: StreamId,
    (count, bytes): (usize, u64),
    now: u64,
) -> Result<(), StoreError> {
    let head = ledger.head(id);
    let bytes_max = head.policy.bytes_max;
    let over = (head.counters.bytes + bytes).saturating_sub(bytes_max);
    if over == 0 {
        return Ok(());
    }
    let reject = |error| {
        head.shared.rejected.fetch_add(1, Ordering::Relaxed);
        Err(error)
    };
    if bytes > bytes_max {
        return reject(too_large(&head.shared.name, count, bytes, bytes_max));
    }
    let last = removable(head);
    let oldest = oldest(tx, head, last, ROOM_EVENTS_MAX, |oldest, _, _| oldest.bytes < over)?;
    if oldest.bytes < over {
        let fullness = if oldest.events >= ROOM_EVENTS_MAX as u64 && oldest.through < last {
            // It cannot be removed here: what fails has to leave nothing behind, also not what it removed.
            head.shared.room_wanted.fetch_max(bytes, Ordering::Relaxed);
            Fullness::MakingRoom
        } else if head.shared.cells().is_empty() {
            Fullness::Unread
        } else {
            Fullness::Owed
        };
        return reject(StoreError::StreamFull(head.shared.name.clone(), fullness));
    }
    remove(tx, ledger, id, oldest, now)
}

fn too_large(stream: &StreamName, count: usize, bytes: u64, bytes_max: u64) -> StoreError {
    let (what, otherwise) = match count {
        1 => ("the event has".to_owned(), "store it as an object, and name that"),
        _ => (format!("the {count} events of this publish together have"), "publish fewer at a time"),
    };
    StoreError::TooLarge(format!(
        "{what} {bytes} bytes, and stream \"{stream}\" keeps no more than {bytes_max}: {otherwise}, or declare the stream with a larger `retain.bytes`"
    ))
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
