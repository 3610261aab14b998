//! What the client sends becomes commands.

use std::cell::RefCell;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{BufMut as _, BytesMut};
use bytestring::ByteString;
use tokio::io::{AsyncRead, ReadBuf};

use super::Connection;
use crate::engine::{Command, PublishCommand, SubscribeCommand};
use crate::limits::{INBOUND_BYTES_MAX, PARTIAL_FREE_BYTES, READ_BYTES, WRITE_BYTES};
use crate::topic::{Filter, FilterFault};
use crate::wire::{self, Fault, Inbound, Options, Packet, Reason, Subscribe};

thread_local! {
    /// Every connection of the thread reads into this one, and keeps only what came.
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_BYTES].into_boxed_slice());
}

/// Reads what there is, up to `max` bytes, and appends it. 0 is the end.
pub(super) fn poll_append<S: AsyncRead + Unpin>(
    io: &mut S,
    ctx: &mut Context<'_>,
    to: &mut BytesMut,
    max: usize,
) -> Poll<std::io::Result<usize>> {
    SCRATCH.with_borrow_mut(|scratch| {
        let mut buffer = ReadBuf::new(&mut scratch[..max.min(READ_BYTES)]);
        std::task::ready!(Pin::new(io).poll_read(ctx, &mut buffer))?;
        let read = buffer.filled();
        // The codec wants a few bytes more behind every packet than there are.
        to.reserve(read.len() + 16);
        to.put_slice(read);
        Poll::Ready(Ok(read.len()))
    })
}

impl Connection {
    /// Takes what is there apart, and reads on. Ready when something has changed.
    pub(super) fn poll_read(&mut self, ctx: &mut Context<'_>) -> Poll<()> {
        let max = match self.take_packets() {
            Ok(Some(max)) => max,
            Ok(None) => return Poll::Ready(()),
            Err(fault) => {
                self.fault(fault);
                return Poll::Ready(());
            }
        };
        if self.write.len() >= WRITE_BYTES {
            return Poll::Pending; // Who asks without listening is not heard.
        }
        match poll_append(&mut self.io, ctx, &mut self.partial, max) {
            Poll::Pending => {
                if self.partial.is_empty() {
                    self.partial = BytesMut::new();
                }
                Poll::Pending
            }
            Poll::Ready(Ok(0) | Err(_)) => {
                self.over = true;
                Poll::Ready(())
            }
            Poll::Ready(Ok(_)) => {
                self.heard = self.shared.clock.instant();
                if let Err(fault) = self.take_packets() {
                    self.fault(fault);
                }
                Poll::Ready(())
            }
        }
    }

    /// Takes whole packets from what was read. Says how many bytes may be read next, or `None` when none may: there are
    /// commands to be handed over first, or there is no room for a large packet.
    fn take_packets(&mut self) -> Result<Option<usize>, Fault> {
        let max = self.shared.limits.packet_bytes;
        let frame = loop {
            if self.is_full_with_commands() || self.over || self.closing.is_some() {
                return Ok(None);
            }
            let Some(frame) = wire::frame(&self.partial, max)? else { break None };
            if self.partial.len() < frame.total {
                break Some(frame);
            }
            self.partial_since = None;
            self.partial_permit = None;
            let packet = wire::decode(Some(self.version), frame, &mut self.partial)?;
            self.packet(packet, frame.total)?;
        };
        if !self.commands.is_empty() {
            return Ok(None);
        }
        if self.partial.is_empty() {
            return Ok(Some(READ_BYTES));
        }
        if self.partial_since.is_none() {
            self.partial_since = Some(self.shared.clock.instant());
        }
        let missing = frame.map_or(READ_BYTES, |frame| frame.total - self.partial.len());
        if frame.is_some_and(|frame| frame.total > PARTIAL_FREE_BYTES) && self.partial_permit.is_none() {
            let kib = u32::try_from(missing.div_ceil(1024)).unwrap_or(u32::MAX);
            self.partial_permit = self.shared.partial.clone().try_acquire_many_owned(kib).ok();
            if self.partial_permit.is_none() {
                return Err(Fault::new(Reason::BUSY, "too many large packets are arriving at this node"));
            }
        }
        Ok(Some(missing.max(READ_BYTES)))
    }

    fn is_full_with_commands(&self) -> bool {
        self.open_commands + self.commands.len() >= 2 * usize::from(self.shared.limits.receive_max)
            || self.open_bytes >= INBOUND_BYTES_MAX
    }

