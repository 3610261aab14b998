//! Objects that a script writes piece by piece. They belong to one run: what it has not finished is thrown away with it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use marram_core::port::blobs::ObjectWriter;
use marram_core::{Failure, Kind};

/// How many a run may have open: each is a file and a thread that hashes.
const UPLOADS_MAX: usize = 16;

/// Those of one run. Most runs have none, so it is made when the first begins.
#[derive(Default)]
pub(crate) struct Uploads(OnceLock<Arc<Open>>);

/// Those that have begun, by number.
#[derive(Default)]
pub(crate) struct Open(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    last: u32,
    /// `None` while a call has it.
    writers: BTreeMap<u32, Option<Box<dyn ObjectWriter>>>,
}

impl Uploads {
    pub(crate) fn open(&self) -> Arc<Open> {
        Arc::clone(self.0.get_or_init(Arc::default))
    }
}

impl Open {
    /// Takes a place for one more.
    pub(crate) fn begin(&self) -> Result<u32, Failure> {
        let mut inner = self.lock();
        if inner.writers.len() >= UPLOADS_MAX {
            let message = format!("more than {UPLOADS_MAX} objects are being written at once: finish some first");
            return Err(Failure::new(Kind::ResourceLimit, message));
        }
        inner.last += 1;
        let number = inner.last;
        inner.writers.insert(number, None);
        Ok(number)
    }

    /// Takes a writer out, for one call.
    pub(crate) fn take(&self, number: u32) -> Result<Box<dyn ObjectWriter>, Failure> {
        let taken = self.lock().writers.get_mut(&number).and_then(Option::take);
        taken.ok_or_else(|| Failure::new(Kind::Invalid, "this object is not being written, or another call writes it"))
    }

    /// Puts it back, or in.
    pub(crate) fn put(&self, number: u32, writer: Box<dyn ObjectWriter>) {
        if let Some(place) = self.lock().writers.get_mut(&number) {
            *place = Some(writer);
        }
    }

    /// Gives the place up, with the writer if it is there.
    pub(crate) fn end(&self, number: u32) {
        let ended = self.lock().writers.remove(&number);
        // What it has written goes without the lock.
        drop(ended);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
