//! Durable streams through their port, by theme.
#![allow(clippy::unwrap_used)]

#[path = "../store/support/mod.rs"]
mod support;

mod clock;
mod consumers;
mod dead_letter;
mod limits;
mod model;
mod order;
mod publish;
mod redrive;
mod replay;

use std::sync::Arc;
use std::time::Duration;

use marram_core::event::Event;
use marram_core::port::streams::{ConsumerState, Delivery, Settle, Settlement, StreamState};
use marram_core::port::{Consumer, Streams as _};
use marram_core::stream::{ConsumerPolicy, Start};
use marram_store::{Store, StoreConfig, StoreStreams};
use support::{NoEntropy, TestClock, consumer_id, event, stream};

/// A node's streams, on a clock that stands still.
pub(crate) struct Node {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) clock: Arc<TestClock>,
    pub(crate) store: Store,
    pub(crate) streams: Arc<StoreStreams>,
}

impl Node {
    pub(crate) fn new() -> Self {
        Self::new_in(tempfile::tempdir().unwrap())
    }

    pub(crate) fn new_in(dir: tempfile::TempDir) -> Self {
        let clock = TestClock::new();
        let store = Store::open(&StoreConfig::new(dir.path())).unwrap();
        let streams = store.streams(clock.clone(), Arc::new(NoEntropy));
        Self { dir, clock, store, streams }
    }

    /// Closes the store, and opens what is on the disk.
    pub(crate) fn reopen(self) -> Self {
        let Self { dir, clock, store, streams } = self;
        drop((store, streams));
        let store = Store::open(&StoreConfig::new(dir.path())).unwrap();
        let streams = store.streams(clock.clone(), Arc::new(NoEntropy));
        Self { dir, clock, store, streams }
    }

    /// Publishes an event of each subject to the stream `s`; ids count up.
    pub(crate) async fn publish(&self, subjects: &[&str]) -> Vec<u64> {
        let last = self.state("s").map_or(0, |state| state.last);
        let events = (last + 1..).zip(subjects).map(|(n, subject)| event(&format!("{n}"), subject, b"data"));
        let published = self.streams.publish(&stream("s"), events.collect()).await.unwrap();
        published.into_iter().map(|published| published.position).collect()
    }

    pub(crate) async fn consumer(&self, id: &str, policy: ConsumerPolicy) -> Arc<dyn Consumer> {
        self.streams.consumer(&stream("s"), &consumer_id(id), policy).await.unwrap()
    }

    pub(crate) fn state(&self, name: &str) -> Option<StreamState> {
        self.streams.list().unwrap().into_iter().find(|state| state.name.as_str() == name)
    }

    pub(crate) fn consumer_state(&self, id: &str) -> ConsumerState {
        let consumers = self.state("s").unwrap().consumers;
        consumers.into_iter().find(|state| *state.id.0 == *id).unwrap()
    }

    pub(crate) fn events(&self, name: &str) -> Vec<Event> {
        let read = self.streams.read(&stream(name), Start::First, usize::MAX).unwrap();
        read.into_iter().map(|stored| Event::clone(&stored.event)).collect()
    }

    /// Time passes, and whoever waits for it looks again.
    pub(crate) async fn pass(&self, time: Duration) {
        self.clock.pass(time);
        self.streams.maintain().await.unwrap();
    }
}

/// The next deliveries, of which there must be some.
pub(crate) async fn pull(consumer: &Arc<dyn Consumer>, max: usize) -> Vec<Delivery> {
    tokio::time::timeout(Duration::from_secs(10), consumer.pull(max)).await.expect("something to deliver").unwrap()
}

/// Position and attempt of each.
pub(crate) fn places(deliveries: &[Delivery]) -> Vec<(u64, u32)> {
    deliveries.iter().map(|delivery| (delivery.stored.position, delivery.attempt)).collect()
}

/// Nothing is delivered, though everybody had time to.
pub(crate) async fn nothing(consumer: &Arc<dyn Consumer>) {
    let pulled = tokio::time::timeout(Duration::from_millis(30), consumer.pull(10)).await;
    assert!(pulled.is_err(), "{pulled:?} was delivered");
}

pub(crate) fn settle(delivery: &Delivery, settlement: Settlement) -> Settle {
    Settle {
        position: delivery.stored.position,
        attempt: delivery.attempt,
        others: Vec::new(),
        settlement,
        outputs: Vec::new(),
    }
}

pub(crate) fn retry(after: Option<Duration>) -> Settlement {
    Settlement::Retry { after, reason: "it failed".into() }
}

pub(crate) async fn ack(consumer: &Arc<dyn Consumer>, deliveries: &[Delivery]) {
    let settled = deliveries.iter().map(|delivery| settle(delivery, Settlement::Ack)).collect();
    consumer.settle(settled).await.unwrap();
}
