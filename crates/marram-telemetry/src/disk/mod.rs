//! `telemetry.db`: log lines in compressed blocks, usage by the minute.
//!
//! `synchronous=NORMAL`: a commit is safe against `kill -9` at once, and against a power cut after the next checkpoint.

mod logs;
mod usage;

use std::path::{Path, PathBuf};

use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior};

use crate::TelemetryError;
use crate::limits::{BUSY_TIMEOUT, PAGE_CACHE_KIB};

pub(crate) use logs::search;

/// Step `n` leads from version `n` to `n + 1`. Steps that were released never change; new ones go to the end.
const MIGRATIONS: &[&str] = &["
    -- Blocks of lines. A bucket is a run of blocks that is dropped whole.
    CREATE TABLE log_block (
        first_number  INTEGER PRIMARY KEY,
        last_number   INTEGER NOT NULL,
        bucket        INTEGER NOT NULL,
        first_unix_ns INTEGER NOT NULL,
        last_unix_ns  INTEGER NOT NULL,
        -- `\\n<app>/<function>\\n…\\n`: who wrote the lines.
        functions     TEXT NOT NULL,
        text_bytes    INTEGER NOT NULL,
        -- Zstandard over one JSON object a line.
        lines         BLOB NOT NULL
    ) STRICT;
    CREATE TABLE log_bucket (
        id              INTEGER PRIMARY KEY,
        opened_unix_ns  INTEGER NOT NULL,
        written_unix_ns INTEGER NOT NULL,
        bytes           INTEGER NOT NULL
    ) STRICT;
    CREATE INDEX log_block_by_bucket ON log_block (bucket);

    CREATE TABLE usage (
        start_s         INTEGER NOT NULL,
        span_s          INTEGER NOT NULL,
        app             TEXT NOT NULL,
        function        TEXT NOT NULL,
        cold            INTEGER NOT NULL,
        fresh           INTEGER NOT NULL,
        reused          INTEGER NOT NULL,
        wall_ns         INTEGER NOT NULL,
        cpu_ns          INTEGER NOT NULL,
        queued_ns       INTEGER NOT NULL,
        -- Peak memory times wall time is memory_byte_s * 1e9 + memory_rest byte-nanoseconds: both sum in 64 bits.
        memory_byte_s   INTEGER NOT NULL,
        memory_rest     INTEGER NOT NULL,
        bytes_in        INTEGER NOT NULL,
        bytes_out       INTEGER NOT NULL,
        PRIMARY KEY (start_s, span_s, app, function)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE usage_outcome (
        start_s         INTEGER NOT NULL,
        span_s          INTEGER NOT NULL,
        app             TEXT NOT NULL,
        function        TEXT NOT NULL,
        outcome         TEXT NOT NULL,
        invocations     INTEGER NOT NULL,
        PRIMARY KEY (start_s, span_s, app, function, outcome)
    ) STRICT, WITHOUT ROWID;
"];

pub(crate) struct Disk {
    connection: Connection,
    path: PathBuf,
    pub(crate) log_bytes_max: u64,
    pub(crate) log_age_ns: u64,
}

impl Disk {
    /// Opens the database. A damaged one is moved aside: what was seen must not keep a node from starting.
    pub(crate) fn open(path: &Path, log_bytes_max: u64, log_age_ns: u64) -> Result<Self, TelemetryError> {
        let opened = open(path).or_else(|error| match &error {
            TelemetryError::Database(source)
                if matches!(source.sqlite_error_code(), Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt)) =>
            {
                move_aside(path)?;
                open(path)
            }
            _ => Err(error),
        })?;
        Ok(Self { connection: opened, path: path.into(), log_bytes_max, log_age_ns })
    }

    /// Everything in one transaction, or nothing.
    fn transaction<T>(
        &mut self,
        write: impl FnOnce(&Connection) -> Result<T, TelemetryError>,
    ) -> Result<T, TelemetryError> {
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let result = write(&transaction)?;
        transaction.commit()?;
        Ok(result)
    }

    /// A connection of a reader's own, so that a long search does not hold up the flush.
    pub(crate) fn reader(path: &Path) -> Result<Connection, TelemetryError> {
        let connection =
            Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        Ok(connection)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

fn open(path: &Path) -> Result<Connection, TelemetryError> {
    let mut connection = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    let found: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let known = MIGRATIONS.len() as i64;
    if found > known {
        return Err(TelemetryError::NewerSchema { path: path.into(), found, known });
    }
    // Dropped buckets give their pages back to the file system. It has to be said before the first table is made.
    connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    connection.pragma_update(None, "cache_size", -i64::from(PAGE_CACHE_KIB))?;
    connection.pragma_update(None, "journal_size_limit", 4 << 20)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    for (step, sql) in MIGRATIONS.iter().enumerate().skip(usize::try_from(found).unwrap_or(0)) {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        transaction.execute_batch(sql)?;
        transaction.pragma_update(None, "user_version", step as i64 + 1)?;
        transaction.commit()?;
    }
    Ok(connection)
}

fn move_aside(path: &Path) -> Result<(), TelemetryError> {
    let aside = path.with_extension("db.damaged");
    tracing::warn!(from = %path.display(), to = %aside.display(), "the telemetry database is damaged: it is moved aside, and a new one begins");
    std::fs::rename(path, &aside)
        .map_err(|error| TelemetryError::io(format!("move {} aside", path.display()), error))?;
    for suffix in ["db-wal", "db-shm"] {
        match std::fs::remove_file(path.with_extension(suffix)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(TelemetryError::io(format!("remove the damaged {suffix}"), error));
            }
            _ => {}
        }
    }
    Ok(())
}
