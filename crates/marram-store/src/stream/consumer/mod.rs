//! Consumers: what each of them has been given, what it has settled, and what comes next.

mod close;
mod disk;
mod pull;
mod seek;
mod settle;
mod window;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use futures::future::BoxFuture;
use marram_core::Failure;
use marram_core::port::Consumer;
use marram_core::port::streams::{ConsumerState, Delivery, Settle};
use marram_core::stream::{ConsumerId, ConsumerPolicy, Start, StreamName};
use rusqlite::{Connection, params};
use tokio::sync::Notify;

use super::Parts;
use super::hub::{Shared, lock};
use super::key::StreamId;
use super::read;
use crate::limits::{CONSUMER_NAME_BYTES_MAX, CONSUMERS_PER_STREAM_MAX};
use crate::{StoreError, Tx};

pub(super) use close::{Change, takes};
use window::{State, Window};

/// One consumer, for as long as the node runs, whether somebody holds it or not.
#[derive(Debug)]
pub(crate) struct Cell {
    pub(super) id: ConsumerId,
    /// Its row.
    row: i64,
    window: Mutex<Window>,
    /// Something changed that a waiting pull wants to know.
    changed: Notify,
    /// The writer has it in its list of those to be written.
    pub(super) dirty: AtomicBool,
    /// Its row is durable.
    made: AtomicBool,
}

impl Cell {
    pub(super) fn window(&self) -> MutexGuard<'_, Window> {
        lock(&self.window)
    }

    /// Every event up to here is settled, within the transaction.
    pub(super) fn cursor_within(&self) -> u64 {
        self.window().cursor_within()
    }

    /// Writes where it stands, within the transaction.
    pub(super) fn flush(&self, db: &Connection) -> Result<(), StoreError> {
        disk::update(db, self.row, &self.window())
    }

    pub(super) fn commit(&self, change: Change) {
        if matches!(change, Change::Made) {
            self.made.store(true, Ordering::Release);
        }
        self.window().commit(change);
        self.wake();
    }

    pub(super) fn abort(&self, change: Change) {
        self.window().abort(change);
        self.wake();
    }

    pub(super) fn wake(&self) {
        self.changed.notify_waiters();
    }

    /// Whether the cursor on the disk is behind.
    pub(super) fn is_behind(&self) -> bool {
        let window = self.window();
        !window.gone && window.saved != window.cursor()
    }

    pub(super) fn state(&self) -> Option<ConsumerState> {
        self.made.load(Ordering::Acquire).then(|| self.window().state(self.id.clone()))
    }

    /// Every consumer of the database with the id of its stream.
    pub(super) fn load(db: &Connection) -> Result<Vec<(StreamId, Arc<Self>)>, StoreError> {
        let mut query = db.prepare(&format!("SELECT id, stream, name, {} FROM consumer", disk::COLUMNS))?;
        let mut rows = query.query([])?;
        let mut cells = Vec::new();
        while let Some(row) = rows.next()? {
            let name: String = row.get(2)?;
            let window = disk::window_from_row(row, 3)?;
            cells.push((row.get(1)?, Self::new(ConsumerId(name.into()), row.get(0)?, window, true)));
        }
        Ok(cells)
    }

    fn new(id: ConsumerId, row: i64, window: Window, made: bool) -> Arc<Self> {
        Arc::new(Self {
            id,
            row,
            window: Mutex::new(window),
            changed: Notify::new(),
            dirty: AtomicBool::new(false),
            made: AtomicBool::new(made),
        })
    }
}

impl Window {
    fn state(&self, id: ConsumerId) -> ConsumerState {
        let mut state = ConsumerState {
            id,
            cursor: self.cursor(),
            handed: self.handed_point(),
            in_flight: 0,
            retrying: 0,
            held: 0,
            acked: self.counts.acked,
            dead_lettered: self.counts.dead_lettered,
            dropped: self.counts.dropped,
            redelivered: self.redelivered,
            paused: self.paused,
        };
        for open in self.open.values() {
            match open.state {
                State::InFlight(_) | State::Lapsed => state.in_flight += 1,
                State::Later { .. } | State::Unanchored { .. } => state.retrying += 1,
                State::Due if open.attempt > open.base => state.retrying += 1,
                State::Due | State::Held => state.held += 1,
            }
        }
        state
    }
}

/// The consumer, if it is on the disk with this policy and all that this needs already: a full disk is no reason not to go on with it.
pub(super) fn as_it_is(shared: &Shared, id: &ConsumerId, policy: &ConsumerPolicy) -> Option<Arc<Cell>> {
    let cell = shared.cell(id)?;
    let is_the_same = {
        let window = cell.window();
        let wanted = ConsumerPolicy { start: window.policy.start, ..policy.clone() };
        let is_learnt = !policy.order_by_subject || window.open.values().all(|open| open.subject != 0);
        !window.gone && cell.made.load(Ordering::Acquire) && window.policy == wanted && is_learnt
    };
    is_the_same.then_some(cell)
}

