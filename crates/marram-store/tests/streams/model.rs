//! Random operations against a model that is as plain as can be: who was given what, what became of it, and the books.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use marram_core::event::SubjectFilter;
use marram_core::port::streams::{Delivery, Settle, Settlement};
use marram_core::port::{Consumer, Streams as _};
use marram_core::stream::{ConsumerPolicy, Overflow, Start, StreamPolicy};
use marram_core::{Failure, Kind};
use proptest::collection::vec;
use proptest::prelude::*;

use super::Node;
use super::support::{event, stream};

const SUBJECTS: [&str; 3] = ["a", "b", "c"];
const IN_FLIGHT_MAX: usize = 6;
const DELIVERIES_MAX: u32 = 3;
const ACK_WAIT: Duration = Duration::from_secs(5);
const BACKOFF: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(2)];

#[derive(Clone, Debug)]
enum Op {
    /// These subjects; twice the same events, if so.
    Publish(Vec<u8>, bool),
    Pull(u8, usize),
    /// The n-th of what is in flight, or of what was delivered once and is not any more.
    Ack(u8, Vec<u8>),
    Late(u8, u8),
    Retry(u8, u8),
    Bury(u8, u8),
    Pass(u8),
    Seek(u8, u8),
    Reopen,
}

fn op() -> impl Strategy<Value = Op> {
    let who = || 0..2_u8;
    prop_oneof![
        4 => (vec(0..3_u8, 1..6), prop::bool::weighted(0.2)).prop_map(|(subjects, twice)| Op::Publish(subjects, twice)),
        5 => (who(), 1..5_usize).prop_map(|(who, max)| Op::Pull(who, max)),
        4 => (who(), vec(0..8_u8, 1..4)).prop_map(|(who, which)| Op::Ack(who, which)),
        1 => (who(), any::<u8>()).prop_map(|(who, which)| Op::Late(who, which)),
        2 => (who(), 0..8_u8).prop_map(|(who, which)| Op::Retry(who, which)),
        1 => (who(), 0..8_u8).prop_map(|(who, which)| Op::Bury(who, which)),
        2 => (0..7_u8).prop_map(Op::Pass),
        1 => (who(), any::<u8>()).prop_map(|(who, at)| Op::Seek(who, at)),
        1 => Just(Op::Reopen),
    ]
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    /// Deliveries that were settled with a retry, and since when it may be delivered again.
    Owed {
        made: u32,
        due: u64,
    },
    /// In flight when the process ended: the number of the next delivery is one of these.
    Unsure {
        most: u32,
    },
    /// Owed again by a replay: a delivery whose number was in flight then has a new one, and it counts as the first.
    Replayed {
        least: u32,
    },
    InFlight {
        attempt: u32,
        until: u64,
    },
    /// Not settled in time, and not delivered again yet.
    Lapsed {
        attempt: u32,
    },
    Settled,
}

/// One consumer of the model.
struct Reader {
    id: &'static str,
    filter: SubjectFilter,
    ordered: bool,
    fates: BTreeMap<u64, Fate>,
    subjects: BTreeMap<u64, &'static str>,
    /// Deliveries of an event that count no more, since a replay.
    bases: BTreeMap<u64, u32>,
    /// Every delivery that there was.
    delivered: Vec<(u64, u32)>,
    /// Acked, dead-lettered, dropped.
    books: [u64; 3],
}

impl Reader {
    fn new(id: &'static str, filter: SubjectFilter, ordered: bool) -> Self {
        let (fates, subjects, bases, delivered) = Default::default();
        Self { id, filter, ordered, fates, subjects, bases, delivered, books: [0; 3] }
    }

    fn policy(&self) -> ConsumerPolicy {
        ConsumerPolicy {
            filter: self.filter.clone(),
            order_by_subject: self.ordered,
            in_flight_max: u32::try_from(IN_FLIGHT_MAX).unwrap(),
            deliveries_max: DELIVERIES_MAX,
            ack_wait: ACK_WAIT,
            backoff_min: BACKOFF[0],
            backoff_max: BACKOFF[1],
            ..ConsumerPolicy::default()
        }
    }

