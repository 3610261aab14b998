//! The loop of one trigger: it owns every task, every delivery that is not settled, and everything that waits.

mod ending;
mod pause;
mod starting;

use std::collections::{HashMap, HashSet, VecDeque};
use std::future::{Future, pending};
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use marram_core::Failure;
use marram_core::port::Consumer;
use marram_core::port::streams::{Delivery, Settle, Settlement};
use tokio::task::JoinSet;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, sleep_until};

use super::Shared;
use super::run::Settled;
use crate::limits::STORE;
use pause::Pause;

/// A call of the consumer under way.
type Slot<T> = Option<BoxFuture<'static, T>>;

/// Delivers from `consumer` until [`Shared::stop`] is cancelled and what runs has ended, or [`Shared::cut`] is cancelled as
/// well. What is not settled then is given back.
pub async fn run(shared: Arc<Shared>, consumer: Arc<dyn Consumer>) {
    let mut beat = interval((shared.plan.ack_wait / 3).max(Duration::from_millis(1)));
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let engine = Engine {
        shared,
        consumer,
        runs: JoinSet::new(),
        waiting: VecDeque::new(),
        waiting_bytes: 0,
        first_waits_since: Instant::now(),
        alone: VecDeque::new(),
        suspects: HashSet::new(),
        running: 0,
        held: HashMap::new(),
        held_bytes: 0,
        settled: Vec::new(),
        stuck: VecDeque::new(),
        pulling: None,
        settling: None,
        beating: None,
        beat,
        pull_pause: Pause::new(),
        settle_pause: Pause::new(),
        held_up: false,
        now: Instant::now(),
    };
    engine.run().await;
}

struct Engine {
    shared: Arc<Shared>,
    consumer: Arc<dyn Consumer>,
    runs: JoinSet<Vec<Settled>>,
    /// Pulled, in order, to be delivered next.
    waiting: VecDeque<Delivery>,
    /// About how many bytes these take.
    waiting_bytes: u64,
    /// Since when there has been one of them.
    first_waits_since: Instant,
    /// Pulled, to be delivered alone although there are batches.
    alone: VecDeque<Delivery>,
    /// Positions of events that a batch failed with.
    suspects: HashSet<u64>,
    /// Events that are with the function.
    running: usize,
    /// Everything that is pulled and not settled, by position.
    held: HashMap<u64, Held>,
    /// How many bytes that is.
    held_bytes: u64,
    /// What became of some of it, not yet told. A batch and its answer are one of these.
    settled: Vec<Settle>,
    /// Settlements that cannot be made for what they publish; one at a time.
    stuck: VecDeque<Settle>,
    pulling: Slot<Result<Vec<Delivery>, Failure>>,
    settling: Slot<(Vec<Settle>, Result<(), Failure>)>,
    beating: Slot<Result<(), Failure>>,
    beat: Interval,
    pull_pause: Pause,
    settle_pause: Pause,
    /// It was said that many events wait behind others of their subjects.
    held_up: bool,
    /// One look at the clock for each turn of the loop: what is over for one is over for all.
    now: Instant,
}

/// An event that is pulled and not settled.
struct Held {
    attempt: u32,
    bytes: u64,
}

/// What woke the loop.
enum Woken {
    Stop,
    Runs(Vec<Settled>),
    Pulled(Result<Vec<Delivery>, Failure>),
    Settled(Vec<Settle>, Result<(), Failure>),
    Beat,
    Time,
}

impl Engine {
    async fn run(mut self) {
        let stop = self.shared.stop.clone();
        loop {
            self.now = Instant::now();
            self.start_runs();
            self.start_pull();
            self.start_settle();
            match self.wake(Some(&stop)).await {
                Woken::Stop => break,
                woken => self.handle(woken),
            }
        }
        self.drain().await;
    }

