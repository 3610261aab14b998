//! A content on its way to the disk: hashed and written on blocking threads, a chunk at a time, while the next one comes.

use std::sync::Arc;

use bytes::Bytes;
use md5::{Digest as _, Md5};
use tokio::task::JoinHandle;

use crate::limits::OBJECT_CHUNK_BYTES;
use crate::{BlobPin, BlobUpload, Blobs, StoreError};

/// A content that is being taken in. Dropping it throws it away.
pub(super) struct Intake {
    state: State,
    pending: Vec<Bytes>,
    pending_bytes: usize,
}

/// A content that is on the disk under its digest, for as long as the pin lives.
pub(super) struct Taken {
    pub(super) pin: BlobPin,
    pub(super) size: u64,
    pub(super) md5: [u8; 16],
}

enum State {
    Idle(Box<Sink>),
    Busy(JoinHandle<Result<Box<Sink>, StoreError>>),
    Failed(StoreError),
}

struct Sink {
    upload: BlobUpload,
    md5: Md5,
    size: u64,
}

impl Intake {
    pub(super) async fn begin(blobs: Arc<Blobs>, bytes_max: u64) -> Result<Self, StoreError> {
        let begun = tokio::task::spawn_blocking(move || blobs.upload(bytes_max));
        let upload = begun.await.map_err(|_| StoreError::Closed)??;
        let sink = Box::new(Sink { upload, md5: Md5::new(), size: 0 });
        Ok(Self { state: State::Idle(sink), pending: Vec::new(), pending_bytes: 0 })
    }

    /// Adds bytes. Of small chunks several are written at once.
    pub(super) async fn write(&mut self, chunk: Bytes) -> Result<(), StoreError> {
        self.pending_bytes += chunk.len();
        self.pending.push(chunk);
        if self.pending_bytes >= OBJECT_CHUNK_BYTES || self.pending.len() >= PENDING_CHUNKS_MAX {
            self.flush().await?;
        }
        Ok(())
    }

    /// Makes the content durable; it has a name by its digest then, and nothing refers to it but the pin.
    pub(super) async fn finish(mut self, md5: Option<[u8; 16]>) -> Result<Taken, StoreError> {
        self.flush().await?;
        self.settle().await?;
        let State::Idle(sink) = self.state else { return Err(StoreError::Closed) };
        let done = tokio::task::spawn_blocking(move || {
            let found: [u8; 16] = sink.md5.finalize().into();
            if md5.is_some_and(|md5| md5 != found) {
                return Err(StoreError::WrongMd5);
            }
            Ok(Taken { pin: sink.upload.finish(None)?, size: sink.size, md5: found })
        });
        done.await.map_err(|_| StoreError::Closed)?
    }

    /// Hands on what is pending, once what was handed on before is written.
    async fn flush(&mut self) -> Result<(), StoreError> {
        self.settle().await?;
        let chunks = std::mem::take(&mut self.pending);
        self.pending_bytes = 0;
        let State::Idle(mut sink) = std::mem::replace(&mut self.state, State::Failed(StoreError::Closed)) else {
            return Err(StoreError::Closed);
        };
        self.state = State::Busy(tokio::task::spawn_blocking(move || {
            for chunk in chunks {
                sink.md5.update(&chunk);
                sink.size += chunk.len() as u64;
                sink.upload.write(&chunk)?;
            }
            Ok(sink)
        }));
        Ok(())
    }

    /// Waits until nothing is being written. A caller that gives up while it waits may call again.
    async fn settle(&mut self) -> Result<(), StoreError> {
        if let State::Busy(running) = &mut self.state {
            let written = running.await.unwrap_or(Err(StoreError::Closed));
            self.state = written.map_or_else(State::Failed, State::Idle);
        }
        match &self.state {
            State::Failed(error) => Err(error.clone()),
            _ => Ok(()),
        }
    }
}

/// Chunks that wait to be written, however small they are.
const PENDING_CHUNKS_MAX: usize = 1_024;

/// An MD5 digest as an etag has it.
pub(super) fn hex(md5: [u8; 16]) -> String {
    format!("{:032x}", u128::from_be_bytes(md5))
}

/// The reverse of [`hex`].
pub(super) fn from_hex(etag: &str) -> Option<[u8; 16]> {
    let plain = etag.len() == 32 && etag.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    plain.then(|| u128::from_str_radix(etag, 16).ok()).flatten().map(u128::to_be_bytes)
}
