//! One durable subscriber in every order of messages, commits that end well or not, pages read, and connections that come
//! and go.
//!
//! The engine is driven step by step: what the disk does and when is one of the steps.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use futures::FutureExt as _;
use marram_core::Kind;
use marram_core::port::mqtt::Qos;
use proptest::prelude::*;
use tokio::sync::oneshot;
use tokio::sync::oneshot::error::TryRecvError;

use super::testing::{Disk, Journal, Page, link, message, number, subscribe};
use super::*;
use crate::access::{Identity, Permissions};
use crate::outbox::{Delivery, Out, Outbox};
use crate::wire::AckKind;

struct Fixed;

impl Clock for Fixed {
    fn unix_ns(&self) -> u64 {
        1_000_000_000
    }

    fn instant(&self) -> Instant {
        Instant::now()
    }
}

impl Entropy for Fixed {
    fn u64(&self) -> u64 {
        7
    }
}

#[derive(Clone, Copy, Debug)]
enum Op {
    /// The node publishes so many, to be one commit.
    Publish(Qos, u32),
    /// The oldest commit that waits for the disk happens, or fails.
    Write(bool),
    /// The engine notices.
    Finish,
    /// The subscriber connects; an older connection of it is taken over.
    Connect,
    /// Its connection, or its attempt to connect, ends.
    Lose,
    /// The oldest read ends, with what there is now or with what there was when it began.
    Read(bool),
    /// The subscriber looks at what was sent to it.
    Take,
    /// It sends one of the acknowledgements that it owes.
    Ack(usize),
    /// What nobody waits for is written.
    Lazy,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (0..2_usize, 1..4_u32).prop_map(|(qos, n)| Op::Publish([Qos::AtLeastOnce, Qos::ExactlyOnce][qos], n)),
        5 => prop::bool::weighted(0.8).prop_map(Op::Write),
        5 => Just(Op::Finish),
        2 => Just(Op::Connect),
        1 => Just(Op::Lose),
        3 => any::<bool>().prop_map(Op::Read),
        3 => Just(Op::Take),
        4 => any::<usize>().prop_map(Op::Ack),
        1 => Just(Op::Lazy),
    ]
}

