//! The loop of one trigger: it owns every task, every delivery that is not settled, and everything that waits.

use std::collections::{HashMap, HashSet, VecDeque};
use std::future::{Future, pending};
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use marram_core::port::Consumer;
use marram_core::port::streams::{Delivery, Settle, Settlement};
use marram_core::{Failure, Retry};
use tokio::task::JoinSet;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, sleep_until};

use super::run::{self, Settled, spread};
use super::status::add;
use super::{Shared, request};
use crate::limits::{BATCH_BYTES_MAX, HELD_BYTES_MAX, PULL_MAX, SETTLE_MAX, STORE, SUSPECTS_MAX};

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
    /// What became of some of it, not yet told.
    settled: Vec<Settle>,
    /// Settlements that cannot be made for what they publish; one at a time.
    stuck: VecDeque<Settle>,
    pulling: Slot<Result<Vec<Delivery>, Failure>>,
    settling: Slot<(Vec<Settle>, Result<(), Failure>)>,
    beating: Slot<Result<(), Failure>>,
    beat: Interval,
    pull_pause: Pause,
    settle_pause: Pause,
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
            Woken::Beat => self.start_beat(),
            Woken::Stop | Woken::Time => {}
        }
    }

    /// The next moment at which there is something to do that nothing else tells of.
    fn next_time(&self) -> Option<Instant> {
        let settle = (!self.settled.is_empty() || !self.stuck.is_empty()).then_some(self.settle_pause.until).flatten();
        [self.batch_due(), self.pull_pause.until, settle].into_iter().flatten().filter(|at| *at > Instant::now()).min()
    }

    fn batch_due(&self) -> Option<Instant> {
        let batch = self.shared.plan.batch?;
        (!self.waiting.is_empty()).then(|| self.first_waits_since + batch.wait.0)
    }

    fn take(&mut self, delivery: Delivery) {
        let (position, attempt) = (delivery.stored.position, delivery.attempt);
        let bytes = delivery.stored.event.size();
        self.forget(position);
        self.held.insert(position, Held { attempt, bytes });
        self.held_bytes += bytes;
        if self.shared.plan.batch.is_some() && self.suspects.contains(&delivery.stored.position) {
            return self.alone.push_back(delivery);
        }
        if self.waiting.is_empty() {
            self.first_waits_since = Instant::now();
        }
        self.waiting_bytes += request::size(&delivery.stored.event);
        self.waiting.push_back(delivery);
    }

    /// Starts as many runs as there may be. Nothing starts while an answer waits to be published: answers are in memory.
    fn start_runs(&mut self) {
        let runs_max = self.shared.plan.runs_max(&self.shared.target.load());
        while self.runs.len() < runs_max && self.stuck.is_empty() {
            let next = match self.alone.pop_front() {
                Some(delivery) => vec![delivery],
                None => self.next_batch(),
            };
            if next.is_empty() {
                return;
            }
            self.running += next.len();
            self.runs.spawn(run::run(Arc::clone(&self.shared), next));
        }
    }

    /// The next event, or the next batch if it is full or has waited long enough.
    fn next_batch(&mut self) -> Vec<Delivery> {
        let Some(batch) = self.shared.plan.batch else {
            return self
                .waiting
                .pop_front()
                .into_iter()
                .inspect(|one| self.waiting_bytes -= request::size(&one.stored.event))
                .collect();
        };
        let bytes_max = BATCH_BYTES_MAX.min(self.shared.target.load().body_bytes_max);
        let full = self.waiting.len() >= batch.max as usize || self.waiting_bytes >= bytes_max;
        let due = self.batch_due().is_some_and(|due| due <= Instant::now());
        if !(full || due) {
            return Vec::new();
        }
        let (mut next, mut bytes) = (Vec::with_capacity(self.waiting.len().min(batch.max as usize)), 0);
        while next.len() < batch.max as usize
            && let Some(delivery) = self.waiting.front()
        {
            let size = request::size(&delivery.stored.event);
            if !next.is_empty() && bytes + size > bytes_max {
                break;
            }
            bytes += size;
            next.extend(self.waiting.pop_front());
        }
        self.waiting_bytes -= bytes;
        self.first_waits_since = Instant::now();
        next
    }

    /// Asks for as much as there is room for: what can run, and as much again, so that there is always a next one.
    fn start_pull(&mut self) {
        let full = self.held_bytes >= HELD_BYTES_MAX || !self.stuck.is_empty();
        if self.pulling.is_some() || full || !self.pull_pause.is_over() {
            return;
        }
        let each = self.shared.plan.batch.map_or(1, |batch| batch.max as usize);
        let runs_max = self.shared.plan.runs_max(&self.shared.target.load());
        let room = (2 * runs_max * each).saturating_sub(self.running + self.waiting.len() + self.alone.len());
        // A few at a time cost as much as many: it waits until a good part is free.
        if room * 4 < runs_max * each {
            return;
        }
        let (consumer, max) = (Arc::clone(&self.consumer), room.min(PULL_MAX));
        self.pulling = Some(async move { consumer.pull(max).await }.boxed());
    }

    fn start_settle(&mut self) {
        if self.settling.is_some() || !self.settle_pause.is_over() {
            return;
        }
        let group: Vec<_> = if !self.settled.is_empty() {
            self.settled.drain(..self.settled.len().min(SETTLE_MAX)).collect()
        } else {
            self.stuck.pop_front().into_iter().collect()
        };
        if !group.is_empty() {
            let consumer = Arc::clone(&self.consumer);
            self.settling = Some(async move { (group.clone(), consumer.settle(group).await) }.boxed());
        }
    }

    /// Says of everything that is here that somebody is still at it.
    fn start_beat(&mut self) {
        if self.held.is_empty() || self.beating.is_some() {
            return;
        }
        let at_it = |(position, held): (&u64, &Held)| Settle {
            position: *position,
            attempt: held.attempt,
            ..settle(Settlement::InProgress)
        };
        let (consumer, settles) = (Arc::clone(&self.consumer), self.held.iter().map(at_it).collect());
        self.beating = Some(async move { consumer.settle(settles).await }.boxed());
    }

    /// A run catches the panics of what it runs, and nobody aborts one but the drain, which does not look any more. Were there
    /// one all the same, its events come again when this process starts anew.
    fn outcome(&self, ended: Result<Vec<Settled>, tokio::task::JoinError>) -> Vec<Settled> {
        ended.unwrap_or_else(|error| {
            tracing::error!(trigger = self.shared.plan.source, %error, "a run ended without saying how");
            Vec::new()
        })
    }

    fn ended(&mut self, ended: Vec<Settled>) {
        self.running -= ended.len();
        for Settled { settle, alone } in ended {
            let counters = &self.shared.counters;
            match &settle.settlement {
                Settlement::Retry { reason, .. } => {
                    add(&counters.retried, 1);
                    counters.failed(reason);
                }
                Settlement::DeadLetter { reason } => {
                    add(&counters.dead_lettered, 1);
                    counters.failed(reason);
                }
                _ => {}
            }
            if alone && self.shared.plan.batch.is_some() {
                if self.suspects.len() >= SUSPECTS_MAX {
                    self.suspects.clear();
                }
                self.suspects.insert(settle.position);
            }
            self.settled.push(settle);
        }
    }

    fn is_settled(&mut self, settle: &Settle) {
        // What was delivered again meanwhile is still held.
        if self.held.get(&settle.position).is_some_and(|held| held.attempt == settle.attempt) {
            self.forget(settle.position);
        }
        if settle.settlement == Settlement::Ack {
            self.suspects.remove(&settle.position);
            add(&self.shared.counters.acked, 1);
            add(&self.shared.counters.outputs, settle.outputs.len());
        }
    }

    fn forget(&mut self, position: u64) {
        if let Some(held) = self.held.remove(&position) {
            self.held_bytes -= held.bytes;
        }
    }

    /// None of them was settled. Those that publish nothing go first from now on, and the others one at a time.
    fn settle_failed(&mut self, settles: Vec<Settle>, failure: &Failure) {
        self.failed("settle", failure);
        let (mut publish, plain): (Vec<_>, Vec<_>) = settles.into_iter().partition(|settle| !settle.outputs.is_empty());
        let apart = !publish.is_empty() && (!plain.is_empty() || publish.len() > 1);
        match (failure.retry_after(), apart) {
            (_, true) => {}
            (Retry::After(after), false) => self.settle_pause.wait(after, self.shared.entropy.u64()),
            (Retry::Never, false) => {
                if let Some(mut refused) = publish.pop() {
                    // It is no event for that stream, and will be none the next time.
                    let reason = format!("its answer cannot be published: {failure}");
                    refused.settlement = Settlement::DeadLetter { reason };
                    refused.outputs.clear();
                    self.settled.push(refused);
                } else {
                    // The consumer is gone, and with it what it was owed.
                    plain.iter().for_each(|settle| self.forget(settle.position));
                    return;
                }
            }
        }
        self.settled.splice(..0, plain);
        self.stuck.extend(publish);
    }

    fn pull_failed(&mut self, failure: &Failure) {
        self.failed("pull", failure);
        let after = match failure.retry_after() {
            Retry::After(after) => after,
            Retry::Never => STORE.1,
        };
        self.pull_pause.wait(after, self.shared.entropy.u64());
    }

    fn failed(&self, what: &str, failure: &Failure) {
        let text = format!("{what}: {failure}");
        if self.shared.counters.read().last_failure.as_ref() != Some(&text) {
            tracing::warn!(trigger = self.shared.plan.source, failure = ?failure, "cannot {what}; trying again");
        }
        self.shared.counters.failed(&text);
    }
}

fn settle(settlement: Settlement) -> Settle {
    Settle { position: 0, attempt: 0, settlement, outputs: Vec::new() }
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

/// The wait before something that failed is tried again: longer each time.
struct Pause {
    next: Duration,
    until: Option<Instant>,
}

impl Pause {
    const fn new() -> Self {
        Self { next: STORE.0, until: None }
    }

    fn reset(&mut self) {
        *self = Self::new();
    }

    fn wait(&mut self, after: Duration, random: u64) {
        self.until = Some(Instant::now() + spread(self.next, random).max(after).min(STORE.1));
        self.next = (self.next * 2).min(STORE.1);
    }

    fn is_over(&self) -> bool {
        self.until.is_none_or(|until| until <= Instant::now())
    }
}