    fn packet(&mut self, packet: Packet, bytes: usize) -> Result<(), Fault> {
        match packet {
            Packet::Publish(publish) => self.publish(*publish, bytes)?,
            Packet::Ack(kind, packet, reason) => self.commands.push(Command::Ack(kind, packet, reason)),
            Packet::Subscribe(subscribe) => self.subscribe(*subscribe)?,
            Packet::Unsubscribe(packet, filters) => {
                if filters.iter().any(|filter| filter.contains('\0')) {
                    return Err(Fault::malformed("a topic filter contains U+0000"));
                }
                self.commands.push(Command::Unsubscribe(packet, filters));
            }
            Packet::Ping => wire::pong(&mut self.write),
            Packet::Disconnect(reason, expiry_s) => {
                if self.expiry_s == 0 && expiry_s.is_some_and(|seconds| seconds > 0) {
                    return Err(Fault::protocol("a session that ends with its connection cannot be kept after all"));
                }
                self.commands.push(Command::Farewell(reason, expiry_s));
                self.over = true;
            }
            Packet::Auth => return Err(Fault::protocol("no authentication method was agreed on")),
            Packet::Connect(_) => return Err(Fault::protocol("a second CONNECT")),
        }
        Ok(())
    }

    fn publish(&mut self, inbound: Inbound, bytes: usize) -> Result<(), Fault> {
        let topic = self.topic(&inbound)?;
        if inbound.packet.is_some() {
            self.unacknowledged += 1;
            if self.version.is_5() && self.unacknowledged > usize::from(self.shared.limits.receive_max) {
                return Err(Fault::new(Reason::RECEIVE_MAX, "more messages are open than the receive maximum"));
            }
        }
        let not_utf8 = inbound.properties.as_ref().is_some_and(|properties| properties.utf8)
            && std::str::from_utf8(&inbound.payload).is_err();
        let refused = if topic.starts_with('$') {
            Some((Reason::TOPIC_INVALID, "topics that begin with $ are the server's own"))
        } else if !self.identity.may_publish(&topic) {
            Some((Reason::NOT_AUTHORIZED, "this client may not publish to this topic"))
        } else if not_utf8 {
            Some((Reason::PAYLOAD_FORMAT, "the payload says that it is UTF-8, and is not"))
        } else {
            None
        };
        self.open_bytes += bytes;
        self.commands.push(Command::Publish(Box::new(PublishCommand {
            topic,
            payload: inbound.payload,
            qos: inbound.qos,
            retain: inbound.retain,
            packet: inbound.packet,
            expiry_s: inbound.expiry_s,
            properties: inbound.properties,
            refused,
            bytes,
        })));
        Ok(())
    }

    /// The topic of a message, by name or by alias (§3.3.2.3.4).
    fn topic(&mut self, inbound: &Inbound) -> Result<Arc<str>, Fault> {
        let Some(alias) = inbound.alias else { return Ok((&*inbound.topic).into()) };
        let at = usize::from(alias.get()) - 1;
        if at >= usize::from(self.shared.limits.topic_aliases) {
            return Err(Fault::new(Reason::ALIAS_INVALID, "the topic alias is greater than the topic alias maximum"));
        }
        if inbound.topic.is_empty() {
            let known = self.aliases.get(at).cloned().flatten();
            return known.ok_or(Fault::protocol("the topic alias stands for nothing"));
        }
        let topic: Arc<str> = (&*inbound.topic).into();
        if self.aliases.len() <= at {
            self.aliases.resize(at + 1, None);
        }
        self.aliases[at] = Some(topic.clone());
        Ok(topic)
    }

    fn subscribe(&mut self, subscribe: Subscribe) -> Result<(), Fault> {
        let mut filters = Vec::with_capacity(subscribe.filters.len());
        for (text, options) in subscribe.filters {
            if text.contains('\0') {
                return Err(Fault::malformed("a topic filter contains U+0000"));
            }
            if options.no_local && text.starts_with("$share/") {
                return Err(Fault::protocol("a shared subscription cannot be without what is local"));
            }
            let answer = self.may_subscribe(&text, options);
            filters.push((text, answer));
        }
        let command = SubscribeCommand { packet: subscribe.packet, id: subscribe.id, filters };
        self.commands.push(Command::Subscribe(Box::new(command)));
        Ok(())
    }

    fn may_subscribe(&self, text: &ByteString, options: Options) -> Result<Options, Reason> {
        let filter = Filter::parse(text).map_err(|fault| match fault {
            FilterFault::Invalid => Reason::FILTER_INVALID,
            FilterFault::Reserved => Reason::NOT_AUTHORIZED,
        })?;
        if self.identity.may_subscribe(filter.topic) { Ok(options) } else { Err(Reason::NOT_AUTHORIZED) }
    }
}
