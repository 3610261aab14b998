//! Entries as rows.

use marram_core::Name;
use marram_replica::{Entry, Stamp};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::encoding;
use crate::StoreError;

/// Where an entry was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Nowhere,
    Entries,
    Tombstones,
}

/// The entry that is there, its time over or not, and how many bytes its state has.
pub(super) fn entry(db: &Connection, bucket: &str, key: &str) -> Result<Option<(Entry, usize)>, StoreError> {
    let mut query =
        db.prepare_cached("SELECT version, expires_unix_ns, state FROM kv_entry WHERE bucket = ? AND key = ?")?;
    let mut rows = query.query([bucket, key])?;
    rows.next()?.map(read).transpose()
}

/// The same, or what is left of one that was removed.
pub(super) fn any(db: &Connection, bucket: &Name, key: &str) -> Result<(Entry, Place), StoreError> {
    if let Some((entry, _)) = entry(db, bucket.as_str(), key)? {
        return Ok((entry, Place::Entries));
    }
    let mut query = db.prepare_cached("SELECT state FROM kv_tombstone WHERE bucket = ? AND key = ?")?;
    let state: Option<Vec<u8>> = query.query_row([bucket.as_str(), key], |row| row.get(0)).optional()?;
    match state {
        Some(state) => Ok((encoding::decode_tombstone(&state)?, Place::Tombstones)),
        None => Ok((Entry::default(), Place::Nowhere)),
    }
}

/// Writes an entry that is there; it was at `from` before. `state` is its encoding.
pub(super) fn put(
    db: &Connection,
    bucket: &Name,
    key: &str,
    entry: &Entry,
    state: &[u8],
    from: Place,
) -> Result<(), StoreError> {
    if from == Place::Tombstones {
        db.prepare_cached("DELETE FROM kv_tombstone WHERE bucket = ? AND key = ?")?.execute([bucket.as_str(), key])?;
    }
    if from == Place::Entries {
        update(db, bucket, key, entry, state)?;
        return Ok(());
    }
    let (version, expires) = (entry.version().to_bytes(), entry.expires_unix_ns());
    let sql = "INSERT INTO kv_entry (bucket, key, version, expires_unix_ns, state) VALUES (?, ?, ?, ?, ?)";
    db.prepare_cached(sql)?.execute(params![bucket.as_str(), key, version, expires, state])?;
    Ok(())
}

/// Writes an entry over one that is there, and says whether one was.
fn update(db: &Connection, bucket: &Name, key: &str, entry: &Entry, state: &[u8]) -> Result<bool, StoreError> {
    let (version, expires) = (entry.version().to_bytes(), entry.expires_unix_ns());
    let sql = "UPDATE kv_entry SET version = ?3, expires_unix_ns = ?4, state = ?5 WHERE bucket = ?1 AND key = ?2";
    let found = db.prepare_cached(sql)?.execute(params![bucket.as_str(), key, version, expires, state])?;
    Ok(found > 0)
}

/// [`put`], wherever it was before. An entry that is there takes one search in one tree.
pub(super) fn overwrite(
    db: &Connection,
    bucket: &Name,
    key: &str,
    entry: &Entry,
    state: &[u8],
) -> Result<(), StoreError> {
    if update(db, bucket, key, entry, state)? {
        return Ok(());
    }
    // There may be a tombstone: to remove none costs as much as to look for one.
    put(db, bucket, key, entry, state, Place::Tombstones)
}

/// Writes what is left of an entry that is no longer there; it was at `from` before.
pub(super) fn bury(
    db: &Connection,
    bucket: &Name,
    key: &str,
    entry: &Entry,
    from: Place,
    now_unix_ns: u64,
) -> Result<(), StoreError> {
    if from == Place::Entries {
        db.prepare_cached("DELETE FROM kv_entry WHERE bucket = ? AND key = ?")?.execute([bucket.as_str(), key])?;
    }
    let sql = "INSERT OR REPLACE INTO kv_tombstone (bucket, key, since_unix_ns, state) VALUES (?, ?, ?, ?)";
    let since = i64::try_from(now_unix_ns).unwrap_or(i64::MAX);
    db.prepare_cached(sql)?.execute(params![bucket.as_str(), key, since, encoding::encode(entry)?])?;
    Ok(())
}

/// Reads `version`, `expires_unix_ns` and `state`.
fn read(row: &Row<'_>) -> Result<(Entry, usize), StoreError> {
    let version = Stamp::from_bytes(row.get(0)?);
    let expires = row.get(1)?;
    match row.get_ref(2)? {
        ValueRef::Blob(state) => Ok((encoding::decode(version, expires, state)?, state.len())),
        _ => Err(StoreError::Damaged("an entry of a bucket has no state".into())),
    }
}
