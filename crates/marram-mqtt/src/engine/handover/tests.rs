//! A group of three in every order of messages, commits that end well or not, queues read, and members that come and go: one
//! stays, one has a session that lasts until it says otherwise, one has none that lasts.
//!
//! The engine is driven step by step: what the disk does and when is one of the steps.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures::{FutureExt as _, StreamExt as _};
use marram_core::Kind;
use marram_core::port::{Clock, Entropy};
use proptest::prelude::*;
use tokio::sync::oneshot::error::TryRecvError;
use tokio::sync::{mpsc, oneshot};

use super::super::connect::Farewell;
use super::super::testing::{Disk, Journal, Page, link, message, number, subscribe};
use super::super::{Accepted, Command, From, Input, Local};
use super::*;
use crate::access::{Identity, Permissions};
use crate::limits::{COMMITS_MAX, Limits};
use crate::outbox::{Delivery, Out, Outbox};
use crate::stats::Stats;
use crate::wire::AckKind;

const FILTER: &str = "$share/g/t";
/// The one that stays, the one that may end its session, the one whose session ends with its connection.
const MEMBERS: usize = 3;

/// Time passes when the test says so.
struct Time(Instant, AtomicU64);

impl Clock for Time {
    fn unix_ns(&self) -> u64 {
        1_000_000_000
    }

    fn instant(&self) -> Instant {
        self.0 + Duration::from_secs(self.1.load(Ordering::Relaxed))
    }
}

impl Entropy for Time {
    fn u64(&self) -> u64 {
        7
    }
}

#[derive(Clone, Copy, Debug)]
enum Op {
    /// The node publishes so many, to be one commit.
    Publish(Qos, u32),
    /// The next two come in together.
    Together,
    /// The oldest commit that waits for the disk happens, or fails.
    Write(bool),
    /// The engine notices.
    Finish,
    /// A member connects, perhaps with a clean start, and subscribes; an older connection of it is taken over.
    Connect(usize, bool),
    /// Its connection, or its attempt to connect, ends.
    Lose(usize),
    /// It says farewell, and that its session ends.
    Leave(usize),
    /// The oldest read ends, with what there is now or with what there was when it began; or it fails.
    Read(Option<bool>),
    /// A member looks at what was sent to it.
    Take(usize),
    /// It sends one of the acknowledgements that it owes.
    Ack(usize, usize),
    /// What nobody waits for is written, what failed is tried again.
    Later,
}

fn op() -> impl Strategy<Value = Op> {
    let member = 0..MEMBERS;
    prop_oneof![
        4 => (any::<bool>(), 1..4_u32).prop_map(|(twice, n)| {
            Op::Publish(if twice { Qos::ExactlyOnce } else { Qos::AtLeastOnce }, n)
        }),
        2 => Just(Op::Together),
        6 => prop::bool::weighted(0.8).prop_map(Op::Write),
        6 => Just(Op::Finish),
        3 => (member.clone(), any::<bool>()).prop_map(|(member, clean)| Op::Connect(member, clean)),
        2 => member.clone().prop_map(Op::Lose),
        1 => member.clone().prop_map(Op::Leave),
        4 => prop::option::weighted(0.9, any::<bool>()).prop_map(Op::Read),
        4 => member.clone().prop_map(Op::Take),
        4 => (member, any::<usize>()).prop_map(|(member, which)| Op::Ack(member, which)),
        1 => Just(Op::Later),
    ]
}

