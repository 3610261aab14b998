//! Batches of changes, and the commits under way.

use std::collections::VecDeque;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::future::BoxFuture;
use marram_core::Failure;
use marram_core::port::mqtt::{Change, Message, Refused, Retain, Will};
use tokio::sync::oneshot;

use super::message::{Accepted, From};
use super::publish::Target;
use super::session::Key;
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
    /// Subscriptions were removed.
    UnsubAck(From, NonZeroU16, Vec<Reason>),
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
    /// Nobody: it is a retained message for a new subscription.
    Nobody,
}

/// What is prepared and not committed.
#[derive(Default)]
pub(super) struct Batch {
    changes: Vec<Change>,
    steps: Vec<Step>,
}

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
        self.changes.push(change);
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

    pub(super) fn take(&mut self) -> (Vec<Change>, Vec<Step>) {
        (std::mem::take(&mut self.changes), std::mem::take(&mut self.steps))
    }
}

/// How a commit ended.
pub(super) type Outcome = Result<Vec<Refused>, Failure>;

/// Commits in their order.
#[derive(Default)]
pub(super) struct Commits(VecDeque<Commit>);

struct Commit {
    state: State,
    steps: Vec<Step>,
    /// Settled places that it writes: they are written again if it fails.
    settled: Vec<(Key, u64)>,
}

/// What a commit that is over leaves to be done.
pub(super) struct Over {
    pub(super) steps: Vec<Step>,
    /// Settled places that it was to write.
    pub(super) settled: Vec<(Key, u64)>,
}

enum State {
    Running(BoxFuture<'static, Outcome>),
    Over(Outcome),
}

impl Commits {
    pub(super) fn push(
        &mut self,
        future: Option<BoxFuture<'static, Outcome>>,
        steps: Vec<Step>,
        settled: Vec<(Key, u64)>,
    ) {
        let state = future.map_or(State::Over(Ok(Vec::new())), State::Running);
        self.0.push_back(Commit { state, steps, settled });
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
            Some(Commit { state: State::Over(_), .. }) => Poll::Ready(()),
            _ => Poll::Pending,
        }
    }

    /// Takes the first, which is over.
    pub(super) fn take_first(&mut self) -> Option<(Outcome, Over)> {
        let commit = self.0.pop_front()?;
        match commit.state {
            State::Over(outcome) => Some((outcome, Over { steps: commit.steps, settled: commit.settled })),
            State::Running(_) => {
                self.0.push_front(commit);
                None
            }
        }
    }
}
