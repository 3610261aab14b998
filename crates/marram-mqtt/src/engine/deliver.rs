//! Messages on their way to clients: what is sent next, what is acknowledged, what is read from the journal.

use std::num::NonZeroU16;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use marram_core::port::mqtt::{Change, Message, Qos};

use super::commit::Finish;
use super::message::From;
use super::publish::Target;
use super::session::{Entry, Key, Left, Received, Sent, SentState, packet_of};
use super::timer::Timer;
use super::{Engine, Page};
use crate::limits::{PAGE_MESSAGES, WAITING_MAX};
use crate::outbox::{Delivery, Out};
use crate::stats;
use crate::wire::{AckKind, Outgoing as OnTheWire, Reason, publish_len};

/// How long after a failure something is tried again: ten times this.
pub(super) const RETRY: Duration = Duration::from_millis(100);

impl Engine {
    /// A QoS 0 message: now or never.
    pub(super) fn offer(&mut self, target: Target, message: &Arc<Message>) {
        let bytes_max = self.share_bytes().min(self.limits.outbound_bytes);
        self.send_unacknowledged(target, message, bytes_max);
    }

    /// The same with so many bytes on their way at most.
    pub(super) fn send_unacknowledged(&mut self, target: Target, message: &Arc<Message>, bytes_max: usize) {
        let Some(session) = self.sessions.get_mut(target.key) else { return };
        let Some(link) = &session.link else { return };
        let delivery = Delivery {
            message: message.clone(),
            qos: Qos::AtMostOnce,
            retain: target.retain,
            dup: false,
            packet: 0,
            subscriptions: target.subscriptions,
        };
        if len(link.version, &delivery, message) > link.packet_bytes_max as usize {
            stats::add(&self.stats.dropped_large, 1);
        } else if link.outbox.offer(delivery, bytes_max) {
            stats::add(&self.stats.sent, 1);
        } else {
            stats::add(&self.stats.dropped_slow, 1);
            if !std::mem::replace(&mut session.out.said_slow, true) {
                tracing::warn!(
                    client = &*session.client,
                    "an MQTT client takes its messages too slowly: new ones of QoS 0 for it are dropped"
                );
            }
        }
    }

    /// Bytes of messages that may wait in memory for one client now.
    pub(super) fn share_bytes(&self) -> usize {
        self.limits.share_bytes(self.stats.memory.load(Ordering::Relaxed))
    }

    pub(super) fn has_memory(&self, bytes: usize) -> bool {
        let used = self.stats.memory.load(Ordering::Relaxed);
        used + bytes as u64 <= self.limits.memory_bytes as u64
    }

    /// A QoS 1 or 2 message that is kept, or needs not be.
    pub(super) fn deliver(&mut self, target: Target, message: &Arc<Message>) {
        if target.qos == Qos::AtMostOnce {
            return self.offer(target, message);
        }
        let size = message.size();
        let share = self.share_bytes().min(self.limits.outbound_bytes);
        let used = self.stats.memory.load(Ordering::Relaxed);
        let Some(session) = self.sessions.get_mut(target.key) else { return };
        let has_room = session.durable || session.has_memory(size, used, &self.limits);
        let out = &mut session.out;
        if session.durable {
            out.committed(target.seq, true);
            if target.seq <= out.loaded_seq {
                return; // A page brought it already.
            }
            let room = out.waiting.is_empty() || (out.waiting.len() < WAITING_MAX && out.waiting_bytes + size <= share);
            if session.link.is_none() || out.behind || !room {
                out.behind = true;
                out.missed = true;
                return;
            }
        } else if !has_room {
            return session.drop_new(&self.stats);
        }
        self.take_in(target, message);
    }

    /// Puts a QoS 1 or 2 message behind those that wait in memory.
    pub(super) fn take_in(&mut self, target: Target, message: &Arc<Message>) {
        let size = message.size();
        let Some(session) = self.sessions.get_mut(target.key) else { return };
        let out = &mut session.out;
        let seq = if session.durable {
            out.loaded_seq = target.seq;
            target.seq
        } else {
            out.queued += 1;
            out.queued_bytes += size as u64;
            out.next_seq()
        };
        out.waiting_bytes += size;
        stats::add(&self.stats.memory, size as u64);
        out.waiting.push_back(Entry {
            seq,
            qos: target.qos,
            retain: target.retain,
            subscriptions: target.subscriptions,
            // What is in the journal is handed over from there.
            shared: target.shared.filter(|_| !session.durable),
            message: message.clone(),
        });
        self.pump(target.key);
    }

