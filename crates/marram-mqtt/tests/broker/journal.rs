//! A journal in memory that a test can hold, fail and crash.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use marram_core::event::{Event, SubjectFilter};
use marram_core::port::mqtt::{
    Change, ClientId, Loaded, Message, MqttJournal, Queued, Refused, Retain, SessionRecord, StoredSession, Subscription,
};
use marram_core::{Failure, Kind};
use tokio::sync::oneshot;

/// What is durable.
#[derive(Clone, Default)]
pub struct State {
    pub sessions: BTreeMap<ClientId, Stored>,
    pub retained: BTreeMap<Arc<str>, Arc<Message>>,
    pub events: Vec<Event>,
    /// Changes that were made, by kind.
    pub commits: usize,
}

#[derive(Clone)]
pub struct Stored {
    pub record: SessionRecord,
    pub subscriptions: BTreeMap<Arc<str>, Subscription>,
    pub received: BTreeSet<u16>,
    pub queue: BTreeMap<u64, Queued>,
}

#[derive(Default)]
struct Inner {
    state: State,
    captures: Vec<SubjectFilter>,
    /// Every commit fails with this.
    failing: Option<Kind>,
    /// Queues cannot be read.
    unreadable: bool,
    /// Messages whose event cannot be stored.
    full: Option<SubjectFilter>,
    /// Commits wait here.
    held: Option<VecDeque<Held>>,
    reads: usize,
}

type Answer = Result<Vec<Refused>, Failure>;
struct Held(Vec<Change>, oneshot::Sender<Answer>);

/// The journal. Clones are the same one.
#[derive(Clone, Default)]
pub struct Memory(Arc<Mutex<Inner>>);

impl Memory {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap()
    }

    pub fn capture(&self, filter: &str) {
        self.lock().captures.push(SubjectFilter::topic(filter).unwrap());
    }

    /// The streams that capture this are full.
    pub fn full(&self, filter: Option<&str>) {
        self.lock().full = filter.map(|filter| SubjectFilter::topic(filter).unwrap());
    }

    pub fn fail(&self, kind: Option<Kind>) {
        self.lock().failing = kind;
    }

    pub fn unreadable(&self, unreadable: bool) {
        self.lock().unreadable = unreadable;
    }

    /// Commits do not come to their end until [`Self::release`].
    pub fn hold(&self) {
        self.lock().held = Some(VecDeque::new());
    }

    /// How many are held.
    pub fn held(&self) -> usize {
        self.lock().held.as_ref().map_or(0, VecDeque::len)
    }

    /// The first that is held fails.
    pub fn fail_first(&self, kind: Kind) {
        let first = self.lock().held.as_mut().and_then(VecDeque::pop_front);
        if let Some(Held(_, answer)) = first {
            let _ = answer.send(Err(Failure::new(kind, "the test says so")));
        }
    }

    /// The first that is held happens.
    pub fn keep_first(&self) {
        let mut inner = self.lock();
        let first = inner.held.as_mut().and_then(VecDeque::pop_front);
        if let Some(Held(changes, answer)) = first {
            let _ = answer.send(inner.apply(changes));
        }
    }

    /// Everything that is held happens, and nothing is held any more.
    pub fn release(&self) {
        let mut inner = self.lock();
        for Held(changes, answer) in inner.held.take().into_iter().flatten() {
            let _ = answer.send(inner.apply(changes));
        }
    }

    /// The power goes: what is held never happened. What there is now is what a new node finds.
    pub fn crash(&self) -> Self {
        let inner = self.lock();
        let fresh = Inner { state: inner.state.clone(), captures: inner.captures.clone(), ..Inner::default() };
        Self(Arc::new(Mutex::new(fresh)))
    }

    pub fn state(&self) -> State {
        self.lock().state.clone()
    }

    /// Changes what is durable, as if it had come about.
    pub fn edit(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock().state);
    }

    pub fn reads(&self) -> usize {
        self.lock().reads
    }

    pub fn queued(&self, client: &str) -> usize {
        self.lock().state.sessions.get(client).map_or(0, |session| session.queue.len())
    }
}

impl Inner {
    fn apply(&mut self, changes: Vec<Change>) -> Answer {
        if let Some(kind) = self.failing {
            return Err(Failure::new(kind, "the test says so"));
        }
        let mut refused = Vec::new();
        for (index, change) in changes.into_iter().enumerate() {
            let full = match (&change, &self.full) {
                (Change::Publish(publish), Some(full)) => {
                    publish.event.is_some() && full.matches(&publish.message.topic)
                }
                _ => false,
            };
            if full {
                refused.push(Refused { index, failure: Failure::new(Kind::StreamFull, "the stream is full") });
                continue;
            }
            self.state.commits += 1;
            self.state.change(change);
        }
        Ok(refused)
    }
}

