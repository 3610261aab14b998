//! The database's shape, its versions, and how a connection is set up.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, TransactionBehavior};

use crate::StoreError;
use crate::limits::{BUSY_TIMEOUT, PAGE_CACHE_KIB, WAL_KEPT_BYTES};

/// `PRAGMA application_id`: "Mrrm".
const APPLICATION_ID: i64 = 0x4d72_726d;

/// Step `n` leads from version `n` to `n + 1`. Steps that were released never change; new ones go to the end.
const MIGRATIONS: &[&str] = &[
    "
    -- One row counts every change of what is deployed on this node.
    CREATE TABLE node (
        one        INTEGER PRIMARY KEY CHECK (one = 1),
        generation INTEGER NOT NULL
    ) STRICT;
    INSERT INTO node VALUES (1, 0);

    CREATE TABLE app (
        name       TEXT PRIMARY KEY,
        current    BLOB NOT NULL,
        generation INTEGER NOT NULL,
        FOREIGN KEY (name, current) REFERENCES revision (app, digest) DEFERRABLE INITIALLY DEFERRED
    ) STRICT, WITHOUT ROWID;

    -- `generation` is that of the last deploy of this revision: a rollback moves `app.current` and not this.
    CREATE TABLE revision (
        app              TEXT NOT NULL,
        digest           BLOB NOT NULL CHECK (length(digest) = 32),
        generation       INTEGER NOT NULL,
        deployed_unix_ns INTEGER NOT NULL,
        manifest         TEXT NOT NULL,
        PRIMARY KEY (app, digest)
    ) STRICT;
    CREATE UNIQUE INDEX revision_by_age ON revision (app, generation);

    CREATE TABLE component (
        app      TEXT NOT NULL,
        revision BLOB NOT NULL,
        function TEXT NOT NULL,
        digest   BLOB NOT NULL CHECK (length(digest) = 32),
        PRIMARY KEY (app, revision, function),
        FOREIGN KEY (app, revision) REFERENCES revision (app, digest) ON DELETE CASCADE
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX component_by_digest ON component (digest);

    CREATE TABLE secret (
        app         TEXT NOT NULL,
        name        TEXT NOT NULL,
        nonce       BLOB NOT NULL CHECK (length(nonce) = 24),
        sealed      BLOB NOT NULL,
        set_unix_ns INTEGER NOT NULL,
        PRIMARY KEY (app, name)
    ) STRICT, WITHOUT ROWID;
",
    "
    -- What the component was found to be when it was deployed, so that nobody opens it to know; NULL where nobody said.
    ALTER TABLE component ADD COLUMN kind TEXT;
",
    "
    -- A stream and what it keeps. `name` is NULL for one that was removed and whose events are still to go.
    CREATE TABLE stream (
        id        INTEGER PRIMARY KEY CHECK (id BETWEEN 1 AND 32767),
        name      TEXT UNIQUE,
        bytes_max INTEGER NOT NULL,
        age_ns    INTEGER NOT NULL,
        overflow  INTEGER NOT NULL CHECK (overflow IN (0, 1)),
        dedupe_ns INTEGER NOT NULL,
        first     INTEGER NOT NULL,
        last      INTEGER NOT NULL,
        events    INTEGER NOT NULL,
        bytes     INTEGER NOT NULL,
        dropped   INTEGER NOT NULL
    ) STRICT;

    -- `key` is the stream's id in the upper 16 bits and the position in the lower 48, so that a stream's events lie one after
    -- the other and an event is one insertion. `identity` is a hash of source and id. The event comes last: what is before
    -- it is read without it.
    CREATE TABLE event (
        key            INTEGER PRIMARY KEY,
        stored_unix_ns INTEGER NOT NULL,
        identity       INTEGER NOT NULL,
        size           INTEGER NOT NULL,
        event          BLOB NOT NULL
    ) STRICT;

    -- Events that are gone while their identity still has to be remembered.
    CREATE TABLE event_seen (
        key            INTEGER PRIMARY KEY,
        stored_unix_ns INTEGER NOT NULL,
        identity       INTEGER NOT NULL
    ) STRICT;

    -- Every event up to `cursor` is settled, and so is every event up to `handed` but those in `open`.
    CREATE TABLE consumer (
        id            INTEGER PRIMARY KEY,
        stream        INTEGER NOT NULL REFERENCES stream (id),
        name          TEXT NOT NULL,
        policy        BLOB NOT NULL,
        paused        INTEGER NOT NULL CHECK (paused IN (0, 1)),
        cursor        INTEGER NOT NULL,
        handed        INTEGER NOT NULL,
        acked         INTEGER NOT NULL,
        dead_lettered INTEGER NOT NULL,
        dropped       INTEGER NOT NULL,
        open          BLOB NOT NULL,
        UNIQUE (stream, name)
    ) STRICT;
",
    crate::kv::schema::TABLES,
    crate::mqtt::schema::TABLES,
    crate::object::schema::TABLES,
    // The same tables: what version 6 takes for the whole of a stream is only a part of it from here on.
    "
    -- `last`, `events` and `bytes` of a stream count what it had when its row was written; events past `last` come to that.
",
    crate::mqtt::schema::SHARED,
];

/// The schema version that this code writes.
pub const SCHEMA_VERSION: i64 = MIGRATIONS.len() as i64;

/// Opens the database for writing, made if it is not there. Before it is used it has to be of [`SCHEMA_VERSION`] ([`migrate`]).
pub(crate) fn open_writer(path: &Path) -> Result<Connection, StoreError> {
    open_known(path, SCHEMA_VERSION)
}

fn open_known(path: &Path, known: i64) -> Result<Connection, StoreError> {
    // Made here and not by SQLite, for the mode; SQLite gives its log and shared memory the same.
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(|error| StoreError::io("open", path, error))?;
    let connection =
        Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    refuse_foreign(&connection, path, known)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    // FULL: a commit has reached the disk when it returns. This is what every acknowledgement stands on.
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    connection.pragma_update(None, "journal_size_limit", WAL_KEPT_BYTES)?;
    // The writer does it, and looks at what comes of it: SQLite's own forgets its errors.
    connection.pragma_update(None, "wal_autocheckpoint", 0)?;
    set_up(&connection)?;
    Ok(connection)
}

/// Whether the database is new, or was written by an earlier version.
pub(crate) fn is_earlier(connection: &Connection) -> Result<bool, StoreError> {
    Ok(version(connection)? < SCHEMA_VERSION)
}

/// Brings the database to [`SCHEMA_VERSION`].
pub(crate) fn migrate(connection: &mut Connection) -> Result<(), StoreError> {
    take_steps(connection, MIGRATIONS)
}

fn version(connection: &Connection) -> Result<i64, StoreError> {
    Ok(connection.pragma_query_value(None, "user_version", |row| row.get(0))?)
}

/// Opens the database for reading.
pub(crate) fn open_reader(path: &Path) -> Result<Connection, StoreError> {
    let connection =
        Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    set_up(&connection)?;
    Ok(connection)
}

/// Reads the first row of every table: that it cannot be read is better known now than by whoever needs it first.
pub(crate) fn read_beginnings(connection: &Connection) -> Result<(), StoreError> {
    let mut names = connection.prepare("SELECT name FROM sqlite_schema WHERE type = 'table'")?;
    for name in names.query_map([], |row| row.get::<_, String>(0))? {
        connection.prepare(&format!("SELECT * FROM \"{}\" LIMIT 1", name?))?.query([])?.next()?;
    }
    Ok(())
}

/// Refuses what this code must not touch.
pub(crate) fn refuse_foreign(connection: &Connection, path: &Path, known: i64) -> Result<(), StoreError> {
    let read = |pragma| connection.pragma_query_value(None, pragma, |row| row.get::<_, i64>(0));
    let (id, found) = match (read("application_id"), read("user_version")) {
        (Ok(id), Ok(found)) => (id, found),
        (Err(error), _) | (_, Err(error)) => {
            let ours = error.sqlite_error_code() != Some(rusqlite::ErrorCode::NotADatabase);
            return Err(if ours { error.into() } else { StoreError::NotOurs(path.into()) });
        }
    };
    let empty = id == 0
        && found == 0
        && connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get::<_, i64>(0))? == 0;
    if id != APPLICATION_ID && !empty {
        return Err(StoreError::NotOurs(path.into()));
    }
    if found > known {
        return Err(StoreError::NewerSchema { path: path.into(), found, known });
    }
    Ok(())
}