    /// Sends what the window has room for, and sees to it that there is more to send.
    pub(super) fn pump(&mut self, key: Key) {
        let now = self.clock.unix_ns();
        let Some(session) = self.sessions.get_mut(key) else { return };
        let Some(link) = &session.link else { return };
        if !session.out.waiting.is_empty() && !link.outbox.is_open() {
            // What is not sent any more is not noted as sent: it may be another's.
            return;
        }
        let (out, window) = (&mut session.out, usize::from(link.receive_max.min(self.limits.send_max)));
        let mut settled = Vec::new();
        while out.in_flight.len() < window
            && (out.in_flight.is_empty() || out.in_flight_bytes < self.limits.outbound_bytes)
            && let Some(entry) = out.waiting.pop_front()
        {
            let bytes = entry.message.size();
            out.waiting_bytes -= bytes;
            let expired = entry.message.expires_unix_ns.is_some_and(|expires| expires <= now);
            // A QoS 2 message that may have been sent goes on (§4.3.3-7).
            let dup = entry.seq <= out.resent_seq;
            let shared = entry.shared.filter(|_| entry.qos == Qos::AtLeastOnce);
            let delivery = Delivery {
                message: entry.message,
                qos: entry.qos,
                retain: entry.retain,
                dup,
                packet: packet_of(entry.seq),
                subscriptions: entry.subscriptions,
            };
            let too_large = len(link.version, &delivery, &delivery.message) > link.packet_bytes_max as usize;
            if too_large || (expired && !(dup && entry.qos == Qos::ExactlyOnce)) {
                stats::add(if too_large { &self.stats.dropped_large } else { &self.stats.dropped_expired }, 1);
                stats::sub(&self.stats.memory, bytes as u64);
                settled.push((entry.seq, bytes));
                continue;
            }
            let left = shared.map(|shared| Box::new(Left { shared, message: delivery.message.clone() }));
            if left.is_none() {
                stats::sub(&self.stats.memory, bytes as u64);
            }
            out.sent(Sent { seq: entry.seq, bytes, state: SentState::Published(entry.qos), left });
            stats::add(&self.stats.sent, 1);
            link.outbox.push(Out::Publish(delivery));
        }
        let read = out.behind && !out.reading && out.waiting.len() < WAITING_MAX / 2;
        let replay = out.waiting.is_empty() && !out.behind && !session.replays.is_empty() && !session.replaying;
        let connection = link.connection;
        if replay {
            session.replaying = true;
            self.replays.push_back(key);
        }
        for (seq, bytes) in settled {
            self.settle(key, seq, bytes);
        }
        if read {
            self.read(From { key, connection });
        }
    }

