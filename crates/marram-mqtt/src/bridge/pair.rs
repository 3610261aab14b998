//! Both ends of a bridge, while both are connected.
//!
//! Each end has a reader and a writer of its own, so that neither waits for the other's socket. What is between them is
//! bounded by what each end may have open.

use std::collections::HashMap;
use std::num::NonZeroU16;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rmqtt_codec::types::{Publish, QoS};
use tokio::sync::mpsc;

use super::end::{End, EndError, Writer};
use super::reader::{Got, Reader};
use super::{BridgeConfig, Route, State};
use crate::limits::BRIDGE_QUEUE_MAX;
use crate::topic;
use crate::wire::{self, Reason};

/// Something for a writer.
enum Send {
    /// A message of the other end, with its identifier there if it wants to be acknowledged.
    Message(Box<Publish>, Option<NonZeroU16>),
    Acknowledge(NonZeroU16),
}

/// Messages that were published to an end: which identifier of the other end waits for the acknowledgement.
#[derive(Default)]
struct Open {
    by_packet: HashMap<NonZeroU16, NonZeroU16>,
    last: u16,
}

impl Open {
    fn take(&mut self, packet: NonZeroU16) -> Option<NonZeroU16> {
        self.by_packet.remove(&packet)
    }

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
pub(super) async fn run(here: End, there: End, config: &BridgeConfig, state: &Arc<State>) -> Result<(), EndError> {
    let (to_here, for_here) = mpsc::channel(BRIDGE_QUEUE_MAX);
    let (to_there, for_there) = mpsc::channel(BRIDGE_QUEUE_MAX);
    let (open_here, open_there) = (Mutex::new(Open::default()), Mutex::new(Open::default()));
    let outward =
        Carry { routes: &config.outward, own: &to_here, other: &to_there, open: &open_here, counted: &state.inward };
    let inward =
        Carry { routes: &config.inward, own: &to_there, other: &to_here, open: &open_there, counted: &state.outward };
    tokio::select! {
        failed = read(here.reader, &outward) => failed,
        failed = read(there.reader, &inward) => failed,
        failed = write(here.writer, for_here, &open_here, here.keep_alive) => failed,
        failed = write(there.writer, for_there, &open_there, there.keep_alive) => failed,
    }
}

/// What the reader of an end needs.
struct Carry<'c> {
    /// Where its messages go.
    routes: &'c [Route],
    /// The writer of the same end.
    own: &'c mpsc::Sender<Send>,
    /// The writer of the other end.
    other: &'c mpsc::Sender<Send>,
    /// What was published to this end.
    open: &'c Mutex<Open>,
    /// Acknowledged by this end.
    counted: &'c AtomicU64,
}

async fn read(mut reader: Reader, carry: &Carry<'_>) -> Result<(), EndError> {
    loop {
        match reader.next().await? {
            Got::Message(publish) => carry.message(publish).await?,
            Got::TooLarge(packet) => {
                tracing::warn!("a message is larger than a bridge carries: it is dropped");
                carry.done(packet).await?;
            }
            Got::Acknowledged(packet, reason) => {
                let other = carry.open.lock().unwrap_or_else(PoisonError::into_inner).take(packet);
                if [Reason::QUOTA, Reason::UNSPECIFIED, Reason::IMPLEMENTATION].contains(&reason) {
                    // It stays with the end that it came from, and comes again.
                    return Err(EndError::NotTaken(reason.0));
                }
                if reason.is_error() {
                    // It would be refused whenever it comes, and hold up all that is behind it.
                    tracing::warn!(reason = reason.0, "a broker does not take a message of a bridge: it is dropped");
                }
                carry.counted.fetch_add(1, Ordering::Relaxed);
                if let Some(other) = other {
                    hand(carry.other, Send::Acknowledge(other)).await?;
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
        let name = route.map(|route| format!("{}{}", route.prefix, publish.topic)).filter(|name| topic::is_name(name));
        let Some(name) = name else {
            // Nobody has asked for it: it is done with.
            return self.done(packet).await;
        };
        publish.topic = name.into();
        publish.dup = false;
        publish.qos = if packet.is_some() { QoS::AtLeastOnce } else { QoS::AtMostOnce };
        if let Some(properties) = &mut publish.properties {
            properties.topic_alias = None;
            properties.subscription_ids.clear();
        }
        if let Err(fault) = wire::check_message(&publish) {
            // This node would end the connection over it, and it would come again, for ever.
            tracing::warn!(why = fault.why, "a bridge does not carry a message that is malformed here: it is dropped");
            return self.done(packet).await;
        }
        hand(self.other, Send::Message(publish, packet)).await
    }

    /// A message goes no further.
    async fn done(&self, packet: Option<NonZeroU16>) -> Result<(), EndError> {
        match packet {
            Some(packet) => hand(self.own, Send::Acknowledge(packet)).await,
            None => Ok(()),
        }
    }
}

async fn hand(to: &mpsc::Sender<Send>, what: Send) -> Result<(), EndError> {
    to.send(what).await.map_err(|_| EndError::Time)
}

async fn write(
    mut writer: Writer,
    mut queue: mpsc::Receiver<Send>,
    open: &Mutex<Open>,
    keep_alive: Duration,
) -> Result<(), EndError> {
    let silence = if keep_alive.is_zero() { Duration::from_secs(3_600) } else { keep_alive };
    loop {
        match tokio::time::timeout(silence, queue.recv()).await {
            Err(_) => writer.ping().await?,
            Ok(None) => return Ok(()),
            Ok(Some(Send::Acknowledge(packet))) => writer.acknowledge(packet).await?,
            Ok(Some(Send::Message(mut publish, other))) => {
                publish.packet_id = other.map(|other| open.lock().unwrap_or_else(PoisonError::into_inner).put(other));
                writer.publish(*publish).await?;
            }
        }
    }
}