    /// Whether a delivery was the last that there may be.
    fn is_last(&self, at: u64, attempt: u32) -> bool {
        attempt - self.bases.get(&at).copied().unwrap_or(0) >= DELIVERIES_MAX
    }

    fn in_flight(&self) -> Vec<(u64, u32)> {
        let of = |(at, fate): (&u64, &Fate)| match fate {
            Fate::InFlight { attempt, .. } => Some((*at, *attempt)),
            _ => None,
        };
        self.fates.iter().filter_map(of).collect()
    }

    /// Whether nothing unsettled of its subject is before it, where that matters.
    fn is_first(&self, at: u64) -> bool {
        let before =
            |(other, fate): (&u64, &Fate)| *fate != Fate::Settled && self.subjects[other] == self.subjects[&at];
        !self.ordered || !self.fates.range(..at).any(before)
    }

    /// What a pull may hand out at `now`.
    fn due(&self, now: u64) -> Vec<u64> {
        if self.in_flight().len() >= IN_FLIGHT_MAX {
            return Vec::new();
        }
        let may = |at: u64, fate: &Fate| match fate {
            Fate::Owed { due, .. } => *due <= now && self.is_first(at),
            Fate::Unsure { .. } | Fate::Replayed { .. } => self.is_first(at),
            Fate::Lapsed { attempt } => !self.is_last(at, *attempt),
            Fate::InFlight { .. } | Fate::Settled => false,
        };
        self.fates.iter().filter(|(at, fate)| may(**at, fate)).map(|(at, _)| *at).collect()
    }

    /// Takes note of deliveries, each of which must be one that is due.
    fn pulled(&mut self, deliveries: &[Delivery], max: usize, now: u64) {
        assert!(!deliveries.is_empty() && deliveries.len() <= max, "{} of {max}", deliveries.len());
        for Delivery { stored, attempt } in deliveries {
            let at = stored.position;
            assert!(self.due(now).contains(&at), "{} was given {at}, which is {:?}", self.id, self.fates.get(&at));
            assert_eq!(stored.event.subject, self.subjects[&at]);
            let (least, most) = match self.fates[&at] {
                Fate::Owed { made, .. } => (made + 1, made + 1),
                Fate::Lapsed { attempt } => (attempt + 1, attempt + 1),
                Fate::Unsure { most } => (1, most),
                Fate::Replayed { least } => {
                    self.bases.insert(at, attempt - 1);
                    (least, u32::MAX)
                }
                fate => panic!("{fate:?} was delivered"),
            };
            assert!((least..=most).contains(attempt), "{} was given {at} for the {attempt}. time", self.id);
            self.delivered.push((at, *attempt));
            let until = now + u64::try_from(ACK_WAIT.as_nanos()).unwrap();
            self.fates.insert(at, Fate::InFlight { attempt: *attempt, until });
        }
    }

    fn lapse(&mut self, now: u64) {
        for fate in self.fates.values_mut() {
            match *fate {
                Fate::InFlight { attempt, until } if until <= now => *fate = Fate::Lapsed { attempt },
                _ => {}
            }
        }
    }

    fn settled(&mut self, at: u64, book: usize) {
        self.fates.insert(at, Fate::Settled);
        self.books[book] += 1;
    }

    fn unsettled(&self) -> u64 {
        self.fates.values().filter(|fate| **fate != Fate::Settled).count() as u64
    }
}

struct World {
    node: Node,
    held: Vec<Arc<dyn Consumer>>,
    readers: Vec<Reader>,
    /// Subjects of what the stream keeps.
    kept: BTreeMap<u64, &'static str>,
    last: u64,
    policy: StreamPolicy,
    size: u64,
}