type Reply = oneshot::Receiver<Result<Accepted, (Reason, &'static str)>>;

struct World {
    engine: Engine,
    disk: Arc<Mutex<Disk>>,
    connecting: Option<(Reply, Arc<Outbox>)>,
    link: Option<(From, Arc<Outbox>)>,
    published: Vec<oneshot::Receiver<Result<(), Failure>>>,
    /// What the subscriber was given, in the order in which it first was.
    got: Vec<u32>,
    /// What it has acknowledged to its end.
    completed: BTreeSet<u32>,
    /// QoS 2 messages that it has and that are not released.
    known: BTreeMap<u16, u32>,
    /// Acknowledgements that it owes on this connection.
    owed: Vec<(AckKind, u16, u32)>,
}

impl World {
    fn new() -> Self {
        let journal = Journal::default();
        let disk = journal.0.clone();
        // A window of two, and a page or so in memory.
        let limits = Limits { send_max: 2, outbound_bytes: 120, ..Limits::default() };
        let (_, inputs) = mpsc::channel(1);
        let engine =
            Engine::start(limits, Arc::new(journal), Arc::new(Fixed), &Fixed, Arc::new(Stats::default()), inputs);
        let engine = engine.now_or_never().unwrap().unwrap();
        let mut world = Self {
            engine,
            disk,
            connecting: None,
            link: None,
            published: Vec::new(),
            got: Vec::new(),
            completed: BTreeSet::new(),
            known: BTreeMap::new(),
            owed: Vec::new(),
        };
        world.run(&[Op::Connect, Op::Write(true), Op::Finish]);
        let from = world.link.as_ref().unwrap().0;
        world.input(Input::Commands(from, vec![subscribe("t")]));
        world.run(&[Op::Write(true), Op::Finish, Op::Take]);
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
            Op::Connect if room => self.connect(),
            Op::Lose if room => self.lose(),
            Op::Ack(which) if room => self.ack(which),
            Op::Lazy if room => self.engine.submit(),
            Op::Publish(..) | Op::Connect | Op::Lose | Op::Ack(_) | Op::Lazy => {}
            Op::Write(well) => self.write(well),
            Op::Finish => {
                if !self.engine.commits.is_empty() && self.engine.commits.first().now_or_never().is_some() {
                    self.engine.finish_first();
                    self.engine.settle_down();
                }
            }
            Op::Read(late) => self.read(late),
            Op::Take => self.take(),
        }
        if let Some((mut reply, outbox)) = self.connecting.take() {
            match reply.try_recv() {
                Ok(Ok(accepted)) => self.link = Some((accepted.from, outbox)),
                Ok(Err(_)) | Err(TryRecvError::Closed) => {}
                Err(TryRecvError::Empty) => self.connecting = Some((reply, outbox)),
            }
        }
    }

    fn input(&mut self, input: Input) {
        self.engine.input(input);
        self.engine.settle_down();
    }

    fn publish(&mut self, qos: Qos, count: u32) {
        for _ in 0..count {
            let message = message(self.published.len() as u32, qos);
            let (reply, answer) = oneshot::channel();
            self.published.push(answer);
            self.engine.input(Input::Publish(Box::new(Local { message, reply })));
        }
        self.engine.settle_down();
    }

    fn connect(&mut self) {
        self.forget_connection();
        let outbox = Arc::new(Outbox::new());
        let hello = Hello {
            client: "to".into(),
            clean: false,
            expiry_s: 3_600,
            will: None,
            identity: Identity { user: None, grants: Arc::new(Permissions::all()) },
            link: link(outbox.clone()),
        };
        let (reply, answer) = oneshot::channel();
        self.connecting = Some((answer, outbox));
        self.input(Input::Connect(Box::new(hello), reply));
    }

    /// What was sent and not looked at is lost, and no acknowledgement is owed any more.
    fn forget_connection(&mut self) -> Option<From> {
        self.connecting = None;
        self.owed.clear();
        self.link.take().map(|(from, outbox)| {
            outbox.abandon();
            from
        })
    }

    fn lose(&mut self) {
        if let Some(from) = self.forget_connection() {
            self.input(Input::Ended(from));
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

    fn read(&mut self, late: bool) {
        {
            let mut disk = self.disk.lock().unwrap();
            let Some(Page { client, after, early, answer }) = disk.reads.pop_front() else { return };
            let queued = if late { disk.page(&client, after) } else { early };
            assert!(answer.send(Ok(queued)).is_ok());
        }
        let page = self.engine.reads.next().now_or_never().flatten().unwrap();
        self.engine.page(page);
        self.engine.settle_down();
    }

    fn take(&mut self) {
        let Some((_, outbox)) = &self.link else { return };
        let mut all = Vec::new();
        let taken = outbox.take(false, |out| {
            all.push(out);
            true
        });
        for out in all {
            match out {
                Out::Publish(delivery) => self.delivered(&delivery),
                Out::Ack(AckKind::Rel, packet, ..) => {
                    if let Some(number) = self.known.remove(&packet.get()) {
                        self.completed.insert(number);
                    }
                    self.owed.push((AckKind::Comp, packet.get(), u32::MAX));
                }
                Out::SubAck(..) => {}
                other => panic!("nobody asked for {other:?}"),
            }
        }
        if taken.close.is_some() {
            self.lose();
        }
    }

    fn delivered(&mut self, delivery: &Delivery) {
        let number = number(delivery);
        assert!(!self.completed.contains(&number), "{number} comes again after it was acknowledged");
        let new = match delivery.qos {
            Qos::ExactlyOnce => {
                self.owed.push((AckKind::Rec, delivery.packet, number));
                let known = self.known.insert(delivery.packet, number);
                assert!(known.is_none_or(|known| known == number), "{number} comes as another message that is known");
                known.is_none()
            }
            _ => {
                self.owed.push((AckKind::Ack, delivery.packet, number));
                !self.got.contains(&number)
            }
        };
        if new {
            assert!(self.got.last().is_none_or(|last| *last < number), "{number} comes after {:?}", self.got);
            self.got.push(number);
        } else {
            assert!(delivery.dup, "{number} comes again and does not say so");
        }
    }

    fn ack(&mut self, which: usize) {
        let (Some((from, _)), 1..) = (&self.link, self.owed.len()) else { return };
        let from = *from;
        let (kind, packet, number) = self.owed.remove(which % self.owed.len());
        if kind == AckKind::Ack {
            self.completed.insert(number);
        }
        let ack = Command::Ack(kind, packet.try_into().unwrap(), Reason::SUCCESS);
        self.input(Input::Commands(from, vec![ack]));
    }

    fn queued(&self) -> u64 {
        self.engine.sessions.iter().map(|(_, session)| session.out.queued).sum()
    }

    /// The disk works, the subscriber stays: everything comes to its end.
    fn settle(&mut self) {
        for _ in 0..2_000 {
            self.run(&[Op::Write(true), Op::Finish, Op::Write(true), Op::Finish]);
            self.run(&[Op::Read(true), Op::Take, Op::Ack(0), Op::Lazy]);
            if self.link.is_none() && self.connecting.is_none() {
                self.step(Op::Connect);
            }
            let quiet = self.engine.commits.is_empty() && self.engine.settled.is_empty() && self.owed.is_empty();
            if self.link.is_some()
                && quiet
                && self.queued() == 0
                && self.disk.lock().unwrap().queues.values().all(BTreeMap::is_empty)
            {
                return;
            }
        }
        panic!("{} are in the queue for ever; the subscriber has {:?}", self.queued(), self.got);
    }

    /// Every message was kept and came once, or was not and did not come.
    fn check(&mut self) {
        let kept = |answer: &mut oneshot::Receiver<_>| matches!(answer.try_recv(), Ok(Ok(())));
        let numbered = self.published.iter_mut().zip(0..);
        let kept: Vec<u32> = numbered.filter_map(|(answer, number)| kept(answer).then_some(number)).collect();
        assert_eq!(self.got, kept);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    /// Nothing that was acknowledged to its publisher is missing, out of order, or there twice at QoS 2.
    #[test]
    fn a_subscriber_gets_what_was_kept_whenever_its_connections_end(ops in prop::collection::vec(op(), 0..80)) {
        let mut world = World::new();
        world.run(&ops);
        world.settle();
        world.check();
    }
}

/// Found on a node under load: what was under commit when the connection of a subscriber ended was never delivered.
#[test]
fn what_is_under_commit_when_a_connection_ends_is_delivered_on_the_next() {
    for end in [Op::Lose, Op::Connect] {
        let mut world = World::new();
        world.run(&[Op::Publish(Qos::AtLeastOnce, 3), end, Op::Publish(Qos::ExactlyOnce, 3)]);
        world.settle();
        world.check();
        assert_eq!(world.got, [0, 1, 2, 3, 4, 5]);
    }
}

/// A commit that fails brings its settled places back to be written later, while the journal still has them.
#[test]
fn what_is_settled_and_could_not_be_written_is_not_delivered_again() {
    let mut world = World::new();
    // The second is acknowledged, the first is not: it is read again, and the second with it.
    world.run(&[Op::Publish(Qos::AtLeastOnce, 2), Op::Write(true), Op::Finish, Op::Take, Op::Ack(1), Op::Lazy]);
    world.run(&[Op::Connect, Op::Write(false), Op::Finish, Op::Write(true), Op::Finish]);
    world.settle();
    world.check();
    assert_eq!(world.got, [0, 1]);
}