    /// A place is done with.
    fn settle(&mut self, key: Key, seq: u64, bytes: usize) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        session.out.queued = session.out.queued.saturating_sub(1);
        session.out.queued_bytes = session.out.queued_bytes.saturating_sub(bytes as u64);
        session.out.said_full &= match session.durable {
            true => session.out.queued > self.limits.queue_messages / 2,
            false => !session.out.waiting.is_empty(),
        };
        session.out.shared &= session.out.queued > 0;
        if session.durable {
            self.settled.push((key, seq));
        }
    }

    /// Reads on in a queue.
    pub(super) fn read(&mut self, from: From) {
        let Some(session) = self.sessions.linked(from) else { return };
        session.out.reading = true;
        session.out.missed = false;
        let after = session.out.loaded_seq;
        let read = self.journal.read(&session.client, after, PAGE_MESSAGES);
        // An earlier connection settled these, and that could not be written yet: the journal still has them.
        let settled = self.settled_of(from.key).filter(|seq| *seq > after).collect();
        self.reads.push(Box::pin(async move { Page { from, settled, queued: read.await } }));
    }

    /// Places of a session that are settled, and of which that may not be written yet.
    pub(super) fn settled_of(&self, key: Key) -> impl Iterator<Item = u64> {
        self.settled.iter().chain(self.commits.settled()).filter(move |(of, _)| *of == key).map(|(_, seq)| *seq)
    }

    /// A part of a queue has been read.
    pub(super) fn page(&mut self, page: Page) {
        let from = page.from;
        let Some(session) = self.sessions.linked(from) else { return };
        let out = &mut session.out;
        out.reading = false;
        let queued = match page.queued {
            Ok(queued) => queued,
            Err(failure) => {
                tracing::error!(%failure, client = &*session.client, "the queue of an MQTT session cannot be read");
                let at = self.clock.instant() + RETRY * 10;
                self.timers.set(at, Timer::Retry(from.key));
                return;
            }
        };
        // Only an empty page says that there is no more: one may end early for its bytes.
        out.behind = !queued.is_empty() || out.missed;
        for queued in queued {
            if queued.seq <= out.loaded_seq {
                continue;
            }
            out.loaded_seq = queued.seq;
            if page.settled.contains(&queued.seq) {
                continue;
            }
            let bytes = queued.message.size();
            if queued.released {
                out.sent(Sent { seq: queued.seq, bytes, state: SentState::Released, left: None });
                if let (Some(link), Some(packet)) = (&session.link, NonZeroU16::new(packet_of(queued.seq))) {
                    link.outbox.push(Out::Ack(AckKind::Rel, packet, Reason::SUCCESS, None));
                }
                continue;
            }
            out.waiting_bytes += bytes;
            stats::add(&self.stats.memory, bytes as u64);
            out.waiting.push_back(Entry {
                seq: queued.seq,
                qos: queued.qos,
                retain: queued.retain,
                subscriptions: queued.subscriptions,
                shared: None,
                message: queued.message,
            });
        }
        self.pump(from.key);
    }

    /// A client moves a message on.
    pub(super) fn acknowledged(&mut self, from: From, kind: AckKind, packet: NonZeroU16, reason: Reason) {
        match kind {
            AckKind::Ack | AckKind::Comp => self.completed(from, kind, packet),
            AckKind::Rec => self.recorded(from, packet, reason),
            AckKind::Rel => self.released(from, packet),
        }
    }

    fn completed(&mut self, from: From, kind: AckKind, packet: NonZeroU16) {
        let Some(session) = self.sessions.linked(from) else { return };
        let out = &mut session.out;
        let Some(at) = out.find(packet.get()) else { return };
        let expected = match out.in_flight[at].state {
            SentState::Published(qos) => kind == AckKind::Ack && qos == Qos::AtLeastOnce,
            SentState::Releasing | SentState::Released => kind == AckKind::Comp,
        };
        if expected {
            self.complete(from, at);
        }
    }

    fn complete(&mut self, from: From, at: usize) {
        let Some(session) = self.sessions.linked(from) else { return };
        let Some(sent) = session.out.in_flight.remove(at) else { return };
        session.out.in_flight_bytes -= sent.bytes;
        if sent.left.is_some() {
            stats::sub(&self.stats.memory, sent.bytes as u64);
        }
        self.settle(from.key, sent.seq, sent.bytes);
        self.pump(from.key);
    }

    /// PUBREC: the client has it. That is kept before it is told to forget it: otherwise it could get it twice.
    fn recorded(&mut self, from: From, packet: NonZeroU16, reason: Reason) {
        let Some(session) = self.sessions.linked(from) else { return };
        let Some(at) = session.out.find(packet.get()) else {
            // It knows a message that is not known here; it may forget it.
            return self.batch.step([], Finish::Ack(from, AckKind::Rel, packet, Reason::NO_SUCH_PACKET, None));
        };
        let sent = &mut session.out.in_flight[at];
        let (seq, durable, client) = (sent.seq, session.durable, session.client.clone());
        match sent.state {
            SentState::Published(Qos::ExactlyOnce) if reason.is_error() => self.complete(from, at),
            SentState::Published(Qos::ExactlyOnce) => {
                sent.state = SentState::Releasing;
                self.batch.step(durable.then_some(Change::Release(client, seq)), Finish::Release(from, seq));
            }
            SentState::Releasing | SentState::Released => self.batch.step([], Finish::Release(from, seq)),
            SentState::Published(_) => {}
        }
    }

    /// PUBREL: the client will not send it again. Its identifier is free once that is kept.
    fn released(&mut self, from: From, packet: NonZeroU16) {
        let Some(session) = self.sessions.linked(from) else { return };
        if !session.received.contains_key(&packet.get()) {
            return self.batch.step([], Finish::Ack(from, AckKind::Comp, packet, Reason::NO_SUCH_PACKET, None));
        }
        let change = session.durable.then(|| Change::Forget(session.client.clone(), packet.get()));
        self.batch.step(change, Finish::Forgotten(from, packet));
    }

    /// Whether a QoS 2 message of the client has been kept.
    pub(super) fn is_kept(&mut self, from: From, packet: NonZeroU16) -> bool {
        self.sessions.linked(from).is_some_and(|session| session.received.get(&packet.get()) == Some(&Received::Kept))
    }
}

/// Bytes of the packet that a delivery becomes, at most: its expiry, if it has one, is counted.
fn len(version: crate::wire::Version, delivery: &Delivery, message: &Message) -> usize {
    publish_len(
        version,
        &OnTheWire {
            message,
            qos: delivery.qos,
            retain: delivery.retain,
            dup: delivery.dup,
            packet: delivery.packet,
            subscriptions: &delivery.subscriptions,
            expiry_s: message.expires_unix_ns.map(|_| 0),
        },
    )
}
