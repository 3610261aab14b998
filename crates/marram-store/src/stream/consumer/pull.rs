//! Pulling: what is in memory is handed out; what is not is read off the writer's thread and off the async threads.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use marram_core::Failure;
use marram_core::port::streams::Delivery;

use super::window::Step;
use super::{Cell, Held, settle};
use crate::StoreError;
use crate::limits::{AHEAD_BYTES_MAX, AHEAD_EVENTS_MAX, AHEAD_ROWS_MAX};
use crate::stream::read::{self, Most};

/// How long a pull sleeps at most before it looks at the clock again, which need not be the one by which it sleeps.
const SLEEP_MAX: Duration = Duration::from_secs(60);

/// The right to read for a window. Given back when it is dropped, wherever the read ended.
struct Reading(Arc<Cell>);

impl Drop for Reading {
    fn drop(&mut self) {
        self.0.window().reading = false;
        self.0.wake();
    }
}

impl Held {
    pub(super) async fn next(&self, max: usize) -> Result<Vec<Delivery>, Failure> {
        loop {
            // Registered before looking, so that nothing that changes in between is missed.
            let mut changed = std::pin::pin!(self.cell.changed.notified());
            changed.as_mut().enable();
            if self.parts.hub.closed.load(Ordering::Acquire) {
                return Err(StoreError::Closed.into());
            }
            let now = self.parts.clock.instant();
            let (step, ahead) = self.step(max, now);
            if let Some((after, epoch)) = ahead {
                self.read_ahead(after, epoch);
            }
            match step {
                Step::Deliver(deliveries) => return Ok(deliveries),
                Step::Gone => return Err(self.gone().into()),
                Step::ReadOn { after, epoch } => self.read_on(after, epoch).await?,
                Step::ReadAgain { positions, epoch } => self.read_again(positions, epoch).await?,
                Step::Bury(spent) => self.bury(spent).await?,
                Step::Wait(None) => changed.await,
                Step::Wait(Some(until)) => {
                    let wait = until.saturating_duration_since(now).min(SLEEP_MAX);
                    // Sleeping past the moment by less than the timer's resolution beats waking before it.
                    let _ = tokio::time::timeout(wait + Duration::from_micros(100), changed).await;
                }
            }
        }
    }

    /// A step, in which what was just published comes from memory.
    ///
    /// Together with deliveries, the next read may be due: whoever asks for little at a time must not keep others waiting
    /// that are further on.
    fn step(&self, max: usize, now: std::time::Instant) -> (Step, Option<(u64, u64)>) {
        let mut window = self.cell.window();
        let last = *self.shared.last.borrow();
        while window.wants(last) {
            let after = window.read;
            let Some(tail) = self.shared.tail_after(after, AHEAD_EVENTS_MAX) else { break };
            let through = tail.last().map_or(after, |stored| stored.position);
            let filter = window.policy.filter.clone();
            let taken = tail.into_iter().filter(|stored| super::takes(&filter, &stored.event.subject));
            let epoch = window.epoch;
            window.filled(after, epoch, through, taken);
        }
        let step = window.take(max, now, last);
        let ahead = if matches!(step, Step::Deliver(_)) { window.read_on(last) } else { None };
        (step, ahead)
    }

    async fn read_on(&self, after: u64, epoch: u64) -> Result<(), StoreError> {
        self.read(self.reader(after, epoch)).await
    }

    /// Reads on while the caller does something with what it has. If others are reading, the next pull does it.
    fn read_ahead(&self, after: u64, epoch: u64) {
        let reading = Reading(Arc::clone(&self.cell));
        let Ok(permit) = Arc::clone(&self.parts.hub.reads).try_acquire_owned() else { return };
        let (parts, read) = (Arc::clone(&self.parts), self.reader(after, epoch));
        tokio::task::spawn_blocking(move || {
            let _permit = permit;
            // A failure shows again when the next pull reads here.
            let _ = parts.readers.read(|db| read(db, &reading.0));
        });
    }

    fn reader(
        &self,
        after: u64,
        epoch: u64,
    ) -> impl FnOnce(&rusqlite::Connection, &Cell) -> Result<(), StoreError> + Send + 'static {
        let filter = self.cell.window().policy.filter.clone();
        let id = self.shared.id;
        let most = Most { events: AHEAD_EVENTS_MAX, bytes: AHEAD_BYTES_MAX, rows: AHEAD_ROWS_MAX };
        move |db, cell| {
            let chunk = read::after(db, id, after, &filter, most)?;
            cell.window().filled(after, epoch, chunk.through, chunk.events);
            Ok(())
        }
    }

    async fn read_again(&self, positions: Vec<u64>, epoch: u64) -> Result<(), StoreError> {
        let id = self.shared.id;
        self.read(move |db, cell| {
            let (events, looked) = read::at(db, id, &positions, AHEAD_BYTES_MAX)?;
            cell.window().reloaded(&positions[..looked], epoch, events);
            Ok(())
        })
        .await
    }

    async fn read(
        &self,
        read: impl FnOnce(&rusqlite::Connection, &Cell) -> Result<(), StoreError> + Send + 'static,
    ) -> Result<(), StoreError> {
        let reading = Reading(Arc::clone(&self.cell));
        let permit = Arc::clone(&self.parts.hub.reads).acquire_owned().await.map_err(|_| StoreError::Closed)?;
        let parts = Arc::clone(&self.parts);
        // A caller that goes away does not stop it: what was read is there for the next pull.
        let done = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            parts.readers.read(|db| read(db, &reading.0))
        });
        done.await.map_err(|error| StoreError::Panicked(error.to_string()))?
    }

    /// What was not settled in time, for the last time.
    async fn bury(&self, spent: Vec<(u64, u32)>) -> Result<(), StoreError> {
        struct Burying(Arc<Cell>);
        impl Drop for Burying {
            fn drop(&mut self) {
                self.0.window().burying = false;
                self.0.wake();
            }
        }
        let (shared, cell, now) = (Arc::clone(&self.shared), Arc::clone(&self.cell), self.parts.now());
        let burying = Burying(Arc::clone(&self.cell));
        let reason = "it was not settled in time";
        let prepared = spent.into_iter().map(|(at, attempt)| settle::Prepared::dead(at, attempt, reason)).collect();
        let operation = move |tx: &crate::Tx| {
            settle::settle(tx, &shared, &cell, prepared, now)?;
            // Held until the commit, so that nobody sends them twice.
            tx.after_commit(move || drop(burying));
            Ok(())
        };
        self.parts.writer.write(operation).await
    }
}
