//! `incoming-value`: the bytes of an object, or a part of them, all at once or as a stream.

use std::ops::Range;

use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use marram_core::Failure;
use marram_core::port::blobs::Opened;
use wasmtime_wasi::p2::{InputStream, Pollable, StreamError, StreamResult};

use crate::room::Held;

/// The most that is read at once (`incoming-value-consume-sync`): the host holds it until the guest has it.
const SYNC_BYTES_MAX: u64 = 16 << 20;
/// What a stream holds at most: one chunk.
pub(super) const CHUNK_BYTES_MAX: usize = 256 << 10;

/// `resource incoming-value`.
pub(super) struct Incoming {
    pub(super) opened: Opened,
    pub(super) range: Range<u64>,
    pub(super) held: Held,
}

impl Incoming {
    pub(super) fn size(&self) -> u64 {
        self.range.end - self.range.start
    }

    /// All of it.
    pub(super) async fn whole(self) -> Result<Vec<u8>, String> {
        let size = self.size();
        if size > SYNC_BYTES_MAX {
            let message = "more than 16 MiB at once: read it as a stream (`incoming-value-consume-async`), or in parts";
            return Err(message.into());
        }
        let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or(0));
        let mut chunks = self.opened.content.read(self.range);
        while let Some(chunk) = chunks.next().await {
            bytes.extend_from_slice(&chunk.map_err(|failure| failure.message().to_owned())?);
        }
        Ok(bytes)
    }

    /// As a stream.
    pub(super) fn stream(self) -> Reading {
        Reading { chunks: self.opened.content.read(self.range), next: Bytes::new(), ended: None, _held: self.held }
    }
}

/// An object on its way to the guest, a chunk at a time.
pub(super) struct Reading {
    chunks: BoxStream<'static, Result<Bytes, Failure>>,
    next: Bytes,
    /// There is no more, or it broke off.
    ended: Option<Option<Failure>>,
    _held: Held,
}

#[wasmtime_wasi::async_trait]
impl Pollable for Reading {
    async fn ready(&mut self) {
        while self.next.is_empty() && self.ended.is_none() {
            match self.chunks.next().await {
                Some(Ok(chunk)) => self.next = chunk,
                Some(Err(failure)) => self.ended = Some(Some(failure)),
                None => self.ended = Some(None),
            }
        }
    }
}

#[wasmtime_wasi::async_trait]
impl InputStream for Reading {
    fn read(&mut self, size: usize) -> StreamResult<Bytes> {
        if !self.next.is_empty() {
            return Ok(self.next.split_to(size.min(self.next.len())));
        }
        match &mut self.ended {
            None => Ok(Bytes::new()),
            Some(failure) => match failure.take() {
                Some(failure) => Err(StreamError::LastOperationFailed(wasmtime::Error::msg(failure.to_string()))),
                None => Err(StreamError::Closed),
            },
        }
    }
}
