//! The streams as the writer's transaction has them: ahead of the last commit, and taken back to it when that fails.
//!
//! Counters are kept here; nobody outside of the writer's thread sees them before the commit. In the row they may be behind what
//! was only appended since: whoever opens the database counts that.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use marram_core::port::streams::Stored;
use marram_core::stream::{StreamName, StreamPolicy};
use rusqlite::{Connection, OptionalExtension as _, params};

use super::consumer::{Cell, Change};
use super::hub::{Counters, Hub, Shared};
use super::key::{StreamId, key, position};
use super::policy;
use super::seen::Seen;
use crate::StoreError;
use crate::limits::{IDENTITIES_MAX, ROW_BEHIND_EVENTS_MAX, STREAMS_MAX};

/// The streams of the transaction.
pub(crate) struct Ledger {
    hub: Arc<Hub>,
    names: HashMap<StreamName, StreamId>,
    heads: HashMap<StreamId, Head>,
    /// What the group has done so far, to be undone or to be told after the commit, in order.
    effects: Vec<Effect>,
    operation: u64,
    dirty: Vec<StreamId>,
    /// Consumers whose row is to be written.
    cells: Vec<Arc<Cell>>,
    /// Identities remembered since their number was last looked at.
    remembered: usize,
}

/// A stream in the transaction.
pub(super) struct Head {
    pub(super) shared: Arc<Shared>,
    pub(super) policy: StreamPolicy,
    pub(super) counters: Counters,
    /// What the row has.
    written: Counters,
    /// Not read before it is needed.
    pub(super) seen: Option<Seen>,
    /// Events of this group, for the tail.
    pub(super) fresh: Vec<Stored>,
    /// The last operation that changed the counters.
    touched: u64,
    dirty: bool,
    /// The transaction writes the row.
    writes: bool,
}

enum Effect {
    /// An operation changes a stream: how it was before.
    Touched {
        id: StreamId,
        counters: Counters,
        policy: StreamPolicy,
        fresh: usize,
    },
    Made(StreamId),
    Removed(Box<Head>),
    Changed(Arc<Cell>, Change),
    CellMade(Arc<Shared>, Arc<Cell>),
    CellRemoved(Arc<Shared>, Arc<Cell>),
    Then(Box<dyn FnOnce() + Send>),
}

impl Ledger {
    /// Reads the streams of the database, and makes them known to `hub`.
    pub(crate) fn load(db: &Connection, hub: Arc<Hub>) -> Result<Self, StoreError> {
        let mut ledger = Self {
            hub,
            names: HashMap::new(),
            heads: HashMap::new(),
            effects: Vec::new(),
            operation: 0,
            dirty: Vec::new(),
            cells: Vec::new(),
            remembered: 0,
        };
        let sql = "SELECT id, name, bytes_max, age_ns, overflow, dedupe_ns, first, last, events, bytes, dropped
            FROM stream WHERE name IS NOT NULL";
        let mut query = db.prepare(sql)?;
        let mut rows = query.query([])?;
        while let Some(row) = rows.next()? {
            let name: String = row.get(1)?;
            let name = StreamName::new(&name).map_err(|error| StoreError::Damaged(error.to_string()))?;
            let policy = policy::stream_from_row(row, 2)?;
            let written = Counters {
                first: row.get(6)?,
                last: row.get(7)?,
                events: row.get(8)?,
                bytes: row.get(9)?,
                dropped: row.get(10)?,
            };
            let id = row.get(0)?;
            let counters = count_on(db, id, written)?;
            let shared = Shared::new(id, name, counters, policy);
            ledger.hub.made(Arc::clone(&shared));
            ledger.insert(Head { written, ..Head::new(shared, counters, policy, None) });
        }
        for (stream, cell) in Cell::load(db)? {
            let head = ledger.heads.get(&stream);
            let head = head.ok_or_else(|| StoreError::Damaged("a consumer has no stream".into()))?;
            head.shared.add_cell(cell);
        }
        Ok(ledger)
    }

    fn insert(&mut self, head: Head) {
        self.names.insert(head.shared.name.clone(), head.shared.id);
        self.heads.insert(head.shared.id, head);
    }

    fn remove(&mut self, id: StreamId) -> Option<Head> {
        let head = self.heads.remove(&id)?;
        self.names.remove(&head.shared.name);
        Some(head)
    }

    /// The stream, if there is one.
    pub(super) fn find(&mut self, name: &StreamName) -> Option<&mut Head> {
        self.heads.get_mut(self.names.get(name)?)
    }

    /// The stream; made with `policy` if it is not there.
    pub(super) fn find_or_make(
        &mut self,
        db: &Connection,
        name: &StreamName,
        policy: StreamPolicy,
    ) -> Result<&mut Head, StoreError> {
        let id = match self.names.get(name) {
            Some(id) => *id,
            None => self.make(db, name, policy)?,
        };
        Ok(self.heads.get_mut(&id).expect("a name leads to a stream"))
    }

