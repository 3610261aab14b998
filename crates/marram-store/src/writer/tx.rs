//! What an operation of the writer works on: the connection within its transaction, and what is in memory beside it.
//!
//! Memory must never run ahead of the disk: what changes there is either undone with the operation that did it, or comes
//! about after the commit only.

use std::cell::{Cell, RefCell, RefMut};
use std::ops::Deref;
use std::sync::Arc;

use marram_replica::Stamp;
use rusqlite::Connection;

use super::disk::Disk;
use super::room::Room;
use crate::limits::FREE_PAGES_MIN;
use crate::read::Readers;
use crate::stream::Ledger;
use crate::{StoreError, kv};

/// The connection of the writer, within the transaction of a group.
pub struct Tx {
    connection: Connection,
    ledger: RefCell<Ledger>,
    /// The latest stamp that the group uses.
    stamp: Cell<Option<Stamp>>,
    disk: Disk,
    pub(super) room: Room,
    #[cfg(test)]
    pub(crate) faults: RefCell<Vec<StoreError>>,
}

/// A point of a transaction to which what is in memory can be taken back.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mark(usize);

impl Deref for Tx {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.connection
    }
}

impl std::fmt::Debug for Tx {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tx").field("connection", &self.connection).finish_non_exhaustive()
    }
}

impl Tx {
    /// `connection` is a writer's ([`crate::schema::open_writer`]) on the database that `readers` read.
    pub(crate) fn new(connection: Connection, ledger: Ledger, readers: Arc<Readers>) -> Self {
        Self {
            connection,
            ledger: RefCell::new(ledger),
            stamp: Cell::default(),
            room: Room::new(readers.path()),
            disk: Disk::new(readers),
            #[cfg(test)]
            faults: RefCell::default(),
        }
    }

    /// What is known of the streams within this transaction. Not to be held across a call of another operation's code.
    pub(crate) fn ledger(&self) -> RefMut<'_, Ledger> {
        self.ledger.borrow_mut()
    }

    /// Runs `effect` on the thread that commits, once the group is durable, before anybody is answered; never if this operation or
    /// the group fails. It must be quick, must not fail, and must not write.
    pub fn after_commit(&self, effect: impl FnOnce() + Send + 'static) {
        self.ledger().then(Box::new(effect));
    }

    /// Keeps the clock of keys with the group, once for all of its stamps: this one was used. It is kept also if the operation fails,
    /// which does no harm.
    pub(crate) fn stamped(&self, stamp: Stamp) {
        self.stamp.set(self.stamp.get().max(Some(stamp)));
    }

    /// Runs a part of an operation that is undone by itself when it fails: then the operation goes on without it, and the
    /// inner result says why. An outer error is the operation's own.
    pub(crate) fn part<T>(
        &self,
        part: impl FnOnce(&Self) -> Result<T, StoreError>,
    ) -> Result<Result<T, StoreError>, StoreError> {
        self.prepare_cached("SAVEPOINT part")?.execute([])?;
        let mark = self.mark();
        let result = part(self);
        if let Err(error) = &result {
            self.undo(mark);
            // On a full disk SQLite may have rolled everything back by itself.
            if self.is_autocommit() {
                return Err(error.clone());
            }
            self.prepare_cached("ROLLBACK TO part")?.execute([])?;
        }
        self.prepare_cached("RELEASE part")?.execute([])?;
        Ok(result)
    }

    /// Begins the transaction of a group. After a failure of the disk, only once the disk has shown that it works.
    pub(super) fn begin(&mut self) -> Result<(), StoreError> {
        self.disk.prove(&mut self.connection)?;
        self.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        Ok(())
    }

    pub(super) fn mark(&self) -> Mark {
        Mark(self.ledger().begin_operation())
    }

    pub(super) fn undo(&self, mark: Mark) {
        self.ledger().undo(mark.0);
    }

    pub(super) fn commit(&mut self) -> Result<(), StoreError> {
        self.ledger.get_mut().flush(&self.connection)?;
        if let Some(stamp) = self.stamp.take() {
            kv::keep_clock(&self.connection, stamp)?;
        }
        #[cfg(test)]
        if let Some(fault) = self.faults.get_mut().pop() {
            return Err(fault);
        }
        self.prepare_cached("COMMIT")?.execute([])?;
        self.ledger.get_mut().committed();
        Ok(())
    }

    /// Takes the group back: on the disk, if that is still to be done, and in memory.
    pub(super) fn abort(&mut self, error: &StoreError) {
        if !self.is_autocommit() {
            // If even this fails the connection has no transaction, or the next BEGIN says what is wrong.
            let _ = self.execute_batch("ROLLBACK");
        }
        self.ledger.get_mut().rolled_back();
        self.stamp.take();
        self.disk.failed(error);
    }

    /// Moves what is in the log to the database, if it is time. To be called when everybody has been answered.
    pub(super) fn checkpoint(&mut self) {
        self.disk.checkpoint(&self.connection, self.room.is_tight());
    }

    /// Whether what was taken away has left so many pages that the database takes in some more without growing.
    pub(super) fn has_pages(&self) -> bool {
        let free = self.query_row("PRAGMA freelist_count", [], |row| row.get::<_, i64>(0));
        free.is_ok_and(|pages| pages >= FREE_PAGES_MIN)
    }

    /// Runs `work`, after which the database is no larger, with the room that is held for the log of that.
    pub(super) fn with_reserve<T>(&mut self, work: impl FnOnce(&mut Self) -> T) -> T {
        self.room.give();
        let done = work(self);
        self.disk.empty(&self.connection);
        self.room.hold();
        done
    }

    pub(super) fn close(&self) {
        // A tidy end: the next start finds no log to replay. Its failure costs only that.
        let _ = self.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
    }
}
