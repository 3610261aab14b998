//! Uploads in parts, within an operation of the writer, and what is read of them.

use marram_core::limits::{OBJECT_LIST_MAX, OBJECT_PARTS_MAX, OBJECT_UPLOADS_MAX};
use marram_core::port::blobs::{
    Attributes, Checksum, Finish, Object, Part, PartPage, Upload, UploadId, UploadPage, shown,
};
use marram_core::{Digest, Name};
use md5::{Digest as _, Md5};
use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::intake::{from_hex, hex};
use super::write::{self, At, New};
use super::{encode, row};
use crate::StoreError;

/// A part that is on the disk.
pub(super) struct NewPart {
    pub(super) number: u32,
    pub(super) size: u64,
    pub(super) digest: Digest,
    pub(super) etag: String,
    pub(super) checksum: Option<Checksum>,
}

/// The upload of this id, if it is of this name.
#[derive(Clone)]
pub(super) struct Which {
    pub(super) bucket: Name,
    pub(super) name: String,
    pub(super) id: UploadId,
}

const COLUMNS: &str = "id, name, begun_unix_ns, checksum, said";
const PART_COLUMNS: &str = "number, size, etag, modified_unix_ns, said";

pub(super) fn begin(at: &At<'_>, which: &Which, attributes: &Attributes, checksum: &str) -> Result<(), StoreError> {
    row::need_bucket(at.tx, &which.bucket)?;
    let sql = "SELECT count(*) FROM object_upload WHERE bucket = ?";
    let count: usize = at.tx.prepare_cached(sql)?.query_row([which.bucket.as_str()], |row| row.get(0))?;
    if count >= OBJECT_UPLOADS_MAX {
        let message =
            format!("bucket \"{}\" has {count} uploads that were begun: complete or abort some", which.bucket);
        return Err(StoreError::TooMany(message));
    }
    let sql = "INSERT INTO object_upload (id, bucket, name, begun_unix_ns, touched_unix_ns, checksum, said)
        VALUES (?1, ?2, ?3, ?4, ?4, ?5, ?6)";
    let said = encode::said(attributes, None);
    let now = at.now_unix_ns;
    at.tx.prepare_cached(sql)?.execute(params![which.id.0, which.bucket.as_str(), which.name, now, checksum, said])?;
    Ok(())
}

pub(super) fn find(db: &Connection, which: &Which) -> Result<Option<Upload>, StoreError> {
    row::need_bucket(db, &which.bucket)?;
    let sql = format!("SELECT {COLUMNS} FROM object_upload WHERE id = ? AND bucket = ? AND name = ?");
    let mut query = db.prepare_cached(&sql)?;
    let mut rows = query.query([which.id.0.as_str(), which.bucket.as_str(), which.name.as_str()])?;
    rows.next()?.map(read).transpose()
}

fn read(row: &Row<'_>) -> Result<Upload, StoreError> {
    let (attributes, _) = said(row, 4)?;
    let id = UploadId(row.get(0)?);
    Ok(Upload { id, name: row.get(1)?, begun_unix_ns: row.get(2)?, checksum: row.get(3)?, attributes })
}

fn said(row: &Row<'_>, column: usize) -> Result<(Attributes, Option<Checksum>), StoreError> {
    let said = row.get_ref(column)?.as_blob().map_err(|error| StoreError::Damaged(error.to_string()))?;
    encode::decode(said)
}

/// Keeps a part, in place of one of the same number; `None` if the upload is over.
pub(super) fn put(at: &At<'_>, which: &Which, part: NewPart) -> Result<Option<Part>, StoreError> {
    if find(at.tx, which)?.is_none() {
        return Ok(None);
    }
    let (id, now) = (which.id.0.as_str(), at.now_unix_ns);
    let sql = "INSERT INTO object_part (upload, number, size, digest, etag, modified_unix_ns, said)
        VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (upload, number) DO UPDATE SET size = excluded.size, digest = excluded.digest,
        etag = excluded.etag, modified_unix_ns = excluded.modified_unix_ns, said = excluded.said";
    let said = encode::said(&Attributes::default(), part.checksum.as_ref());
    let NewPart { number, size, digest, etag, checksum } = part;
    at.tx.prepare_cached(sql)?.execute(params![id, number, size, digest.as_bytes(), etag, now, said])?;
    at.tx.prepare_cached("UPDATE object_upload SET touched_unix_ns = ? WHERE id = ?")?.execute(params![now, id])?;
    Ok(Some(Part { number, size, etag, checksum, modified_unix_ns: now }))
}

