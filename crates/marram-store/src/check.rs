//! Is everything there, whole, and readable? For `marram doctor`.

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;
use std::sync::{Arc, PoisonError};

use marram_core::{Digest, Name};
use rusqlite::Connection;

use crate::blob::Blobs;
use crate::lost::RESTORE;
use crate::secret::Sealer;
use crate::{Store, StoreError, database_path, key, limits, schema};

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// SQLite's own check of the database says this.
    Database(String),
    /// A deployed component is not here.
    BlobMissing(Digest),
    /// A component's content is not what its name says.
    BlobDamaged(Digest),
    /// The content of an object is not here.
    ObjectMissing {
        /// Its bucket.
        bucket: String,
        /// Its name.
        name: String,
    },
    /// The content of an object has another size than it had.
    ObjectDamaged {
        /// Its bucket.
        bucket: String,
        /// Its name.
        name: String,
    },
    /// A secret that the node's key does not open.
    SecretUnsealable {
        /// The app.
        app: String,
        /// The secret.
        name: String,
    },
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Database(text) => write!(f, "the database is damaged ({text}): {RESTORE}"),
            Self::BlobMissing(digest) => write!(f, "component {} is missing: deploy its app again", digest.short()),
            Self::BlobDamaged(digest) => {
                write!(f, "component {} is damaged or altered: deploy its app again", digest.short())
            }
            Self::ObjectMissing { bucket, name } => {
                write!(f, "the content of object {name:?} in bucket \"{bucket}\" is missing: store it again")
            }
            Self::ObjectDamaged { bucket, name } => {
                write!(f, "the content of object {name:?} in bucket \"{bucket}\" is cut off or altered: store it again")
            }
            Self::SecretUnsealable { app, name } => write!(
                f,
                "secret \"{name}\" of app \"{app}\" cannot be opened with this node's secret.key: set it again, `marram secret set {app} {name}`"
            ),
        }
    }
}

/// Lines of SQLite's check that are passed on; a broken file has thousands.
const DATABASE_FINDINGS_MAX: usize = 20;

impl Store {
    /// Checks the database, every deployed component and every secret, and reads all of them: seconds on a large store. Of
    /// objects, whose contents may be terabytes, that they are there and of the right size.
    pub fn check(&self) -> Result<Vec<Finding>, StoreError> {
        self.readers.read(|db| check(db, self.blobs(), &self.sealer))
    }

    /// Looks through the pages of a database, if [`Store::open`] has not ([`Store::damage`]). Blocks for as long as reading all of
    /// it takes; one of more than [`limits::CHECKED_AT_START_MAX`] is left to [`Store::check`], since its log could not begin anew
    /// meanwhile. Whoever asks meanwhile waits for the same look; one that fails is tried again by the next.
    pub fn check_pages(&self) -> Result<(), StoreError> {
        let mut looked_through = self.looked_through.lock().unwrap_or_else(PoisonError::into_inner);
        if *looked_through {
            return Ok(());
        }
        if crate::size(self.readers.path()) <= limits::CHECKED_AT_START_MAX
            && let Some(why) = self.readers.read_one(damage_of)?
        {
            self.writer.refuse(why.into());
        }
        *looked_through = true;
        Ok(())
    }
}

/// What SQLite finds first that is wrong with the pages of a database. Reads all of it. An error that says nothing of what they
/// hold, such as want of memory, is no damage.
pub(crate) fn damage_of(db: &Connection) -> Result<Option<String>, StoreError> {
    let said = match db.query_row("PRAGMA quick_check(1)", [], |row| row.get::<_, String>(0)).map_err(StoreError::from)
    {
        Err(StoreError::Corrupt(error)) => error.to_string(),
        said => said?,
    };
    let wrong = said.lines().find(|line| *line != "ok" && !line.starts_with("***"));
    Ok(wrong.map(damaged))
}

/// How it is said that a database is damaged to which nothing is written any more.
pub(crate) fn damaged(wrong: &str) -> String {
    format!("{wrong}: nothing more is written to it. Stop the node, {RESTORE}; `marram doctor` says more")
}

/// The same for a state directory that is not open in this process; a node may be running on it. Changes nothing.
pub fn check_state_dir(dir: &Path) -> Result<Vec<Finding>, StoreError> {
    let database = database_path(dir);
    if database.exists() && crate::size(&database) == 0 {
        return Ok(vec![Finding::Database("it is empty".into())]);
    }
    if !database.exists() {
        return Err(StoreError::Invalid(format!("{} is not a state directory: it has no node.db", dir.display())));
    }
    let opened = schema::open_reader(&database).and_then(|connection| {
        schema::refuse_foreign(&connection, &database, schema::SCHEMA_VERSION)?;
        Ok(connection)
    });
    let connection = match opened {
        Err(StoreError::Corrupt(why)) => return Ok(vec![Finding::Database(why.to_string())]),
        opened => opened?,
    };
    let sealer = Sealer::new(&key::load(&dir.join("secret.key"))?);
    check(&connection, &Arc::new(Blobs::unopened(&dir.join("blobs"))), &sealer)
}