/// Makes the consumer, or changes its policy. An operation of the writer.
pub(super) fn take_up(
    tx: &Tx,
    stream: &StreamName,
    id: &ConsumerId,
    policy: ConsumerPolicy,
) -> Result<(Arc<Shared>, Arc<Cell>), StoreError> {
    if id.0.is_empty() || id.0.len() > CONSUMER_NAME_BYTES_MAX {
        return Err(StoreError::Invalid(format!("a consumer's name has 1 to {CONSUMER_NAME_BYTES_MAX} bytes")));
    }
    let mut ledger = tx.ledger();
    let head = ledger.find_or_make(tx, stream, Default::default())?;
    let (shared, counters) = (Arc::clone(&head.shared), head.counters);
    if let Some(cell) = shared.cell(id) {
        let before = cell.window().policy.clone();
        let learnt = learn_subjects(tx, shared.id, &cell, &policy)?;
        if !learnt.is_empty() || before != (ConsumerPolicy { start: before.start, ..policy.clone() }) {
            let update = "UPDATE consumer SET policy = ? WHERE id = ?";
            tx.prepare_cached(update)?.execute(params![disk::encode_policy(&policy), cell.row])?;
            ledger.change(&cell, Change::Policy(Box::new(policy), learnt));
        }
        return Ok((shared, cell));
    }
    if shared.cells().len() >= CONSUMERS_PER_STREAM_MAX {
        return Err(StoreError::Invalid(format!(
            "stream \"{stream}\" has {CONSUMERS_PER_STREAM_MAX} consumers already, and that is the most"
        )));
    }
    let cursor = read::position_of(tx, shared.id, &counters, policy.start)? - 1;
    let row = disk::insert(tx, shared.id, &id.0, &policy, cursor)?;
    let cell = Cell::new(id.clone(), row, Window::new(policy, cursor), false);
    shared.add_cell(Arc::clone(&cell));
    ledger.change_made(Arc::clone(&shared), &cell);
    Ok((shared, cell))
}

/// The subjects of what is open without one: it was kept without as long as nobody asked for order, and in the commit in which
/// somebody did. One whose event is gone stays without.
fn learn_subjects(
    tx: &Tx,
    stream: StreamId,
    cell: &Cell,
    policy: &ConsumerPolicy,
) -> Result<Vec<(u64, u64)>, StoreError> {
    if !policy.order_by_subject {
        return Ok(Vec::new());
    }
    let unknown: Vec<u64> =
        cell.window().open.iter().filter(|(_, open)| open.subject == 0).map(|(at, _)| *at).collect();
    let mut learnt = Vec::with_capacity(unknown.len());
    for at in unknown {
        let (events, _) = read::at(tx, stream, &[at], u64::MAX)?;
        learnt.extend(events.first().map(|stored| (at, window::subject_hash(&stored.event.subject))));
    }
    Ok(learnt)
}

/// Removes a consumer. An operation of the writer.
pub(super) fn remove(tx: &Tx, stream: &StreamName, id: &ConsumerId) -> Result<(), StoreError> {
    let mut ledger = tx.ledger();
    let shared = ledger.find(stream).map(|head| Arc::clone(&head.shared));
    let shared = shared.ok_or_else(|| StoreError::NoStream(stream.clone()))?;
    let cell = shared.cell(id);
    let cell = cell.ok_or_else(|| StoreError::NoConsumer { stream: stream.clone(), consumer: id.clone() })?;
    tx.prepare_cached("DELETE FROM consumer WHERE id = ?")?.execute([cell.row])?;
    ledger.change_removed(shared, &cell);
    Ok(())
}

/// A consumer in somebody's hands.
#[derive(Debug)]
pub(super) struct Held {
    shared: Arc<Shared>,
    cell: Arc<Cell>,
    parts: Arc<Parts>,
}

impl Held {
    pub(super) fn new(shared: Arc<Shared>, cell: Arc<Cell>, parts: Arc<Parts>) -> Self {
        shared.held.fetch_add(1, Ordering::AcqRel);
        let (now, now_unix_ns) = parts.now();
        cell.window().anchor(now, now_unix_ns);
        Self { shared, cell, parts }
    }

    fn gone(&self) -> StoreError {
        StoreError::NoConsumer { stream: self.shared.name.clone(), consumer: self.cell.id.clone() }
    }

    /// An operation on this consumer: its change is written with the group.
    async fn change(
        &self,
        change: impl FnOnce(&Tx, &Shared, &Cell) -> Result<Change, StoreError> + Send + 'static,
    ) -> Result<(), Failure> {
        let (shared, cell, gone) = (Arc::clone(&self.shared), Arc::clone(&self.cell), self.gone());
        let operation = move |tx: &Tx| {
            if cell.window().gone {
                return Err(gone);
            }
            let change = change(tx, &shared, &cell)?;
            tx.ledger().change(&cell, change);
            Ok(())
        };
        Ok(self.parts.writer.free(operation).await?)
    }

    async fn set_paused(&self, paused: bool) -> Result<(), Failure> {
        self.change(move |tx, _, cell| {
            tx.prepare_cached("UPDATE consumer SET paused = ? WHERE id = ?")?.execute(params![paused, cell.row])?;
            Ok(Change::Paused(paused))
        })
        .await
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.shared.held.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Consumer for Held {
    fn pull(&self, max: usize) -> BoxFuture<'_, Result<Vec<Delivery>, Failure>> {
        Box::pin(self.next(max))
    }

    fn settle(&self, settlements: Vec<Settle>) -> BoxFuture<'_, Result<(), Failure>> {
        Box::pin(self.settle_all(settlements))
    }

    fn pause(&self, paused: bool) -> BoxFuture<'_, Result<(), Failure>> {
        Box::pin(self.set_paused(paused))
    }

    fn seek(&self, from: Start) -> BoxFuture<'_, Result<(), Failure>> {
        Box::pin(self.seek_to(from))
    }

    fn state(&self) -> ConsumerState {
        self.cell.window().state(self.cell.id.clone())
    }
}