/// Puts the object together, and ends the upload.
pub(super) fn complete(
    at: &At<'_>,
    which: &Which,
    wanted: &[(u32, String)],
    finish: Finish,
) -> Result<Option<Object>, StoreError> {
    let Some(upload) = find(at.tx, which)? else { return Ok(None) };
    let bad = |why: String| {
        Err(StoreError::Invalid(format!("the upload of {} cannot be completed: {why}", shown(&which.name))))
    };
    if wanted.is_empty() || wanted.len() > OBJECT_PARTS_MAX as usize {
        return bad(format!("{} parts are named, and 1 to {OBJECT_PARTS_MAX} are needed", wanted.len()));
    }
    if !wanted.is_sorted_by(|(a, _), (b, _)| a < b) {
        return bad("the parts are not in the order of their numbers".into());
    }
    let mut query =
        at.tx.prepare_cached("SELECT digest, size, etag FROM object_part WHERE upload = ? AND number = ?")?;
    let (mut segments, mut size, mut md5) = (Vec::with_capacity(wanted.len()), 0_u64, Md5::new());
    for (number, etag) in wanted {
        let found: Option<([u8; 32], u64, String)> = query
            .query_row(params![which.id.0, number], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
            .optional()?;
        match found.and_then(|(digest, size, found)| Some((digest, size, from_hex(&found).filter(|_| found == *etag)?)))
        {
            Some((digest, bytes, digest_md5)) => {
                segments.push((Digest::from_bytes(digest), bytes));
                size += bytes;
                md5.update(digest_md5);
            }
            None => return bad(format!("part {number} is not there, or has another etag")),
        }
    }
    let new = New {
        name: upload.name,
        size,
        segments,
        etag: format!("{}-{}", hex(md5.finalize().into()), wanted.len()),
        attributes: upload.attributes,
        checksum: finish.checksum,
    };
    let object = write::put(at, &which.bucket, new, &finish.expect)?;
    abort(at, which)?;
    Ok(Some(object))
}

/// The parts go with it.
pub(super) fn abort(at: &At<'_>, which: &Which) -> Result<bool, StoreError> {
    row::need_bucket(at.tx, &which.bucket)?;
    let sql = "DELETE FROM object_upload WHERE id = ? AND bucket = ? AND name = ?";
    let removed =
        at.tx.prepare_cached(sql)?.execute([which.id.0.as_str(), which.bucket.as_str(), which.name.as_str()])?;
    Ok(removed > 0)
}

pub(super) fn list(db: &Connection, which: &Which, after: u32, max: usize) -> Result<Option<PartPage>, StoreError> {
    if find(db, which)?.is_none() {
        return Ok(None);
    }
    let max = max.min(OBJECT_LIST_MAX);
    let sql = format!("SELECT {PART_COLUMNS} FROM object_part WHERE upload = ? AND number > ? ORDER BY number LIMIT ?");
    let mut query = db.prepare_cached(&sql)?;
    let mut rows = query.query(params![which.id.0, after, max + 1])?;
    let mut page = PartPage::default();
    while let Some(row) = rows.next()? {
        if page.parts.len() == max {
            page.more = true;
            break;
        }
        let (_, checksum) = said(row, 4)?;
        let (number, size, etag) = (row.get(0)?, row.get(1)?, row.get(2)?);
        page.parts.push(Part { number, size, etag, checksum, modified_unix_ns: row.get(3)? });
    }
    Ok(Some(page))
}

pub(super) fn uploads(
    db: &Connection,
    bucket: &Name,
    prefix: &str,
    after: Option<&(String, UploadId)>,
    max: usize,
) -> Result<UploadPage, StoreError> {
    row::need_bucket(db, bucket)?;
    let max = max.min(OBJECT_LIST_MAX);
    let (name, id) = after.filter(|(name, _)| name.as_str() >= prefix).map_or((prefix, ""), |(name, id)| (name, &id.0));
    let sql = format!("SELECT {COLUMNS} FROM object_upload WHERE bucket = ? AND (name, id) > (?, ?) ORDER BY name, id");
    let mut query = db.prepare_cached(&sql)?;
    let mut rows = query.query([bucket.as_str(), name, id])?;
    let mut page = UploadPage::default();
    while let Some(row) = rows.next()? {
        let upload = read(row)?;
        if !upload.name.starts_with(prefix) {
            break;
        }
        if page.uploads.len() == max {
            page.more = true;
            break;
        }
        page.uploads.push(upload);
    }
    Ok(page)
}

/// Aborts up to `max` uploads that nothing has happened to since `before`, and says how many.
pub(super) fn sweep(db: &Connection, before_unix_ns: u64, max: usize) -> Result<usize, StoreError> {
    let sql = "DELETE FROM object_upload WHERE id IN
        (SELECT id FROM object_upload WHERE touched_unix_ns < ? ORDER BY touched_unix_ns LIMIT ?)";
    Ok(db.prepare_cached(sql)?.execute(params![before_unix_ns, max])?)
}
