//! Reading a stream, on connections that never wait for the writer.

use std::sync::Arc;

use marram_core::event::SubjectFilter;
use marram_core::port::streams::Stored;
use marram_core::stream::Start;
use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::consumer::takes;
use super::encode;
use super::hub::Counters;
use super::key::{StreamId, key, position};
use crate::StoreError;

/// A piece of a stream.
#[derive(Debug)]
pub(super) struct Chunk {
    /// What the filter takes.
    pub(super) events: Vec<Stored>,
    /// Everything up to here was looked at.
    pub(super) through: u64,
}

/// How much one read takes at most.
#[derive(Clone, Copy, Debug)]
pub(super) struct Most {
    pub(super) events: usize,
    pub(super) bytes: u64,
    /// Rows looked at, whether the filter takes them or not.
    pub(super) rows: usize,
}

/// The events after `after` that `filter` takes.
pub(super) fn after(
    db: &Connection,
    id: StreamId,
    after: u64,
    filter: &SubjectFilter,
    most: Most,
) -> Result<Chunk, StoreError> {
    let mut chunk = Chunk { events: Vec::new(), through: after };
    let sql = "SELECT key, stored_unix_ns, size, event FROM event WHERE key > ? AND key <= ? ORDER BY key LIMIT ?";
    let mut query = db.prepare_cached(sql)?;
    let rows_max = i64::try_from(most.rows).unwrap_or(i64::MAX);
    let mut rows = query.query(params![key(id, after), key(id, u64::MAX), rows_max])?;
    let (mut bytes, mut looked) = (0, 0);
    while let Some(row) = rows.next()? {
        let blob = row.get_ref(3)?.as_blob().map_err(rusqlite::Error::from)?;
        if takes(filter, encode::subject(blob)?) {
            bytes += row.get::<_, u64>(2)?;
            // At least one, however large.
            if chunk.events.len() >= most.events || (bytes > most.bytes && !chunk.events.is_empty()) {
                return Ok(chunk);
            }
            chunk.events.push(stored(row, 0, blob)?);
        }
        chunk.through = position(row.get(0)?);
        looked += 1;
    }
    if looked < most.rows {
        // The end. What was removed between is not there to be looked at; the row has its positions.
        let sql = "SELECT last FROM stream WHERE id = ?";
        let last: Option<u64> = db.prepare_cached(sql)?.query_row([id], |row| row.get(0)).optional()?;
        chunk.through = chunk.through.max(last.unwrap_or(0));
    }
    Ok(chunk)
}

/// The events at `positions`, as far as they are there, up to `bytes`; and how many of the positions were looked for.
pub(super) fn at(
    db: &Connection,
    id: StreamId,
    positions: &[u64],
    bytes_max: u64,
) -> Result<(Vec<Stored>, usize), StoreError> {
    let mut query = db.prepare_cached("SELECT key, stored_unix_ns, size, event FROM event WHERE key = ?")?;
    let (mut events, mut bytes) = (Vec::with_capacity(positions.len()), 0);
    for (looked, at) in positions.iter().enumerate() {
        let mut rows = query.query([key(id, *at)])?;
        let Some(row) = rows.next()? else { continue };
        bytes += row.get::<_, u64>(2)?;
        if bytes > bytes_max && !events.is_empty() {
            return Ok((events, looked));
        }
        let blob = row.get_ref(3)?.as_blob().map_err(rusqlite::Error::from)?;
        events.push(stored(row, 0, blob)?);
    }
    Ok((events, positions.len()))
}

fn stored(row: &Row<'_>, at: usize, blob: &[u8]) -> Result<Stored, StoreError> {
    let event = Arc::new(encode::decode(blob)?);
    Ok(Stored { position: position(row.get(at)?), stored_unix_ns: row.get(at + 1)?, event })
}

/// The position at which `start` begins: between the oldest event that is kept and one past the newest.
pub(super) fn position_of(db: &Connection, id: StreamId, counters: &Counters, start: Start) -> Result<u64, StoreError> {
    let (first, next) = (counters.first, counters.last + 1);
    match start {
        Start::First => Ok(first),
        Start::Next => Ok(next),
        Start::Position(at) => Ok(at.clamp(first, next)),
        Start::Time(time) => {
            let sql = "SELECT stored_unix_ns FROM event WHERE key = ?";
            let mut query = db.prepare_cached(sql)?;
            // Positions have no gaps, and times rise with them, unless the clock was set back.
            let (mut low, mut high) = (first, next);
            while low < high {
                let middle = low + (high - low) / 2;
                let stored: Option<u64> = query.query_row([key(id, middle)], |row| row.get(0)).optional()?;
                if stored.is_some_and(|stored| stored < time) {
                    low = middle + 1;
                } else {
                    high = middle;
                }
            }
            Ok(low)
        }
    }
}
