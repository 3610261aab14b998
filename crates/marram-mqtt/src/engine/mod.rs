//! The one place where sessions, subscriptions, queues and retained messages change.
//!
//! Commands of all connections come in through one bounded queue, in the order in which each client sent them. They are
//! *prepared*: what has to be kept becomes changes of a batch, what is then to be done becomes a step. The batch is
//! committed; commits are pipelined and end in their order; then the steps are *finished*: messages are delivered,
//! acknowledgements sent. Nothing is acknowledged by a step whose changes were not kept.
//!
//! The engine never waits for a client and never for a disk, except that it takes no commands while
//! [`crate::limits::COMMITS_MAX`] commits are under way: that is the back-pressure.

mod commit;
mod connect;
mod deliver;
mod finish;
mod handover;
mod load;
mod message;
mod publish;
mod replay;
mod retained;
mod session;
mod spare;
mod subscribe;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod timer;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use marram_core::Failure;
use marram_core::port::mqtt::{ClientId, MqttJournal, Queued};
use marram_core::port::{Clock, Entropy};
use tokio::sync::mpsc;

use crate::index::Index;
use crate::limits::{BATCH_COMMANDS_MAX, COMMITS_MAX, LAZY_MAX, LAZY_TIME, Limits};
use crate::outbox::Close;
use crate::seldom::Seldom;
use crate::stats::{self, Stats};
use crate::wire::Reason;

use commit::{Batch, Commits};
use connect::Farewell;
use handover::{HandOver, Part};
use publish::Target;
use retained::Retained;
use session::{Key, Left, Sessions};
use spare::Spares;
use timer::{Timer, Timers};

pub use message::ClientState;
pub(crate) use message::{Accepted, Command, From, Hello, Input, Link, Local, PublishCommand, SubscribeCommand};
pub(crate) use session::{Owner, has_share};

/// Everything that the broker knows.
pub(crate) struct Engine {
    limits: Limits,
    journal: Arc<dyn MqttJournal>,
    clock: Arc<dyn Clock>,
    stats: Arc<Stats>,
    inputs: mpsc::Receiver<Input>,
    sessions: Sessions,
    index: Index<Key>,
    retained: Retained,
    timers: Timers,
    batch: Batch,
    commits: Commits,
    reads: FuturesUnordered<BoxFuture<'static, Page>>,
    /// Connections whose queue is to be read when it is their turn: [`crate::limits::READS_MAX`] at once.
    readers: VecDeque<From>,
    /// Sessions that have ended, and whose queues go to other members of their groups.
    handovers: ByClient<HandOver>,
    /// Those whose turn it is not, and how many are under way: [`crate::limits::HANDOVERS_MAX`] at most.
    handovers_waiting: VecDeque<ClientId>,
    handovers_running: usize,
    parts: FuturesUnordered<BoxFuture<'static, Part>>,
    /// What members of groups had in memory alone and no other has room for yet.
    strays: Vec<Left>,
    spares: Spares,
    /// Sessions that have retained messages to get and room for them.
    replays: VecDeque<Key>,
    /// Places that are settled, to be told to the journal with the next commit.
    settled: Vec<(Key, u64)>,
    /// Since when there is something to write that nobody waits for.
    lazy_since: Option<Instant>,
    /// Reused by every search of the index.
    targets: Vec<Target>,
    /// Of the search; a session that has it was found in this one.
    mark: u64,
    /// Connections have numbers, so that what an old one sent is not taken for the new one's.
    connections: u64,
    /// The first half of the names of events and assigned client identifiers: unlike that of any other start.
    prefix: u64,
    /// The second half.
    names: u64,
    draining: bool,
    /// Nothing comes in any more; what is under way is finished.
    stopping: bool,
    /// The last commit that was over has failed.
    failing: bool,
    /// There was no room to retain what a bridge has brought.
    unretained: Seldom,
}

/// A part of a queue that was read.
struct Page {
    from: From,
    /// Places in it that are settled.
    settled: Vec<u64>,
    queued: Result<Vec<Queued>, Failure>,
}

