//! `telemetry.db`: log lines in compressed blocks, usage by the minute.
//!
//! `synchronous=NORMAL`: a commit is safe against `kill -9` at once, and against a power cut after the next checkpoint.

mod logs;
mod usage;

use std::fs::{self, OpenOptions};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
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
    /// `None` while the disk is in the way: full, or failing.
    connection: Option<Connection>,
    path: PathBuf,
    pub(crate) log_bytes_max: u64,
    pub(crate) log_age_ns: u64,
}

impl Disk {
    /// Opens the database. What was seen must not keep a node from starting: a damaged one is moved aside, and one that the
    /// disk does not let be opened, because it is full, is tried again with each write.
    pub(crate) fn open(path: &Path, log_bytes_max: u64, log_age_ns: u64) -> Result<Self, TelemetryError> {
        let connection = match open_or_begin_anew(path) {
            Ok(connection) => Some(connection),
            Err(error) if error.is_of_the_disk() => {
                tracing::warn!(path = %path.display(), %error, "the telemetry database cannot be opened: log lines and usage are kept in memory until it can, so free some space");
                None
            }
            Err(error) => return Err(error),
        };
        Ok(Self { connection, path: path.into(), log_bytes_max, log_age_ns })
    }

    /// The database, opened now if it could not be before.
    fn connection(&mut self) -> Result<&mut Connection, TelemetryError> {
        match &mut self.connection {
            Some(connection) => Ok(connection),
            none => {
                let opened = open_or_begin_anew(&self.path)?;
                tracing::info!(path = %self.path.display(), "the telemetry database is open now: what was seen is written to it");
                Ok(none.insert(opened))
            }
        }
    }

    /// Everything in one transaction, or nothing.
    fn transaction<T>(
        &mut self,
        write: impl FnOnce(&Connection) -> Result<T, TelemetryError>,
    ) -> Result<T, TelemetryError> {
        let transaction = self.connection()?.transaction_with_behavior(TransactionBehavior::Immediate)?;
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

    /// Where readers find it; `None` while it cannot be opened.
    pub(crate) fn readable(&self) -> Option<&Path> {
        self.connection.is_some().then_some(&*self.path)
    }
}

/// What functions log is nobody else's: the file is its owner's alone, also where an earlier version made it, and SQLite gives its
/// log and shared memory the same mode. What fails here fails again, and says so, where the database is opened.
fn keep_private(path: &Path) {
    if !path.exists() {
        let _ = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path);
    }
    // A node that was killed leaves all three, and SQLite opens the other two as they are.
    for file in ["db", "db-wal", "db-shm"].map(|extension| path.with_extension(extension)) {
        let mode = fs::metadata(&file).map_or(0, |metadata| metadata.permissions().mode());
        if mode & 0o077 > 0 {
            let _ = fs::set_permissions(&file, fs::Permissions::from_mode(0o600));
        }
    }
}

/// Opens the database, or a new one where what is there is damaged.
fn open_or_begin_anew(path: &Path) -> Result<Connection, TelemetryError> {
    open(path).or_else(|error| match &error {
        TelemetryError::Database(source)
            if matches!(source.sqlite_error_code(), Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt)) =>
        {
            move_aside(path)?;
            open(path)
        }
        _ => Err(error),
    })
}

fn open(path: &Path) -> Result<Connection, TelemetryError> {
    keep_private(path);
    let mut connection = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    let found: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let known = MIGRATIONS.len() as i64;
    if found > known {
        return Err(TelemetryError::NewerSchema { path: path.into(), found, known });
    }
    if found == 0 {
        // Dropped buckets give their pages back to the file system. It has to be said before the first table is made, and only
        // then: it writes, and a database that is there has to open on a full disk.
        connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    }
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

#[cfg(test)]
mod tests {
    use rusqlite::ffi::{SQLITE_CANTOPEN, SQLITE_CORRUPT, SQLITE_ERROR, SQLITE_FULL, SQLITE_IOERR_SHMSIZE};

    use super::*;

    #[test]
    fn a_database_that_is_there_opens_without_a_write() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("telemetry.db");
        drop(open(&path).unwrap());
        let opened = open(&path).unwrap();
        let log = std::fs::metadata(path.with_extension("db-wal")).map_or(0, |log| log.len());
        assert_eq!(log, 0, "on a full disk this is what keeps a node from starting");
        let mode: i64 = opened.pragma_query_value(None, "auto_vacuum", |row| row.get(0)).unwrap();
        assert_eq!(mode, 2, "pages are given back");
    }

    /// With the log and the shared memory that an earlier version left when it was killed.
    #[test]
    fn what_an_earlier_version_left_open_to_others_is_closed() {
        let dir = tempfile::tempdir().unwrap();
        let [here, killed] = ["here", "killed"].map(|name| dir.path().join(name).join("telemetry.db"));
        for path in [&here, &killed] {
            fs::create_dir(path.parent().unwrap()).unwrap();
        }
        let files = |path: &Path| ["db", "db-wal", "db-shm"].map(|extension| path.with_extension(extension));
        let writing = open(&here).unwrap();
        for (from, to) in files(&here).iter().zip(files(&killed)) {
            fs::copy(from, &to).unwrap();
            fs::set_permissions(&to, fs::Permissions::from_mode(0o644)).unwrap();
        }
        drop(writing);
        let _opened = open(&killed).unwrap();
        for file in files(&killed) {
            assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600, "{}", file.display());
        }
    }

    #[test]
    fn what_the_disk_refuses_is_told_apart_from_what_is_wrong_for_good() {
        let sqlite = |code| {
            let code = rusqlite::ffi::Error::new(code);
            TelemetryError::from(rusqlite::Error::SqliteFailure(code, None)).is_of_the_disk()
        };
        assert!([SQLITE_FULL, SQLITE_IOERR_SHMSIZE, SQLITE_CANTOPEN].into_iter().all(sqlite));
        assert!(![SQLITE_CORRUPT, SQLITE_ERROR].into_iter().any(sqlite));
        assert!(TelemetryError::io("move it aside", std::io::ErrorKind::StorageFull.into()).is_of_the_disk());
        let newer = TelemetryError::NewerSchema { path: "telemetry.db".into(), found: 2, known: 1 };
        assert!(!newer.is_of_the_disk());
    }
}