impl State {
    fn change(&mut self, change: Change) {
        match change {
            Change::Publish(publish) => {
                self.events.extend(publish.event.map(|event| *event));
                for place in publish.queues {
                    let session = self.sessions.get_mut(&place.client).expect("a queue belongs to a session");
                    let queued = Queued {
                        seq: place.seq,
                        qos: place.qos,
                        retain: place.retain,
                        subscriptions: place.subscriptions,
                        shared: place.shared,
                        released: false,
                        message: publish.message.clone(),
                    };
                    assert!(session.queue.insert(place.seq, queued).is_none(), "a place was given twice");
                }
                match publish.retain {
                    Retain::Keep => {}
                    Retain::Set => drop(self.retained.insert(publish.message.topic.clone(), publish.message)),
                    Retain::Clear => drop(self.retained.remove(&publish.message.topic)),
                }
                if let Some((client, packet)) = publish.received {
                    let session = self.sessions.get_mut(&client).expect("a sender has a session");
                    assert!(session.received.insert(packet), "a packet identifier was received twice");
                }
                if let Some(session) = publish.will_of.and_then(|client| self.sessions.get_mut(&client)) {
                    session.record.will = None;
                }
            }
            Change::Session { record, fresh } => {
                if fresh {
                    self.sessions.remove(&record.client);
                }
                let record = *record;
                let session = self.sessions.entry(record.client.clone()).or_insert_with(|| Stored {
                    record: record.clone(),
                    subscriptions: BTreeMap::new(),
                    received: BTreeSet::new(),
                    queue: BTreeMap::new(),
                });
                session.record = record;
            }
            Change::End(client) => drop(self.sessions.remove(&client)),
            Change::Subscribe(client, subscription) => {
                let session = self.sessions.get_mut(&client).expect("a subscriber has a session");
                session.subscriptions.insert(subscription.filter.clone(), subscription);
            }
            Change::Unsubscribe(client, filter) => {
                let session = self.sessions.get_mut(&client).expect("a subscriber has a session");
                session.subscriptions.remove(&filter);
            }
            Change::Release(client, seq) => {
                if let Some(queued) = self.sessions.get_mut(&client).and_then(|session| session.queue.get_mut(&seq)) {
                    queued.released = true;
                }
            }
            Change::Settle(client, seqs) => {
                if let Some(session) = self.sessions.get_mut(&client) {
                    session.queue.retain(|seq, _| !seqs.contains(seq));
                }
            }
            Change::Forget(client, packet) => {
                self.sessions.get_mut(&client).expect("a sender has a session").received.remove(&packet);
            }
            Change::Expire(topic) => drop(self.retained.remove(&topic)),
        }
    }
}

impl MqttJournal for Memory {
    fn captured(&self, topic: &str) -> bool {
        self.lock().captures.iter().any(|filter| filter.matches(topic))
    }

    fn load(&self) -> BoxFuture<'static, Result<Loaded, Failure>> {
        let state = self.state();
        let sessions = state.sessions.into_values().map(|stored| StoredSession {
            queued: stored.queue.len() as u64,
            queued_bytes: stored.queue.values().map(|queued| queued.message.size() as u64).sum(),
            first_seq: stored.queue.first_key_value().map_or(0, |(seq, _)| *seq),
            last_seq: stored.queue.last_key_value().map_or(0, |(seq, _)| *seq),
            shared: stored.queue.values().any(|queued| queued.shared.is_some()),
            record: stored.record,
            subscriptions: stored.subscriptions.into_values().collect(),
            received: stored.received.into_iter().collect(),
        });
        let loaded = Loaded { sessions: sessions.collect(), retained: state.retained.into_values().collect() };
        async move { Ok(loaded) }.boxed()
    }

    fn commit(&self, changes: Vec<Change>) -> BoxFuture<'static, Answer> {
        let mut inner = self.lock();
        if let Some(held) = &mut inner.held {
            let (answer, answered) = oneshot::channel();
            held.push_back(Held(changes, answer));
            return async move { answered.await.unwrap_or(Err(Failure::new(Kind::Internal, "crashed"))) }.boxed();
        }
        let answer = inner.apply(changes);
        async move {
            if answer.is_err() {
                // Whoever tries again at once does not keep others from running.
                tokio::task::yield_now().await;
            }
            answer
        }
        .boxed()
    }

    fn read(&self, client: &ClientId, after: u64, max: usize) -> BoxFuture<'static, Result<Vec<Queued>, Failure>> {
        let mut inner = self.lock();
        inner.reads += 1;
        if inner.unreadable {
            return async { Err(Failure::new(Kind::Internal, "the queue is damaged")) }.boxed();
        }
        let queued = inner.state.sessions.get(client).map_or_else(Vec::new, |session| {
            session.queue.range(after + 1..).take(max).map(|(_, queued)| queued.clone()).collect()
        });
        async move { Ok(queued) }.boxed()
    }
}
