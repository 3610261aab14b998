//! A state directory whose database is gone. Nothing begins anew over what is left of it, and the log of the one that was must not
//! become that of a backup: SQLite replays whatever log it finds beside a database.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use crate::blob::Blobs;
use crate::{StoreError, durable, size};

/// What to do about a database that is lost or damaged.
pub(crate) const RESTORE: &str = "remove node.db-wal and node.db-shm, then restore node.db from a backup";

/// Refuses a directory that a node has used, and that has no database any more: to begin anew would be to remove what a backup of it
/// refers to.
pub(crate) fn refuse(dir: &Path, database: &Path) -> Result<(), StoreError> {
    if size(database) > 0 {
        return Ok(());
    }
    let has_log = size(&beside(database, "-wal")) > 0;
    // Who has brought along a `secret.key` begins; the other is only made by a node, when it has a database.
    let has_keys = ["secret.key", "cache.key"].iter().all(|key| dir.join(key).exists());
    let left = match () {
        () if !Blobs::is_empty(&dir.join("blobs")) => "blobs/",
        () if has_log => "node.db-wal",
        () if has_keys => "cache.key",
        () => return Ok(()),
    };
    let aside = put_log_aside(database)?;
    Err(StoreError::Invalid(format!(
        "{} is missing or empty, and {left} says that a node had its state here: {RESTORE}; to begin anew, move the folder away{aside}",
        database.display()
    )))
}

/// A file that is no database, in a directory that is a node's, was one. Where its first page is in the log, SQLite opens it
/// nevertheless; and if that is all that there is, fails at the next.
pub(crate) fn explain(dir: &Path, database: &Path, error: StoreError) -> StoreError {
    let is_lost = match &error {
        StoreError::NotOurs(_) => dir.join("secret.key").exists(),
        StoreError::Corrupt(_) => !begins_as_database(database),
        _ => false,
    };
    if !is_lost {
        return error;
    }
    let said = |aside| StoreError::Damaged(format!("its beginning is not that of a database: {RESTORE}{aside}"));
    put_log_aside(database).map_or_else(|error| error, said)
}

/// Whether the file itself says that it is a database (SQLite, "Database File Format" §1.3.1).
fn begins_as_database(database: &Path) -> bool {
    let mut begin = [0; 16];
    let read = File::open(database).and_then(|mut file| file.read_exact(&mut begin));
    read.is_ok() && begin == *b"SQLite format 3\0"
}

/// Renames the log of a database that is lost, and says so: empty if there is none.
fn put_log_aside(database: &Path) -> Result<String, StoreError> {
    let log = beside(database, "-wal");
    if size(&log) == 0 {
        return Ok(String::new());
    }
    let names = std::iter::once("-wal.lost".to_owned()).chain((2..).map(|nth| format!("-wal.lost-{nth}")));
    let aside = names.map(|name| beside(database, &name)).find(|path| !path.exists());
    let aside = aside.expect("a folder does not have every number");
    std::fs::rename(&log, &aside).map_err(|error| StoreError::io("put aside", &log, error))?;
    let index = beside(database, "-shm");
    durable::remove_if_there(&index).map_err(|error| StoreError::io("remove", &index, error))?;
    durable::sync_parent(&log).map_err(|error| StoreError::io("sync", &log, error))?;
    Ok(format!(
        ". Its log was put aside as {}: it belongs to the database that is lost, and to no backup of it",
        aside.display()
    ))
}

/// A file whose name is the database's with something behind it.
fn beside(database: &Path, behind: &str) -> PathBuf {
    let mut name = database.as_os_str().to_owned();
    name.push(behind);
    name.into()
}
