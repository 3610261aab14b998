//! The log of the database, and what to do when the disk fails.
//!
//! A failed fsync is not to be tried again: the kernel may have marked the pages as clean, so that the next one succeeds though
//! they never reached the disk (Rebello et al., "Can Applications Recover from fsync Failures?", USENIX ATC 2020). What holds
//! then is the log as far as it was synced, commit by commit (`synchronous=FULL`):
//! - What failed with its commit must not come back from the log when that is read again. A commit that changes nothing is
//!   written over it, at the same place; what is left of the longer one no longer fits its checksums.
//! - What was copied from the log to the database may be lost, also by a copy that succeeded before. So everything is closed
//!   and opened again: SQLite then reads the log from its beginning, and copies all of it once more.
//!
//! Until that has worked, every write is refused. Another process that has the database open (`marram doctor`) keeps SQLite
//! from beginning anew; its copies are then as good as the one that failed.

use std::sync::Arc;

use rusqlite::Connection;
use rusqlite::ErrorCode::{CannotOpen, DatabaseCorrupt, NotADatabase, SystemIoFailure};
use rusqlite::ffi::SQLITE_IOERR_FSYNC;

use crate::limits::{BUSY_TIMEOUT, CHECKPOINT_PAGES, CHECKPOINT_PAGES_TIGHT, EMPTY_LOG_WAIT, LOG_PAGES_MAX};
use crate::read::Readers;
use crate::{StoreError, schema};

/// Whether the disk can be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trust {
    Full,
    /// The next write has to show that it works.
    None {
        /// The last commit may be in the log, though it failed.
        ghost: bool,
    },
}

#[derive(Debug)]
pub(super) struct Disk {
    readers: Arc<Readers>,
    trust: Trust,
}

impl Disk {
    pub(super) fn new(readers: Arc<Readers>) -> Self {
        Self { readers, trust: Trust::Full }
    }

    /// Takes note of why a group was not kept.
    pub(super) fn failed(&mut self, error: &StoreError) {
        let (StoreError::Database(cause) | StoreError::Corrupt(cause)) = error else { return };
        let is_of_the_disk =
            matches!(cause.sqlite_error_code(), Some(SystemIoFailure | DatabaseCorrupt | CannotOpen | NotADatabase));
        if is_of_the_disk {
            let was_ghost = self.trust == Trust::None { ghost: true };
            self.trust = Trust::None { ghost: was_ghost || is_of_a_sync(cause) };
        }
    }

    /// Makes sure that the disk works, if there is a doubt. On an error there still is.
    pub(super) fn prove(&mut self, connection: &mut Connection) -> Result<(), StoreError> {
        let Trust::None { ghost } = self.trust else { return Ok(()) };
        if ghost {
            overwrite(connection)?;
            self.trust = Trust::None { ghost: false };
        }
        self.readers.while_closed(|path| {
            *connection = Connection::open_in_memory()?;
            *connection = schema::open_writer(path)?;
            let (busy, log, copied) = empty(connection)?;
            if busy || log != copied {
                return Err(StoreError::Damaged("its log cannot be copied, because somebody reads it".into()));
            }
            Ok(())
        })?;
        self.trust = Trust::Full;
        Ok(())
    }

    /// Copies the log to the database once it is long; while it is to be kept `short`, earlier, and cuts it. A log that cannot be
    /// copied grows, and the next group tries again.
    pub(super) fn checkpoint(&mut self, connection: &Connection, short: bool) {
        if self.trust != Trust::Full {
            return;
        }
        let copied = checkpoint(connection, "NOOP").and_then(|(_, log, _)| match log {
            CHECKPOINT_PAGES_TIGHT.. if short => empty(connection).map(|_| ()),
            ..CHECKPOINT_PAGES => Ok(()),
            CHECKPOINT_PAGES..LOG_PAGES_MAX => checkpoint(connection, "PASSIVE").map(|_| ()),
            // There was always somebody reading, so that it could not begin anew: now they have to wait for a moment.
            _ => empty(connection).map(|_| ()),
        });
        if let Err(error) = copied {
            self.failed(&error);
        }
    }

    /// Copies all of the log, so that its room is free for others.
    pub(super) fn empty(&mut self, connection: &Connection) {
        if self.trust == Trust::Full
            && let Err(error) = empty(connection)
        {
            self.failed(&error);
        }
    }
}

/// Whether somebody was in the way, the pages in the log, and how many of them are in the database now.
fn checkpoint(connection: &Connection, mode: &str) -> Result<(bool, i64, i64), StoreError> {
    let mut pragma = connection.prepare_cached(&format!("PRAGMA wal_checkpoint({mode})"))?;
    Ok(pragma.query_row([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?)
}

/// Copies all of the log and empties it, if those who read are done soon.
fn empty(connection: &Connection) -> Result<(bool, i64, i64), StoreError> {
    connection.busy_timeout(EMPTY_LOG_WAIT)?;
    let done = checkpoint(connection, "TRUNCATE");
    connection.busy_timeout(BUSY_TIMEOUT)?;
    done
}

/// Commits a page as it is: SQLite writes the first page whatever the version was before.
fn overwrite(connection: &Connection) -> Result<(), StoreError> {
    let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    match connection.pragma_update(None, "user_version", version) {
        // It is in the log, which is all that it is for.
        Err(error) if is_of_a_sync(&error) => Ok(()),
        result => Ok(result?),
    }
}

fn is_of_a_sync(error: &rusqlite::Error) -> bool {
    matches!(error, rusqlite::Error::SqliteFailure(cause, _) if cause.extended_code == SQLITE_IOERR_FSYNC)
}
