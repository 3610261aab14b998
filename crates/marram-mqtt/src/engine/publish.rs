//! A message comes in: who gets it, what of it has to be kept.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use marram_core::port::mqtt::{Change, ClientId, Enqueue, Message, Publish, Qos, Retain};
use marram_core::{Failure, Kind};

use super::Engine;
use super::commit::{Finish, Published, Source};
use super::message::{From, Local, PublishCommand};
use super::retained::Amount;
use super::session::{Key, Owner, Received, Session};
use super::spare::{Shared, spare};
use crate::index::{Found, Group, Taker};
use crate::stats;
use crate::wire::{AckKind, Reason};

/// A session that gets a message.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) key: Key,
    /// How it gets it: the lesser of the publisher's and the subscription's.
    pub(super) qos: Qos,
    pub(super) retain: bool,
    /// Its place in a durable queue; 0 in others.
    pub(super) seq: u64,
    pub(super) subscriptions: Vec<u32>,
    /// The group that it gets it for.
    pub(super) shared: Option<Shared>,
}

impl Engine {
    /// A client publishes.
    pub(super) fn publish(&mut self, from: From, command: PublishCommand) {
        stats::add(&self.stats.received, 1);
        let ack = command
            .packet
            .map(|packet| (if command.qos == Qos::ExactlyOnce { AckKind::Rec } else { AckKind::Ack }, packet));
        if let Some((reason, words)) = command.refused {
            return self.batch.step([], Finish::Refuse(from, ack, reason, words, command.bytes));
        }
        let Some(session) = self.sessions.linked(from) else { return };
        let mut received = None;
        if let Some((AckKind::Rec, packet)) = ack {
            if session.received.contains_key(&packet.get()) {
                if let Some(link) = &session.link {
                    link.outbox.done(command.bytes);
                }
                return self.batch.step([], Finish::Again(from, packet));
            }
            session.received.insert(packet.get(), Received::Pending);
            received = Some(packet.get());
        }
        let publisher = session.client.clone();
        let now = self.clock.unix_ns();
        let message = Message {
            topic: command.topic,
            payload: command.payload,
            qos: command.qos,
            retain: command.retain,
            publisher,
            published_unix_ns: now,
            expires_unix_ns: command.expiry_s.map(|s| now.saturating_add(u64::from(s) * 1_000_000_000)),
            properties: command.properties,
        };
        self.accept(message, Source::Client(from, ack, command.bytes), received, None);
    }

    /// The node publishes.
    pub(super) fn publish_local(&mut self, local: Local) {
        self.accept(local.message, Source::Local(local.reply), None, None);
    }

