//! Both ends of a bridge, while both are connected.
//!
//! Each end has a reader and a writer of its own, so that neither waits for the other's socket. What is between them is
//! bounded by what each end may have open: a writer takes no message past that, then the reader of the other end waits,
//! and then its broker. Acknowledgements wait for no message, or both directions would wait for each other; and of what
//! goes out, the node sends no more at once than the other end takes, so that its reader waits for no acknowledgement.

use std::collections::HashMap;
use std::convert::Infallible;
use std::num::NonZeroU16;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rmqtt_codec::types::{Publish, QoS};
use tokio::sync::{Semaphore, mpsc};

use super::end::{End, EndError, Writer};
use super::reader::{Got, Reader};
use super::{BridgeConfig, Down, Route, Side, State};
use crate::limits::{BRIDGE_QUEUE_MAX, BRIDGE_RECEIVE_MAX};
use crate::topic;
use crate::wire::{self, Reason};

/// Acknowledgements that wait for a writer: a broker has no more identifiers than that, so no reader waits for room.
const ACKNOWLEDGEMENTS_MAX: usize = u16::MAX as usize;

/// A message of the other end, with its identifier there if it wants to be acknowledged.
type Message = (Box<Publish>, Option<NonZeroU16>);

/// What goes to a writer.
struct ToWriter {
    messages: mpsc::Sender<Message>,
    acknowledgements: mpsc::Sender<NonZeroU16>,
}

/// What a writer takes it from.
struct ForWriter {
    messages: Messages,
    acknowledgements: mpsc::Receiver<NonZeroU16>,
}

/// Messages for an end, in their order.
struct Messages {
    queue: mpsc::Receiver<Message>,
    /// The first of them, while it waits for room.
    first: Option<Message>,
}

fn queue() -> (ToWriter, ForWriter) {
    let (to_messages, queue) = mpsc::channel(BRIDGE_QUEUE_MAX);
    let messages = Messages { queue, first: None };
    let (to_acknowledgements, acknowledgements) = mpsc::channel(ACKNOWLEDGEMENTS_MAX);
    let to = ToWriter { messages: to_messages, acknowledgements: to_acknowledgements };
    (to, ForWriter { messages, acknowledgements })
}

/// Messages that were published to an end and are not acknowledged.
struct Open {
    /// A place for each that the end still takes (MQTT 5.0 §4.9).
    room: Semaphore,
    ids: Mutex<Ids>,
}

/// Which identifier of the other end waits for the acknowledgement.
#[derive(Default)]
struct Ids {
    by_packet: HashMap<NonZeroU16, NonZeroU16>,
    last: u16,
}

impl Open {
    /// As many as the end takes, and no more than go over a bridge at once: 3.1.1 does not say.
    fn new(receive_max: u16) -> Self {
        Self { room: Semaphore::new(receive_max.min(BRIDGE_RECEIVE_MAX).into()), ids: Mutex::default() }
    }

    /// The next message, when there is room for it; one that nobody acknowledges needs none. Nothing is lost when this
    /// is given up while it waits.
    async fn next(&self, messages: &mut Messages) -> Option<Publish> {
        if messages.first.is_none() {
            messages.first = messages.queue.recv().await;
        }
        if let Some((_, Some(_))) = messages.first {
            self.room.acquire().await.ok()?.forget();
        }
        let (mut publish, other) = messages.first.take()?;
        if let Some(other) = other {
            publish.packet_id = Some(self.ids.lock().unwrap_or_else(PoisonError::into_inner).put(other));
        }
        Some(*publish)
    }

    /// A message is acknowledged: there is room for another.
    fn take(&self, packet: NonZeroU16) -> Option<NonZeroU16> {
        let other = self.ids.lock().unwrap_or_else(PoisonError::into_inner).by_packet.remove(&packet)?;
        self.room.add_permits(1);
        Some(other)
    }
}

impl Ids {
    /// An identifier that is free. Fewer are open than there are.
    fn put(&mut self, other: NonZeroU16) -> NonZeroU16 {
        loop {
            self.last = self.last.wrapping_add(1);
            // The last is the subscription's.
            if let Some(packet) = NonZeroU16::new(self.last).filter(|packet| *packet != NonZeroU16::MAX)
                && !self.by_packet.contains_key(&packet)
            {
                self.by_packet.insert(packet, other);
                return packet;
            }
        }
    }
}

