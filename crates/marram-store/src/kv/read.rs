//! Reads: from the cache, else from the database.

use std::sync::atomic::Ordering;

use marram_core::Name;
use marram_core::limits::KV_LIST_KEYS_MAX;
use marram_core::port::kv::{Entry, KeyPage};
use rusqlite::Connection;

use super::cache::{Cached, Content};
use super::{Keys, check, row, view};
use crate::StoreError;

impl Keys {
    /// What the key holds now.
    pub(super) fn find(&self, bucket: &Name, key: &str) -> Result<Cached, StoreError> {
        let mut found = match self.shared.cache.get(bucket, key) {
            Some(found) => found,
            None => self.look_up(bucket, key)?,
        };
        // The clock is read only where it matters.
        if found.expires_unix_ns.is_some_and(|expires| expires <= self.clock.unix_ns()) {
            found.content = Content::Absent;
        }
        Ok(found)
    }

    fn look_up(&self, bucket: &Name, key: &str) -> Result<Cached, StoreError> {
        check::key(bucket, key)?;
        self.shared.missed.fetch_add(1, Ordering::Relaxed);
        let before = self.shared.cache.before(bucket, key);
        let entry = self.readers.read_one(|db| row::entry(db, bucket.as_str(), key))?;
        let bytes = entry.as_ref().map_or(0, |(_, bytes)| *bytes);
        let cached = view::cached(entry.as_ref().map(|(entry, _)| entry), bytes);
        self.shared.cache.found(bucket, key, before, &cached);
        Ok(cached)
    }

    pub(super) fn read_entry(&self, bucket: &Name, key: &str) -> Result<Option<Entry>, StoreError> {
        let found = self.find(bucket, key)?;
        match found.content {
            Content::Absent => Ok(None),
            Content::Value(value) => {
                let (version, expires_unix_ns) = (view::version(found.version), found.expires_unix_ns);
                Ok(Some(Entry { value, version, expires_unix_ns }))
            }
            Content::Collection(_) => Err(StoreError::Conflict(format!(
                "the key {} of bucket \"{bucket}\" holds a set or a map: a function reads it with `setAt` or `mapAt` (JavaScript), `set_at` or `map_at` (Python), or `marram:crdt`",
                check::shown(key)
            ))),
        }
    }

    pub(super) fn page(
        &self,
        bucket: &Name,
        prefix: &str,
        after: Option<&str>,
        max: usize,
    ) -> Result<KeyPage, StoreError> {
        let now = self.clock.unix_ns();
        let max = max.clamp(1, KV_LIST_KEYS_MAX);
        self.readers.read_one(|db| page(db, bucket, prefix, after, max, now))
    }

    /// Jumps from bucket to bucket by the index.
    pub(super) fn every_bucket(&self) -> Result<Vec<Name>, StoreError> {
        let now = i64::try_from(self.clock.unix_ns()).unwrap_or(i64::MAX);
        self.readers.read(|db| {
            let mut next = db.prepare_cached("SELECT min(bucket) FROM kv_entry WHERE bucket > ?")?;
            let mut alive = db.prepare_cached(
                "SELECT EXISTS (SELECT 1 FROM kv_entry WHERE bucket = ?1
                    AND (expires_unix_ns IS NULL OR expires_unix_ns > ?2))",
            )?;
            let (mut names, mut last) = (Vec::new(), String::new());
            while let Some(name) = next.query_row([&last], |row| row.get::<_, Option<String>>(0))? {
                if alive.query_row(rusqlite::params![name, now], |row| row.get(0))? {
                    names.push(Name::new(&name).map_err(|error| StoreError::Damaged(error.to_string()))?);
                }
                last = name;
            }
            Ok(names)
        })
    }
}

/// Reads on from the prefix, or from the key after which to go on, until a key no longer begins with the prefix: UTF-8
/// sorts as its bytes do, so no upper end has to be made up for any prefix.
fn page(
    db: &Connection,
    bucket: &Name,
    prefix: &str,
    after: Option<&str>,
    max: usize,
    now_unix_ns: u64,
) -> Result<KeyPage, StoreError> {
    let after = after.filter(|after| *after >= prefix);
    let sql = match after {
        Some(_) => "SELECT key, expires_unix_ns FROM kv_entry WHERE bucket = ? AND key > ? ORDER BY key",
        None => "SELECT key, expires_unix_ns FROM kv_entry WHERE bucket = ? AND key >= ? ORDER BY key",
    };
    let mut query = db.prepare_cached(sql)?;
    let mut rows = query.query([bucket.as_str(), after.unwrap_or(prefix)])?;
    let mut page = KeyPage { keys: Vec::new(), more: false };
    while let Some(row) = rows.next()? {
        let key = row.get_ref(0)?.as_str().map_err(|error| StoreError::Damaged(error.to_string()))?;
        if !key.starts_with(prefix) {
            break;
        }
        if row.get::<_, Option<u64>>(1)?.is_some_and(|expires| expires <= now_unix_ns) {
            continue;
        }
        if page.keys.len() == max {
            page.more = true;
            break;
        }
        page.keys.push(key.to_owned());
    }
    Ok(page)
}
