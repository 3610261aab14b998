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
use crate::limits::{PAGE_MESSAGES, READS_MAX, WAITING_MAX};
use crate::outbox::{Delivery, Out};
use crate::resident::Resident;
use crate::stats;
use crate::wire::{AckKind, Outgoing as OnTheWire, Reason, publish_len};

/// How long after a failure something is tried again: ten times this.
pub(super) const RETRY: Duration = Duration::from_millis(100);

impl Engine {
    /// A QoS 0 message: now or never.
    pub(super) fn offer(&mut self, target: Target, message: &Arc<Resident>) {
        self.send_unacknowledged(target, message, self.share_bytes());
    }

    /// The same with so many bytes on their way to it at most.
    pub(super) fn send_unacknowledged(&mut self, target: Target, message: &Arc<Resident>, share: usize) {
        let Some(session) = self.sessions.get_mut(target.key) else { return };
        let Some(link) = &session.link else { return };
        let bytes_max = match link.outbox.bytes() {
            0 => share,
            _ => share.min(self.limits.outbound_bytes),
        };
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
        } else if link.outbox.bytes() + message.bytes() <= bytes_max {
            link.outbox.push(Out::Publish(delivery));
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

    pub(super) fn is_memory_full(&self) -> bool {
        self.stats.memory.load(Ordering::Relaxed) > self.limits.memory_bytes as u64
    }

    /// A message that clients have in memory from now on.
    pub(super) fn hold(&self, message: &Arc<Message>) -> Arc<Resident> {
        Resident::new(message.clone(), &self.stats)
    }

    /// A QoS 1 or 2 message that is kept, or needs not be.
    pub(super) fn deliver(&mut self, target: Target, message: &Arc<Resident>) {
        if target.qos == Qos::AtMostOnce {
            return self.offer(target, message);
        }
        let (size, used) = (message.bytes(), self.stats.memory.load(Ordering::Relaxed));
        let Some(session) = self.sessions.get_mut(target.key) else { return };
        if session.durable {
            let has_room = session.has_load_room(size, used, &self.limits);
            let out = &mut session.out;
            out.committed(target.seq, true);
            if target.seq <= out.loaded_seq {
                return; // A page brought it already.
            }
            if session.link.is_none() || out.behind || !has_room {
                out.behind = true;
                out.missed = true;
                if out.waiting.is_empty() && !out.retrying {
                    // There is perhaps no acknowledgement to come that would lead to it.
                    self.pump(target.key);
                }
                return;
            }
        } else if !session.has_memory(size, used, &self.limits) {
            session.drop_new(&self.stats);
            return self.settle_spare(target.shared.and_then(|shared| shared.spare));
        }
        self.take_in(target, message);
    }

    /// Puts a QoS 1 or 2 message behind those that wait in memory.
    pub(super) fn take_in(&mut self, target: Target, message: &Arc<Resident>) {
        let size = message.bytes();
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
        let (mut settled, mut spares) = (Vec::new(), Vec::new());
        while out.in_flight.len() < window
            && (out.in_flight.is_empty() || out.in_flight_bytes < self.limits.outbound_bytes)
            && let Some(entry) = out.waiting.pop_front()
        {
            let bytes = entry.message.bytes();
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
                settled.push((entry.seq, bytes));
                spares.extend(shared.and_then(|shared| shared.spare));
                continue;
            }
            let left = shared.map(|shared| Box::new(Left { shared, message: delivery.message.clone() }));
            out.sent(Sent { seq: entry.seq, bytes, state: SentState::Published(entry.qos), left });
            stats::add(&self.stats.sent, 1);
            link.outbox.push(Out::Publish(delivery));
        }
        let is_behind = out.behind && !out.reading;
        let replay = out.waiting.is_empty() && !out.behind && !session.replays.is_empty() && !session.replaying;
        if replay {
            session.replaying = true;
            self.replays.push_back(key);
        }
        for (seq, bytes) in settled {
            self.settle(key, seq, bytes);
        }
        spares.into_iter().for_each(|spare| self.settle_spare(Some(spare)));
        if is_behind {
            self.read_on(key);
        }
    }

