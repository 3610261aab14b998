//! What waits for a member of a group goes to another member when its session ends (MQTT 5.0 §4.8.2).
//!
//! What is in memory alone goes at once. What is in the journal is read from there part by part; each part is put into the
//! queues of others and taken out of its own in one commit, so that a crash in between neither loses nor doubles it. The session
//! is gone meanwhile, and whoever connects as the same client waits until there is nothing more to hand over.
//!
//! A QoS 2 message that may have been sent is not handed over: that client gets it, or nobody (MQTT-4.8.2-5).

#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use marram_core::Failure;
use marram_core::port::mqtt::{Change, ClientId, Message, Qos, Queued, SessionRecord};

use super::Engine;
use super::commit::{Finish, Published, Source};
use super::connect::Reply;
use super::deliver::RETRY;
use super::finish::reason_of;
use super::message::Hello;
use super::publish::{Readiness, Target, choose, member};
use super::session::{Key, Left, Session};
use super::spare::Shared;
use super::timer::Timer;
use crate::limits::{HANDOVER_READS_MAX, HANDOVERS_MAX, PAGE_MESSAGES, STRAYS_MAX};
use crate::resident::Resident;
use crate::stats;
use crate::topic::Filter;
use crate::wire::Reason;

/// A session that has ended, while there are messages of groups in its queue.
pub(super) struct HandOver {
    /// Up to here its queue is done with.
    after: u64,
    /// Messages in the queue, as far as is known.
    queued: u64,
    /// Places that the client has settled; the journal may still have them.
    settled: HashSet<u64>,
    /// Says that it has expired: a node that stops before all is over finds that.
    record: Box<SessionRecord>,
    is_recorded: bool,
    /// The log says that it has to wait.
    is_said: bool,
    /// How often it could not be read since it could.
    unreadable: u32,
    /// The client is there again.
    next: Option<(Hello, Reply)>,
}

/// A part of the queue of a session that has ended.
pub(super) struct Part {
    client: ClientId,
    queued: Result<Vec<Queued>, Failure>,
}

/// A part that is handed over with a commit.
pub(super) struct Moved {
    client: ClientId,
    /// Up to here the queue is done with then.
    last: u64,
    /// Nobody has room for what comes next.
    is_full: bool,
    published: Vec<Published>,
}

/// Who gets what another member has left.
enum Heir {
    One(Target),
    /// There are others, and none has room.
    Full,
    Nobody,
}

impl HandOver {
    /// A client connects once its last session is done with. One that waits already is taken over by it.
    pub(super) fn then_connect(&mut self, hello: Hello, reply: Reply) {
        let is_anothers =
            |(first, reply): &(Hello, Reply)| !reply.is_closed() && first.identity.user != hello.identity.user;
        if self.next.as_ref().is_some_and(is_anothers) {
            let words = "this client identifier has a session of another user";
            // Who asked may be gone; so below.
            return drop(reply.send(Err((Reason::NOT_AUTHORIZED, words))));
        }
        self.refuse(Reason::UNAVAILABLE, "the same client identifier has connected again");
        self.next = Some((hello, reply));
    }

    /// The client does not wait any more.
    pub(super) fn refuse(&mut self, reason: Reason, words: &'static str) {
        if let Some((_, reply)) = self.next.take() {
            let _ = reply.send(Err((reason, words)));
        }
    }

    /// Its record could not be written.
    pub(super) fn is_not_recorded(&mut self) {
        self.is_recorded = false;
    }

    fn expired(&self) -> Change {
        Change::Session { record: self.record.clone(), fresh: false }
    }

    pub(super) fn queued(&self) -> u64 {
        self.queued
    }

    /// The group whose next member gets this.
    fn group<'q>(&self, queued: &'q Queued, now_unix_ns: u64) -> Option<&'q Arc<str>> {
        let may_be_there = queued.qos == Qos::ExactlyOnce && queued.seq <= self.record.sent_seq;
        let expired = queued.message.expires_unix_ns.is_some_and(|expires| expires <= now_unix_ns);
        let done = may_be_there || expired || queued.released || self.settled.contains(&queued.seq);
        queued.shared.as_ref().filter(|_| !done)
    }
}

impl Engine {
    /// A message that a member of a group cannot get any more, and that is in memory alone, goes to another.
    pub(super) fn pass_on(&mut self, message: &Arc<Resident>, shared: Shared) {
        if let Some(left) = self.pass_to_heir(message, shared) {
            self.pass_on_later(left);
        }
    }

    /// Gives it back if nobody has room.
    fn pass_to_heir(&mut self, message: &Arc<Resident>, shared: Shared) -> Option<Left> {
        let target = match self.heir(message, &shared.filter) {
            Heir::One(target) => target,
            Heir::Full => return Some(Left { shared, message: message.clone() }),
            Heir::Nobody => {
                self.settle_spare(shared.spare);
                return None;
            }
        };
        let spare = shared.spare;
        let is_kept = self.sessions.get(target.key).is_some_and(|session| session.durable);
        // One that has it in memory alone needs the spare as well.
        let of = target.shared.map(|of| Shared { spare: spare.filter(|_| !is_kept).or(of.spare), ..of });
        let target = Target { shared: of, ..target };
        if let Some((change, published)) = self.prepare_for(message.message(), target, Source::Group(shared)) {
            let settled = spare.filter(|_| is_kept).map(|seq| Change::Settle(self.spares.client.clone(), vec![seq]));
            self.batch.step(change.into_iter().chain(settled), Finish::Publish(Box::new(published)));
        }
        None
    }