/// Carries messages over until one end fails.
pub(super) async fn run(here: End, there: End, config: &BridgeConfig, state: &Arc<State>) -> Result<Infallible, Down> {
    let ((to_here, for_here), (to_there, for_there)) = (queue(), queue());
    let (open_here, open_there) = (Open::new(here.receive_max), Open::new(there.receive_max));
    let bridge = &*config.name;
    let outward = Carry {
        bridge,
        routes: &config.outward,
        own: &to_here,
        other: &to_there,
        open: &open_here,
        counted: &state.inward,
    };
    let inward = Carry {
        bridge,
        routes: &config.inward,
        own: &to_there,
        other: &to_here,
        open: &open_there,
        counted: &state.outward,
    };
    let (side, failed) = tokio::select! {
        failed = read(here.reader, &outward) => (Side::Here, failed),
        failed = read(there.reader, &inward) => (Side::There, failed),
        failed = write(here.writer, for_here, &open_here, here.keep_alive) => (Side::Here, failed),
        failed = write(there.writer, for_there, &open_there, there.keep_alive) => (Side::There, failed),
    };
    failed.map_err(|error| side.down(error))
}

/// What the reader of an end needs.
struct Carry<'c> {
    /// What the bridge is called.
    bridge: &'c str,
    /// Where its messages go.
    routes: &'c [Route],
    /// The writer of the same end.
    own: &'c ToWriter,
    /// The writer of the other end.
    other: &'c ToWriter,
    /// What was published to this end.
    open: &'c Open,
    /// Acknowledged by this end.
    counted: &'c AtomicU64,
}

async fn read(mut reader: Reader, carry: &Carry<'_>) -> Result<Infallible, EndError> {
    loop {
        match reader.next().await? {
            Got::Message(publish) => carry.message(publish).await?,
            Got::Unfit(packet, why) => carry.leave_out(packet, &why).await?,
            Got::Acknowledged(packet, reason) => {
                let other = carry.open.take(packet);
                if [Reason::QUOTA, Reason::UNSPECIFIED, Reason::IMPLEMENTATION].contains(&reason) {
                    // It stays with the end that it came from, and comes again.
                    return Err(EndError::NotTaken(reason.0));
                }
                if reason.is_error() {
                    // It would be refused whenever it comes, and hold up all that is behind it.
                    let (bridge, reason) = (carry.bridge, reason.0);
                    tracing::warn!(bridge, reason, "a broker does not take a message of a bridge: it is dropped");
                }
                carry.counted.fetch_add(1, Ordering::Relaxed);
                if let Some(other) = other {
                    hand(&carry.other.acknowledgements, other).await?;
                }
            }
            Got::Other => {}
        }
    }
}

impl Carry<'_> {
    async fn message(&self, mut publish: Box<Publish>) -> Result<(), EndError> {
        let packet = publish.packet_id.take();
        let route = self.routes.iter().find(|route| topic::matches(&route.filter, &publish.topic));
        let Some(route) = route else {
            // Nobody has asked for it: it is done with.
            return self.done(packet).await;
        };
        publish.topic = format!("{}{}", route.prefix, publish.topic).into();
        publish.dup = false;
        publish.qos = if packet.is_some() { QoS::AtLeastOnce } else { QoS::AtMostOnce };
        if let Some(properties) = &mut publish.properties {
            properties.topic_alias = None;
            properties.subscription_ids.clear();
        }
        if let Err(fault) = wire::check_message(&publish) {
            // This node would end the connection over it, and it would come again, for ever.
            return self.leave_out(packet, fault.why).await;
        }
        hand(&self.other.messages, (publish, packet)).await
    }

    /// A message cannot be carried, and holds up nothing.
    async fn leave_out(&self, packet: Option<NonZeroU16>, why: &str) -> Result<(), EndError> {
        tracing::warn!(bridge = self.bridge, why, "a bridge does not carry a message: it is dropped");
        self.done(packet).await
    }

    /// A message goes no further.
    async fn done(&self, packet: Option<NonZeroU16>) -> Result<(), EndError> {
        match packet {
            Some(packet) => hand(&self.own.acknowledgements, packet).await,
            None => Ok(()),
        }
    }
}

async fn hand<T>(to: &mpsc::Sender<T>, what: T) -> Result<(), EndError> {
    to.send(what).await.map_err(|_| EndError::Time)
}

async fn write(
    mut writer: Writer,
    mut queue: ForWriter,
    open: &Open,
    keep_alive: Duration,
) -> Result<Infallible, EndError> {
    // Also while it has other things to say: what a reader waits for is an answer.
    let mut pings = tokio::time::interval(keep_alive);
    pings.tick().await;
    loop {
        tokio::select! {
            _ = pings.tick() => writer.ping().await?,
            Some(packet) = queue.acknowledgements.recv() => writer.acknowledge(packet).await?,
            Some(publish) = open.next(&mut queue.messages) => writer.publish(publish).await?,
        }
    }
}
