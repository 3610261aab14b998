//! Which blobs are still referred to, for the collector. Nothing is removed because one page of the database says so: an index that
//! knows a blob keeps it, and one that does not know it is held against the table itself.

use std::collections::BTreeSet;
use std::time::Duration;

use marram_core::Digest;
use rusqlite::Connection;

use crate::check::damaged;
use crate::{Collected, Store, StoreError};

/// The tables that refer to blobs, each with an index of its digests.
const REFERRING: [&str; 4] = ["component", "object", "object_segment", "object_part"];

impl Store {
    /// Removes blobs that no kept revision, no object and no part of an upload refers to, that nobody has pinned, and that are older than `grace`
    /// ([`crate::limits::BLOB_GRACE`]). Blocks for as long as the disk takes.
    ///
    /// Removes nothing while the database is known to be damaged, or could not be looked through ([`Store::check_pages`]): what it
    /// does not refer to any more may be what a page that is lost referred to.
    pub fn collect_blobs(&self, grace: Duration) -> Result<Collected, StoreError> {
        self.check_pages()?;
        self.writer.is_refused()?;
        let is_indexed = |digest: &Digest| self.readers.read(|db| is_indexed(db, digest));
        self.blobs.collect(grace, is_indexed, |candidates| {
            let Some(wrong) = self.readers.read(|db| keep_referenced(db, candidates))? else { return Ok(()) };
            self.writer.refuse(damaged(&wrong).into());
            self.writer.is_refused()
        })
    }
}

fn is_indexed(db: &Connection, digest: &Digest) -> Result<bool, StoreError> {
    let sql = "SELECT EXISTS (SELECT 1 FROM component WHERE digest = ?1)
        OR EXISTS (SELECT 1 FROM object WHERE digest = ?1)
        OR EXISTS (SELECT 1 FROM object_segment WHERE digest = ?1)
        OR EXISTS (SELECT 1 FROM object_part WHERE digest = ?1)";
    Ok(db.prepare_cached(sql)?.query_row([digest.as_bytes()], |row| row.get(0))?)
}

/// Reads the tables from one end to the other, and takes out of the candidates what a row refers to. What is wrong with the database,
/// if an index does not know such a row of the same snapshot.
fn keep_referenced(db: &Connection, candidates: &mut BTreeSet<Digest>) -> Result<Option<String>, StoreError> {
    for table in REFERRING {
        let mut query = db.prepare(&format!("SELECT digest FROM {table} NOT INDEXED WHERE digest IS NOT NULL"))?;
        let mut rows = query.query([])?;
        while let Some(row) = rows.next()? {
            let digest = Digest::from_bytes(row.get(0)?);
            if candidates.remove(&digest) && !is_indexed(db, &digest)? {
                return Ok(Some(format!("a row of \"{table}\" is missing in its index of digests")));
            }
        }
    }
    Ok(None)
}