    /// Lets what runs come to its end and be settled; gives the rest back.
    async fn drain(mut self) {
        self.pulling = None;
        let unstarted: Vec<_> = self.waiting.drain(..).chain(self.alone.drain(..)).collect();
        self.settled.extend(unstarted.iter().map(release));
        let cut = self.shared.cut.clone();
        let ended = async {
            loop {
                self.now = Instant::now();
                self.start_settle();
                let done = self.runs.is_empty() && self.settled.is_empty() && self.stuck.is_empty();
                if done && self.settling.is_none() {
                    return;
                }
                let woken = self.wake(None).await;
                self.handle(woken);
            }
        };
        tokio::select! {
            biased;
            () = ended => return,
            () = cut.cancelled() => {}
        }
        self.runs.shutdown().await;
        let given_back =
            |(position, held): (u64, Held)| Settle { position, attempt: held.attempt, ..settle(Settlement::Release) };
        let settles: Vec<_> = self.held.drain().map(given_back).collect();
        let cut = settles.len();
        // Whatever comes of it, they are delivered again when their ack wait is over.
        let _ = tokio::time::timeout(STORE.0, self.consumer.settle(settles)).await;
        let trigger = &self.shared.plan.source;
        tracing::warn!(trigger, cut, "delivery stopped before everything was settled: it will be delivered again");
    }

    /// Waits for the next thing to happen.
    async fn wake(&mut self, stop: Option<&tokio_util::sync::CancellationToken>) -> Woken {
        let timer = self.next_time();
        tokio::select! {
            biased;
            () = async { match stop { Some(stop) => stop.cancelled().await, None => pending().await } } => Woken::Stop,
            (settles, result) = slot(&mut self.settling) => Woken::Settled(settles, result),
            Some(ended) = self.runs.join_next(), if !self.runs.is_empty() => {
                Woken::Runs(self.outcome(ended))
            }
            pulled = slot(&mut self.pulling) => Woken::Pulled(pulled),
            _ = slot(&mut self.beating) => Woken::Time,
            _ = self.beat.tick() => Woken::Beat,
            () = async { match timer { Some(at) => sleep_until(at).await, None => pending().await } } => Woken::Time,
        }
    }

    fn handle(&mut self, woken: Woken) {
        match woken {
            Woken::Runs(ended) => {
                self.ended(ended);
                // What has ended meanwhile is settled together with it.
                while let Some(ended) = self.runs.try_join_next() {
                    let settled = self.outcome(ended);
                    self.ended(settled);
                }
            }
            Woken::Pulled(Ok(deliveries)) => {
                self.pull_pause.reset();
                deliveries.into_iter().for_each(|delivery| self.take(delivery));
            }
            Woken::Pulled(Err(failure)) => self.pull_failed(&failure),
            Woken::Settled(settles, Ok(())) => {
                self.settle_pause.reset();
                settles.iter().for_each(|settle| self.is_settled(settle));
            }
            Woken::Settled(settles, Err(failure)) => self.settle_failed(settles, &failure),
            Woken::Beat => {
                self.start_beat();
                self.say_if_held_up();
            }
            Woken::Stop | Woken::Time => {}
        }
    }

    /// The next moment at which there is something to do that nothing else tells of.
    fn next_time(&self) -> Option<Instant> {
        let settle = (!self.settled.is_empty() || !self.stuck.is_empty()).then_some(self.settle_pause.until).flatten();
        [self.batch_due(), self.pull_pause.until, settle].into_iter().flatten().filter(|at| *at > self.now).min()
    }

    fn batch_due(&self) -> Option<Instant> {
        let batch = self.shared.plan.batch?;
        (!self.waiting.is_empty()).then(|| self.first_waits_since + batch.wait.0)
    }
}

fn settle(settlement: Settlement) -> Settle {
    Settle { position: 0, attempt: 0, others: Vec::new(), settlement, outputs: Vec::new() }
}

fn release(delivery: &Delivery) -> Settle {
    Settle { position: delivery.stored.position, attempt: delivery.attempt, ..settle(Settlement::Release) }
}

/// What is in the slot, once it is there; empties it.
fn slot<T>(slot: &mut Slot<T>) -> impl Future<Output = T> + '_ {
    futures::future::poll_fn(move |cx| match slot {
        None => std::task::Poll::Pending,
        Some(future) => future.poll_unpin(cx).map(|value| {
            *slot = None;
            value
        }),
    })
}
