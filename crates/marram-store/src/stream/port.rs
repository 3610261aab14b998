//! The port `Streams` on the store.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures::future::BoxFuture;
use marram_core::Failure;
use marram_core::event::{Event, SubjectFilter};
use marram_core::limits::EVENTS_PER_PUBLISH_MAX;
use marram_core::port::streams::{Published, Stored, StreamState};
use marram_core::port::{Consumer, Streams};
use marram_core::stream::{ConsumerId, ConsumerPolicy, Start, StreamName, StreamPolicy};
use rusqlite::params;

use super::consumer::{self, Held};
use super::encode::Encoded;
use super::hub::Shared;
use super::read::{self, Most};
use super::{Parts, append, policy};
use crate::limits::READ_BYTES_MAX;
use crate::{StoreError, Tx};

/// The streams of a node, in its database ([`crate::Store::streams`]).
#[derive(Debug)]
pub struct StoreStreams {
    pub(super) parts: Arc<Parts>,
}

impl StoreStreams {
    pub(super) fn new(parts: Arc<Parts>) -> Self {
        Self { parts }
    }

    fn find(&self, stream: &StreamName) -> Result<Arc<Shared>, StoreError> {
        self.parts.hub.stream(stream).ok_or_else(|| StoreError::NoStream(stream.clone()))
    }

    /// Writes to a stream, by an operation that may be undone.
    async fn write<T: Send + 'static>(
        &self,
        operation: impl FnOnce(&Tx) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, Failure> {
        Ok(self.parts.writer.write(operation).await?)
    }

    async fn publish_all(&self, stream: StreamName, events: Vec<Event>) -> Result<Vec<Published>, Failure> {
        if events.len() > EVENTS_PER_PUBLISH_MAX {
            let message = format!("{} events are more than the {EVENTS_PER_PUBLISH_MAX} of one publish", events.len());
            return Err(StoreError::Invalid(message).into());
        }
        if events.is_empty() {
            return Ok(Vec::new());
        }
        // Checked and encoded here, on the caller's thread: the writer only writes.
        let events = events.into_iter().map(Encoded::new).collect::<Result<Vec<_>, _>>()?;
        let now = self.parts.clock.unix_ns();
        let name = stream.clone();
        let ticket = self.parts.writer.write_here(move |tx| append::append_all(tx, &stream, &events, now))?;
        let published = ticket.await;
        if let Err(StoreError::Full) = published
            && let Some(shared) = self.parts.hub.stream(&name)
        {
            shared.rejected.fetch_add(1, Ordering::Relaxed);
        }
        Ok(published?)
    }

    async fn wait_past(&self, stream: StreamName, position: u64) -> Result<(), Failure> {
        let hub = &self.parts.hub;
        let mut changed = hub.changed.subscribe();
        loop {
            changed.borrow_and_update();
            if hub.closed.load(Ordering::Acquire) {
                return Err(StoreError::Closed.into());
            }
            let Some(shared) = hub.stream(&stream) else {
                changed.changed().await.map_err(|_| StoreError::Closed)?;
                continue;
            };
            let mut last = shared.last.subscribe();
            if *last.borrow_and_update() > position {
                return Ok(());
            }
            // The stream may be removed, and made again, while somebody waits.
            tokio::select! {
                _ = last.changed() => {}
                _ = changed.changed() => {}
            }
        }
    }
}