enum Ready {
    Committed,
    Read(Page),
    Part(Part),
    Inputs,
    Timer,
    Replay,
}

impl Engine {
    /// An engine that knows what the journal has.
    pub(crate) async fn start(
        limits: Limits,
        journal: Arc<dyn MqttJournal>,
        clock: Arc<dyn Clock>,
        entropy: &dyn Entropy,
        stats: Arc<Stats>,
        inputs: mpsc::Receiver<Input>,
    ) -> Result<Self, Failure> {
        let loaded = journal.load().await?;
        let prefix = entropy.u64();
        let mut engine = Self {
            limits,
            journal,
            clock,
            stats,
            inputs,
            sessions: Sessions::default(),
            index: Index::new(),
            retained: Retained::default(),
            timers: Timers::default(),
            batch: Batch::default(),
            commits: Commits::default(),
            reads: FuturesUnordered::new(),
            readers: VecDeque::new(),
            handovers: ByClient::new(),
            handovers_waiting: VecDeque::new(),
            handovers_running: 0,
            parts: FuturesUnordered::new(),
            strays: Vec::new(),
            spares: Spares::new(prefix),
            replays: VecDeque::new(),
            settled: Vec::new(),
            lazy_since: None,
            targets: Vec::new(),
            mark: 0,
            connections: 0,
            prefix,
            names: 0,
            draining: false,
            stopping: false,
            failing: false,
            unretained: Seldom::default(),
        };
        engine.load(loaded);
        Ok(engine)
    }

    /// Runs until every sender of inputs is gone and everything is written, or could not be.
    pub(crate) async fn run(mut self) {
        let mut inputs = Vec::new();
        // What became due while the node was away waits for nobody.
        self.settle_down();
        while !self.stopping || !self.commits.is_empty() {
            match self.ready(&mut inputs).await {
                Ready::Committed => self.finish_first(),
                Ready::Read(page) => self.page(page),
                Ready::Part(part) => self.hand_over(part),
                Ready::Inputs => {
                    self.stopping = inputs.is_empty() || inputs.iter().any(|input| matches!(input, Input::Stop));
                    inputs.drain(..).for_each(|input| self.input(input));
                }
                Ready::Timer => self.timers_due(),
                Ready::Replay => self.replay_some(),
            }
            self.settle_down();
            if self.stopping {
                self.submit();
            }
        }
    }

    async fn ready(&mut self, inputs: &mut Vec<Input>) -> Ready {
        let (open, room) = (!self.stopping, self.commits.len() < COMMITS_MAX);
        // Clients come before what has been waiting for long.
        let spare = self.commits.len() < COMMITS_MAX / 2;
        let wake = self.wake_at();
        tokio::select! {
            biased;
            () = self.commits.first(), if !self.commits.is_empty() => Ready::Committed,
            Some(page) = self.reads.next(), if !self.reads.is_empty() => Ready::Read(page),
            Some(part) = self.parts.next(), if spare && open && !self.parts.is_empty() => Ready::Part(part),
            _ = self.inputs.recv_many(inputs, 64), if room && open => Ready::Inputs,
            () = std::future::ready(()), if room && !self.replays.is_empty() => Ready::Replay,
            () = sleep_until(wake), if wake.is_some() => Ready::Timer,
        }
    }

    /// Commits what is to be committed now; what nobody waits for can wait.
    fn settle_down(&mut self) {
        let lazy = self.settled.len() + self.batch.changes();
        if lazy > 0 && !self.batch.is_waited_for() && self.lazy_since.is_none() {
            self.lazy_since = Some(self.clock.instant());
        }
        // What could not be written is not tried again at once.
        if self.batch.is_waited_for() || (lazy >= LAZY_MAX && !self.failing) {
            self.submit();
        }
        // What is finished at once may have left something to be done.
        while self.batch.is_waited_for() {
            self.submit();
        }
        stats::set(&self.stats.subscriptions, self.index.len() as u64);
        stats::set(&self.stats.retained, self.retained.count() as u64);
    }

