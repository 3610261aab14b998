//! Streams in memory, without limits but with failures on demand.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use marram_core::event::{Attribute, Event};
use marram_core::port::streams::{
    ConsumerState, Delivery, Published, Settle, Settlement, Stored, StreamState, Streams,
};
use marram_core::port::{Clock, Consumer};
use marram_core::stream::{ConsumerId, ConsumerPolicy, Start, StreamName, StreamPolicy};
use marram_core::{Failure, Kind};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

#[derive(Default)]
struct Stream {
    policy: StreamPolicy,
    events: Vec<Stored>,
    seen: HashMap<(String, String), (u64, u64)>,
    consumers: BTreeMap<ConsumerId, Open>,
}

/// What a consumer has.
struct Open {
    policy: ConsumerPolicy,
    /// Everything up to here was looked at.
    handed: u64,
    open: BTreeMap<u64, Entry>,
    acked: u64,
    dead: u64,
    paused: bool,
}

struct Entry {
    attempt: u32,
    uncounted: u32,
    state: State,
}

#[derive(PartialEq)]
enum State {
    InFlight(Instant),
    Later(Instant),
    /// Behind another one of its subject.
    Behind,
}

pub struct MemoryStreams {
    state: Mutex<BTreeMap<StreamName, Stream>>,
    clock: Arc<dyn Clock>,
    changed: Notify,
    /// The next settlements fail with these, if they publish anything or not.
    failures: Mutex<Vec<(bool, Failure)>>,
    publish_failures: Mutex<Vec<Failure>>,
    removal_failures: Mutex<Vec<Failure>>,
    settles: Mutex<Vec<usize>>,
}

impl MemoryStreams {
    pub fn new(clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::default(),
            clock,
            changed: Notify::new(),
            failures: Mutex::default(),
            publish_failures: Mutex::default(),
            removal_failures: Mutex::default(),
            settles: Mutex::default(),
        })
    }

    fn state(&self) -> MutexGuard<'_, BTreeMap<StreamName, Stream>> {
        self.state.lock().expect("lock")
    }

    /// Fails each settlement that publishes something, or publishes nothing, once for each of these; the last one first.
    pub fn fail_settles(&self, publishing: bool, failures: Vec<Failure>) {
        self.failures.lock().expect("lock").extend(failures.into_iter().map(|failure| (publishing, failure)));
    }

    pub fn fail_publishes(&self, failures: Vec<Failure>) {
        self.publish_failures.lock().expect("lock").extend(failures);
    }

    /// The next removals of consumers fail.
    pub fn fail_removals(&self, failures: Vec<Failure>) {
        self.removal_failures.lock().expect("lock").extend(failures);
    }

    pub fn events(&self, stream: &str) -> Vec<Event> {
        let name = StreamName::new(stream).expect(stream);
        let state = self.state();
        state
            .get(&name)
            .map(|stream| stream.events.iter().map(|stored| (*stored.event).clone()).collect())
            .unwrap_or_default()
    }

    pub fn ids(&self, stream: &str) -> Vec<String> {
        self.events(stream).into_iter().map(|event| event.id).collect()
    }

    /// Why the events of a dead-letter stream are there.
    pub fn reasons(&self, stream: &str) -> Vec<(String, String)> {
        let reason = |event: Event| match event.extensions.get("marramreason") {
            Some(Attribute::Text(text)) => (event.id.clone(), text.clone()),
            _ => panic!("{} has no reason", event.id),
        };
        self.events(stream).into_iter().map(reason).collect()
    }

    pub fn consumer_state(&self, stream: &str) -> ConsumerState {
        let name = StreamName::new(stream).expect(stream);
        let state = self.state();
        let (id, open) = state[&name].consumers.iter().next().expect("a consumer");
        open.state(id)
    }

    /// How the one consumer of a stream is served.
    pub fn consumer_policy(&self, stream: &str) -> ConsumerPolicy {
        let name = StreamName::new(stream).expect(stream);
        self.state()[&name].consumers.values().next().expect("a consumer").policy.clone()
    }

    /// Settlements of each transaction.
    pub fn settles(&self) -> Vec<usize> {
        self.settles.lock().expect("lock").clone()
    }

    fn append(&self, state: &mut BTreeMap<StreamName, Stream>, stream: &StreamName, event: Event) -> Published {
        let now = self.clock.unix_ns();
        let stream = state.entry(stream.clone()).or_default();
        let window = stream.policy.dedupe.as_nanos() as u64;
        let key = (event.source.clone(), event.id.clone());
        if let Some((position, at)) = stream.seen.get(&key)
            && now.abs_diff(*at) <= window
        {
            return Published { position: *position, duplicate: true };
        }
        let position = stream.events.len() as u64 + 1;
        stream.seen.insert(key, (position, now));
        stream.events.push(Stored { position, stored_unix_ns: now, event: Arc::new(event) });
        Published { position, duplicate: false }
    }
}