    /// The will of a session becomes due: its delay is over, or the session ends.
    pub(super) fn publish_will(&mut self, key: Key) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        if session.link.is_some() {
            return;
        }
        let Some(will) = session.will.take() else { return };
        let (publisher, recorded) = (session.client.clone(), session.recorded);
        let now = self.clock.unix_ns();
        let message = Message {
            publisher: publisher.clone(),
            published_unix_ns: now,
            expires_unix_ns: will.expiry_s.map(|s| now.saturating_add(u64::from(s) * 1_000_000_000)),
            ..Message::clone(&will.message)
        };
        self.accept(message, Source::Will(key, will), None, recorded.then_some(publisher));
    }

    /// Prepares a message from wherever. QoS 0 is delivered at once: it waits for nothing and promises nothing.
    fn accept(&mut self, mut message: Message, source: Source, received: Option<u16>, will_of: Option<ClientId>) {
        let owner = match &source {
            Source::Client(From { key, .. }, ..) | Source::Will(key, _) => self.owner(*key),
            Source::Local(_) | Source::Nobody | Source::Group(_) => Owner::Nobody,
        };
        let retain = match self.retains(&message, &owner) {
            Ok(retain) => retain,
            Err(_) if self.is_of_a_bridge(&source) => self.unretained(&message),
            // There is nobody left to be told.
            Err(failure) if matches!(source, Source::Will(..)) => {
                tracing::warn!(%failure, client = &*message.publisher, "a will reaches those who listen, and is not retained");
                self.cleared(&message)
            }
            Err(failure) => {
                let published = self.published(Arc::new(message), Vec::new(), Retain::Keep, source, received);
                return self.refused(published, &failure);
            }
        };
        let mut targets = std::mem::take(&mut self.targets);
        self.find_targets(&message, &mut targets);
        if !targets.is_empty() || retain == Retain::Set {
            // What is kept longer than its commit must not hold on to the buffer that it was read into.
            message.payload = Bytes::copy_from_slice(&message.payload);
        }
        let message = Arc::new(message);
        let event = self.journal.captured(&message.topic).then(|| {
            let id = self.unique();
            Box::new(crate::event::event(&message, id))
        });
        let unheard = targets.is_empty() && event.is_none();
        let mut queues = Vec::new();
        if message.qos > Qos::AtMostOnce {
            targets.retain_mut(|target| self.enqueue(target, &message, &mut queues));
        } else if !targets.is_empty() {
            let held = self.hold(&message);
            targets.drain(..).for_each(|target| self.offer(target, &held));
        }
        let received_by = received.and_then(|packet| self.receiver(&source).map(|client| (client, packet)));
        let kept = event.is_some()
            || !queues.is_empty()
            || retain != Retain::Keep
            || received_by.is_some()
            || will_of.is_some();
        let listed = std::mem::take(&mut targets);
        self.targets = targets;
        if !kept && message.qos == Qos::AtMostOnce {
            return self.answer_unkept(source);
        }
        let mut published = self.published(message.clone(), listed, retain, source, received);
        if unheard {
            published.reason = Reason::NO_MATCHING_SUBSCRIBERS;
        }
        if retain == Retain::Set {
            self.retained.begin(&message, owner);
        }
        let change = kept.then(|| {
            Change::Publish(Box::new(Publish { message, event, queues, retain, received: received_by, will_of }))
        });
        self.batch.step(change, Finish::Publish(Box::new(published)));
    }

    fn published(
        &self,
        message: Arc<Message>,
        targets: Vec<Target>,
        retain: Retain,
        source: Source,
        received: Option<u16>,
    ) -> Published {
        Published { message, targets, retain, source, received, reason: Reason::SUCCESS }
    }

    /// What it does to the retained message of its topic (MQTT 5.0 §3.3.1.3).
    fn retains(&self, message: &Message, owner: &Owner) -> Result<Retain, Failure> {
        if !message.retain {
            return Ok(Retain::Keep);
        }
        if message.payload.is_empty() {
            return Ok(self.cleared(message));
        }
        let max = Amount { count: self.limits.retained, bytes: self.limits.retained_bytes };
        if self.retained.has_room(message, owner, max) {
            return Ok(Retain::Set);
        }
        let why = "this node retains as many messages as it may, of all or of this publisher";
        Err(Failure::new(Kind::StorageFull, why))
    }

    fn is_of_a_bridge(&self, source: &Source) -> bool {
        let Source::Client(from, ..) = source else { return false };
        let link = self.sessions.get(from.key).and_then(|session| session.link.as_ref());
        link.is_some_and(|link| link.is_bridge)
    }

    /// What there is no room for is not retained, and goes to those who listen: refused, it would come to the bridge again and
    /// again, and hold up all that is behind it.
    fn unretained(&mut self, message: &Message) -> Retain {
        stats::add(&self.stats.bridge_unretained, 1);
        if let Some(messages) = self.unretained.happens(self.clock.instant()) {
            tracing::warn!(
                client = &*message.publisher,
                messages,
                "there is no room to retain what a bridge brings: it reaches those who listen, and is not retained"
            );
        }
        self.cleared(message)
    }

    /// What a message comes in place of that cannot be retained is out of date.
    fn cleared(&self, message: &Message) -> Retain {
        if self.retained.may_have(&message.topic) { Retain::Clear } else { Retain::Keep }
    }

    /// Who is held to account for what a session takes.
    pub(super) fn owner(&self, key: Key) -> Owner {
        self.sessions.get(key).map_or(Owner::Nobody, |session| session.owner.clone())
    }

    /// The client that remembers a QoS 2 identifier durably, if it has a session that lasts.
    fn receiver(&self, source: &Source) -> Option<ClientId> {
        let Source::Client(from, ..) = source else { return None };
        self.sessions.get(from.key).filter(|session| session.durable).map(|session| session.client.clone())
    }

    /// A QoS 0 message that nothing has to be kept of is done with.
    fn answer_unkept(&self, source: Source) {
        match source {
            Source::Client(from, _, bytes) => self.done(from, bytes),
            // Who asked may be gone.
            Source::Local(reply) => drop(reply.send(Ok(()))),
            Source::Will(..) | Source::Nobody | Source::Group(_) => {}
        }
    }

    /// Lists who gets a message: each session once, with the greatest QoS of its subscriptions and the identifiers of all of
    /// them (§3.3.4); and of each group one.
    fn find_targets(&mut self, message: &Message, targets: &mut Vec<Target>) {
        self.mark += 1;
        let (mark, sessions) = (self.mark, &mut self.sessions);
        self.index.find(&message.topic, |found| match found {
            Found::One(taker) => {
                let Some(session) = sessions.get_mut(taker.session) else { return };
                if taker.no_local && *session.client == *message.publisher {
                    return;
                }
                if session.mark.0 == mark {
                    merge(&mut targets[session.mark.1], taker, message);
                } else {
                    session.mark = (mark, targets.len());
                    targets.push(target(taker, message));
                }
            }
            Found::Group(group) => {
                let ready = |taker: &Taker<Key>| sessions.get(taker.session).map_or(Readiness::Gone, Readiness::of);
                let Some(chosen) = choose(&group.takers, group.next, ready) else { return };
                group.next = chosen + 1;
                targets.push(member(group, chosen, message));
            }
        });
    }

    /// Gives a message its place in a durable queue. False if the queue is full: then this session does not get it.
    fn enqueue(&mut self, target: &mut Target, message: &Arc<Message>, queues: &mut Vec<Enqueue>) -> bool {
        if target.qos == Qos::AtMostOnce {
            return true;
        }
        let Some(session) = self.sessions.get_mut(target.key) else { return false };
        if !session.durable {
            let is_there = session.link.is_some();
            if let Some(Shared { filter, spare: Some(0) }) = target.shared.as_ref().filter(|_| is_there) {
                let place = self.give_spare(target, filter);
                let filter = filter.clone();
                target.shared = Some(Shared { filter, spare: Some(place.seq) });
                queues.push(place);
            }
            return is_there;
        }
        let size = message.size() as u64;
        if !session.has_place(size, &self.limits) {
            session.drop_new(&self.stats);
            return false;
        }
        let out = &mut session.out;
        target.seq = out.next_seq();
        if session.link.is_none() && out.queued == 0 {
            // Places before it may have been given to messages that could not be kept: none of them is open.
            out.first_seq = target.seq;
        }
        out.under_commit += 1;
        out.queued += 1;
        out.queued_bytes += size;
        out.shared |= target.shared.is_some();
        queues.push(Enqueue {
            client: session.client.clone(),
            seq: target.seq,
            qos: target.qos,
            retain: target.retain,
            subscriptions: target.subscriptions.clone(),
            shared: target.shared.as_ref().map(|shared| shared.filter.clone()),
        });
        true
    }

    /// Prepares a message that has been published before for one more session: a retained one for a new subscription, or one
    /// that another member of its group has left.
    pub(super) fn publish_to(&mut self, message: &Arc<Message>, target: Target, source: Source) {
        if let Some((change, published)) = self.prepare_for(message, target, source) {
            self.batch.step(change, Finish::Publish(Box::new(published)));
        }
    }

    /// What is kept of such a message, and what is done then; nothing if the session's queue is full.
    pub(super) fn prepare_for(
        &mut self,
        message: &Arc<Message>,
        mut target: Target,
        source: Source,
    ) -> Option<(Option<Change>, Published)> {
        let mut queues = Vec::new();
        if !self.enqueue(&mut target, message, &mut queues) {
            return None;
        }
        let change = (!queues.is_empty()).then(|| {
            Change::Publish(Box::new(Publish {
                message: message.clone(),
                event: None,
                queues,
                retain: Retain::Keep,
                received: None,
                will_of: None,
            }))
        });
        Some((change, self.published(message.clone(), vec![target], Retain::Keep, source, None)))
    }
}

