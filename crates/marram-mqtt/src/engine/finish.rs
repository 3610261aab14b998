//! Commits begin and end: then messages go out and acknowledgements with them.

use std::num::NonZeroU16;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use marram_core::port::mqtt::{Change, Qos, Retain};
use marram_core::{Failure, Kind};

use super::Engine;
use super::commit::{Finish, Published, Source, Step};
use super::message::From;
use super::publish::WILL_RETRY;
use super::session::{Key, Left, Received, SentState, packet_of};
use super::timer::Timer;
use crate::outbox::{Close, Out};
use crate::stats;
use crate::wire::{AckKind, Reason};

impl Engine {
    /// Commits what is prepared. What needs no commit is finished at once, unless it has to wait for its turn.
    pub(super) fn submit(&mut self) {
        self.lazy_since = None;
        let (mut changes, mut after) = self.batch.take();
        after.settled = self.settle_changes(&mut changes);
        if changes.is_empty() && after.steps.is_empty() {
            return;
        }
        if changes.is_empty() && self.commits.is_empty() {
            return after.steps.into_iter().for_each(|step| self.finish(step.finish, None));
        }
        let future = (!changes.is_empty()).then(|| self.journal.commit(changes));
        self.commits.push(future, after);
    }

    /// Places that are settled, by session. Those of sessions that are gone are gone with them.
    fn settle_changes(&mut self, changes: &mut Vec<Change>) -> Vec<(Key, u64)> {
        let mut settled = std::mem::take(&mut self.settled);
        settled.sort_unstable();
        for of_one in settled.chunk_by(|a, b| a.0 == b.0) {
            let client = match of_one[0].0 {
                Key::SPARES => Some(&self.spares.client),
                key => self.sessions.get(key).map(|session| &session.client),
            };
            if let Some(client) = client {
                changes.push(Change::Settle(client.clone(), of_one.iter().map(|(_, seq)| *seq).collect()));
            }
        }
        settled
    }

    /// The first commit is over.
    pub(super) fn finish_first(&mut self) {
        let Some((outcome, after)) = self.commits.take_first() else { return };
        if let Some(outcome) = &outcome {
            self.note(outcome.as_ref().err());
        }
        match outcome.unwrap_or(Ok(Vec::new())) {
            Ok(refused) if refused.is_empty() => {
                after.steps.into_iter().for_each(|step| self.finish(step.finish, None));
            }
            Ok(refused) => {
                for Step { first, past, finish } in after.steps {
                    let failure = refused.iter().find(|refused| (first..past).contains(&refused.index));
                    self.finish(finish, failure.map(|refused| &refused.failure));
                }
            }
            Err(failure) => {
                stats::add(&self.stats.commits_failed, 1);
                // Of a node that stops there is no later commit: what is settled is delivered again after its next start.
                let again = !self.stopping;
                if again {
                    self.settled.extend(after.settled);
                }
                for Step { first, past, finish } in after.steps {
                    self.finish(finish, (first < past).then_some(&failure));
                }
                if again {
                    self.put_back(after.records);
                }
            }
        }
    }

    /// Says once that commits fail, and once that they do not any more: a full disk fails thousands of them.
    fn note(&mut self, failure: Option<&Failure>) {
        match failure {
            Some(failure) if !self.failing => {
                tracing::warn!(%failure, "what MQTT clients send cannot be kept: it is not acknowledged until it can be");
            }
            None if self.failing => tracing::info!("what MQTT clients send can be kept again"),
            _ => {}
        }
        self.failing = failure.is_some();
    }

