//! Connections that read. Readers see the last commit and never wait for the writer (SQLite, "Write-Ahead Logging" §2.2).

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError, RwLock};

use rusqlite::Connection;

use crate::limits::READERS_KEPT;
use crate::{StoreError, schema};

#[derive(Debug)]
pub(crate) struct Readers {
    path: PathBuf,
    idle: Mutex<Vec<Connection>>,
    /// Held for reading by whoever reads, and for writing while no connection may be open.
    gate: RwLock<()>,
}

impl Readers {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path, idle: Mutex::new(Vec::new()), gate: RwLock::new(()) }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Runs `work` while nothing of the database is open here: waits for those who read, and holds up those who want to.
    pub(crate) fn while_closed<T>(&self, work: impl FnOnce(&Path) -> T) -> T {
        let _closed = self.gate.write().unwrap_or_else(PoisonError::into_inner);
        self.lock().clear();
        work(&self.path)
    }

    /// Runs `query` on one snapshot of the database.
    pub(crate) fn read<T>(&self, query: impl FnOnce(&Connection) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let _open = self.gate.read().unwrap_or_else(PoisonError::into_inner);
        let idle = self.lock().pop();
        let connection = idle.map_or_else(|| schema::open_reader(&self.path), Ok)?;
        connection.prepare_cached("BEGIN")?.execute([])?;
        let result = query(&connection);
        // A connection that cannot end its snapshot is closed rather than used again.
        if connection.prepare_cached("COMMIT")?.execute([]).is_ok() {
            let mut idle = self.lock();
            if idle.len() < READERS_KEPT {
                idle.push(connection);
            }
        }
        result
    }

    /// Runs `query`, which is a single statement and so its own snapshot: that spares a small read half of its time.
    pub(crate) fn read_one<T>(
        &self,
        query: impl FnOnce(&Connection) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let _open = self.gate.read().unwrap_or_else(PoisonError::into_inner);
        let idle = self.lock().pop();
        let connection = idle.map_or_else(|| schema::open_reader(&self.path), Ok)?;
        let result = query(&connection);
        let mut idle = self.lock();
        if idle.len() < READERS_KEPT {
            idle.push(connection);
        }
        result
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