    /// Nobody has room for it, or the queue that it was to go to cannot be written: it waits in memory, if there is room.
    pub(super) fn pass_on_later(&mut self, left: Left) {
        if self.strays.len() >= STRAYS_MAX || self.is_memory_full() {
            self.settle_spare(left.shared.spare);
            return stats::add(&self.stats.dropped_full, 1);
        }
        self.stray(left);
    }

    fn stray(&mut self, left: Left) {
        if self.strays.is_empty() {
            self.timers.set(self.clock.instant() + RETRY * 10, Timer::Strays);
        }
        self.strays.push(left);
    }

    /// What could not be passed on is tried again.
    pub(super) fn pass_on_strays(&mut self) {
        for Left { shared, message } in std::mem::take(&mut self.strays) {
            self.pass_on(&message, shared);
        }
    }

    /// The readiest member of a group that keeps the message until it is acknowledged and has room for it. A node that stops asks
    /// only those whose queue outlives it.
    fn heir(&mut self, message: &Message, shared: &Arc<str>) -> Heir {
        let group = Filter::parse(shared).ok().and_then(|filter| self.index.group(filter));
        let Some(group) = group.filter(|group| group.takers.iter().any(|taker| taker.qos > Qos::AtMostOnce)) else {
            return Heir::Nobody;
        };
        let (sessions, size, memory) = (&self.sessions, message.size(), self.stats.memory.load(Ordering::Relaxed));
        let chosen = choose(&group.takers, group.next, |taker| match sessions.get(taker.session) {
            Some(session)
                if taker.qos > Qos::AtMostOnce
                    && (session.durable || !self.draining)
                    && session.has_room(size, memory, &self.limits) =>
            {
                Readiness::of(session)
            }
            _ => Readiness::Gone,
        });
        let Some(chosen) = chosen else { return Heir::Full };
        group.next = chosen + 1;
        Heir::One(member(group, chosen, message))
    }

    /// A session has ended whose queue is in the journal. Whether that is to be handed over first; then its record ends later.
    pub(super) fn begin_handover(&mut self, key: Key, session: &Session) -> bool {
        if !session.out.shared {
            return false;
        }
        let ended_unix_ns = Some(self.clock.unix_ns());
        let handover = HandOver {
            after: 0,
            queued: session.out.queued,
            settled: self.settled_of(key).collect(),
            record: Box::new(SessionRecord { expiry_s: 0, ended_unix_ns, will: None, ..session.record() }),
            is_recorded: false,
            is_said: false,
            unreadable: 0,
            next: None,
        };
        self.handovers.insert(session.client.clone(), handover);
        // What is under commit for it comes first.
        self.batch.step([], Finish::HandOver(session.client.clone()));
        true
    }

    /// Goes on with a handover, when it is its turn.
    pub(super) fn continue_handover(&mut self, client: ClientId) {
        self.handovers_waiting.push_back(client);
        self.start_handovers();
    }

    fn start_handovers(&mut self) {
        while self.handovers_running < HANDOVERS_MAX
            && let Some(client) = self.handovers_waiting.pop_front()
        {
            self.handovers_running += 1;
            self.read_part(client);
        }
    }

    fn read_part(&mut self, client: ClientId) {
        let after = self.handovers.get(&client).map_or(0, |handover| handover.after);
        let read = self.journal.read(&client, after, PAGE_MESSAGES);
        self.parts.push(Box::pin(async move { Part { client, queued: read.await } }));
    }

    /// A part of a queue has been read.
    pub(super) fn hand_over(&mut self, Part { client, queued }: Part) {
        let queued = match queued {
            Ok(queued) if queued.is_empty() => return self.end_handover(client),
            Ok(queued) => queued,
            Err(failure) => return self.cannot_read_part(client, &failure),
        };
        self.handovers.get_mut(&client).into_iter().for_each(|handover| handover.unreadable = 0);
        let now = self.clock.unix_ns();
        let (mut last, mut is_full) = (0, false);
        let (mut changes, mut published, mut settled) = (Vec::new(), Vec::new(), Vec::new());
        for queued in queued {
            let group = self.handovers.get(&client).and_then(|handover| handover.group(&queued, now));
            match group.map_or(Heir::Nobody, |shared| self.heir(&queued.message, shared)) {
                Heir::One(target) => {
                    if let Some((change, one)) = self.prepare_for(&queued.message, target, Source::Nobody) {
                        self.promise(&one);
                        changes.extend(change);
                        published.push(one);
                        settled.push(queued.seq);
                    }
                }
                Heir::Full => {
                    is_full = true;
                    break;
                }
                // It ends with the session.
                Heir::Nobody => {}
            }
            last = queued.seq;
        }
        if !settled.is_empty() {
            changes.push(Change::Settle(client.clone(), settled));
            let record = self.handovers.get(&client).filter(|handover| !handover.is_recorded);
            changes.extend(record.map(HandOver::expired));
        }
        self.batch.step(changes, Finish::Moved(Box::new(Moved { client, last, is_full, published })));
    }

