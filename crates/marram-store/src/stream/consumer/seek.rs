//! Moving a consumer: back, where everything is owed again, and forward, where what is passed over is in the books.

use marram_core::Failure;
use marram_core::event::SubjectFilter;
use marram_core::stream::Start;
use rusqlite::Connection;

use super::{Cell, Held};
use crate::StoreError;
use crate::stream::key::{StreamId, key, position};
use crate::stream::{encode, read};

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
            let owed = owed_before(tx, shared.id, cell, target)?;
            Ok(cell.window().mark_sought(target, owed))
        })
        .await
    }
}

/// How many events before `target` the consumer is owed, within the transaction. It looks at the key of each, and at more only
/// where the filter asks for subjects.
fn owed_before(db: &Connection, id: StreamId, cell: &Cell, target: u64) -> Result<u64, StoreError> {
    let from = cell.cursor_within() + 1;
    if from >= target {
        return Ok(0);
    }
    let all = matches!(cell.window().policy.filter, SubjectFilter::All);
    let event = if all { "NULL" } else { "event" };
    let mut query = db.prepare_cached(&format!("SELECT key, {event} FROM event WHERE key BETWEEN ? AND ?"))?;
    let mut rows = query.query([key(id, from), key(id, target - 1)])?;
    let mut owed = 0;
    while let Some(row) = rows.next()? {
        let subject =
            if all { "" } else { encode::subject(row.get_ref(1)?.as_blob().map_err(rusqlite::Error::from)?)? };
        owed += u64::from(cell.window().owes(position(row.get(0)?), subject));
    }
    Ok(owed)
}