/// How long after a failure a will is tried again.
pub(super) const WILL_RETRY: Duration = Duration::from_secs(10);

pub(super) fn target(taker: &Taker<Key>, message: &Message) -> Target {
    Target {
        key: taker.session,
        qos: taker.qos.min(message.qos),
        retain: taker.retain_as_published && message.retain,
        seq: 0,
        subscriptions: if taker.id == 0 { Vec::new() } else { vec![taker.id] },
        shared: None,
    }
}

/// The chosen member of a group.
pub(super) fn member(group: &Group<Key>, chosen: usize, message: &Message) -> Target {
    let taker = &group.takers[chosen];
    let target = target(taker, message);
    let spare = spare(group, &target, taker.lasts);
    Target { shared: Some(Shared { filter: group.filter.clone(), spare }), ..target }
}

fn merge(target: &mut Target, taker: &Taker<Key>, message: &Message) {
    target.qos = target.qos.max(taker.qos.min(message.qos));
    target.retain |= taker.retain_as_published && message.retain;
    if taker.id != 0 {
        target.subscriptions.push(taker.id);
    }
}

/// How ready a member of a group is, the best last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Readiness {
    /// It cannot get it.
    Gone,
    /// It is not connected, and will get it when it is.
    Away,
    /// It is connected, and has a queue.
    Busy,
    /// It gets it at once.
    Free,
}