type Answer = oneshot::Receiver<Result<Accepted, (Reason, &'static str)>>;

#[derive(Default)]
struct Member {
    connecting: Option<(Answer, Arc<Outbox>)>,
    link: Option<(From, Arc<Outbox>)>,
    /// QoS 2 messages that it has and that are not released.
    known: BTreeMap<u16, u32>,
    /// Acknowledgements that it owes on this connection.
    owed: Vec<(AckKind, u16, u32)>,
    /// What was on its way to its connections when they ended.
    on_its_way: BTreeSet<u32>,
}

struct World {
    engine: Engine,
    disk: Arc<Mutex<Disk>>,
    time: Arc<Time>,
    members: [Member; MEMBERS],
    published: Vec<(Qos, oneshot::Receiver<Result<(), Failure>>)>,
    /// Who was given what, a QoS 2 message once for each session that took it as new.
    got: Vec<(u32, usize)>,
    /// QoS 1 messages that somebody has acknowledged.
    acknowledged: BTreeSet<u32>,
    /// What was on its way to a session when that ended.
    may_have_been_sent: BTreeSet<u32>,
    /// Inputs that are still to come in together.
    together: usize,
    /// Reads that failed since one did not.
    unreadable: u32,
}

impl World {
    fn new() -> Self {
        let journal = Journal::default();
        let disk = journal.0.clone();
        let time = Arc::new(Time(Instant::now(), AtomicU64::new(0)));
        // A window of two: the rest waits.
        let limits = Limits { send_max: 2, ..Limits::default() };
        let (_, inputs) = mpsc::channel(1);
        let engine = Engine::start(limits, Arc::new(journal), time.clone(), &*time, Arc::new(Stats::default()), inputs);
        let engine = engine.now_or_never().unwrap().unwrap();
        let mut world = Self {
            engine,
            disk,
            time,
            members: Default::default(),
            published: Vec::new(),
            got: Vec::new(),
            acknowledged: BTreeSet::new(),
            may_have_been_sent: BTreeSet::new(),
            together: 0,
            unreadable: 0,
        };
        for member in 0..MEMBERS {
            world.step(Op::Connect(member, false));
            for _ in 0..3 {
                world.run(&[Op::Write(true), Op::Finish]);
            }
        }
        world
    }

    fn run(&mut self, ops: &[Op]) {
        ops.iter().for_each(|op| self.step(*op));
    }

    fn step(&mut self, op: Op) {
        // As the engine does: it takes nothing in while too many commits are under way.
        let room = self.engine.commits.len() < COMMITS_MAX;
        match op {
            Op::Publish(qos, count) if room => self.publish(qos, count),
            Op::Together => self.together = 2,
            // The session of the first never ends.
            Op::Connect(member, clean) if room => self.connect(member, clean && member > 0),
            Op::Lose(member) if room => self.lose(member),
            Op::Leave(member) if room && member > 0 => self.leave(member),
            Op::Ack(member, which) if room => self.ack(member, which),
            Op::Later if room => {
                self.time.1.fetch_add(2, Ordering::Relaxed);
                self.engine.timers_due();
                self.settle_down();
            }
            Op::Write(well) => self.write(well),
            Op::Finish => self.finish(),
            Op::Read(late) if room => self.read(late),
            Op::Take(member) => self.take(member),
            _ => {}
        }
        (0..MEMBERS).for_each(|member| self.accepted(member));
    }

    fn input(&mut self, input: Input) {
        self.engine.input(input);
        self.taken_in();
    }

    /// What came in is prepared.
    fn taken_in(&mut self) {
        self.together = self.together.saturating_sub(1);
        if self.together == 0 {
            self.settle_down();
        }
    }

    fn settle_down(&mut self) {
        self.engine.settle_down();
        assert!(!self.engine.batch.is_waited_for(), "the engine would wait, and somebody waits for it");
    }

    fn publish(&mut self, qos: Qos, count: u32) {
        for _ in 0..count {
            let message = message(self.published.len() as u32, qos);
            let (reply, answer) = oneshot::channel();
            self.published.push((qos, answer));
            self.engine.input(Input::Publish(Box::new(Local { message, reply })));
        }
        self.taken_in();
    }

    fn connect(&mut self, member: usize, clean: bool) {
        self.forget_connection(member);
        let outbox = Arc::new(Outbox::new());
        let hello = Hello {
            client: format!("{member}").into(),
            clean,
            expiry_s: [1_000_000, 1_000_000, 0][member],
            will: None,
            identity: Identity { user: None, grants: Arc::new(Permissions::all()) },
            link: link(outbox.clone()),
        };
        if clean {
            // So does the client (MQTT-3.1.2-4).
            self.members[member].known.clear();
            self.session_ends(member);
        }
        let (reply, answer) = oneshot::channel();
        self.members[member].connecting = Some((answer, outbox));
        self.input(Input::Connect(Box::new(hello), reply));
    }

    /// A connection that was accepted subscribes.
    fn accepted(&mut self, member: usize) {
        let Some((mut answer, outbox)) = self.members[member].connecting.take() else { return };
        match answer.try_recv() {
            Ok(Ok(accepted)) => {
                if !accepted.session_present {
                    self.members[member].known.clear();
                    self.session_ends(member);
                }
                self.members[member].link = Some((accepted.from, outbox));
                self.input(Input::Commands(accepted.from, vec![subscribe(FILTER)]));
            }
            Ok(Err(_)) | Err(TryRecvError::Closed) => {}
            Err(TryRecvError::Empty) => self.members[member].connecting = Some((answer, outbox)),
        }
    }

    /// What was sent and not looked at is lost, and no acknowledgement is owed any more.
    fn forget_connection(&mut self, member: usize) -> Option<From> {
        let of = &mut self.members[member];
        of.connecting = None;
        of.owed.clear();
        let (from, outbox) = of.link.take()?;
        outbox.take(false, |out| {
            if let Out::Publish(delivery) = out {
                of.on_its_way.insert(number(&delivery));
            }
            true
        });
        outbox.abandon();
        Some(from)
    }

    fn session_ends(&mut self, member: usize) {
        let on_its_way = std::mem::take(&mut self.members[member].on_its_way);
        self.may_have_been_sent.extend(on_its_way);
    }

    fn lose(&mut self, member: usize) {
        if let Some(from) = self.forget_connection(member) {
            self.input(Input::Ended(from));
        }
    }

    fn leave(&mut self, member: usize) {
        if let Some(from) = self.forget_connection(member) {
            self.engine.ended(from, Farewell::Said(Reason::SUCCESS, Some(0)));
            self.members[member].known.clear();
            self.session_ends(member);
            self.taken_in();
        }
    }

    fn write(&mut self, well: bool) {
        let mut disk = self.disk.lock().unwrap();
        let Some((changes, answer)) = disk.commits.pop_front() else { return };
        if well {
            changes.into_iter().for_each(|change| disk.apply(change));
        }
        let outcome = if well { Ok(Vec::new()) } else { Err(Failure::new(Kind::StorageFull, "the test says so")) };
        answer.send(outcome).unwrap();
    }

    fn read(&mut self, late: Option<bool>) {
        {
            let mut disk = self.disk.lock().unwrap();
            let Some(Page { client, after, early, answer }) = disk.reads.pop_front() else { return };
            // For ever would be a damaged disk: what is there then is lost.
            let late = late.or((self.unreadable == HANDOVER_READS_MAX).then_some(true));
            self.unreadable = if late.is_some() { 0 } else { self.unreadable + 1 };
            let queued = match late {
                Some(true) => Ok(disk.page(&client, after)),
                Some(false) => Ok(early),
                None => Err(Failure::new(Kind::Internal, "the test says so")),
            };
            assert!(answer.send(queued).is_ok());
        }
        if let Some(page) = self.engine.reads.next().now_or_never().flatten() {
            self.engine.page(page);
        }
        if let Some(part) = self.engine.parts.next().now_or_never().flatten() {
            self.engine.hand_over(part);
        }
        self.settle_down();
    }

    fn finish(&mut self) {
        if !self.engine.commits.is_empty() && self.engine.commits.first().now_or_never().is_some() {
            self.engine.finish_first();
            self.settle_down();
        }
    }

    fn take(&mut self, member: usize) {
        let Some((_, outbox)) = &self.members[member].link else { return };
        let mut all = Vec::new();
        let taken = outbox.take(false, |out| {
            all.push(out);
            true
        });
        for out in all {
            match out {
                Out::Publish(delivery) => self.delivered(member, &delivery),
                Out::Ack(AckKind::Rel, packet, ..) => {
                    self.members[member].known.remove(&packet.get());
                    self.members[member].owed.push((AckKind::Comp, packet.get(), u32::MAX));
                }
                Out::SubAck(..) => {}
                other => panic!("nobody asked for {other:?}"),
            }
        }
        if taken.close.is_some() {
            self.lose(member);
        }
    }

    fn delivered(&mut self, member: usize, delivery: &Delivery) {
        let number = number(delivery);
        let of = &mut self.members[member];
        if delivery.qos == Qos::ExactlyOnce {
            of.owed.push((AckKind::Rec, delivery.packet, number));
            let known = of.known.insert(delivery.packet, number);
            assert!(known.is_none_or(|known| known == number), "{number} comes as another message that is known");
            if known.is_some() {
                return;
            }
            assert!(!self.got.iter().any(|(got, _)| *got == number), "{number} comes twice at QoS 2: {:?}", self.got);
        } else {
            assert!(!self.acknowledged.contains(&number), "{number} comes again after it was acknowledged");
            of.owed.push((AckKind::Ack, delivery.packet, number));
        }
        self.got.push((number, member));
    }

    fn ack(&mut self, member: usize, which: usize) {
        let of = &mut self.members[member];
        let (Some((from, _)), 1..) = (&of.link, of.owed.len()) else { return };
        let from = *from;
        let (kind, packet, number) = of.owed.remove(which % of.owed.len());
        if kind == AckKind::Ack {
            self.acknowledged.insert(number);
        }
        self.input(Input::Commands(from, vec![Command::Ack(kind, packet.try_into().unwrap(), Reason::SUCCESS)]));
    }

    /// The disk works, the members stay: everything comes to its end.
    fn settle(&mut self) {
        for _ in 0..2_000 {
            self.run(&[Op::Write(true), Op::Finish, Op::Write(true), Op::Finish, Op::Read(Some(true)), Op::Later]);
            for member in 0..MEMBERS {
                self.run(&[Op::Take(member), Op::Ack(member, 0)]);
                if self.members[member].link.is_none() && self.members[member].connecting.is_none() {
                    self.step(Op::Connect(member, false));
                }
            }
            let engine = &self.engine;
            let quiet = engine.commits.is_empty()
                && engine.settled.is_empty()
                && engine.handovers.is_empty()
                && engine.strays.is_empty()
                && self.members.iter().all(|member| member.link.is_some() && member.owed.is_empty());
            let queued: u64 = engine.sessions.iter().map(|(_, session)| session.out.queued).sum();
            if quiet && queued == 0 && self.disk.lock().unwrap().queues.values().all(BTreeMap::is_empty) {
                return;
            }
        }
        panic!("some wait for ever; the members have {:?}", self.got);
    }

    fn check(&mut self) {
        assert_eq!(self.engine.stats.memory.load(Ordering::Relaxed), 0, "all of it is out of memory");
        for ((qos, answer), number) in self.published.iter_mut().zip(0..) {
            let kept = matches!(answer.try_recv(), Ok(Ok(())));
            let got = self.got.iter().any(|(got, _)| *got == number);
            if !kept {
                assert!(!got, "{number} was not kept, and came");
            } else if *qos == Qos::AtLeastOnce {
                assert!(self.acknowledged.contains(&number), "{number} is lost; {:?}", self.got);
            } else {
                assert!(got || self.may_have_been_sent.contains(&number), "{number} is lost; {:?}", self.got);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3_000, ..ProptestConfig::default() })]

    /// Nothing that was acknowledged to its publisher is lost with a member, and nothing at QoS 2 comes to two of them.
    #[test]
    fn a_group_gets_what_was_kept_whoever_comes_and_goes(ops in prop::collection::vec(op(), 0..90)) {
        let mut world = World::new();
        world.run(&ops);
        world.settle();
        world.check();
    }
}
