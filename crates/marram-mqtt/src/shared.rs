//! What every connection refers to.

use std::sync::{Arc, PoisonError, RwLock};

use marram_core::port::Clock;
use tokio::sync::{Semaphore, mpsc};

use crate::access::Access;
use crate::engine::Input;
use crate::limits::Limits;
use crate::stats::Stats;

pub(crate) struct Shared {
    pub(crate) limits: Limits,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) stats: Arc<Stats>,
    pub(crate) engine: mpsc::Sender<Input>,
    /// Room for large partial packets, in KiB.
    pub(crate) partial: Arc<Semaphore>,
    pub(crate) access: RwLock<Arc<Access>>,
}

impl Shared {
    pub(crate) fn access(&self) -> Arc<Access> {
        self.access.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
