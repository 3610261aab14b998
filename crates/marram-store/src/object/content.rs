//! Reading a content: chunk by chunk from its files, on blocking threads.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use marram_core::Failure;
use marram_core::port::blobs::Content;

use super::row::Segment;
use crate::limits::OBJECT_CHUNK_BYTES;
use crate::{BlobPin, Blobs, StoreError};

/// Blobs that are a content, kept from being collected.
pub(super) struct Kept {
    pub(super) blobs: Arc<Blobs>,
    pub(super) segments: Vec<Segment>,
    pub(super) _pins: Vec<BlobPin>,
}

pub(super) struct Pinned(pub(super) Arc<Kept>);

/// Where a reader is.
struct Cursor {
    kept: Arc<Kept>,
    /// The segment, and how far into it.
    place: usize,
    offset: u64,
    left: u64,
    file: Option<File>,
}

impl Content for Pinned {
    fn read(&self, range: Range<u64>) -> BoxStream<'static, Result<Bytes, Failure>> {
        let (mut place, mut offset) = (0, range.start);
        while let Some((_, size)) = self.0.segments.get(place).filter(|(_, size)| *size <= offset) {
            (place, offset) = (place + 1, offset - size);
        }
        let left = range.end.saturating_sub(range.start);
        let cursor = Cursor { kept: Arc::clone(&self.0), place, offset, left, file: None };
        futures::stream::unfold(Some(cursor), async |cursor| {
            let cursor = cursor?;
            let next = tokio::task::spawn_blocking(move || cursor.next());
            match next.await.unwrap_or(Err(StoreError::Closed)) {
                Ok(next) => next.map(|(bytes, cursor)| (Ok(bytes), Some(cursor))),
                Err(error) => Some((Err(error.into()), None)),
            }
        })
        .boxed()
    }
}

impl Cursor {
    fn next(mut self) -> Result<Option<(Bytes, Self)>, StoreError> {
        let Some(&(digest, size)) = self.kept.segments.get(self.place).filter(|_| self.left > 0) else {
            return Ok(None);
        };
        let file = match self.file.take() {
            Some(file) => file,
            None => self.kept.blobs.open_file(&digest)?,
        };
        let length = self.left.min(size - self.offset).min(OBJECT_CHUNK_BYTES as u64);
        let mut chunk = vec![0; usize::try_from(length).unwrap_or(OBJECT_CHUNK_BYTES)];
        let read = file.read_exact_at(&mut chunk, self.offset);
        read.map_err(|error| StoreError::io("read", &self.kept.blobs.path(&digest), error))?;
        self.left -= length;
        self.offset += length;
        if self.offset == size {
            self.offset = 0;
            self.place += 1;
            // An empty segment has nothing to read.
            while self.kept.segments.get(self.place).is_some_and(|(_, size)| *size == 0) {
                self.place += 1;
            }
        } else {
            self.file = Some(file);
        }
        Ok(Some((chunk.into(), self)))
    }
}
