//! Objects as rows, and lists of them.

use marram_core::limits::OBJECT_LIST_MAX;
use marram_core::port::blobs::{Bucket, ListQuery, Listed, Object, ObjectPage, Version};
use marram_core::{Digest, Name};
use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::encode;
use crate::StoreError;

/// A blob that is a content or a part of one, and its bytes.
pub(super) type Segment = (Digest, u64);

const COLUMNS: &str = "version, name, size, digest, etag, modified_unix_ns, said";

pub(super) fn find(db: &Connection, bucket: &Name, name: &str) -> Result<Option<Object>, StoreError> {
    let mut query = db.prepare_cached(&format!("SELECT {COLUMNS} FROM object WHERE bucket = ? AND name = ?"))?;
    let mut rows = query.query([bucket.as_str(), name])?;
    rows.next()?.map(read).transpose()
}

fn read(row: &Row<'_>) -> Result<Object, StoreError> {
    let said = row.get_ref(6)?.as_blob().map_err(|error| StoreError::Damaged(error.to_string()))?;
    let (attributes, checksum) = encode::decode(said)?;
    Ok(Object {
        version: Version(row.get(0)?),
        name: row.get(1)?,
        size: row.get(2)?,
        digest: row.get::<_, Option<[u8; 32]>>(3)?.map(Digest::from_bytes),
        etag: row.get(4)?,
        modified_unix_ns: row.get(5)?,
        attributes,
        checksum,
    })
}

/// The blobs that are the content, in their order.
pub(super) fn segments(db: &Connection, object: &Object) -> Result<Vec<Segment>, StoreError> {
    if let Some(digest) = object.digest {
        return Ok(vec![(digest, object.size)]);
    }
    let mut query = db.prepare_cached("SELECT digest, size FROM object_segment WHERE object = ? ORDER BY place")?;
    let rows = query.query_map([object.version.0], |row| Ok((Digest::from_bytes(row.get(0)?), row.get(1)?)))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Fails if there is no such bucket.
pub(super) fn need_bucket(db: &Connection, name: &Name) -> Result<(), StoreError> {
    bucket(db, name)?.map(|_| ()).ok_or_else(|| StoreError::NoBucket(name.clone()))
}

pub(super) fn bucket(db: &Connection, name: &Name) -> Result<Option<Bucket>, StoreError> {
    let mut query = db.prepare_cached("SELECT created_unix_ns FROM object_bucket WHERE name = ?")?;
    let created = query.query_row([name.as_str()], |row| row.get(0)).optional()?;
    Ok(created.map(|created_unix_ns| Bucket { name: name.clone(), created_unix_ns }))
}

pub(super) fn buckets(db: &Connection) -> Result<Vec<Bucket>, StoreError> {
    let mut query = db.prepare_cached("SELECT name, created_unix_ns FROM object_bucket ORDER BY name")?;
    let mut rows = query.query([])?;
    let mut buckets = Vec::new();
    while let Some(row) = rows.next()? {
        let name = Name::new(&row.get::<_, String>(0)?).map_err(|error| StoreError::Damaged(error.to_string()))?;
        buckets.push(Bucket { name, created_unix_ns: row.get(1)? });
    }
    Ok(buckets)
}

/// Where a list goes on.
enum From {
    At(String),
    After(String),
}

/// Reads on until a name no longer begins with the prefix: UTF-8 sorts as its bytes do. Names that are one common prefix are
/// jumped over by the index, so that a page costs what it has in it.
pub(super) fn list(db: &Connection, bucket: &Name, query: &ListQuery) -> Result<ObjectPage, StoreError> {
    let max = query.max.min(OBJECT_LIST_MAX);
    let prefix = query.prefix.as_str();
    let mut page = ObjectPage::default();
    let mut from = match query.after.as_deref().filter(|after| *after >= prefix) {
        None => Some(From::At(prefix.to_owned())),
        Some(after) if common(after, query) == Some(after) => past(after).map(From::At),
        Some(after) => Some(From::After(after.to_owned())),
    };
    while let Some(begin) = from.take() {
        let (comparison, name) = match &begin {
            From::At(name) => (">=", name),
            From::After(name) => (">", name),
        };
        let sql = format!("SELECT {COLUMNS} FROM object WHERE bucket = ? AND name {comparison} ? ORDER BY name");
        let mut statement = db.prepare_cached(&sql)?;
        let mut rows = statement.query(params![bucket.as_str(), name])?;
        while let Some(row) = rows.next()? {
            let name = row.get_ref(1)?.as_str().map_err(|error| StoreError::Damaged(error.to_string()))?;
            if !name.starts_with(prefix) {
                break;
            }
            if page.entries.len() >= max {
                page.more = true;
                break;
            }
            if let Some(common) = common(name, query) {
                page.entries.push(Listed::Prefix(common.to_owned()));
                from = past(common).map(From::At);
                break;
            }
            page.entries.push(Listed::Object(read(row)?));
        }
    }
    Ok(page)
}

/// What the name is listed as, if that is not itself.
fn common<'a>(name: &'a str, query: &ListQuery) -> Option<&'a str> {
    let delimiter = query.delimiter.as_deref().filter(|delimiter| !delimiter.is_empty())?;
    let rest = name.strip_prefix(query.prefix.as_str())?;
    let at = rest.find(delimiter)?;
    Some(&name[..query.prefix.len() + at + delimiter.len()])
}

/// The least text after every one that begins with `prefix`; `None` if there is none.
fn past(prefix: &str) -> Option<String> {
    let mut chars: Vec<char> = prefix.chars().collect();
    while let Some(last) = chars.pop() {
        // Surrogates are no characters.
        let next = (u32::from(last) + 1..).take(0x801).take_while(|next| *next <= 0x10_ffff).find_map(char::from_u32);
        if let Some(next) = next {
            chars.push(next);
            return Some(chars.into_iter().collect());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn past_a_prefix_is_nothing_that_begins_with_it() {
        assert_eq!(past("a/").as_deref(), Some("a0"));
        assert_eq!(past("a\u{d7ff}").as_deref(), Some("a\u{e000}"));
        assert_eq!(past("a\u{10ffff}").as_deref(), Some("b"));
        assert_eq!(past("\u{10ffff}\u{10ffff}"), None);
        assert_eq!(past(""), None);
    }
}