impl World {
    async fn new(ordered: bool, overflow: Overflow) -> Self {
        // What is on a memory disk is as crash-safe as this test needs it.
        let memory = std::path::Path::new("/dev/shm");
        let dir = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
        let node = Node::new_in(dir.unwrap());
        let size = event("00000000", "a", b"data").size();
        let policy = StreamPolicy { bytes_max: 24 * size, overflow, ..StreamPolicy::default() };
        node.streams.declare(&stream("s"), policy).await.unwrap();
        let few = SubjectFilter::Exact("a".into());
        let readers = vec![Reader::new("all", SubjectFilter::All, ordered), Reader::new("few", few, !ordered)];
        let mut world = Self { node, held: Vec::new(), readers, kept: BTreeMap::new(), last: 0, policy, size };
        world.take_up().await;
        world
    }

    async fn take_up(&mut self) {
        self.held.clear();
        for reader in &self.readers {
            self.held.push(self.node.consumer(reader.id, reader.policy()).await);
        }
    }

    fn now(&self) -> u64 {
        marram_core::port::Clock::unix_ns(&*self.node.clock)
    }

    async fn publish(&mut self, subjects: &[u8], twice: bool) {
        let subjects: Vec<&'static str> = subjects.iter().map(|n| SUBJECTS[usize::from(*n)]).collect();
        let events = (self.last + 1..).zip(&subjects).map(|(n, subject)| event(&format!("{n:08}"), subject, b"data"));
        let events: Vec<_> = events.collect();
        let published = self.node.streams.publish(&stream("s"), events.clone()).await;
        let over = (self.kept.len() + events.len()).saturating_sub(24);
        let goes: Vec<u64> = self.kept.keys().copied().take(over).collect();
        if let Err(refused) = published {
            self.is_refused_rightly(&refused, &goes);
            return;
        }
        for at in goes {
            self.kept.remove(&at);
            for reader in &mut self.readers {
                if reader.fates.get(&at).is_some_and(|fate| *fate != Fate::Settled) {
                    assert_eq!(
                        self.policy.overflow,
                        Overflow::DropOldest,
                        "{at} made room and is owed to {}",
                        reader.id
                    );
                    reader.settled(at, 2);
                }
            }
        }
        for (published, subject) in published.unwrap().iter().zip(subjects) {
            self.last += 1;
            assert_eq!((published.position, published.duplicate), (self.last, false));
            self.kept.insert(self.last, subject);
            for reader in &mut self.readers {
                reader.subjects.insert(self.last, subject);
                if reader.filter == SubjectFilter::All || subject == "a" {
                    reader.fates.insert(self.last, Fate::Owed { made: 0, due: 0 });
                }
            }
        }
        if twice {
            let again = self.node.streams.publish(&stream("s"), events).await.unwrap();
            let first = self.last + 1 - again.len() as u64;
            assert!(again.iter().zip(first..).all(|(there, at)| there.duplicate && there.position == at), "{again:?}");
        }
    }

    fn is_refused_rightly(&self, refused: &Failure, goes: &[u64]) {
        assert_eq!((refused.kind(), self.policy.overflow), (Kind::StreamFull, Overflow::Reject));
        // The filter of the other may just not have looked that far yet.
        let few = self.node.consumer_state("few").cursor;
        let owed = |at: &u64| self.readers[0].fates.get(at).is_some_and(|fate| *fate != Fate::Settled) || *at > few;
        assert!(goes.iter().any(owed), "refused though {goes:?} could go");
    }

