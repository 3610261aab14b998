//! Lines on the disk: blocks of JSON lines, compressed; buckets that are dropped whole.

use std::collections::{BTreeSet, VecDeque};
use std::path::Path;
use std::sync::Arc;

use marram_core::record::{Level, Source};
use marram_core::trace::{RequestId, TraceId};
use marram_core::{Digest, Name};
use rusqlite::{Connection, OptionalExtension as _, params};
use serde::{Deserialize, Serialize};

use super::Disk;
use crate::entry::{LogEntry, LogQuery};
use crate::limits::{LOG_BLOCK_BYTES, LOG_BUCKET_AGE, LOG_BUCKETS};
use crate::logs::Numbered;
use crate::{TelemetryError, Timestamp};

/// A line in a block: version 1 of its form on the disk, which is not the wire's.
#[derive(Serialize, Deserialize)]
struct DiskLine {
    n: u64,
    t: u64,
    l: Level,
    a: Name,
    f: Name,
    r: Digest,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    q: Option<RequestId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    x: Option<TraceId>,
    s: Source,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    c: String,
    m: String,
}

impl DiskLine {
    fn entry(self) -> LogEntry {
        LogEntry {
            time: Timestamp(self.t),
            level: self.l,
            app: self.a,
            function: self.f,
            revision: self.r,
            request: self.q,
            trace: self.x,
            source: self.s,
            context: self.c,
            text: self.m,
        }
    }
}

/// The fastest level: it already takes nine tenths of repetitive lines away.
const ZSTD_LEVEL: i32 = 1;
/// No block that we wrote is larger: a block is closed by the line that passes [`LOG_BLOCK_BYTES`], and JSON may write a
/// byte as six.
const BLOCK_BYTES_MAX: usize = 16 * LOG_BLOCK_BYTES;

impl Disk {
    /// The number after the last line on the disk. Where that cannot be read, one that is past all of them: no node writes a
    /// million lines a second.
    pub(crate) fn next_log_number(&self, now_unix_ns: u64) -> Result<u64, TelemetryError> {
        let Some(connection) = &self.connection else { return Ok(now_unix_ns / 1_000) };
        let sql = "SELECT last_number + 1 FROM log_block ORDER BY first_number DESC LIMIT 1";
        Ok(connection.query_row(sql, [], |row| row.get(0)).optional()?.unwrap_or(1))
    }

    /// Writes lines, in their order, and says whether a bucket has become full: time to make room.
    pub(crate) fn write_logs(&mut self, lines: &[Arc<Numbered>], now_unix_ns: u64) -> Result<bool, TelemetryError> {
        let bucket_bytes = self.log_bytes_max / LOG_BUCKETS;
        self.transaction(|db| {
            let mut is_new = false;
            for lines in blocks(lines) {
                let block = Block::of(lines)?;
                let bucket = open_bucket(db, block.first_number, bucket_bytes, now_unix_ns)?;
                is_new |= bucket == block.first_number;
                block.write(db, bucket, now_unix_ns)?;
            }
            Ok(is_new)
        })
    }

    /// Drops whole buckets: those past the age, and the oldest ones past the size.
    pub(crate) fn drop_old_logs(&mut self, now_unix_ns: u64) -> Result<(), TelemetryError> {
        let (bytes_max, oldest_ns) = (self.log_bytes_max, now_unix_ns.saturating_sub(self.log_age_ns));
        let dropped = self.transaction(|db| {
            let sql = "SELECT id, bytes, written_unix_ns FROM log_bucket ORDER BY id DESC";
            let mut query = db.prepare_cached(sql)?;
            let rows = query.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
            let buckets: Vec<(u64, u64, u64)> = rows.collect::<Result<_, _>>()?;
            let mut kept = 0;
            let mut dropped = false;
            for (id, bytes, written_ns) in buckets {
                kept += bytes;
                if kept <= bytes_max && written_ns >= oldest_ns {
                    continue;
                }
                db.prepare_cached("DELETE FROM log_block WHERE bucket = ?")?.execute([id])?;
                db.prepare_cached("DELETE FROM log_bucket WHERE id = ?")?.execute([id])?;
                dropped = true;
            }
            Ok(dropped)
        })?;
        if dropped {
            // Each step frees one page.
            let mut vacuum = self.connection()?.prepare_cached("PRAGMA incremental_vacuum")?;
            let mut steps = vacuum.query([])?;
            while steps.next()?.is_some() {}
        }
        Ok(())
    }
}