    fn finish(&mut self, finish: Finish, failure: Option<&Failure>) {
        match finish {
            Finish::Publish(published) => match failure {
                None => self.kept(*published),
                Some(failure) => self.refused(*published, failure),
            },
            Finish::Again(from, packet) if self.is_kept(from, packet) => {
                self.ack(from, AckKind::Rec, packet, Reason::SUCCESS, None);
            }
            Finish::Again(from, packet) => {
                let ack = Some((AckKind::Rec, packet));
                self.reject(from, ack, Reason::QUOTA, "what it repeats could not be kept".into());
            }
            Finish::Ack(from, kind, packet, reason, words) => self.ack(from, kind, packet, reason, words),
            Finish::Refuse(from, ack, reason, words, bytes) => {
                stats::add(&self.stats.unauthorized, 1);
                self.reject(from, ack, reason, words.into());
                self.done(from, bytes);
            }
            Finish::Release(from, seq) => match failure {
                None => self.release(from, seq),
                Some(failure) => self.cut(from, failure),
            },
            Finish::Forgotten(from, packet) => match failure {
                None => {
                    if let Some(session) = self.sessions.get_mut(from.key) {
                        session.received.remove(&packet.get());
                    }
                    self.ack(from, AckKind::Comp, packet, Reason::SUCCESS, None);
                }
                Some(failure) => self.cut(from, failure),
            },
            Finish::Connected(reply, accepted) => self.connected(reply, *accepted, failure),
            Finish::SubAck(from, packet, reasons, made) => self.subscribed(from, packet, reasons, made, failure),
            Finish::UnsubAck(from, packet, reasons, removed) => {
                self.unsubscribed(from, packet, reasons, removed, failure);
            }
            Finish::HandOver(client) => self.continue_handover(client),
            Finish::Moved(moved) => self.moved(*moved, failure),
        }
    }

    /// A message is kept as far as it has to be: its sender is answered, and it goes to its subscribers.
    pub(super) fn kept(&mut self, published: Published) {
        let Published { message, targets, retain, source, received, reason } = published;
        match retain {
            Retain::Keep => {}
            Retain::Set => {
                let owner = self.retained.over();
                self.retained.set(message.clone(), owner);
            }
            Retain::Clear => drop(self.retained.remove(&message.topic)),
        }
        let is_promised = matches!(source, Source::Nobody);
        match source {
            Source::Client(from, ack, bytes) => {
                if let Some(packet) = received
                    && let Some(session) = self.sessions.get_mut(from.key)
                {
                    session.received.insert(packet, Received::Kept);
                }
                if let Some((kind, packet)) = ack {
                    self.ack(from, kind, packet, reason, None);
                }
                self.done(from, bytes);
            }
            // Who asked may be gone.
            Source::Local(reply) => drop(reply.send(Ok(()))),
            Source::Will(..) | Source::Nobody | Source::Group(_) => {}
        }
        if targets.is_empty() {
            return;
        }
        let message = self.hold(&message);
        for target in targets {
            self.spares.is_recorded |= target.shared.as_ref().is_some_and(|shared| shared.spare.is_some());
            match &target.shared {
                Some(shared) if is_promised && target.seq == 0 => {
                    let shared = shared.clone();
                    self.inherit(target, &message, shared);
                }
                // Nobody has it: the member that has its queue in memory alone is gone meanwhile, or has no room.
                Some(shared)
                    if target.seq == 0 && target.qos > Qos::AtMostOnce && !self.takes(target.key, message.bytes()) =>
                {
                    self.pass_on(&message, shared.clone());
                }
                _ => self.deliver(target, &message),
            }
        }
    }

    /// A message could not be kept: nobody gets it, and its sender is told so.
    pub(super) fn refused(&mut self, published: Published, failure: &Failure) {
        if published.retain == Retain::Set {
            self.retained.over();
        }
        self.take_back(&published);
        match published.source {
            Source::Client(from, ack, bytes) => {
                if let Some(packet) = published.received
                    && let Some(session) = self.sessions.get_mut(from.key)
                {
                    session.received.remove(&packet);
                }
                if published.message.qos == Qos::AtMostOnce {
                    stats::add(&self.stats.lost, 1);
                } else {
                    stats::add(&self.stats.rejected, 1);
                    self.reject(from, ack, reason_of(failure), failure.message().into());
                }
                self.done(from, bytes);
            }
            Source::Local(reply) => drop(reply.send(Err(failure.clone()))),
            Source::Will(key, will) => {
                stats::add(&self.stats.rejected, 1);
                tracing::warn!(%failure, client = &*published.message.publisher, "a will cannot be kept");
                let at = self.clock.instant() + WILL_RETRY;
                if let Some(session) = self.sessions.get_mut(key).filter(|session| session.link.is_none()) {
                    session.will = Some(will);
                    let set = self.timers.set(at, Timer::Will(key));
                    if let Some(ended) = &mut session.ended {
                        ended.timers.push(set);
                    }
                    if session.recorded {
                        // A record that was written meanwhile says that it has none.
                        self.batch.lazy(Change::Session { record: Box::new(session.record()), fresh: false });
                    }
                }
            }
            Source::Nobody => stats::add(&self.stats.rejected, 1),
            Source::Group(shared) => self.pass_on_later(Left { shared, message: self.hold(&published.message) }),
        }
    }

