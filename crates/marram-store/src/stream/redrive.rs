//! Dead letters go back: each becomes an event of its stream again, as it was published, and leaves the dead-letter stream, in
//! one transaction. Many go in steps, so that others' writes pass between them; each step is whole or has not happened.

use marram_core::Failure;
use marram_core::event::{Event, SubjectFilter};
use marram_core::stream::StreamName;

use super::append::append_again;
use super::encode::Encoded;
use super::port::StoreStreams;
use super::read::{self, Most};
use super::room;
use crate::{StoreError, Tx};

/// Dead letters that one transaction puts back.
const REDRIVEN_MAX: usize = 256;
/// Bytes of them, and of one more: they are in memory together.
const REDRIVEN_BYTES_MAX: u64 = 4 << 20;
/// What a dead letter has besides what was published (`bury`).
const OF_THE_DEAD: [&str; 5] = ["marramconsumer", "marramreason", "marramattempts", "marramposition", "marramstream"];

impl StoreStreams {
    /// Those that are there now, the oldest first; what dies meanwhile stays. Returns how many.
    pub(super) async fn redrive_all(&self, stream: StreamName) -> Result<u64, Failure> {
        let Some(dead) = stream.dead_letter() else {
            let message = format!("\"{stream}\" has no dead letters of its own: name the stream that they came from");
            return Err(StoreError::Invalid(message).into());
        };
        let Some(dead) = self.parts.hub.stream(&dead) else { return Ok(0) };
        let last = dead.committed().0.last;
        let mut redriven = 0;
        loop {
            let (stream, name, now) = (stream.clone(), dead.name.clone(), self.parts.clock.unix_ns());
            let step = self.parts.writer.write(move |tx| step(tx, &name, &stream, last, now)).await?;
            redriven += step;
            if step == 0 {
                return Ok(redriven);
            }
        }
    }
}

fn step(tx: &Tx, dead: &StreamName, stream: &StreamName, last: u64, now: u64) -> Result<u64, StoreError> {
    let (id, first, oldest) = {
        let mut ledger = tx.ledger();
        let Some(head) = ledger.find(dead) else { return Ok(0) };
        let few = |oldest: &room::Oldest, _, _| oldest.bytes < REDRIVEN_BYTES_MAX;
        (head.shared.id, head.counters.first, room::oldest(tx, head, last, REDRIVEN_MAX, few)?)
    };
    if oldest.events == 0 {
        return Ok(0);
    }
    let count = usize::try_from(oldest.events).unwrap_or(REDRIVEN_MAX);
    let most = Most { events: count, bytes: u64::MAX, rows: count };
    let letters = read::after(tx, id, first - 1, &SubjectFilter::All, most)?.events;
    for stored in letters.into_iter().take_while(|stored| stored.position <= oldest.through) {
        let mut event = Event::clone(&stored.event);
        event.extensions.retain(|name, _| !OF_THE_DEAD.contains(&name.as_str()));
        append_again(tx, stream, &Encoded::unchecked(event), now)?;
    }
    let mut ledger = tx.ledger();
    room::remove(tx, &mut ledger, id, oldest, now)?;
    Ok(oldest.events)
}