    /// Who has its queue in memory alone has room from now on for what is to be taken out of the journal for it: whoever was
    /// promised it has to take it then, as it is nowhere else.
    fn promise(&mut self, published: &Published) {
        let size = published.message.size();
        for target in published.targets.iter().filter(|target| target.seq == 0) {
            if let Some(session) = self.sessions.get_mut(target.key) {
                session.out.promised_bytes += size;
            }
            stats::add(&self.stats.memory, size as u64);
        }
    }

    /// What was promised is theirs, or is still in the journal.
    fn keep_promise(&mut self, published: &Published) {
        let size = published.message.size();
        for target in published.targets.iter().filter(|target| target.seq == 0) {
            if let Some(session) = self.sessions.get_mut(target.key) {
                session.out.promised_bytes -= size;
            }
            stats::sub(&self.stats.memory, size as u64);
        }
    }

    /// A member gets what it was promised. If it is gone meanwhile another one gets it, and nobody has it dropped for want of room.
    pub(super) fn inherit(&mut self, target: Target, message: &Arc<Resident>, shared: Shared) {
        if self.sessions.get(target.key).is_some_and(|session| session.link.is_some()) {
            self.take_in(target, message);
        } else if let Some(left) = self.pass_to_heir(message, shared) {
            self.stray(left);
        }
    }

    /// A part is in the queues of others, or is still where it was.
    pub(super) fn moved(&mut self, moved: Moved, failure: Option<&Failure>) {
        let Moved { client, last, is_full, published } = moved;
        published.iter().for_each(|published| self.keep_promise(published));
        if let Some(failure) = failure {
            published.iter().for_each(|published| self.take_back(published));
            return self.cannot_write_part(client, failure);
        }
        let moved_some = !published.is_empty();
        if let Some(handover) = self.handovers.get_mut(&client) {
            handover.after = handover.after.max(last);
            handover.queued = handover.queued.saturating_sub(published.len() as u64);
            handover.is_recorded |= moved_some;
            handover.is_said &= !moved_some;
        }
        published.into_iter().for_each(|published| self.kept(published));
        if is_full {
            return self.has_no_room(client, moved_some);
        }
        self.read_part(client);
    }

    /// Whoever needs the name of a session whose queue is damaged does not wait for it for ever.
    fn cannot_read_part(&mut self, client: ClientId, failure: &Failure) {
        tracing::error!(%failure, client = &*client, "the queue of an MQTT session that has ended cannot be read");
        if let Some(handover) = self.handovers.get_mut(&client) {
            handover.unreadable += 1;
            if handover.next.is_some() && handover.unreadable > HANDOVER_READS_MAX {
                return self.end_handover(client);
            }
            handover.refuse(reason_of(failure), "this node cannot hand over what waits for the last session");
        }
        self.hand_over_later(client);
    }

    fn cannot_write_part(&mut self, client: ClientId, failure: &Failure) {
        if let Some(handover) = self.handovers.get_mut(&client) {
            if !std::mem::replace(&mut handover.is_said, true) {
                tracing::warn!(%failure, client = &*client, "what waits for a session that has ended cannot be handed over yet");
            }
            handover.refuse(reason_of(failure), "this node cannot hand over what waits for the last session");
        }
        self.hand_over_later(client);
    }

    /// The others take no more for now. The client is not kept out by them: what is left is dropped when it connects.
    fn has_no_room(&mut self, client: ClientId, moved_some: bool) {
        let Some(handover) = self.handovers.get_mut(&client) else { return };
        if handover.next.is_some() {
            stats::add(&self.stats.dropped_full, handover.queued);
            let dropped = handover.queued;
            tracing::warn!(
                client = &*client,
                dropped,
                "the queues of a group are full: what waited for a session is dropped"
            );
            return self.end_handover(client);
        }
        if !std::mem::replace(&mut handover.is_recorded, true) {
            self.batch.lazy(handover.expired());
        }
        // Whoever has taken some may soon have room again.
        self.hand_over_in(if moved_some { RETRY } else { RETRY * 10 }, client);
    }

    fn hand_over_later(&mut self, client: ClientId) {
        self.hand_over_in(RETRY * 10, client);
    }

    fn hand_over_in(&mut self, wait: Duration, client: ClientId) {
        self.timers.set(self.clock.instant() + wait, Timer::HandOver(client));
        self.handovers_running -= 1;
        self.start_handovers();
    }

    /// There is nothing more to hand over: the session ends in the journal, too.
    fn end_handover(&mut self, client: ClientId) {
        self.handovers_running -= 1;
        let next = self.handovers.remove(&client).and_then(|handover| handover.next);
        self.batch.lazy(Change::End(client));
        if let Some((hello, reply)) = next.filter(|(_, reply)| !reply.is_closed()) {
            self.connect(hello, reply);
        }
        self.start_handovers();
    }
}