impl Readiness {
    pub(super) fn of(session: &Session) -> Self {
        let out = &session.out;
        match &session.link {
            Some(_) if out.behind || !out.waiting.is_empty() => Self::Busy,
            Some(_) => Self::Free,
            None if session.durable => Self::Away,
            None => Self::Gone,
        }
    }
}

/// The readiest member, searched from `next` on so that they take turns.
pub(super) fn choose(
    takers: &[Taker<Key>],
    next: usize,
    readiness: impl Fn(&Taker<Key>) -> Readiness,
) -> Option<usize> {
    let mut best: Option<(Readiness, usize)> = None;
    for step in 0..takers.len() {
        let at = (next + step) % takers.len();
        let ready = readiness(&takers[at]);
        if ready > Readiness::Gone && best.is_none_or(|(there, _)| ready > there) {
            best = Some((ready, at));
        }
        if ready == Readiness::Free {
            break;
        }
    }
    best.map(|(_, at)| at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_of_a_group_take_turns_and_the_absent_wait() {
        let taker = Taker {
            session: Key::SPARES,
            qos: Qos::AtLeastOnce,
            lasts: false,
            no_local: false,
            retain_as_published: false,
            id: 0,
        };
        let all = [taker; 3];
        let pick = |next, ready: [Readiness; 3]| {
            // The key is the same for all: readiness is told by the order of the questions.
            let asked = std::cell::Cell::new(0);
            choose(&all, next, |_| {
                let at = (next + asked.get()) % 3;
                asked.set(asked.get() + 1);
                ready[at]
            })
        };
        use Readiness::{Away, Busy, Free, Gone};
        assert_eq!((pick(0, [Free; 3]), pick(1, [Free; 3]), pick(5, [Free; 3])), (Some(0), Some(1), Some(2)));
        assert_eq!(pick(0, [Away, Busy, Free]), Some(2));
        assert_eq!(pick(0, [Away, Busy, Gone]), Some(1));
        assert_eq!(pick(2, [Away, Away, Gone]), Some(0));
        assert_eq!(pick(0, [Gone; 3]), None);
    }
}