impl Streams for MemoryStreams {
    fn declare(&self, stream: &StreamName, policy: StreamPolicy) -> BoxFuture<'_, Result<(), Failure>> {
        self.state().entry(stream.clone()).or_default().policy = policy;
        async { Ok(()) }.boxed()
    }

    fn publish(&self, stream: &StreamName, events: Vec<Event>) -> BoxFuture<'_, Result<Vec<Published>, Failure>> {
        let stream = stream.clone();
        async move {
            if let Some(failure) = self.publish_failures.lock().expect("lock").pop() {
                return Err(failure);
            }
            let mut state = self.state();
            let published = events.into_iter().map(|event| {
                event.check().expect("only events are published");
                self.append(&mut state, &stream, event)
            });
            let published = published.collect();
            drop(state);
            self.changed.notify_waiters();
            Ok(published)
        }
        .boxed()
    }

    fn read(&self, stream: &StreamName, from: Start, max: usize) -> Result<Vec<Stored>, Failure> {
        let state = self.state();
        let stream = state.get(stream).ok_or_else(|| Failure::new(Kind::NotFound, "no such stream"))?;
        let begins = |stored: &&Stored| match from {
            Start::First => true,
            Start::Next => false,
            Start::Position(at) => stored.position >= at,
            Start::Time(at) => stored.stored_unix_ns >= at,
        };
        Ok(stream.events.iter().filter(begins).take(max).cloned().collect())
    }

    fn wait(&self, _: &StreamName, _: u64) -> BoxFuture<'_, Result<(), Failure>> {
        unreachable!("no trigger waits")
    }

    fn consumer(
        &self,
        stream: &StreamName,
        id: &ConsumerId,
        policy: ConsumerPolicy,
    ) -> BoxFuture<'_, Result<Arc<dyn Consumer>, Failure>> {
        unreachable!("through an Arc only: {stream} {id:?} {policy:?}")
    }

    fn find_consumer(&self, stream: &StreamName, id: &ConsumerId) -> Option<Arc<dyn Consumer>> {
        unreachable!("through an Arc only: {stream} {id:?}")
    }

    fn redrive(&self, stream: &StreamName) -> BoxFuture<'_, Result<u64, Failure>> {
        unreachable!("no trigger redrives {stream}")
    }

    fn remove_consumer(&self, stream: &StreamName, id: &ConsumerId) -> BoxFuture<'_, Result<(), Failure>> {
        if let Some(failure) = self.removal_failures.lock().expect("lock").pop() {
            return async { Err(failure) }.boxed();
        }
        let removed = self.state().get_mut(stream).and_then(|stream| stream.consumers.remove(id));
        async move { removed.map(drop).ok_or_else(|| Failure::new(Kind::NotFound, "no such consumer")) }.boxed()
    }

    fn remove(&self, stream: &StreamName) -> BoxFuture<'_, Result<(), Failure>> {
        self.state().remove(stream);
        async { Ok(()) }.boxed()
    }

    fn list(&self) -> Result<Vec<StreamState>, Failure> {
        let state = |(name, stream): (&StreamName, &Stream)| StreamState {
            name: name.clone(),
            policy: stream.policy,
            first: 1,
            last: stream.events.len() as u64,
            events: stream.events.len() as u64,
            bytes: 0,
            dropped: 0,
            rejected: 0,
            duplicates: 0,
            consumers: stream.consumers.iter().map(|(id, open)| open.state(id)).collect(),
        };
        Ok(self.state().iter().map(state).collect())
    }
}

/// The streams, as a port: consumers keep them.
pub struct Port(pub Arc<MemoryStreams>);

impl Streams for Port {
    fn declare(&self, stream: &StreamName, policy: StreamPolicy) -> BoxFuture<'_, Result<(), Failure>> {
        self.0.declare(stream, policy)
    }
    fn publish(&self, stream: &StreamName, events: Vec<Event>) -> BoxFuture<'_, Result<Vec<Published>, Failure>> {
        self.0.publish(stream, events)
    }
    fn read(&self, stream: &StreamName, from: Start, max: usize) -> Result<Vec<Stored>, Failure> {
        self.0.read(stream, from, max)
    }
    fn wait(&self, stream: &StreamName, position: u64) -> BoxFuture<'_, Result<(), Failure>> {
        self.0.wait(stream, position)
    }
    fn consumer(
        &self,
        stream: &StreamName,
        id: &ConsumerId,
        policy: ConsumerPolicy,
    ) -> BoxFuture<'_, Result<Arc<dyn Consumer>, Failure>> {
        let consumer = self.0.take_up(stream, id, policy);
        async move { Ok(consumer) }.boxed()
    }
    fn find_consumer(&self, stream: &StreamName, id: &ConsumerId) -> Option<Arc<dyn Consumer>> {
        self.0.find(stream, id)
    }
    fn redrive(&self, stream: &StreamName) -> BoxFuture<'_, Result<u64, Failure>> {
        self.0.redrive(stream)
    }
    fn remove_consumer(&self, stream: &StreamName, id: &ConsumerId) -> BoxFuture<'_, Result<(), Failure>> {
        self.0.remove_consumer(stream, id)
    }
    fn remove(&self, stream: &StreamName) -> BoxFuture<'_, Result<(), Failure>> {
        self.0.remove(stream)
    }
    fn list(&self) -> Result<Vec<StreamState>, Failure> {
        self.0.list()
    }
}

