//! Batches of changes, and the commits under way.

use std::collections::{BTreeMap, VecDeque};
use std::num::NonZeroU16;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::future::BoxFuture;
use marram_core::Failure;
use marram_core::port::mqtt::{Change, ClientId, Message, Refused, Retain, Will};
use tokio::sync::oneshot;

use super::handover::Moved;
use super::message::{Accepted, From};
use super::publish::Target;
use super::session::Key;
use super::spare::Shared;
use crate::wire::{AckKind, Reason};

/// What is done once the changes that it belongs to are durable, or are not.
pub(super) enum Finish {
    /// A message: deliver it, retain it, acknowledge it.
    Publish(Box<Published>),
    /// A QoS 2 message that is here already: acknowledge it, if it was kept.
    Again(From, NonZeroU16),
    /// A packet for a client, whatever happened before.
    Ack(From, AckKind, NonZeroU16, Reason, Option<Arc<str>>),
    /// A message that was not allowed.
    Refuse(From, Option<(AckKind, NonZeroU16)>, Reason, &'static str, usize),
    /// The client has a QoS 2 message of its queue: tell it that it may forget it.
    Release(From, u64),
    /// A QoS 2 message will not be sent again.
    Forgotten(From, NonZeroU16),
    /// A client is connected.
    Connected(oneshot::Sender<Result<Accepted, (Reason, &'static str)>>, Box<Accepted>),
    /// Subscriptions were made: their reasons, and those that get retained messages.
    SubAck(From, NonZeroU16, Vec<Reason>, Vec<super::subscribe::Made>),
    /// Subscriptions were removed: their reasons, and the filters that the journal has to forget.
    UnsubAck(From, NonZeroU16, Vec<Reason>, Vec<Arc<str>>),
    /// What was under commit when this client's session ended is written, or never: its queue can be handed over.
    HandOver(ClientId),
    /// A part of such a queue is in the queues of others.
    Moved(Box<Moved>),
}

/// A message on its way.
pub(super) struct Published {
    pub(super) message: Arc<Message>,
    pub(super) targets: Vec<Target>,
    pub(super) retain: Retain,
    pub(super) source: Source,
    /// The packet identifier of a QoS 2 message, in the sender's session.
    pub(super) received: Option<u16>,
    /// What a 5.0 client is told when it is kept.
    pub(super) reason: Reason,
}

/// Who waits for a message to be kept.
pub(super) enum Source {
    /// A client; with what to answer, and its bytes in the budget.
    Client(From, Option<(AckKind, NonZeroU16)>, usize),
    /// The node.
    Local(oneshot::Sender<Result<(), Failure>>),
    /// The session whose will it is; it gets it back if it cannot be kept.
    Will(Key, Will),
    /// Nobody: it has been published before.
    Nobody,
    /// The group of which another member had it in memory alone.
    Group(Shared),
}

/// What is prepared and not committed.
#[derive(Default)]
pub(super) struct Batch {
    changes: Vec<Change>,
    steps: Vec<Step>,
    records: Records,
}

/// Sessions whose record nobody waits for, and whether it is their end.
pub(super) type Records = BTreeMap<ClientId, bool>;

/// What to do, and which changes it depends on.
pub(super) struct Step {
    pub(super) first: usize,
    pub(super) past: usize,
    pub(super) finish: Finish,
}

impl Batch {
    /// Adds changes with what is done afterwards.
    pub(super) fn step(&mut self, changes: impl IntoIterator<Item = Change>, finish: Finish) {
        let first = self.changes.len();
        self.changes.extend(changes);
        self.steps.push(Step { first, past: self.changes.len(), finish });
    }

    /// Adds a change that nobody waits for.
    pub(super) fn lazy(&mut self, change: Change) {
        let record = match &change {
            Change::Session { record, .. } => Some((record.client.clone(), false)),
            Change::End(client) => Some((client.clone(), true)),
            _ => None,
        };
        self.records.extend(record);
        self.changes.push(change);
    }

    /// Whether there is a record of this client that nobody waits for.
    pub(super) fn has_record(&self, client: &str) -> bool {
        self.records.contains_key(client)
    }

    pub(super) fn is_waited_for(&self) -> bool {
        !self.steps.is_empty()
    }

    pub(super) fn steps(&self) -> usize {
        self.steps.len()
    }

    pub(super) fn changes(&self) -> usize {
        self.changes.len()
    }

    pub(super) fn take(&mut self) -> (Vec<Change>, After) {
        let Self { changes, steps, records } = std::mem::take(self);
        (changes, After { steps, records, settled: Vec::new() })
    }
}

/// How a commit ended.
pub(super) type Outcome = Result<Vec<Refused>, Failure>;

/// Commits in their order.
#[derive(Default)]
pub(super) struct Commits(VecDeque<Commit>);

struct Commit {
    state: State,
    after: After,
}

/// What a commit leaves to be done when it is over.
pub(super) struct After {
    pub(super) steps: Vec<Step>,
    /// What it writes and nobody waits for is written again if it fails.
    pub(super) records: Records,
    /// So are settled places.
    pub(super) settled: Vec<(Key, u64)>,
}

enum State {
    Running(BoxFuture<'static, Outcome>),
    Over(Outcome),
    /// There is nothing to write: it only waits for its turn.
    Empty,
}

impl Commits {
    pub(super) fn push(&mut self, future: Option<BoxFuture<'static, Outcome>>, after: After) {
        self.0.push_back(Commit { state: future.map_or(State::Empty, State::Running), after });
    }

    /// Settled places that are being written.
    pub(super) fn settled(&self) -> impl Iterator<Item = &(Key, u64)> {
        self.0.iter().flat_map(|commit| &commit.after.settled)
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Resolves when the first is over. All of them are polled, in their order: that is what starts them.
    pub(super) async fn first(&mut self) {
        std::future::poll_fn(|ctx| self.poll(ctx)).await;
    }

    fn poll(&mut self, ctx: &mut Context<'_>) -> Poll<()> {
        for commit in &mut self.0 {
            if let State::Running(future) = &mut commit.state
                && let Poll::Ready(outcome) = future.as_mut().poll(ctx)
            {
                commit.state = State::Over(outcome);
            }
        }
        match self.0.front() {
            Some(Commit { state: State::Over(_) | State::Empty, .. }) => Poll::Ready(()),
            _ => Poll::Pending,
        }
    }

    /// Takes the first, which is over. It has no outcome if there was nothing to write.
    pub(super) fn take_first(&mut self) -> Option<(Option<Outcome>, After)> {
        let commit = self.0.pop_front()?;
        match commit.state {
            State::Over(outcome) => Some((Some(outcome), commit.after)),
            State::Empty => Some((None, commit.after)),
            State::Running(_) => {
                self.0.push_front(commit);
                None
            }
        }
    }
}