    /// Places that were given to a message in durable queues are nobody's.
    pub(super) fn take_back(&mut self, published: &Published) {
        for target in published.targets.iter().filter(|target| target.seq > 0) {
            if let Some(session) = self.sessions.get_mut(target.key) {
                session.out.committed(target.seq, false);
                session.out.queued = session.out.queued.saturating_sub(1);
                session.out.queued_bytes = session.out.queued_bytes.saturating_sub(published.message.size() as u64);
            }
        }
    }

    fn takes(&self, key: Key, size: usize) -> bool {
        let used = self.stats.memory.load(Ordering::Relaxed);
        self.sessions.get(key).is_some_and(|session| session.has_room(size, used, &self.limits))
    }

    /// Answers a message that is not taken: 5.0 says why, 3.1.1 closes without an acknowledgement.
    fn reject(&mut self, from: From, ack: Option<(AckKind, NonZeroU16)>, reason: Reason, words: Arc<str>) {
        let Some(link) = self.sessions.linked(from).and_then(|session| session.link.as_ref()) else { return };
        match ack {
            Some((kind, packet)) if link.version.is_5() => {
                link.outbox.push(Out::Ack(kind, packet, reason, Some(words)));
            }
            Some(_) => link.outbox.close(Close { reason, words: "a message was not taken", when_answered: false }),
            // QoS 0 has no answer: it is dropped, and counted.
            None => {}
        }
    }

    fn release(&mut self, from: From, seq: u64) {
        let Some(session) = self.sessions.linked(from) else { return };
        if let Some(sent) = session.out.in_flight.iter_mut().find(|sent| sent.seq == seq) {
            sent.state = SentState::Released;
        }
        if let Some(packet) = NonZeroU16::new(packet_of(seq)) {
            self.ack(from, AckKind::Rel, packet, Reason::SUCCESS, None);
        }
    }

    fn ack(&mut self, from: From, kind: AckKind, packet: NonZeroU16, reason: Reason, words: Option<Arc<str>>) {
        self.send(from, Out::Ack(kind, packet, reason, words));
    }

    pub(super) fn send(&mut self, from: From, out: Out) {
        if let Some(link) = self.sessions.linked(from).and_then(|session| session.link.as_ref()) {
            link.outbox.push(out);
        }
    }

    /// What has no answer that says so is answered by the end of the connection.
    pub(super) fn cut(&mut self, from: From, failure: &Failure) {
        if let Some(link) = self.sessions.linked(from).and_then(|session| session.link.as_ref()) {
            let words = "this node cannot keep what was sent";
            link.outbox.close(Close { reason: reason_of(failure), words, when_answered: false });
        }
    }

    pub(super) fn done(&self, from: From, bytes: usize) {
        let link = self.sessions.get(from.key).and_then(|session| session.link.as_ref());
        if let Some(link) = link.filter(|link| link.connection == from.connection) {
            link.outbox.done(bytes);
        }
    }
}

/// What a client is told about a failure. A bridge goes by it: only the middle one is there to stay.
pub(super) fn reason_of(failure: &Failure) -> Reason {
    match failure.kind() {
        Kind::StorageFull | Kind::StreamFull | Kind::Overloaded => Reason::QUOTA,
        Kind::BodyTooLarge | Kind::Invalid => Reason::IMPLEMENTATION,
        _ => Reason::UNSPECIFIED,
    }
}
