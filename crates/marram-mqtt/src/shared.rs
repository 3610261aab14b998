//! What every connection refers to.

use std::collections::HashSet;
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
    /// Client identifiers of this node's own bridges: nobody else can be that, whatever it shows.
    pub(crate) own: RwLock<HashSet<String>>,
}

impl Shared {
    pub(crate) fn access(&self) -> Arc<Access> {
        self.access.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn is_own(&self, client: &str) -> bool {
        self.own.read().unwrap_or_else(PoisonError::into_inner).contains(client)
    }
}