impl Streams for StoreStreams {
    fn declare(&self, stream: &StreamName, policy: StreamPolicy) -> BoxFuture<'_, Result<(), Failure>> {
        // Looked at first: a full disk takes no write, also not one that changes nothing.
        if self.parts.hub.stream(stream).is_some_and(|shared| shared.committed().1 == policy) {
            return Box::pin(std::future::ready(Ok(())));
        }
        let stream = stream.clone();
        Box::pin(self.write(move |tx| {
            let mut ledger = tx.ledger();
            let head = ledger.find_or_make(tx, &stream, policy)?;
            if head.policy == policy {
                return Ok(());
            }
            let id = head.shared.id;
            let sql = "UPDATE stream SET bytes_max = ?2, age_ns = ?3, overflow = ?4, dedupe_ns = ?5 WHERE id = ?1";
            let [bytes_max, age, overflow, dedupe] = policy::stream_columns(&policy);
            tx.prepare_cached(sql)?.execute(params![id, bytes_max, age, overflow, dedupe])?;
            ledger.touch(id).policy = policy;
            Ok(())
        }))
    }

    fn publish(&self, stream: &StreamName, events: Vec<Event>) -> BoxFuture<'_, Result<Vec<Published>, Failure>> {
        Box::pin(self.publish_all(stream.clone(), events))
    }

    fn read(&self, stream: &StreamName, from: Start, max: usize) -> Result<Vec<Stored>, Failure> {
        let shared = self.find(stream)?;
        let chunk = self.parts.readers.read(|db| {
            let (counters, _) = shared.committed();
            let from = read::position_of(db, shared.id, &counters, from)?;
            let most = Most { events: max, bytes: READ_BYTES_MAX, rows: max };
            read::after(db, shared.id, from - 1, &SubjectFilter::All, most)
        })?;
        Ok(chunk.events)
    }

    fn wait(&self, stream: &StreamName, position: u64) -> BoxFuture<'_, Result<(), Failure>> {
        Box::pin(self.wait_past(stream.clone(), position))
    }

    fn consumer(
        &self,
        stream: &StreamName,
        id: &ConsumerId,
        policy: ConsumerPolicy,
    ) -> BoxFuture<'_, Result<Arc<dyn Consumer>, Failure>> {
        let (stream, id) = (stream.clone(), id.clone());
        Box::pin(async move {
            let there = self.parts.hub.stream(&stream);
            let there = there.and_then(|shared| Some((consumer::as_it_is(&shared, &id, &policy)?, shared)));
            let (shared, cell) = match there {
                Some((cell, shared)) => (shared, cell),
                None => self.write(move |tx| consumer::take_up(tx, &stream, &id, policy)).await?,
            };
            Ok(Arc::new(Held::new(shared, cell, Arc::clone(&self.parts))) as Arc<dyn Consumer>)
        })
    }

    fn find_consumer(&self, stream: &StreamName, id: &ConsumerId) -> Option<Arc<dyn Consumer>> {
        let shared = self.parts.hub.stream(stream)?;
        let cell = shared.cell(id)?;
        Some(Arc::new(Held::new(shared, cell, Arc::clone(&self.parts))))
    }

    fn redrive(&self, stream: &StreamName) -> BoxFuture<'_, Result<u64, Failure>> {
        Box::pin(self.redrive_all(stream.clone()))
    }

    fn remove_consumer(&self, stream: &StreamName, id: &ConsumerId) -> BoxFuture<'_, Result<(), Failure>> {
        let (stream, id) = (stream.clone(), id.clone());
        Box::pin(async move { Ok(self.parts.writer.free(move |tx| consumer::remove(tx, &stream, &id)).await?) })
    }

    /// The name is free at once; the events go with the next calls of [`StoreStreams::maintain`].
    fn remove(&self, stream: &StreamName) -> BoxFuture<'_, Result<(), Failure>> {
        let stream = stream.clone();
        let operation = move |tx: &Tx| {
            let id = tx.ledger().take_away(&stream).ok_or_else(|| StoreError::NoStream(stream))?;
            tx.prepare_cached("DELETE FROM consumer WHERE stream = ?")?.execute([id])?;
            tx.prepare_cached("UPDATE stream SET name = NULL WHERE id = ?")?.execute([id])?;
            Ok(())
        };
        Box::pin(async move { Ok(self.parts.writer.free(operation).await?) })
    }

    fn list(&self) -> Result<Vec<StreamState>, Failure> {
        let state = |shared: Arc<Shared>| {
            let (counters, policy) = shared.committed();
            StreamState {
                name: shared.name.clone(),
                policy,
                first: counters.first,
                last: counters.last,
                events: counters.events,
                bytes: counters.bytes,
                dropped: counters.dropped,
                rejected: shared.rejected.load(Ordering::Relaxed),
                duplicates: shared.duplicates.load(Ordering::Relaxed),
                consumers: shared.cells().iter().filter_map(|cell| cell.state()).collect(),
            }
        };
        Ok(self.parts.hub.streams().into_iter().map(state).collect())
    }
}
