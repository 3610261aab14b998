//! A trigger on the stream `in`, with the output `out`, and a function that is a closure.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwap;
use marram_core::manifest::Batch;
use marram_core::port::{Consumer, Invoke, Streams as _};
use marram_core::quantity::Span;
use marram_core::stream::{ConsumerId, ConsumerPolicy, StreamName};
use marram_trigger::deliver::{self, Counters, Plan, Shared, Target};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{Answer, Counting, Got, MemoryStreams, TestClock, event, fake, until};

/// A trigger on the stream `in`, with the output `out`.
pub struct Rig {
    pub streams: Arc<MemoryStreams>,
    pub clock: Arc<TestClock>,
    pub shared: Arc<Shared>,
    pub consumer: Arc<dyn Consumer>,
    task: Option<JoinHandle<()>>,
    pub got: Arc<Mutex<Vec<Got>>>,
}

impl Rig {
    /// A trigger that is not started yet.
    pub fn new<F>(batch: Option<Batch>, policy: ConsumerPolicy, run: impl Fn(Got) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Answer> + Send + 'static,
    {
        let clock = TestClock::at("2026-11-25T03:29:51Z");
        let streams = MemoryStreams::new(Arc::clone(&clock) as _);
        let got = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&got);
        let invoke = fake(move |got: Got| {
            seen.lock().expect("it works").push(got.clone());
            run(got)
        });
        let id = ConsumerId("plant/spectrum/stream:in".into());
        let consumer = streams.take_up(&name("in"), &id, policy.clone());
        let shared = Shared {
            target: ArcSwap::from_pointee(target(invoke)),
            plan: Plan {
                source: "stream:in".into(),
                batch,
                keys: false,
                ack_wait: policy.ack_wait,
                in_flight_max: policy.in_flight_max,
            },
            clock: Arc::clone(&clock) as _,
            entropy: Arc::new(Counting::default()),
            counters: Counters::default(),
            stop: CancellationToken::new(),
            cut: CancellationToken::new(),
        };
        Self { streams, clock, shared: Arc::new(shared), consumer, task: None, got }
    }

    pub fn start(mut self) -> Self {
        self.task = Some(tokio::spawn(deliver::run(Arc::clone(&self.shared), Arc::clone(&self.consumer))));
        self
    }

    pub async fn publish(&self, ids: &[&str]) {
        let events = ids.iter().map(|id| event(id, &id[..1])).collect();
        self.streams.publish(&name("in"), events).await.expect("it works");
    }

    /// Nothing is owed any more.
    pub async fn settled(&self) {
        until("everything to be settled", || {
            let state = self.consumer.state();
            state.cursor == self.streams.events("in").len() as u64 && state.in_flight + state.retrying == 0
        })
        .await;
        // What the engine has counted of it comes a moment later.
        let counts = || self.shared.counters.read();
        until("the counters", || counts().acked == self.consumer.state().acked && counts().running == 0).await;
    }

    pub async fn stop(mut self) {
        self.shared.stop.cancel();
        let task = self.task.take().expect("started");
        tokio::time::timeout(super::DEADLINE, task).await.expect("it ends").expect("it works");
    }

    pub fn got(&self) -> Vec<Vec<String>> {
        self.got.lock().expect("it works").iter().map(Got::ids).collect()
    }
}

pub fn name(text: &str) -> StreamName {
    StreamName::new(text).expect("it works")
}

pub fn target(invoke: Arc<dyn Invoke>) -> Target {
    Target::new(invoke, Some(name("out")), 1 << 20, 8)
}

pub fn policy() -> ConsumerPolicy {
    ConsumerPolicy { deliveries_max: 3, backoff_min: Duration::from_secs(1), ..ConsumerPolicy::default() }
}

pub fn batch(max: u32, wait_ms: u64) -> Option<Batch> {
    Some(Batch { max, wait: Span(Duration::from_millis(wait_ms)) })
}