/// The latest `limit` lines before number `before` that `query` takes, oldest first.
pub(crate) fn search(
    path: &Path,
    query: &LogQuery,
    before: u64,
    limit: usize,
) -> Result<VecDeque<LogEntry>, TelemetryError> {
    let db = Disk::reader(path)?;
    // Who wrote in a block is written beside it, so that one function's lines are found without opening all blocks.
    let wanted = match (&query.app, &query.function) {
        (Some(app), Some(function)) => format!("\n{app}/{function}\n"),
        (Some(app), None) => format!("\n{app}/"),
        (None, Some(function)) => format!("/{function}\n"),
        (None, None) => String::new(),
    };
    let sql = "SELECT text_bytes, lines FROM log_block
        WHERE first_number < ?1 AND last_unix_ns >= ?2 AND instr(functions, ?3) > 0 ORDER BY first_number DESC";
    let mut blocks = db.prepare(sql)?;
    let in_range = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    let mut rows = blocks.query(params![in_range(before), in_range(query.since_unix_ns.unwrap_or(0)), wanted])?;
    let mut found = VecDeque::new();
    while let Some(row) = rows.next()? {
        let lines = match read_block(row.get(0)?, row.get_ref(1)?.as_blob().unwrap_or_default()) {
            Ok(lines) => lines,
            Err(error) => {
                tracing::warn!(%error, "a block of log lines is left out");
                continue;
            }
        };
        for line in lines.into_iter().rev() {
            let number = line.n;
            let entry = line.entry();
            if number < before && query.takes(&entry) {
                found.push_front(entry);
            }
            if found.len() >= limit {
                return Ok(found);
            }
        }
    }
    Ok(found)
}

/// Cuts lines into runs of about [`LOG_BLOCK_BYTES`].
fn blocks(lines: &[Arc<Numbered>]) -> impl Iterator<Item = &[Arc<Numbered>]> {
    let mut rest = lines;
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let fits = |line: &Arc<Numbered>| {
            let begins = bytes == 0;
            bytes += line.line.text.len() + line.line.context.len() + 200;
            begins || bytes <= LOG_BLOCK_BYTES
        };
        let length = rest.iter().map(fits).take_while(|fits| *fits).count();
        let (block, tail) = rest.split_at(length);
        rest = tail;
        (!block.is_empty()).then_some(block)
    })
}

/// A block on its way to the disk.
struct Block {
    first_number: u64,
    last_number: u64,
    first_unix_ns: u64,
    last_unix_ns: u64,
    functions: String,
    text_bytes: usize,
    lines: Vec<u8>,
}

