//! What the MQTT broker keeps: the port [`MqttJournal`] on this store.
//!
//! A commit of the broker is one operation of the writer. Within it each change is made wholly or not at all: a message whose
//! stream is full leaves nothing behind, and the others of its commit are kept.

mod encode;
mod read;
pub(crate) mod schema;
#[cfg(test)]
mod tests;
mod write;

use std::sync::Arc;

use futures::future::BoxFuture;
use marram_core::Failure;
use marram_core::capture::Source;
use marram_core::port::Clock;
use marram_core::port::mqtt::{Change, ClientId, Loaded, MqttJournal, Queued, Refused};
use rusqlite::Connection;

use crate::limits::MQTT_NEAR_CHANGES_MAX;
use crate::read::Readers;
use crate::stream::Hub;
use crate::writer::Effect;
use crate::{Store, StoreError, Tx, Writer};
use write::Ready;

/// The broker's journal in the node's database ([`Store::mqtt`]).
pub struct StoreMqtt {
    writer: Arc<Writer>,
    readers: Arc<Readers>,
    hub: Arc<Hub>,
    clock: Arc<dyn Clock>,
}

impl std::fmt::Debug for StoreMqtt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("StoreMqtt")
    }
}

impl Store {
    /// The journal of this store's MQTT broker, by this clock.
    #[must_use]
    pub fn mqtt(&self, clock: Arc<dyn Clock>) -> Arc<StoreMqtt> {
        let (writer, readers, hub) = (Arc::clone(&self.writer), Arc::clone(&self.readers), Arc::clone(&self.hub));
        Arc::new(StoreMqtt { writer, readers, hub, clock })
    }
}

impl StoreMqtt {
    fn query<T: Send + 'static>(
        &self,
        query: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> BoxFuture<'static, Result<T, Failure>> {
        let readers = Arc::clone(&self.readers);
        Box::pin(async move {
            let read = tokio::task::spawn_blocking(move || readers.read(query));
            read.await.map_err(|_| StoreError::Closed)?.map_err(Failure::from)
        })
    }
}

impl MqttJournal for StoreMqtt {
    fn captured(&self, topic: &str) -> bool {
        self.hub.captures().streams(Source::Mqtt, topic).next().is_some()
    }

    fn load(&self) -> BoxFuture<'static, Result<Loaded, Failure>> {
        self.query(read::everything)
    }

    fn commit(&self, changes: Vec<Change>) -> BoxFuture<'static, Result<Vec<Refused>, Failure>> {
        let adds =
            |change: &Change| matches!(change, Change::Publish(_) | Change::Session { .. } | Change::Subscribe(..));
        let effect = if changes.iter().any(adds) { Effect::Adds } else { Effect::Frees };
        let is_small = changes.len() <= MQTT_NEAR_CHANGES_MAX;
        // Checked and encoded here, on the caller's thread: the writer only writes.
        let ready: Vec<_> = changes.into_iter().map(Ready::new).collect();
        let (writer, captures, now) = (Arc::clone(&self.writer), self.hub.captures(), self.clock.unix_ns());
        Box::pin(async move {
            let operation = move |tx: &Tx| {
                let mut refused = Vec::new();
                for (index, ready) in ready.iter().enumerate() {
                    if let Err(error) = write::make(tx, ready, &captures, now)? {
                        refused.push((index, error));
                    }
                }
                Ok(refused)
            };
            let refused = async {
                if is_small {
                    writer.write_near(effect, operation).await
                } else {
                    writer.write_as(effect, operation).await
                }
            };
            // Unconstrained: a task that has used up its turn would otherwise let a later commit go first.
            let refused = tokio::task::unconstrained(refused).await?;
            Ok(refused.into_iter().map(|(index, error)| Refused { index, failure: error.into() }).collect())
        })
    }

    fn read(&self, client: &ClientId, after: u64, max: usize) -> BoxFuture<'static, Result<Vec<Queued>, Failure>> {
        let client = ClientId::clone(client);
        self.query(move |db| read::queue(db, &client, after, max))
    }
}