impl MemoryStreams {
    pub fn port(self: &Arc<Self>) -> Arc<dyn Streams> {
        Arc::new(Port(Arc::clone(self)))
    }

    pub fn take_up(
        self: &Arc<Self>,
        stream: &StreamName,
        id: &ConsumerId,
        policy: ConsumerPolicy,
    ) -> Arc<dyn Consumer> {
        let mut state = self.state();
        let here = state.entry(stream.clone()).or_default();
        let handed = match policy.start {
            Start::Next => here.events.len() as u64,
            _ => 0,
        };
        let new = Open { policy: policy.clone(), handed, open: BTreeMap::new(), acked: 0, dead: 0, paused: false };
        here.consumers.entry(id.clone()).or_insert(new).policy = policy;
        Arc::new(MemoryConsumer { streams: Arc::clone(self), stream: stream.clone(), id: id.clone() })
    }
}

impl MemoryStreams {
    pub fn find(self: &Arc<Self>, stream: &StreamName, id: &ConsumerId) -> Option<Arc<dyn Consumer>> {
        let found = self.state().get(stream)?.consumers.contains_key(id);
        let consumer = MemoryConsumer { streams: Arc::clone(self), stream: stream.clone(), id: id.clone() };
        found.then(|| Arc::new(consumer) as _)
    }
}

struct MemoryConsumer {
    streams: Arc<MemoryStreams>,
    stream: StreamName,
    id: ConsumerId,
}

impl Open {
    fn state(&self, id: &ConsumerId) -> ConsumerState {
        let count = |is: fn(&State) -> bool| self.open.values().filter(|entry| is(&entry.state)).count() as u64;
        ConsumerState {
            id: id.clone(),
            cursor: self.open.keys().next().map_or(self.handed, |first| first - 1),
            in_flight: count(|state| matches!(state, State::InFlight(_))),
            handed: self.handed,
            retrying: count(|state| matches!(state, State::Later(_))),
            held: count(|state| matches!(state, State::Behind)),
            acked: self.acked,
            dead_lettered: self.dead,
            dropped: 0,
            redelivered: 0,
            paused: self.paused,
        }
    }

    /// Up to `max` deliveries, and when to look again.
    fn take(&mut self, events: &[Stored], max: usize) -> (Vec<Delivery>, Option<Instant>) {
        let now = Instant::now();
        let (mut out, mut next) = (Vec::new(), None::<Instant>);
        if self.paused {
            return (out, None);
        }
        let in_flight = |open: &BTreeMap<u64, Entry>| {
            open.values().filter(|entry| matches!(entry.state, State::InFlight(until) if until > now)).count()
        };
        let room = (self.policy.in_flight_max as usize).saturating_sub(in_flight(&self.open)).min(max);
        let mut busy = BTreeSet::new();
        for (position, entry) in &mut self.open {
            let event = &events[*position as usize - 1];
            let first = busy.insert(event.event.subject.clone()) || !self.policy.order_by_subject;
            match entry.state {
                State::InFlight(at) | State::Later(at) if at > now => next = Some(next.map_or(at, |next| next.min(at))),
                State::Behind if !first => {}
                _ if out.len() < room => {
                    entry.attempt += 1;
                    entry.state = State::InFlight(now + self.policy.ack_wait);
                    out.push(Delivery { stored: event.clone(), attempt: entry.attempt });
                }
                _ => {}
            }
        }
        while out.len() < room
            && let Some(event) = events.get(self.handed as usize)
        {
            self.handed += 1;
            if !self.policy.filter.matches(&event.event.subject) {
                continue;
            }
            let first = busy.insert(event.event.subject.clone()) || !self.policy.order_by_subject;
            let state = if first { State::InFlight(now + self.policy.ack_wait) } else { State::Behind };
            self.open.insert(event.position, Entry { attempt: u32::from(first), uncounted: 0, state });
            if first {
                out.push(Delivery { stored: event.clone(), attempt: 1 });
            }
        }
        (out, next)
    }
}

