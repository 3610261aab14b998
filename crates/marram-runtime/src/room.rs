//! What the host holds in memory on behalf of an instance: messages that a guest has made, pages of names, objects on their way.
//! The instance's own memory has its limit; without this one, ten thousand handles would be a way around it.

use std::sync::{Arc, OnceLock};

use marram_core::limits::HELD_BYTES_MAX;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::trap::LimitError;

/// The room of one instance. Most never use it, so it is made when it is first asked for.
#[derive(Default)]
pub(crate) struct Room(OnceLock<Arc<Semaphore>>);

/// Bytes that are held, until this is dropped.
pub(crate) type Held = OwnedSemaphorePermit;

impl Room {
    /// Takes room for so many bytes; past the limit the guest is stopped.
    pub(crate) fn take(&self, bytes: usize) -> wasmtime::Result<Held> {
        let room = self.0.get_or_init(|| Arc::new(Semaphore::new(HELD_BYTES_MAX)));
        let bytes = u32::try_from(bytes).map_err(|_| LimitError::Held)?;
        Ok(Arc::clone(room).try_acquire_many_owned(bytes).map_err(|_| LimitError::Held)?)
    }
}