fn set_up(connection: &Connection) -> Result<(), StoreError> {
    // Whoever closes last does not empty the log by the way: after a failure of the disk the log is what can be trusted.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.pragma_update(None, "cache_size", -i64::from(PAGE_CACHE_KIB))?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    // Do not believe a schema that somebody else wrote (SQLite, "Defense Against The Dark Arts").
    connection.pragma_update(None, "trusted_schema", false)?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(())
}

/// Each step and its version number in one transaction: a crash leaves the one version or the other.
fn take_steps(connection: &mut Connection, migrations: &[&str]) -> Result<(), StoreError> {
    let from = usize::try_from(version(connection)?).unwrap_or(0);
    for (step, sql) in migrations.iter().enumerate().skip(from) {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        transaction.execute_batch(sql)?;
        transaction.pragma_update(None, "user_version", step as i64 + 1)?;
        transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
        transaction.commit()?;
    }
    Ok(())
}

/// A database after these steps.
#[cfg(test)]
fn open_with(path: &Path, migrations: &[&str]) -> Result<Connection, StoreError> {
    let mut connection = open_known(path, migrations.len() as i64)?;
    take_steps(&mut connection, migrations)?;
    Ok(connection)
}

#[cfg(test)]
mod earlier;

#[cfg(test)]
mod tests {
    use marram_core::Digest;