    fn make(&mut self, db: &Connection, name: &StreamName, policy: StreamPolicy) -> Result<StreamId, StoreError> {
        if self.heads.len() >= STREAMS_MAX {
            return Err(StoreError::Invalid(format!(
                "stream \"{name}\" cannot be made: the node has {STREAMS_MAX}, and that is the most"
            )));
        }
        // Ids of removed streams are taken until the last of their events is gone.
        let sql = "SELECT min(id) FROM (SELECT 1 AS id UNION ALL SELECT id + 1 FROM stream)
            WHERE id NOT IN (SELECT id FROM stream) AND id <= 32767";
        let id: Option<StreamId> = db.prepare_cached(sql)?.query_row([], |row| row.get(0)).optional()?.flatten();
        let id = id.ok_or(StoreError::Busy)?;
        let sql =
            "INSERT INTO stream (id, name, bytes_max, age_ns, overflow, dedupe_ns, first, last, events, bytes, dropped)
            VALUES (?, ?, ?, ?, ?, ?, 1, 0, 0, 0, 0)";
        let [bytes_max, age, overflow, dedupe] = policy::stream_columns(&policy);
        db.prepare_cached(sql)?.execute(params![id, name.as_str(), bytes_max, age, overflow, dedupe])?;
        let counters = Counters::default();
        let shared = Shared::new(id, name.clone(), counters, policy);
        self.insert(Head::new(shared, counters, policy, Some(Seen::default())));
        self.effects.push(Effect::Made(id));
        Ok(id)
    }

    /// A stream that was found before.
    pub(super) fn head(&self, id: StreamId) -> &Head {
        self.heads.get(&id).expect("a stream that was found in this operation is there")
    }

    /// To be called before an operation changes counters, policy or fresh events of a stream.
    pub(super) fn touch(&mut self, id: StreamId) -> &mut Head {
        let head = self.heads.get_mut(&id).expect("who touches a stream has just found it");
        if head.touched != self.operation {
            head.touched = self.operation;
            let (counters, policy, fresh) = (head.counters, head.policy, head.fresh.len());
            self.effects.push(Effect::Touched { id, counters, policy, fresh });
        }
        if !head.dirty {
            head.dirty = true;
            self.dirty.push(id);
        }
        head
    }

    /// Keeps what all streams remember within its limit; the one that remembers most forgets first.
    pub(super) fn remember(&mut self, identities: usize) {
        self.remembered += identities;
        if self.remembered < IDENTITIES_MAX / 64 {
            return;
        }
        self.remembered = 0;
        let known = |head: &Head| head.seen.as_ref().map_or(0, Seen::len);
        while self.heads.values().map(known).sum::<usize>() > IDENTITIES_MAX {
            let most = self.heads.values_mut().max_by_key(|head| known(head));
            if let Some(seen) = most.and_then(|head| head.seen.as_mut()) {
                seen.age();
            }
        }
    }

    /// A consumer changes with the commit; its row is written before.
    pub(super) fn change(&mut self, cell: &Arc<Cell>, change: Change) {
        self.effects.push(Effect::Changed(Arc::clone(cell), change));
        if !cell.dirty.swap(true, Ordering::AcqRel) {
            self.cells.push(Arc::clone(cell));
        }
    }

    pub(super) fn change_made(&mut self, stream: Arc<Shared>, cell: &Arc<Cell>) {
        self.effects.push(Effect::CellMade(stream, Arc::clone(cell)));
    }

    pub(super) fn change_removed(&mut self, stream: Arc<Shared>, cell: &Arc<Cell>) {
        self.effects.push(Effect::CellRemoved(stream, Arc::clone(cell)));
    }

    /// Takes a stream away; its name is free again.
    pub(super) fn take_away(&mut self, name: &StreamName) -> Option<StreamId> {
        let id = *self.names.get(name)?;
        let head = self.remove(id)?;
        self.effects.push(Effect::Removed(Box::new(head)));
        Some(id)
    }

    pub(super) fn counters(&self, id: StreamId) -> Option<Counters> {
        self.heads.get(&id).map(|head| head.counters)
    }

    pub(super) fn streams_mut(&mut self) -> impl Iterator<Item = &mut Head> {
        self.heads.values_mut()
    }

    pub(crate) fn then(&mut self, effect: Box<dyn FnOnce() + Send>) {
        self.effects.push(Effect::Then(effect));
    }

    /// The mark to which the operation that now begins is undone.
    pub(crate) fn begin_operation(&mut self) -> usize {
        self.operation += 1;
        self.effects.len()
    }

