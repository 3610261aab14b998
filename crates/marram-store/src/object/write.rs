//! Changes of objects, within an operation of the writer. An object and its event are one transaction.

use std::sync::Arc;

use marram_core::capture::Source;
use marram_core::limits::{OBJECT_BUCKETS_MAX, OBJECT_BYTES_MAX};
use marram_core::port::blobs::{Attributes, Checksum, CopyOptions, Delete, Expect, Object, Version, shown};
use marram_core::{Digest, Name};
use rusqlite::{Connection, params};

use super::encode;
use super::event::{self, What};
use super::row::{self, Segment};
use crate::StoreError;
use crate::stream::{Encoded, Hub, append};
use crate::writer::Tx;

/// An operation of the writer, and when it happens.
pub(super) struct At<'a> {
    pub(super) tx: &'a Tx,
    pub(super) hub: &'a Arc<Hub>,
    pub(super) now_unix_ns: u64,
}

/// A content that is on the disk and is to get a name.
pub(super) struct New {
    pub(super) name: String,
    pub(super) size: u64,
    pub(super) segments: Vec<Segment>,
    pub(super) etag: String,
    pub(super) attributes: Attributes,
    pub(super) checksum: Option<Checksum>,
}

/// Gives a content its name, in place of what was there.
pub(super) fn put(at: &At<'_>, bucket: &Name, new: New, expect: &Expect) -> Result<Object, StoreError> {
    row::need_bucket(at.tx, bucket)?;
    if new.size > OBJECT_BYTES_MAX {
        return Err(StoreError::BlobTooLarge(OBJECT_BYTES_MAX));
    }
    let old = row::find(at.tx, bucket, &new.name)?;
    expected(bucket, &new.name, expect, old.as_ref())?;
    if let Some(old) = old {
        remove(at.tx, old.version)?;
    }
    let digest: Option<Digest> = match &new.segments[..] {
        [(digest, _)] => Some(*digest),
        _ => None,
    };
    let object = Object {
        name: new.name,
        size: new.size,
        digest,
        etag: new.etag,
        attributes: new.attributes,
        checksum: new.checksum,
        modified_unix_ns: at.now_unix_ns,
        version: tick(at.tx)?,
    };
    let sql = "INSERT INTO object (version, bucket, name, size, digest, etag, modified_unix_ns, said)
        VALUES (?, ?, ?, ?, ?, ?, ?, ?)";
    at.tx.prepare_cached(sql)?.execute(params![
        object.version.0,
        bucket.as_str(),
        object.name,
        object.size,
        digest.as_ref().map(Digest::as_bytes),
        object.etag,
        object.modified_unix_ns,
        encode::said(&object.attributes, object.checksum.as_ref()),
    ])?;
    if digest.is_none() {
        let sql = "INSERT INTO object_segment (object, place, digest, size) VALUES (?, ?, ?, ?)";
        let mut insert = at.tx.prepare_cached(sql)?;
        for (place, (digest, size)) in new.segments.iter().enumerate() {
            insert.execute(params![object.version.0, place, digest.as_bytes(), size])?;
        }
    }
    capture(at, bucket, What::Created, &object, object.version)?;
    Ok(object)
}

/// Deletes one object, and says whether it was there.
pub(super) fn delete(at: &At<'_>, bucket: &Name, delete: &Delete) -> Result<bool, StoreError> {
    let old = row::find(at.tx, bucket, &delete.name)?;
    expected(bucket, &delete.name, &delete.expect, old.as_ref())?;
    let Some(old) = old else { return Ok(false) };
    remove(at.tx, old.version)?;
    capture(at, bucket, What::Deleted, &old, tick(at.tx)?)?;
    Ok(true)
}

/// Gives the content of an object another name as well.
pub(super) fn copy(
    at: &At<'_>,
    from: (&Name, &str),
    to: (&Name, &str),
    options: CopyOptions,
) -> Result<Option<Object>, StoreError> {
    row::need_bucket(at.tx, from.0)?;
    let Some(source) = row::find(at.tx, from.0, from.1)? else { return Ok(None) };
    if let Some(etag) = options.source_etag {
        expected(from.0, from.1, &Expect::Etag(etag), Some(&source))?;
    }
    let new = New {
        name: to.1.to_owned(),
        size: source.size,
        segments: row::segments(at.tx, &source)?,
        etag: source.etag,
        attributes: options.attributes.unwrap_or(source.attributes),
        checksum: source.checksum,
    };
    put(at, to.0, new, &options.expect).map(Some)
}