    use super::*;

    #[test]
    fn each_step_is_taken_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("node.db");
        drop(open_with(&path, &["CREATE TABLE a (x); INSERT INTO a VALUES (1)"]).unwrap());
        for _ in 0..2 {
            let db = open_with(&path, &["CREATE TABLE a (x)", "ALTER TABLE a ADD COLUMN y DEFAULT 7"]).unwrap();
            assert_eq!(version(&db).unwrap(), 2);
            assert_eq!(db.query_row("SELECT x + y FROM a", [], |row| row.get::<_, i64>(0)).unwrap(), 8);
        }
    }

    #[test]
    fn a_step_that_fails_leaves_the_version_before() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("node.db");
        assert!(open_with(&path, &["CREATE TABLE a (x)", "CREATE TABLE b (x); NONSENSE"]).is_err());
        let db = open_with(&path, &["CREATE TABLE a (x)", "CREATE TABLE b (x)"]).unwrap();
        assert_eq!(version(&db).unwrap(), 2);
    }

    /// Version 1 did not know what kind a component is.
    #[tokio::test]
    async fn what_version_1_wrote_is_read_and_completed() {
        let dir = tempfile::tempdir().unwrap();
        let (shop, price) = (marram_core::Name::new("shop").unwrap(), marram_core::Name::new("price").unwrap());
        let (revision, component) = (Digest::of(b"revision"), Digest::of(b"component"));
        let db = open_with(&dir.path().join("node.db"), &MIGRATIONS[..1]).unwrap();
        let row = rusqlite::params![revision.as_bytes()];
        db.execute("INSERT INTO revision VALUES ('shop', ?, 1, 7, '# as it was')", row).unwrap();
        db.execute("INSERT INTO app VALUES ('shop', ?, 1)", row).unwrap();
        let row = rusqlite::params![revision.as_bytes(), component.as_bytes()];
        db.execute("INSERT INTO component VALUES ('shop', ?, 'price', ?)", row).unwrap();
        drop(db);

        let store = crate::Store::open(&crate::StoreConfig::new(dir.path())).unwrap();
        let found = store.app(&shop).unwrap().current;
        assert_eq!((found.components[&price], found.kinds.len()), (component, 0));
        // Deployed again, it is as if it had been deployed by this version.
        drop(store.blobs().put(&b"component"[..], 100, None).unwrap());
        let again = crate::Deployment {
            app: shop.clone(),
            revision,
            manifest: found.manifest,
            components: found.components,
            kinds: [(price.clone(), "component-0.3".to_owned())].into(),
            at_unix_ns: 8,
        };
        store.deploy(again).await.unwrap();
        assert_eq!(store.app(&shop).unwrap().current.kinds[&price], "component-0.3");
    }

    /// Version 2 had no streams.
    #[tokio::test]
    async fn what_version_2_wrote_stays_and_streams_come_to_it() {
        let dir = tempfile::tempdir().unwrap();
        let shop = marram_core::Name::new("shop").unwrap();
        let db = open_with(&dir.path().join("node.db"), &MIGRATIONS[..2]).unwrap();
        let revision = Digest::of(b"revision");
        let row = rusqlite::params![revision.as_bytes()];
        db.execute("INSERT INTO revision VALUES ('shop', ?, 1, 7, '# as it was')", row).unwrap();
        db.execute("INSERT INTO app VALUES ('shop', ?, 1)", row).unwrap();
        drop(db);

        let store = crate::Store::open(&crate::StoreConfig::new(dir.path())).unwrap();
        assert_eq!(store.app(&shop).unwrap().current.manifest, "# as it was");
        let stream = marram_core::stream::StreamName::new("s").unwrap();
        let (id, source, kind) = ("1".to_owned(), "/test".to_owned(), "test".to_owned());
        let event = marram_core::Event { id, source, kind, ..marram_core::Event::default() };
        let event = crate::stream::Encoded::new(event).unwrap();
        let published = store.writer().write(move |tx| crate::stream::append(tx, &stream, &event, 7)).await.unwrap();
        assert_eq!(published.position, 1);
    }

    /// Half of a database that is damaged would be what a step leaves.
    #[test]
    fn a_damaged_database_is_not_brought_to_another_version() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("node.db");
        let db = open_with(&path, &MIGRATIONS[..2]).unwrap();
        db.execute("INSERT INTO revision VALUES ('shop', zeroblob(32), 1, 7, hex(zeroblob(50000)))", []).unwrap();
        db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
        let page =
            db.query_row("SELECT rootpage FROM sqlite_schema WHERE name = 'revision_by_age'", [], |row| row.get(0));
        let page: u64 = page.unwrap();
        drop(db);
        let file = OpenOptions::new().write(true).open(&path).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, &[0xff; 64], (page - 1) * 4_096).unwrap();
        let before = std::fs::read(&path).unwrap();
        let refused = crate::Store::open(&crate::StoreConfig::new(dir.path())).unwrap_err();
        assert!(matches!(refused, StoreError::Damaged(_)), "{refused}");
        assert_eq!(version(&open_reader(&path).unwrap()).unwrap(), 2);
        assert!(std::fs::read(&path).unwrap() == before, "something was written to it");
    }

    #[test]
    fn a_newer_schema_and_a_foreign_file_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("node.db");
        drop(open_with(&path, &["CREATE TABLE a (x)", "CREATE TABLE b (x)"]).unwrap());
        let newer = open_with(&path, &["CREATE TABLE a (x)"]).unwrap_err();
        assert!(matches!(newer, StoreError::NewerSchema { found: 2, known: 1, .. }), "{newer}");

        let other = dir.path().join("other.db");
        Connection::open(&other).unwrap().execute_batch("CREATE TABLE theirs (x)").unwrap();
        assert!(matches!(open_writer(&other), Err(StoreError::NotOurs(_))));
        std::fs::write(&other, "a text file, and a long one: ".repeat(100)).unwrap();
        assert!(matches!(open_writer(&other), Err(StoreError::NotOurs(_))));
    }
}
