//! Moving a consumer: back, where everything is owed again, and forward, where what is passed over is in the books.

use marram_core::Failure;
use marram_core::event::SubjectFilter;
use marram_core::stream::Start;
use rusqlite::Connection;

use super::{Cell, Held};
use crate::StoreError;
use crate::stream::key::{StreamId, key, position};
use crate::stream::{encode, read};

/// Events that are read to count what a consumer with a filter is owed and passes over: others' writes wait for that.
const FILTERED_MAX: u64 = 4_096;

impl Held {
    pub(super) async fn seek_to(&self, from: Start) -> Result<(), Failure> {
        self.change(move |tx, shared, cell| {
            let counters = tx.ledger().counters(shared.id);
            let counters = counters.ok_or_else(|| StoreError::NoStream(shared.name.clone()))?;
            let next = counters.last + 1;
            if matches!(from, Start::Position(at) if at > next) {
                let (stream, last) = (&shared.name, counters.last);
                let message = format!("stream \"{stream}\" ends at {last}: name a position up to {next}, or `next`");
                return Err(StoreError::Invalid(message));
            }
            let target = read::position_of(tx, shared.id, &counters, from)?;
            let owed = owed_before(tx, shared.id, cell, counters.first, target)?;
            Ok(cell.window().mark_sought(target, owed))
        })
        .await
    }
}

/// How many events before `target` the consumer is owed, within the transaction. A skip costs the same however long it is: positions
/// have no gaps, and where a filter asks for subjects, [`FILTERED_MAX`] of what was not handed out yet are looked at.
fn owed_before(db: &Connection, id: StreamId, cell: &Cell, first: u64, target: u64) -> Result<u64, StoreError> {
    let (open, from) = cell.window().open_before(target);
    let from = from.max(first);
    if from >= target {
        return Ok(open);
    }
    if matches!(cell.window().policy.filter, SubjectFilter::All) {
        return Ok(open + (target - from));
    }
    let mut owed = open;
    let mut query = db.prepare_cached("SELECT key, event FROM event WHERE key BETWEEN ? AND ?")?;
    let last = target.min(from.saturating_add(FILTERED_MAX)) - 1;
    let mut rows = query.query([key(id, from), key(id, last)])?;
    while let Some(row) = rows.next()? {
        let subject = encode::subject(row.get_ref(1)?.as_blob().map_err(rusqlite::Error::from)?)?;
        owed += u64::from(cell.window().owes(position(row.get(0)?), subject));
    }
    Ok(owed)
}