impl Block {
    fn of(lines: &[Arc<Numbered>]) -> Result<Self, TelemetryError> {
        let mut text = Vec::with_capacity(LOG_BLOCK_BYTES);
        let mut functions = BTreeSet::new();
        let (mut first_unix_ns, mut last_unix_ns) = (u64::MAX, 0);
        for Numbered { number, line } in lines.iter().map(AsRef::as_ref) {
            let line_on_disk = DiskLine {
                n: *number,
                t: line.time_unix_ns,
                l: line.level,
                a: line.id.app.clone(),
                f: line.id.function.clone(),
                r: line.id.revision,
                q: line.request,
                x: line.trace,
                s: line.source,
                c: line.context.clone(),
                m: line.text.clone(),
            };
            serde_json::to_writer(&mut text, &line_on_disk)
                .map_err(|error| TelemetryError::Damaged(error.to_string()))?;
            text.push(b'\n');
            functions.insert((&line.id.app, &line.id.function));
            // SQLite's integers end in the year 2262; a time past it must not keep the others from being written.
            let time_unix_ns = line.time_unix_ns.min(i64::MAX as u64);
            first_unix_ns = first_unix_ns.min(time_unix_ns);
            last_unix_ns = last_unix_ns.max(time_unix_ns);
        }
        let functions =
            functions.iter().fold("\n".to_owned(), |all, (app, function)| all + &format!("{app}/{function}\n"));
        let compressed =
            zstd::bulk::compress(&text, ZSTD_LEVEL).map_err(|error| TelemetryError::io("compress log lines", error))?;
        let number = |line: Option<&Arc<Numbered>>| line.map_or(0, |line| line.number);
        Ok(Self {
            first_number: number(lines.first()),
            last_number: number(lines.last()),
            first_unix_ns,
            last_unix_ns,
            functions,
            text_bytes: text.len(),
            lines: compressed,
        })
    }

    fn write(&self, db: &Connection, bucket: u64, now_unix_ns: u64) -> Result<(), TelemetryError> {
        // A commit that failed late may have happened after all: then its lines come again, at least as many.
        let sql = "INSERT OR REPLACE INTO log_block (first_number, last_number, bucket, first_unix_ns, last_unix_ns, functions, text_bytes, lines)
            VALUES (?, ?, ?, ?, ?, ?, ?, ?)";
        db.prepare_cached(sql)?.execute(params![
            self.first_number,
            self.last_number,
            bucket,
            self.first_unix_ns,
            self.last_unix_ns,
            self.functions,
            self.text_bytes,
            self.lines
        ])?;
        // About what the row takes besides.
        let bytes = self.lines.len() + self.functions.len() + 64;
        let sql = "UPDATE log_bucket SET bytes = bytes + ?, written_unix_ns = ? WHERE id = ?";
        db.prepare_cached(sql)?.execute(params![bytes, now_unix_ns, bucket])?;
        Ok(())
    }
}

/// The bucket that takes the next block: the last one, or a new one if that is full or old.
fn open_bucket(db: &Connection, first_number: u64, bytes_max: u64, now_unix_ns: u64) -> Result<u64, TelemetryError> {
    let mut query = db.prepare_cached("SELECT id, opened_unix_ns, bytes FROM log_bucket ORDER BY id DESC LIMIT 1")?;
    let last: Option<(u64, u64, u64)> =
        query.query_row([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).optional()?;
    let age_max = u64::try_from(LOG_BUCKET_AGE.as_nanos()).unwrap_or(u64::MAX);
    match last {
        // A clock that was set back makes a bucket look young, which is harmless.
        Some((id, opened, bytes)) if bytes < bytes_max && now_unix_ns.saturating_sub(opened) < age_max => Ok(id),
        _ => {
            let sql = "INSERT INTO log_bucket (id, opened_unix_ns, written_unix_ns, bytes) VALUES (?1, ?2, ?2, 0)";
            db.prepare_cached(sql)?.execute(params![first_number, now_unix_ns])?;
            Ok(first_number)
        }
    }
}

fn read_block(text_bytes: usize, compressed: &[u8]) -> Result<Vec<DiskLine>, TelemetryError> {
    if text_bytes > BLOCK_BYTES_MAX {
        return Err(TelemetryError::Damaged(format!("it says that it has {text_bytes} bytes")));
    }
    let text =
        zstd::bulk::decompress(compressed, text_bytes).map_err(|error| TelemetryError::Damaged(error.to_string()))?;
    let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    lines.map(|line| serde_json::from_slice(line).map_err(|error| TelemetryError::Damaged(error.to_string()))).collect()
}
