//! Both ends of a bridge, while both are connected.
//!
//! Each end has a reader and a writer of its own, so that neither waits for the other's socket. What is between them is
//! bounded by what each end may have open: a writer takes no message past that, then the reader of the other end waits,
//! and then its broker. Acknowledgements wait for no message, or both directions would wait for each other; and of what
//! goes out, the node sends no more at once than the other end takes, so that its reader waits for no acknowledgement.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::num::NonZeroU16;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rmqtt_codec::types::{Publish, QoS};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::account::Account;
use super::end::{End, EndError, Writer};
use super::open::{Answer, Message, Messages, Next, Open};
use super::reader::{Got, Reader};
use super::{BridgeConfig, Down, Route, Side, State};
use crate::limits::BRIDGE_QUEUE_MAX;
use crate::topic;
use crate::wire::{self, Reason};

/// Acknowledgements that wait for a writer: a broker has no more identifiers than that, so no reader waits for room.
const ACKNOWLEDGEMENTS_MAX: usize = u16::MAX as usize;

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

fn queue() -> (ToWriter, ForWriter) {
    let (to_messages, queue) = mpsc::channel(BRIDGE_QUEUE_MAX);
    let messages = Messages { queue, held: VecDeque::new() };
    let (to_acknowledgements, acknowledgements) = mpsc::channel(ACKNOWLEDGEMENTS_MAX);
    let to = ToWriter { messages: to_messages, acknowledgements: to_acknowledgements };
    (to, ForWriter { messages, acknowledgements })
}

/// Carries messages over until one end fails.
pub(super) async fn run(here: End, there: End, config: &BridgeConfig, state: &State) -> Result<Infallible, Down> {
    let ((to_here, for_here), (to_there, for_there)) = (queue(), queue());
    let (open_here, open_there) = (Open::new(Side::Here, &here), Open::new(Side::There, &there));
    let account = &state.account;
    let from_here = Carry {
        side: Side::Here,
        account,
        routes: &config.outward,
        own: &to_here,
        other: &to_there,
        open: &open_here,
        counted: &state.inward,
    };
    let from_there = Carry {
        side: Side::There,
        account,
        routes: &config.inward,
        own: &to_there,
        other: &to_here,
        open: &open_there,
        counted: &state.outward,
    };
    let (side, failed) = tokio::select! {
        failed = read(here.reader, &from_here) => (Side::Here, failed),
        failed = read(there.reader, &from_there) => (Side::There, failed),
        failed = write(here.writer, for_here, &from_here, here.keep_alive) => (Side::Here, failed),
        failed = write(there.writer, for_there, &from_there, there.keep_alive) => (Side::There, failed),
    };
    failed.map_err(|error| side.down(error))
}

/// What the reader and the writer of an end need.
struct Carry<'c> {
    side: Side,
    account: &'c Account,
    /// Where its messages go.
    routes: &'c [Route],
    /// The writer of the same end.
    own: &'c ToWriter,
    /// The writer of the other end.
    other: &'c ToWriter,
    /// What was published to this end.
    open: &'c Open,
    /// Taken by this end.
    counted: &'c AtomicU64,
}

async fn read(mut reader: Reader, carry: &Carry<'_>) -> Result<Infallible, EndError> {
    loop {
        match reader.next().await? {
            Got::Message(publish) => carry.message(publish).await?,
            Got::Unfit(packet, why) => carry.leave_out(packet, &why).await?,
            Got::Acknowledged(packet, reason) => carry.answered(packet, reason).await?,
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

    async fn answered(&self, packet: NonZeroU16, reason: Reason) -> Result<(), EndError> {
        match self.open.answered(packet, reason, Instant::now()) {
            None => Ok(()),
            Some(Answer::Waits) => {
                self.account.waits(self.side, reason);
                Ok(())
            }
            Some(Answer::Never(other)) => {
                // It would be refused whenever it comes, and hold up all that is behind it.
                self.account.left_out(format_args!("{} does not take it: reason {:#04x}", self.side, reason.0));
                hand(&self.other.acknowledgements, other).await
            }
            Some(Answer::Unretained(other)) => {
                self.account.unretained();
                self.taken(other).await
            }
            Some(Answer::Taken(other)) => self.taken(other).await,
        }
    }

    /// This end has a message of the other.
    async fn taken(&self, other: NonZeroU16) -> Result<(), EndError> {
        self.counted.fetch_add(1, Ordering::Relaxed);
        hand(&self.other.acknowledgements, other).await
    }

    /// A message cannot be carried, and holds up nothing.
    async fn leave_out(&self, packet: Option<NonZeroU16>, why: &str) -> Result<(), EndError> {
        self.account.left_out(why);
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
    carry: &Carry<'_>,
    keep_alive: Duration,
) -> Result<Infallible, EndError> {
    // Also while it has other things to say: what a reader waits for is an answer.
    let mut pings = tokio::time::interval(keep_alive);
    pings.tick().await;
    loop {
        tokio::select! {
            _ = pings.tick() => writer.ping().await?,
            Some(packet) = queue.acknowledgements.recv() => writer.acknowledge(packet).await?,
            Some(next) = carry.open.next(&mut queue.messages) => match next {
                Next::Publish(publish) => writer.publish(publish).await?,
                Next::Once(publish, other) => {
                    writer.publish(publish).await?;
                    carry.taken(other).await?;
                }
                Next::Expired(other) => {
                    carry.account.left_out(format_args!("{} did not take it before it expired", carry.side));
                    hand(&carry.other.acknowledgements, other).await?;
                }
            },
        }
    }
}