    /// Takes back what was done since `mark`.
    pub(crate) fn undo(&mut self, mark: usize) {
        for effect in self.effects.split_off(mark).into_iter().rev() {
            match effect {
                Effect::Touched { id, counters, policy, fresh } => {
                    if let Some(head) = self.heads.get_mut(&id) {
                        (head.counters, head.policy) = (counters, policy);
                        head.fresh.truncate(fresh);
                    }
                }
                Effect::Made(id) => drop(self.remove(id)),
                Effect::Removed(head) => self.insert(*head),
                Effect::Changed(cell, change) => cell.abort(change),
                Effect::CellMade(stream, cell) => {
                    stream.remove_cell(&cell);
                    cell.abort(Change::Made);
                }
                Effect::CellRemoved(..) | Effect::Then(_) => {}
            }
        }
        // The next operation of this number would not note how it was before.
        self.operation += 1;
    }

    /// Takes back everything that the group did.
    pub(crate) fn rolled_back(&mut self) {
        self.undo(0);
        self.clean();
    }

    fn clean(&mut self) {
        self.cells.drain(..).for_each(|cell| cell.dirty.store(false, Ordering::Release));
        for id in self.dirty.drain(..) {
            let Some(head) = self.heads.get_mut(&id) else { continue };
            (head.dirty, head.writes) = (false, false);
            head.fresh.clear();
        }
    }

    /// Before the commit: writes what was only counted, and cannot be counted again.
    pub(crate) fn flush(&mut self, db: &Connection) -> Result<(), StoreError> {
        for cell in &self.cells {
            cell.flush(db)?;
        }
        if self.dirty.is_empty() {
            return Ok(());
        }
        let sql = "UPDATE stream SET first = ?2, last = ?3, events = ?4, bytes = ?5, dropped = ?6 WHERE id = ?1";
        let mut update = db.prepare_cached(sql)?;
        for id in &self.dirty {
            let Some(head) = self.heads.get_mut(id) else { continue };
            if head.can_be_counted() {
                continue;
            }
            let Counters { first, last, events, bytes, dropped } = head.counters;
            update.execute(params![id, first, last, events, bytes, dropped])?;
            head.writes = true;
        }
        Ok(())
    }

    /// After the commit: tells everybody.
    pub(crate) fn committed(&mut self) {
        for id in &self.dirty {
            let Some(head) = self.heads.get_mut(id) else { continue };
            if head.writes {
                head.written = head.counters;
            }
            head.shared.set_committed(head.counters, head.policy, &mut head.fresh);
        }
        for effect in self.effects.drain(..) {
            match effect {
                Effect::Touched { .. } => {}
                Effect::Made(id) => {
                    if let Some(head) = self.heads.get(&id) {
                        self.hub.made(Arc::clone(&head.shared));
                    }
                }
                Effect::Removed(head) => {
                    self.hub.removed(&head.shared);
                    head.shared.cells().iter().for_each(|cell| cell.commit(Change::Removed));
                }
                Effect::Changed(cell, change) => cell.commit(change),
                Effect::CellMade(_, cell) => cell.commit(Change::Made),
                Effect::CellRemoved(stream, cell) => {
                    stream.remove_cell(&cell);
                    cell.commit(Change::Removed);
                }
                Effect::Then(effect) => effect(),
            }
        }
        self.clean();
    }
}

impl Head {
    /// The last position that every consumer has settled; `None` without a consumer.
    pub(super) fn settled(&self) -> Option<u64> {
        self.shared.cells().iter().map(|cell| cell.cursor_within()).min()
    }

    fn new(shared: Arc<Shared>, counters: Counters, policy: StreamPolicy, seen: Option<Seen>) -> Self {
        let written = counters;
        Self { shared, policy, counters, written, seen, fresh: Vec::new(), touched: 0, dirty: false, writes: false }
    }

    /// Whether the row and the events past its `last` tell the counters: something was appended, but nothing removed, and
    /// not much. A publish that leaves the row alone writes a page less, of two.
    fn can_be_counted(&self) -> bool {
        let (written, now) = (&self.written, &self.counters);
        (written.first, written.dropped) == (now.first, now.dropped) && now.last - written.last <= ROW_BEHIND_EVENTS_MAX
    }
}

/// The counters of a stream whose row has `written`: what was appended since is counted.
fn count_on(db: &Connection, id: StreamId, written: Counters) -> Result<Counters, StoreError> {
    let sql = "SELECT count(*), sum(size), max(key) FROM event WHERE key > ? AND key <= ?";
    let mut query = db.prepare_cached(sql)?;
    Ok(query.query_row(params![key(id, written.last), key(id, u64::MAX)], |row| {
        let (events, bytes, newest): (u64, Option<u64>, Option<i64>) = (row.get(0)?, row.get(1)?, row.get(2)?);
        Ok(Counters {
            last: newest.map_or(written.last, position),
            events: written.events + events,
            bytes: written.bytes + bytes.unwrap_or(0),
            ..written
        })
    })?)
}