    fn wake_at(&self) -> Option<Instant> {
        let lazy = self.lazy_since.map(|since| since + LAZY_TIME);
        [self.timers.next(), lazy].into_iter().flatten().min()
    }

    fn timers_due(&mut self) {
        let now = self.clock.instant();
        while let Some(timer) = self.timers.due(now) {
            match timer {
                Timer::Expiry(key) => self.end_session(key),
                Timer::Will(key) => self.publish_will(key),
                Timer::Retry(key) => self.retry(key),
                Timer::HandOver(client) => self.continue_handover(client),
                Timer::Strays => self.pass_on_strays(),
            }
        }
        if self.lazy_since.is_some_and(|since| now >= since + LAZY_TIME) {
            self.submit();
        }
    }

    fn input(&mut self, input: Input) {
        match input {
            Input::Commands(from, commands) => {
                for command in commands {
                    self.command(from, command);
                    if self.batch.steps() >= BATCH_COMMANDS_MAX {
                        self.submit();
                    }
                }
            }
            Input::Connect(hello, reply) => self.connect(*hello, reply),
            Input::Ended(from) => self.ended(from, Farewell::Lost),
            Input::Publish(local) => self.publish_local(*local),
            Input::Clients(reply) => {
                // Whoever asked may be gone.
                let _ = reply.send(self.sessions.iter().map(|(_, session)| session.state()).collect());
            }
            Input::Queued(reply) => {
                let sessions = self.sessions.iter().map(|(_, session)| session.out.queued);
                let _ = reply.send(sessions.chain(self.handovers.values().map(HandOver::queued)).sum());
            }
            Input::Disconnect(client, forget, reply) => {
                let _ = reply.send(self.disconnect(&client, forget));
            }
            Input::Drain => self.drain(),
            Input::Stop => {}
        }
    }

    fn command(&mut self, from: From, command: Command) {
        let Some(session) = self.sessions.linked(from) else { return };
        let outbox = session.link.as_ref().map(|link| link.outbox.clone());
        match command {
            Command::Publish(publish) => return self.publish(from, *publish),
            Command::Ack(kind, packet, reason) => self.acknowledged(from, kind, packet, reason),
            Command::Subscribe(subscribe) => self.subscribe(from, *subscribe),
            Command::Unsubscribe(packet, filters) => self.unsubscribe(from, packet, filters),
            Command::Taken => self.pump(from.key),
            Command::Farewell(reason, expiry_s) => self.ended(from, Farewell::Said(reason, expiry_s)),
        }
        if let Some(outbox) = outbox {
            outbox.done(0);
        }
    }

    /// An administrator's wish: the connection ends, or the session with it. Whether there was one.
    fn disconnect(&mut self, client: &ClientId, forget: bool) -> bool {
        let Some(key) = self.sessions.find(client) else { return false };
        if let Some(link) = self.sessions.get(key).and_then(|session| session.link.as_ref()) {
            link.outbox.close(Close {
                reason: Reason::ADMINISTRATIVE,
                words: "an administrator ended this connection",
                when_answered: false,
            });
        }
        if forget {
            self.end_session(key);
        }
        true
    }

    /// No connection stays; sessions and wills are kept for the next start.
    fn drain(&mut self) {
        self.draining = true;
        for handover in self.handovers.values_mut() {
            handover.refuse(Reason::UNAVAILABLE, "this node is shutting down");
        }
        for (_, session) in self.sessions.iter() {
            if let Some(link) = &session.link {
                link.outbox.close(Close {
                    reason: Reason::SHUTTING_DOWN,
                    words: "this node is shutting down",
                    when_answered: true,
                });
            }
        }
    }

    /// A name that is like no other, for events and for clients without one.
    fn unique(&mut self) -> String {
        self.names += 1;
        format!("{:016x}-{:x}", self.prefix, self.names)
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

/// What is looked up by client.
type ByClient<T> = HashMap<ClientId, T>;