    /// Reads on in a queue if there is room for more of it, or sees to it that this is asked again.
    fn read_on(&mut self, key: Key) {
        let (share, outbound_bytes) = (self.share_bytes(), self.limits.outbound_bytes);
        let Some(session) = self.sessions.get(key) else { return };
        let Some(link) = &session.link else { return };
        let (out, held) = (&session.out, session.held_bytes());
        let few = out.waiting.len() < WAITING_MAX / 2 && out.waiting_bytes <= outbound_bytes / 2;
        if (out.waiting.is_empty() || few) && (held == 0 || held + out.mean_bytes() <= share) {
            return self.read(From { key, connection: link.connection });
        }
        // What it acknowledges leads back here; without any, what it takes does.
        if out.in_flight.is_empty() && !link.outbox.await_taken() {
            self.retry_later(key);
        }
    }

    /// What could not be read, or had no room, is tried again.
    pub(super) fn retry_later(&mut self, key: Key) {
        let at = self.clock.instant() + RETRY * 10;
        let Some(session) = self.sessions.get_mut(key) else { return };
        if !std::mem::replace(&mut session.out.retrying, true) {
            self.timers.set(at, Timer::Retry(key));
        }
    }

    pub(super) fn retry(&mut self, key: Key) {
        if let Some(session) = self.sessions.get_mut(key) {
            session.out.retrying = false;
            self.pump(key);
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

    /// Reads on in a queue, when it is its turn.
    fn read(&mut self, from: From) {
        let Some(session) = self.sessions.linked(from) else { return };
        session.out.reading = true;
        self.readers.push_back(from);
        self.start_reads();
    }

    fn start_reads(&mut self) {
        while self.reads.len() < READS_MAX
            && let Some(from) = self.readers.pop_front()
        {
            self.read_page(from);
        }
    }

    fn read_page(&mut self, from: From) {
        let room = self.share_bytes().min(self.limits.outbound_bytes);
        let Some(session) = self.sessions.linked(from) else { return };
        session.out.missed = false;
        let (after, room) = (session.out.loaded_seq, room.saturating_sub(session.held_bytes()));
        // About as many as there is room for; one in any case.
        let max = (room / session.out.mean_bytes().max(1)).clamp(1, PAGE_MESSAGES);
        let read = self.journal.read(&session.client, after, max);
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
        self.start_reads();
        let from = page.from;
        let Some(session) = self.sessions.linked(from) else { return };
        session.out.reading = false;
        let queued = match page.queued {
            Ok(queued) => queued,
            Err(failure) => {
                tracing::error!(%failure, client = &*session.client, "the queue of an MQTT session cannot be read");
                return self.retry_later(from.key);
            }
        };
        // Only an empty page says that there is no more: one may end early for its bytes.
        session.out.behind = !queued.is_empty() || session.out.missed;
        for queued in queued {
            if queued.seq <= session.out.loaded_seq {
                continue;
            }
            if page.settled.contains(&queued.seq) {
                session.out.loaded_seq = queued.seq;
                continue;
            }
            let bytes = queued.message.size();
            if queued.released {
                let out = &mut session.out;
                out.loaded_seq = queued.seq;
                out.sent(Sent { seq: queued.seq, bytes, state: SentState::Released, left: None });
                if let (Some(link), Some(packet)) = (&session.link, NonZeroU16::new(packet_of(queued.seq))) {
                    link.outbox.push(Out::Ack(AckKind::Rel, packet, Reason::SUCCESS, None));
                }
                continue;
            }
            let [used, reserve] = [&self.stats.memory, &self.stats.reserve].map(|of| of.load(Ordering::Relaxed));
            let message = if session.has_load_room(bytes, used, &self.limits) {
                Resident::new(queued.message, &self.stats)
            } else if session.is_idle() && self.limits.has_reserve(reserve, bytes) {
                Resident::reserve(queued.message, &self.stats)
            } else if session.out.waiting.is_empty() {
                // Others have the memory: it stays where it is.
                return self.retry_later(from.key);
            } else {
                break;
            };
            let out = &mut session.out;
            out.loaded_seq = queued.seq;
            out.waiting_bytes += bytes;
            out.waiting.push_back(Entry {
                seq: queued.seq,
                qos: queued.qos,
                retain: queued.retain,
                subscriptions: queued.subscriptions,
                shared: None,
                message,
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
        if let Some(left) = sent.left {
            session.out.left_bytes -= sent.bytes;
            self.settle_spare(left.shared.spare);
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