impl Consumer for MemoryConsumer {
    fn pull(&self, max: usize) -> BoxFuture<'_, Result<Vec<Delivery>, Failure>> {
        async move {
            loop {
                let changed = self.streams.changed.notified();
                let mut changed = std::pin::pin!(changed);
                changed.as_mut().enable();
                let next = {
                    let mut state = self.streams.state();
                    let stream = state.get_mut(&self.stream).expect("the stream");
                    let Some(open) = stream.consumers.get_mut(&self.id) else {
                        return Err(Failure::new(Kind::NotFound, "no such consumer"));
                    };
                    let (deliveries, next) = open.take(&stream.events, max);
                    if !deliveries.is_empty() {
                        return Ok(deliveries);
                    }
                    next
                };
                match next {
                    Some(next) => tokio::select! { () = changed => {}, () = sleep_until(next) => {} },
                    None => changed.await,
                }
            }
        }
        .boxed()
    }

    fn settle(&self, settlements: Vec<Settle>) -> BoxFuture<'_, Result<(), Failure>> {
        async move {
            let beats = settlements.iter().all(|settle| settle.settlement == Settlement::InProgress);
            // Durability takes its time.
            tokio::task::yield_now().await;
            let publishes = settlements.iter().any(|settle| !settle.outputs.is_empty());
            if !beats {
                let mut failures = self.streams.failures.lock().expect("lock");
                if let Some(at) = failures.iter().rposition(|(publishing, _)| *publishing == publishes) {
                    return Err(failures.remove(at).1);
                }
                self.streams.settles.lock().expect("lock").push(settlements.len());
            }
            let mut state = self.streams.state();
            for settle in settlements {
                let mut outputs = settle.outputs.clone();
                for delivery in settle.deliveries() {
                    if self.settle_one(&mut state, delivery, &settle.settlement)? {
                        for (to, event) in outputs.drain(..) {
                            event.check().expect("only events are published");
                            self.streams.append(&mut state, &to, event);
                        }
                    }
                }
            }
            drop(state);
            self.streams.changed.notify_waiters();
            Ok(())
        }
        .boxed()
    }

    fn pause(&self, paused: bool) -> BoxFuture<'_, Result<(), Failure>> {
        let mut state = self.streams.state();
        let stream = state.get_mut(&self.stream).expect("the stream");
        stream.consumers.get_mut(&self.id).expect("the consumer").paused = paused;
        drop(state);
        self.streams.changed.notify_waiters();
        async { Ok(()) }.boxed()
    }

    fn seek(&self, _: Start) -> BoxFuture<'_, Result<(), Failure>> {
        unreachable!("no trigger seeks")
    }

    fn state(&self) -> ConsumerState {
        let state = self.streams.state();
        state[&self.stream].consumers[&self.id].state(&self.id)
    }
}

impl MemoryConsumer {
    /// Whether that acknowledged it.
    fn settle_one(
        &self,
        state: &mut BTreeMap<StreamName, Stream>,
        (position, attempt): (u64, u32),
        settlement: &Settlement,
    ) -> Result<bool, Failure> {
        let stream = state.get_mut(&self.stream).expect("the stream");
        let Some(open) = stream.consumers.get_mut(&self.id) else {
            return Err(Failure::new(Kind::NotFound, "no such consumer"));
        };
        let Some(entry) = open.open.get_mut(&position).filter(|entry| entry.attempt == attempt) else {
            return Ok(false);
        };
        let counted = entry.attempt - entry.uncounted;
        let now = Instant::now();
        let dead = match settlement {
            Settlement::InProgress => {
                entry.state = State::InFlight(now + open.policy.ack_wait);
                return Ok(false);
            }
            Settlement::Release => {
                entry.uncounted += 1;
                entry.state = State::Later(now);
                return Ok(false);
            }
            Settlement::Retry { after, .. } if counted < open.policy.deliveries_max => {
                let backoff = open.policy.backoff_min * 2_u32.pow((counted - 1).min(20));
                let wait = backoff.max(after.unwrap_or_default()).min(open.policy.backoff_max);
                entry.state = State::Later(now + wait);
                return Ok(false);
            }
            Settlement::Retry { reason, .. } | Settlement::DeadLetter { reason } => Some(reason),
            Settlement::Ack => None,
        };
        open.open.remove(&position);
        if let Some(reason) = dead {
            open.dead += 1;
            let mut event = (*stream.events[position as usize - 1].event).clone();
            event.extensions.insert("marramreason".into(), Attribute::Text(reason.clone()));
            if let Some(to) = self.stream.dead_letter() {
                self.streams.append(state, &to, event);
            }
        } else {
            open.acked += 1;
            return Ok(true);
        }
        Ok(false)
    }
}
