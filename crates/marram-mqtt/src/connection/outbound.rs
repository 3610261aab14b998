//! What the engine has for the client becomes bytes.

use super::Connection;
use crate::engine::Command;
use crate::limits::WRITE_BYTES;
use crate::outbox::{Close, Delivery, Out};
use crate::wire::{self, AckKind, Outgoing};

impl Connection {
    /// Encodes what is in the outbox, up to a bufferful.
    pub(super) fn take_outbox(&mut self) {
        let stalled = self.is_full() || self.closing.is_some();
        let outbox = self.outbox.clone();
        let now = self.shared.clock.unix_ns();
        let taken = if self.closing.as_ref().is_some_and(|close| !close.when_answered) {
            // After a DISCONNECT nothing is sent.
            outbox.take(stalled, |_| true)
        } else if self.write.len() >= WRITE_BYTES {
            outbox.take_done(stalled)
        } else {
            outbox.take(stalled, |out| {
                self.encode(out, now);
                self.write.len() < WRITE_BYTES
            })
        };
        self.open_commands = self.open_commands.saturating_sub(taken.done.commands);
        self.open_bytes = self.open_bytes.saturating_sub(taken.done.bytes);
        if taken.is_awaited {
            self.commands.push(Command::Taken);
        }
        if let Some(close) = taken.close
            && self.closing.is_none()
        {
            self.begin_close(close);
        }
        if let Some(close) = &self.closing
            && close.when_answered
            && self.open_commands == 0
        {
            let close = close.clone();
            self.say_goodbye(&close);
            self.closing = Some(Close { when_answered: false, ..close });
        }
    }

    fn encode(&mut self, out: Out, now_unix_ns: u64) {
        let (version, room) = (self.version, self.room);
        match out {
            Out::Publish(delivery) => self.encode_publish(&delivery, now_unix_ns),
            Out::Ack(kind, packet, reason, words) => {
                if kind == AckKind::Ack || kind == AckKind::Comp || (kind == AckKind::Rec && reason.is_error()) {
                    self.unacknowledged = self.unacknowledged.saturating_sub(1);
                }
                wire::ack(version, kind, packet, reason, words.as_deref(), room, &mut self.write);
            }
            Out::SubAck(packet, reasons) => wire::suback(version, packet, &reasons, &mut self.write),
            Out::UnsubAck(packet, reasons) => wire::unsuback(version, packet, &reasons, &mut self.write),
        }
    }

    fn encode_publish(&mut self, delivery: &Delivery, now_unix_ns: u64) {
        // Never more than the publisher gave it (§3.3.2.3.3), also where the clock has gone back since.
        let began = now_unix_ns.max(delivery.message.published_unix_ns);
        let left_ns = delivery.message.expires_unix_ns.map(|expires| expires.saturating_sub(began));
        if left_ns == Some(0) && delivery.packet == 0 {
            return crate::stats::add(&self.shared.stats.dropped_expired, 1);
        }
        // What is on its way already is delivered (§4.3.3-7), with the least there is.
        let expiry_s = left_ns.map(|ns| u32::try_from(ns.div_ceil(1_000_000_000)).unwrap_or(u32::MAX).max(1));
        let out = Outgoing {
            message: &delivery.message,
            qos: delivery.qos,
            retain: delivery.retain,
            dup: delivery.dup,
            packet: delivery.packet,
            subscriptions: &delivery.subscriptions,
            expiry_s,
        };
        wire::publish(self.version, &out, &mut self.write);
    }

    pub(super) fn begin_close(&mut self, close: Close) {
        if self.closing.is_some() {
            return;
        }
        if !close.when_answered {
            self.say_goodbye(&close);
        }
        self.closing = Some(close);
    }

    fn say_goodbye(&mut self, close: &Close) {
        wire::disconnect(self.version, close.reason, Some(close.words), self.room, &mut self.write);
    }
}