fn check(db: &Connection, blobs: &Arc<Blobs>, sealer: &Sealer) -> Result<Vec<Finding>, StoreError> {
    let mut findings = Vec::new();
    let parts = [
        pages(db, &mut findings),
        references(db, &mut findings),
        components(db, blobs, &mut findings),
        objects(db, blobs, &mut findings),
        secrets(db, sealer, &mut findings),
    ];
    for part in parts {
        match part {
            // Where the database is damaged, a part of the check stumbles over it, and the others go on.
            Err(StoreError::Corrupt(_)) if findings.iter().any(|found| matches!(found, Finding::Database(_))) => {}
            Err(StoreError::Corrupt(why)) => findings.push(Finding::Database(why.to_string())),
            part => part?,
        }
    }
    Ok(findings)
}

/// SQLite's own check. It says several things of one page in as many lines.
fn pages(db: &Connection, findings: &mut Vec<Finding>) -> Result<(), StoreError> {
    let mut query = db.prepare(&format!("PRAGMA integrity_check({DATABASE_FINDINGS_MAX})"))?;
    for said in query.query_map([], |row| row.get::<_, String>(0))? {
        let said = said?;
        let lines = said.lines().filter(|line| *line != "ok" && !line.starts_with("***"));
        findings.extend(lines.map(|line| Finding::Database(line.to_owned())));
    }
    Ok(())
}

fn references(db: &Connection, findings: &mut Vec<Finding>) -> Result<(), StoreError> {
    let mut query = db.prepare("PRAGMA foreign_key_check")?;
    for table in query.query_map([], |row| row.get::<_, String>(0))?.take(DATABASE_FINDINGS_MAX) {
        findings.push(Finding::Database(format!("a row of \"{}\" refers to one that is not there", table?)));
    }
    Ok(())
}

fn components(db: &Connection, blobs: &Blobs, findings: &mut Vec<Finding>) -> Result<(), StoreError> {
    let mut query = db.prepare("SELECT DISTINCT digest FROM component")?;
    let digests = query.query_map([], |row| row.get(0).map(Digest::from_bytes))?.collect::<Result<BTreeSet<_>, _>>()?;
    for digest in digests {
        match blobs.digest_of(&digest) {
            Ok(found) if found == digest => {}
            Ok(_) => findings.push(Finding::BlobDamaged(digest)),
            Err(StoreError::NoBlob(_)) => findings.push(Finding::BlobMissing(digest)),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn objects(db: &Connection, blobs: &Blobs, findings: &mut Vec<Finding>) -> Result<(), StoreError> {
    let sql = "SELECT bucket, name, digest, size FROM object WHERE digest IS NOT NULL
        UNION ALL SELECT bucket, name, object_segment.digest, object_segment.size FROM object_segment
        JOIN object ON version = object";
    let mut query = db.prepare(sql)?;
    let mut rows = query.query([])?;
    while let Some(row) = rows.next()? {
        let (digest, size): (_, u64) = (Digest::from_bytes(row.get(2)?), row.get(3)?);
        let (bucket, name) = (row.get(0)?, row.get(1)?);
        match blobs.path(&digest).metadata() {
            Ok(file) if file.len() == size => {}
            Ok(_) => findings.push(Finding::ObjectDamaged { bucket, name }),
            Err(_) => findings.push(Finding::ObjectMissing { bucket, name }),
        }
    }
    Ok(())
}

fn secrets(db: &Connection, sealer: &Sealer, findings: &mut Vec<Finding>) -> Result<(), StoreError> {
    let mut query = db.prepare("SELECT app, name, nonce, sealed FROM secret ORDER BY app, name")?;
    let mut rows = query.query([])?;
    while let Some(row) = rows.next()? {
        let (app, name): (String, String) = (row.get(0)?, row.get(1)?);
        let (nonce, sealed): ([u8; 24], Vec<u8>) = (row.get(2)?, row.get(3)?);
        let opens = Name::new(&app).is_ok_and(|app| sealer.open(&app, &name, &nonce, &sealed).is_ok());
        if !opens {
            findings.push(Finding::SecretUnsealable { app, name });
        }
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_database_that_cannot_be_read_now_is_not_damaged() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("node.db");
        let other = Connection::open(&path).unwrap();
        other.execute_batch("CREATE TABLE t (x); BEGIN EXCLUSIVE").unwrap();
        let db = Connection::open(&path).unwrap();
        db.busy_timeout(std::time::Duration::ZERO).unwrap();
        let error = damage_of(&db).unwrap_err();
        assert!(matches!(error, StoreError::Database(_)), "{error}");
        other.execute_batch("COMMIT").unwrap();
        assert_eq!(damage_of(&db).unwrap(), None);
    }
}
