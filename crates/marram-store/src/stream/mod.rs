//! Durable streams of events: what is published is on the disk before anybody is told, and stays until it is settled or, where
//! its stream says so, too old.
//!
//! All changes are operations of the one writer. Others that store something and capture it as an event call [`append`] within
//! their own operation: the two are then durable together or not at all.

mod append;
mod capture;
mod consumer;
mod encode;
mod hub;
mod key;
mod ledger;
mod maintain;
mod policy;
mod port;
mod read;
mod redrive;
mod room;
mod seen;
mod trust;

use std::sync::{Arc, Mutex};
use std::time::Instant;

use marram_core::port::{Clock, Entropy};

use crate::read::Readers;
use crate::{Store, Writer};

#[allow(unused_imports, reason = "for keys, MQTT and objects, which capture")]
pub(crate) use append::{append, append_all};
pub use capture::Captures;
#[allow(unused_imports, reason = "for keys, MQTT and objects, which capture")]
pub(crate) use encode::Encoded;
pub(crate) use hub::Hub;
pub(crate) use ledger::Ledger;
pub use maintain::Maintained;
pub use port::StoreStreams;
pub use room::Fullness;

/// What the streams are made of, beside the database.
pub(crate) struct Parts {
    writer: Arc<Writer>,
    readers: Arc<Readers>,
    hub: Arc<Hub>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    trust: Mutex<trust::Trust>,
}

impl std::fmt::Debug for Parts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Parts")
    }
}

impl Parts {
    fn now(&self) -> (Instant, u64) {
        (self.clock.instant(), self.clock.unix_ns())
    }
}

impl Store {
    /// The streams of this store, by this clock. Call it once, and [`StoreStreams::maintain`] every second or so.
    #[must_use]
    pub fn streams(&self, clock: Arc<dyn Clock>, entropy: Arc<dyn Entropy>) -> Arc<StoreStreams> {
        let (writer, readers, hub) = (Arc::clone(&self.writer), Arc::clone(&self.readers), Arc::clone(&self.hub));
        let trust = Mutex::default();
        Arc::new(StoreStreams::new(Arc::new(Parts { writer, readers, hub, clock, entropy, trust })))
    }
}

#[cfg(test)]
mod tests;