    async fn pull(&mut self, who: usize, max: usize) {
        let now = self.now();
        let spent = |reader: &Reader| {
            let is_spent = |(at, fate): &(&u64, &Fate)| match fate {
                Fate::Lapsed { attempt } => reader.is_last(**at, *attempt),
                _ => false,
            };
            reader.fates.iter().filter(is_spent).map(|(at, _)| *at).collect::<Vec<_>>()
        };
        for at in spent(&self.readers[who]) {
            self.readers[who].settled(at, 1);
        }
        let dead = self.readers[who].books[1];
        if self.readers[who].due(now).is_empty() {
            // Nothing comes, but what was not settled for the last time has to go.
            let deadline = std::time::Instant::now() + Duration::from_secs(10);
            while self.held[who].state().dead_lettered < dead {
                let pulled = tokio::time::timeout(Duration::from_millis(5), self.held[who].pull(max)).await;
                assert!(pulled.is_err() && std::time::Instant::now() < deadline, "{pulled:?}");
            }
            return;
        }
        let pulled = super::pull(&self.held[who], max).await;
        self.readers[who].pulled(&pulled, max, now);
    }

    async fn settle(&mut self, who: usize, which: (u64, u32), settlement: Settlement) {
        let settle =
            Settle { position: which.0, attempt: which.1, others: Vec::new(), settlement, outputs: Vec::new() };
        self.held[who].settle(vec![settle]).await.unwrap();
    }

    async fn step(&mut self, op: Op) {
        match op {
            Op::Publish(subjects, twice) => self.publish(&subjects, twice).await,
            Op::Pull(who, max) => self.pull(who.into(), max).await,
            Op::Ack(who, which) => {
                let reader = &mut self.readers[usize::from(who)];
                let mut settlements = Vec::new();
                for n in which {
                    let in_flight = reader.in_flight();
                    let Some((position, attempt)) = in_flight.get(usize::from(n)).copied() else { continue };
                    reader.settled(position, 0);
                    settlements.push(Settle {
                        position,
                        attempt,
                        others: Vec::new(),
                        settlement: Settlement::Ack,
                        outputs: Vec::new(),
                    });
                }
                self.held[usize::from(who)].settle(settlements).await.unwrap();
            }
            Op::Late(who, n) => {
                let reader = &self.readers[usize::from(who)];
                let late = |(at, attempt): &&(u64, u32)| {
                    !matches!(reader.fates.get(at),
                    Some(Fate::InFlight { attempt: now, .. } | Fate::Lapsed { attempt: now }) if now == attempt)
                };
                let late: Vec<_> = reader.delivered.iter().filter(late).copied().collect();
                let Some(which) = late.get(usize::from(n) % late.len().max(1)).copied() else { return };
                self.settle(who.into(), which, Settlement::Ack).await;
            }
            Op::Retry(who, n) => {
                let now = self.now();
                let reader = &mut self.readers[usize::from(who)];
                let Some(which) = reader.in_flight().get(usize::from(n)).copied() else { return };
                if reader.is_last(which.0, which.1) {
                    reader.settled(which.0, 1);
                } else {
                    let counted = which.1 - reader.bases.get(&which.0).copied().unwrap_or(0);
                    let wait = BACKOFF[usize::try_from(counted).unwrap() - 1];
                    let due = now + u64::try_from(wait.as_nanos()).unwrap();
                    reader.fates.insert(which.0, Fate::Owed { made: which.1, due });
                }
                self.settle(who.into(), which, super::retry(None)).await;
            }
            Op::Bury(who, n) => {
                let reader = &mut self.readers[usize::from(who)];
                let Some(which) = reader.in_flight().get(usize::from(n)).copied() else { return };
                reader.settled(which.0, 1);
                self.settle(who.into(), which, Settlement::DeadLetter { reason: "no".into() }).await;
            }
            Op::Pass(seconds) => {
                self.node.pass(Duration::from_secs(seconds.into())).await;
                let now = self.now();
                self.readers.iter_mut().for_each(|reader| reader.lapse(now));
            }
            Op::Seek(who, at) => self.seek(who.into(), u64::from(at) % (self.last + 2)).await,
            Op::Reopen => self.reopen().await,
        }
    }