/// Gives an object another name in place of its own.
pub(super) fn rename(at: &At<'_>, from: (&Name, &str), to: (&Name, &str)) -> Result<Option<Object>, StoreError> {
    if from == to {
        row::need_bucket(at.tx, from.0)?;
        return row::find(at.tx, from.0, from.1);
    }
    let Some(renamed) = copy(at, from, to, CopyOptions::default())? else { return Ok(None) };
    delete(at, from.0, &Delete { name: from.1.to_owned(), expect: Expect::Any })?;
    Ok(Some(renamed))
}

pub(super) fn create_bucket(at: &At<'_>, bucket: &Name) -> Result<bool, StoreError> {
    if row::bucket(at.tx, bucket)?.is_some() {
        return Ok(false);
    }
    let count: usize = at.tx.query_row("SELECT count(*) FROM object_bucket", [], |row| row.get(0))?;
    if count >= OBJECT_BUCKETS_MAX {
        return Err(StoreError::TooMany(format!("there are {count} buckets, and may not be more: delete one first")));
    }
    let sql = "INSERT INTO object_bucket (name, created_unix_ns) VALUES (?, ?)";
    at.tx.prepare_cached(sql)?.execute(params![bucket.as_str(), at.now_unix_ns])?;
    Ok(true)
}

/// What a step of the deletion of a bucket has come to.
pub(super) enum Deleting {
    /// An upload is gone, and there may be more.
    On,
    /// It was not there.
    Absent,
    /// It is gone.
    Done,
}

/// A step of the deletion of a bucket: each ends one upload at most, since that may have many parts.
pub(super) fn delete_bucket(tx: &Tx, bucket: &Name) -> Result<Deleting, StoreError> {
    if row::bucket(tx, bucket)?.is_none() {
        return Ok(Deleting::Absent);
    }
    let sql = "SELECT EXISTS (SELECT 1 FROM object WHERE bucket = ?)";
    if tx.prepare_cached(sql)?.query_row([bucket.as_str()], |row| row.get(0))? {
        return Err(StoreError::Conflict(format!("the bucket \"{bucket}\" is not empty: delete its objects first")));
    }
    let sql = "DELETE FROM object_upload WHERE id IN (SELECT id FROM object_upload WHERE bucket = ? LIMIT 1)";
    if tx.prepare_cached(sql)?.execute([bucket.as_str()])? > 0 {
        return Ok(Deleting::On);
    }
    tx.prepare_cached("DELETE FROM object_bucket WHERE name = ?")?.execute([bucket.as_str()])?;
    Ok(Deleting::Done)
}

/// Whether the object that is there is the one that somebody expects.
pub(super) fn expected(bucket: &Name, name: &str, expect: &Expect, found: Option<&Object>) -> Result<(), StoreError> {
    let why = match (expect, found) {
        (Expect::Any, _) | (Expect::Absent, None) | (Expect::Present, Some(_)) => return Ok(()),
        (Expect::Etag(wanted), Some(found)) if found.etag == *wanted => return Ok(()),
        (Expect::Absent, Some(_)) => "is there already",
        (Expect::Etag(_), Some(_)) => "has another content: read it again",
        (Expect::Present | Expect::Etag(_), None) => "is not there",
    };
    Err(StoreError::Conflict(format!("the object {} of bucket \"{bucket}\" {why}", shown(name))))
}

/// The segments go with it.
fn remove(db: &Connection, version: Version) -> Result<(), StoreError> {
    db.prepare_cached("DELETE FROM object WHERE version = ?")?.execute([version.0])?;
    Ok(())
}

fn tick(db: &Connection) -> Result<Version, StoreError> {
    let mut next = db.prepare_cached("UPDATE object_clock SET last = last + 1 RETURNING last")?;
    Ok(Version(next.query_row([], |row| row.get(0))?))
}

fn capture(at: &At<'_>, bucket: &Name, what: What, object: &Object, version: Version) -> Result<(), StoreError> {
    let captures = at.hub.captures();
    if !captures.any(Source::Object) {
        return Ok(());
    }
    let subject = event::subject(bucket, &object.name);
    let mut encoded = None;
    for stream in captures.streams(Source::Object, &subject) {
        if encoded.is_none() {
            let event = event::event(bucket, subject.clone(), what, object, version, at.now_unix_ns);
            encoded = Some(Encoded::new(event)?);
        }
        if let Some(event) = &encoded {
            append(at.tx, stream, event, at.now_unix_ns)?;
        }
    }
    Ok(())
}
