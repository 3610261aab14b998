//! Objects: names for blobs, in buckets. The ports [`Blobs`](marram_core::port::Blobs) and
//! [`Multipart`](marram_core::port::blobs::Multipart).
//!
//! The bytes of an object are a blob, or several when it came in parts; its row refers to them by digest. A row is committed
//! once the file, its name and its folder are on the disk, and the blob is pinned until that commit. So a crash leaves blobs
//! that nothing refers to, which are collected, and never a row without its blob.

mod content;
mod encode;
mod event;
mod intake;
mod multipart;
mod parts;
mod port;
mod row;
pub(crate) mod schema;
mod write;

use std::sync::Arc;

use marram_core::Name;
use marram_core::limits::OBJECT_UPLOAD_KEPT;
use marram_core::port::Clock;
use marram_core::port::blobs::{Object, Opened};
use rusqlite::Connection;

use crate::limits::OBJECT_UPLOADS_SWEPT_MAX;
use crate::read::Readers;
use crate::stream::Hub;
use crate::writer::{Tx, Writer};
use crate::{Blobs, Store, StoreError};

use write::At;

/// The objects of a node ([`Store::objects`]).
#[derive(Clone)]
pub struct Objects {
    blobs: Arc<Blobs>,
    writer: Arc<Writer>,
    readers: Arc<Readers>,
    hub: Arc<Hub>,
    clock: Arc<dyn Clock>,
}

impl std::fmt::Debug for Objects {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Objects")
    }
}

impl Store {
    /// The objects of this store, by this clock.
    #[must_use]
    pub fn objects(&self, clock: Arc<dyn Clock>) -> Objects {
        Objects {
            blobs: Arc::clone(&self.blobs),
            writer: Arc::clone(&self.writer),
            readers: Arc::clone(&self.readers),
            hub: Arc::clone(&self.hub),
            clock,
        }
    }
}

impl Objects {
    /// One step of maintenance, of a bounded size: aborts uploads in parts that nothing has happened to for
    /// [`OBJECT_UPLOAD_KEPT`]. Says how many; there may be more unless it was none. Their blobs are left to
    /// [`Store::collect_blobs`].
    pub async fn maintain(&self) -> Result<usize, StoreError> {
        let kept = u64::try_from(OBJECT_UPLOAD_KEPT.as_nanos()).unwrap_or(u64::MAX);
        let before = self.clock.unix_ns().saturating_sub(kept);
        self.writer.free(move |tx| parts::sweep(tx, before, OBJECT_UPLOADS_SWEPT_MAX)).await
    }

    async fn query<T: Send + 'static>(
        &self,
        query: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let readers = Arc::clone(&self.readers);
        let read = tokio::task::spawn_blocking(move || readers.read(query));
        read.await.map_err(|_| StoreError::Closed)?
    }

    async fn write<T: Send + 'static>(
        &self,
        operation: impl FnOnce(&At<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (hub, now_unix_ns) = (Arc::clone(&self.hub), self.clock.unix_ns());
        self.writer.write(move |tx: &Tx| operation(&At { tx, hub: &hub, now_unix_ns })).await
    }

    /// [`Objects::write`] for what takes something away.
    async fn free<T: Send + 'static>(
        &self,
        operation: impl FnOnce(&At<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (hub, now_unix_ns) = (Arc::clone(&self.hub), self.clock.unix_ns());
        self.writer.free(move |tx: &Tx| operation(&At { tx, hub: &hub, now_unix_ns })).await
    }

    async fn find(&self, bucket: Name, name: String) -> Result<Option<Object>, StoreError> {
        self.query(move |db| {
            row::need_bucket(db, &bucket)?;
            row::find(db, &bucket, &name)
        })
        .await
    }

    /// Pins the blobs between two looks at the row: if it is still there at the second one, nobody can have collected them.
    async fn open(&self, bucket: Name, name: String) -> Result<Option<Opened>, StoreError> {
        let (blobs, readers) = (Arc::clone(&self.blobs), Arc::clone(&self.readers));
        let opened = tokio::task::spawn_blocking(move || {
            loop {
                let found = readers.read(|db| {
                    row::need_bucket(db, &bucket)?;
                    let found = row::find(db, &bucket, &name)?;
                    found.map(|object| Ok((row::segments(db, &object)?, object))).transpose()
                })?;
                let Some((segments, object)) = found else { return Ok(None) };
                let pins = blobs.pin_referenced(segments.iter().map(|(digest, _)| *digest));
                let again = readers.read(|db| row::find(db, &bucket, &name))?;
                if again.is_some_and(|again| again.version == object.version) {
                    let kept = content::Kept { blobs, segments, _pins: pins };
                    return Ok(Some(Opened { object, content: Arc::new(content::Pinned(Arc::new(kept))) }));
                }
            }
        });
        opened.await.map_err(|_| StoreError::Closed)?
    }
}