    async fn seek(&mut self, who: usize, at: u64) {
        self.held[who].seek(Start::Position(at)).await.unwrap();
        let first = self.kept.keys().next().copied().unwrap_or(self.last + 1);
        let reader = &mut self.readers[who];
        reader.bases.clear();
        for (position, fate) in &mut reader.fates {
            // Numbers go on from what was in flight, so that late settlements are told apart.
            let least = match *fate {
                Fate::InFlight { attempt, .. } | Fate::Lapsed { attempt } => attempt + 1,
                Fate::Replayed { least } => least,
                _ => 1,
            };
            let passed = *position < at.max(first);
            // What was owed and is passed over is in the books.
            reader.books[2] += u64::from(passed && *fate != Fate::Settled);
            *fate = if passed { Fate::Settled } else { Fate::Replayed { least } };
        }
    }

    async fn reopen(&mut self) {
        self.held.clear();
        let memory = std::path::Path::new("/dev/shm");
        let dir = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
        let node = std::mem::replace(&mut self.node, Node::new_in(dir.unwrap()));
        self.node = node.reopen();
        for reader in &mut self.readers {
            for (at, fate) in &mut reader.fates {
                let base = reader.bases.get(at).copied().unwrap_or(0);
                match *fate {
                    Fate::InFlight { attempt, .. } | Fate::Lapsed { attempt } => {
                        *fate = Fate::Unsure { most: attempt - base };
                    }
                    Fate::Owed { made, due } => *fate = Fate::Owed { made: made - base.min(made), due },
                    Fate::Replayed { .. } => *fate = Fate::Owed { made: 0, due: 0 },
                    Fate::Unsure { .. } | Fate::Settled => {}
                }
            }
            reader.bases.clear();
            // No settlement comes from the process before.
            reader.delivered.clear();
        }
        self.take_up().await;
    }

    /// The books, and what the stream says of itself.
    fn check(&self) {
        let state = self.node.state("s").unwrap();
        let first = self.kept.keys().next().copied().unwrap_or(self.last + 1);
        assert_eq!((state.first, state.last, state.events), (first, self.last, self.kept.len() as u64));
        assert_eq!(state.bytes, state.events * self.size);
        for reader in &self.readers {
            let found = self.node.consumer_state(reader.id);
            assert_eq!([found.acked, found.dead_lettered, found.dropped], reader.books, "{}", reader.id);
            let waiting = reader.fates.range(found.handed + 1..).filter(|(_, fate)| **fate != Fate::Settled).count();
            let open = found.in_flight + found.retrying + found.held;
            assert_eq!(open + waiting as u64, reader.unsettled(), "{}: {found:?}", reader.id);
        }
    }

    /// Settles all that is left, and finds that it was all that was left.
    async fn drain(&mut self) {
        for who in 0..self.readers.len() {
            for _ in 0..10_000 {
                if self.readers[who].unsettled() == 0 {
                    break;
                }
                self.node.pass(Duration::from_secs(2)).await;
                let now = self.now();
                self.readers.iter_mut().for_each(|reader| reader.lapse(now));
                self.pull(who, 100).await;
                for which in self.readers[who].in_flight() {
                    self.readers[who].settled(which.0, 0);
                    self.settle(who, which, Settlement::Ack).await;
                }
            }
            assert_eq!(self.readers[who].unsettled(), 0);
        }
        self.check();
        let dead: u64 = self.readers.iter().map(|reader| reader.books[1]).sum();
        assert_eq!(self.node.state("s.dead").map_or(0, |state| state.events), dead);
    }
}

/// `PROPTEST_CASES` sets more.
fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(128)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(cases()))]

    #[test]
    fn whatever_happens_the_books_balance(ordered: bool, drops: bool, ops in vec(op(), 1..80)) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.block_on(async {
            let overflow = if drops { Overflow::DropOldest } else { Overflow::Reject };
            let mut world = World::new(ordered, overflow).await;
            for op in ops {
                world.step(op).await;
                world.check();
            }
            world.drain().await;
        });
    }
}
