//! `outgoing-value`: what a guest writes, and where it goes. Guests name the object before they write or after; it is there,
//! whole and durable, when `finish` returns, and never if that is not called.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use marram_core::port::blobs::{Finish, ObjectWriter};
use marram_core::{Failure, Kind};
use tokio::sync::Notify;
use tokio_util::task::AbortOnDropHandle;
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamError, StreamResult};

use crate::room::Held;

/// Bytes on their way to the disk.
const WINDOW_BYTES: usize = 512 << 10;
/// Bytes that wait until it is said where they go (`write-data`).
const NOWHERE_BYTES_MAX: usize = 4 << 20;
/// What a value holds at most.
pub(super) const HELD_BYTES: usize = NOWHERE_BYTES_MAX + CHUNK_BYTES;
/// Bytes that a guest may write at once.
const CHUNK_BYTES: usize = 64 << 10;

/// `resource outgoing-value`.
pub(super) struct Outgoing {
    queue: Arc<Queue>,
    task: Option<AbortOnDropHandle<Result<(), Failure>>>,
    _held: Held,
}

#[derive(Default)]
struct Queue {
    inner: Mutex<Inner>,
    /// Something was written, or there will be no more.
    more: Notify,
    /// Something was taken, or nothing will be.
    room: Notify,
}

#[derive(Default)]
struct Inner {
    chunks: VecDeque<Bytes>,
    bytes: usize,
    attached: bool,
    complete: bool,
    failed: Option<Failure>,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes what comes, and gives it its name at the end.
    async fn drain(self: Arc<Self>, writer: Box<dyn ObjectWriter>) -> Result<(), Failure> {
        let drained = self.drain_into(writer).await;
        if let Err(failure) = &drained {
            self.lock().failed = Some(failure.clone());
            self.room.notify_one();
        }
        drained
    }

    async fn drain_into(&self, mut writer: Box<dyn ObjectWriter>) -> Result<(), Failure> {
        loop {
            let more = self.more.notified();
            let (chunk, complete) = {
                let mut inner = self.lock();
                let chunk = inner.chunks.pop_front();
                inner.bytes -= chunk.as_ref().map_or(0, Bytes::len);
                (chunk, inner.complete)
            };
            match chunk {
                Some(chunk) => {
                    self.room.notify_one();
                    writer.write(chunk).await?;
                }
                None if complete => return writer.finish(Finish::default()).await.map(|_| ()),
                None => more.await,
            }
        }
    }
}

impl Outgoing {
    pub(super) fn new(held: Held) -> Self {
        Self { queue: Arc::default(), task: None, _held: held }
    }

    /// Says where it goes.
    pub(super) fn attach(&mut self, writer: Box<dyn ObjectWriter>) -> Result<(), String> {
        if self.task.is_some() {
            return Err("this value is written to an object already: make another".into());
        }
        self.queue.lock().attached = true;
        self.task = Some(AbortOnDropHandle::new(tokio::spawn(Arc::clone(&self.queue).drain(writer))));
        self.queue.room.notify_one();
        Ok(())
    }

    pub(super) fn body(&self) -> Writing {
        Writing(Arc::clone(&self.queue))
    }

    /// It is complete: waits until the object is durable.
    pub(super) async fn finish(mut self) -> Result<(), Failure> {
        let Some(task) = self.task.take() else {
            let message = "the value was not written to an object: call `write-data` before `finish`";
            return Err(Failure::new(Kind::Invalid, message));
        };
        self.queue.lock().complete = true;
        self.queue.more.notify_one();
        let ended = task.await;
        ended.unwrap_or_else(|error| {
            Err(Failure::new(Kind::Internal, "writing the object was broken off").because(error))
        })
    }
}

/// The guest's end.
pub(super) struct Writing(Arc<Queue>);

impl Writing {
    /// How much may be written now; none if that has to be waited for.
    fn room(&self) -> Result<usize, StreamError> {
        let inner = self.0.lock();
        if let Some(failure) = &inner.failed {
            return Err(failed(failure.message()));
        }
        match inner.attached {
            true if inner.bytes >= WINDOW_BYTES => Ok(0),
            false if inner.bytes >= NOWHERE_BYTES_MAX => {
                Err(failed("more than 4 MiB before it was said where they go: call `write-data` first"))
            }
            _ => Ok(CHUNK_BYTES),
        }
    }
}

fn failed(message: &str) -> StreamError {
    StreamError::LastOperationFailed(wasmtime::Error::msg(message.to_owned()))
}

#[wasmtime_wasi::async_trait]
impl Pollable for Writing {
    async fn ready(&mut self) {
        while matches!(self.room(), Ok(0)) {
            self.0.room.notified().await;
        }
    }
}

#[wasmtime_wasi::async_trait]
impl OutputStream for Writing {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        if bytes.len() > self.room()? {
            return Err(StreamError::trap("more was written than there is room for"));
        }
        let mut inner = self.0.lock();
        inner.bytes += bytes.len();
        inner.chunks.push_back(bytes);
        drop(inner);
        self.0.more.notify_one();
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        self.room()
    }
}
