//! Messages that were published to an end of a bridge, and that its broker has not taken yet.
//!
//! One that the broker refuses for the moment keeps its place, and is published again with the others that it refuses, in
//! their order: what it has taken is not repeated. Until it has taken them, no other goes that wants an answer, so that no
//! later message of a topic comes before an earlier one. It must never keep more of them than the broker takes at once.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::num::{NonZeroU16, NonZeroU32};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rmqtt_codec::types::{Publish, QoS};
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio::time::Instant;

use super::Side;
use super::end::End;
use crate::limits::{BRIDGE_BACK_OFF, BRIDGE_BACK_OFF_MAX, BRIDGE_QUEUE_MAX, BRIDGE_RECEIVE_MAX, BRIDGE_TRIES_MAX};
use crate::wire::Reason;

/// A message of the other end, with its identifier there if it wants to be acknowledged.
pub(super) type Message = (Box<Publish>, Option<NonZeroU16>);

/// Messages for an end, in their order.
pub(super) struct Messages {
    pub(super) queue: mpsc::Receiver<Message>,
    /// The first of them, while they wait for room.
    pub(super) held: VecDeque<Message>,
}

/// What a writer does next. The identifiers are those of the other end.
pub(super) enum Next {
    Publish(Box<Publish>),
    /// Publish it to a broker that acknowledges nothing; then it is done with.
    Once(Box<Publish>, NonZeroU16),
    /// It was refused until its time was over: give it up.
    Expired(NonZeroU16),
}

/// What an answer of the broker means. The identifiers are those of the other end.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// The broker has it.
    Taken(NonZeroU16),
    /// It has it, and would not retain it.
    Unretained(NonZeroU16),
    /// It will not take it whenever it comes.
    Never(NonZeroU16),
    /// It did not take it now.
    Waits,
}

pub(super) struct Open {
    side: Side,
    /// Whether the broker acknowledges anything: if not, nothing is ever open.
    acknowledges: bool,
    /// A place for each that the end still takes (MQTT 5.0 §4.9).
    room: Semaphore,
    sent: Mutex<Sent>,
    /// Some were refused, and not taken since.
    refuses: AtomicBool,
    /// That has changed, or when they are published again.
    changed: Notify,
}

#[derive(Default)]
struct Sent {
    by_packet: HashMap<NonZeroU16, OpenMessage>,
    last_packet: u16,
    last_order: u64,
    /// Those that were refused, in their order, and when they are published again.
    refused: BTreeMap<u64, NonZeroU16>,
    due: Option<Instant>,
    /// Those of them that are published again now.
    round: VecDeque<NonZeroU16>,
    /// How many were published again and have no answer.
    again: usize,
    /// Rounds since all were taken.
    rounds: u32,
}

struct OpenMessage {
    publish: Box<Publish>,
    other: NonZeroU16,
    order: u64,
    expires: Option<Instant>,
    /// How often it was refused.
    refusals: u32,
    state: State,
    /// It is published as one that is not to be retained.
    unretained: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Published,
    Refused,
    PublishedAgain,
}

impl Messages {
    /// The next that nobody acknowledges: it does not wait for what is refused.
    async fn past_refused(&mut self) -> Option<Message> {
        while self.held.len() < BRIDGE_QUEUE_MAX {
            match self.queue.recv().await? {
                message @ (_, Some(_)) => self.held.push_back(message),
                message => return Some(message),
            }
        }
        std::future::pending().await
    }
}

impl Open {
    /// As many as the end takes, and no more than go over a bridge at once: 3.1.1 does not say.
    pub(super) fn new(side: Side, end: &End) -> Self {
        Self::with(side, end.receive_max, end.acknowledges)
    }

    fn with(side: Side, receive_max: u16, acknowledges: bool) -> Self {
        Self {
            side,
            acknowledges,
            room: Semaphore::new(receive_max.min(BRIDGE_RECEIVE_MAX).into()),
            sent: Mutex::default(),
            refuses: AtomicBool::new(false),
            changed: Notify::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Sent> {
        self.sent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is next, when it is its time. Nothing is lost when this is given up while it waits.
    pub(super) async fn next(&self, messages: &mut Messages) -> Option<Next> {
        loop {
            let (mut due, refuses) = (None, self.refuses.load(Ordering::Relaxed));
            if refuses {
                let mut sent = self.lock();
                if let Some(next) = self.again(&mut sent, Instant::now()) {
                    return Some(next);
                }
                due = sent.due;
            }
            let fresh = async { if refuses { messages.past_refused().await } else { self.fresh(messages).await } };
            tokio::select! {
                biased;
                message = fresh => return Some(self.put(message?)),
                () = self.changed.notified() => {}
                () = until(due) => {}
            }
        }
    }

    /// A message that was not published yet, when there is room for it. One that nobody acknowledges needs none.
    async fn fresh(&self, messages: &mut Messages) -> Option<Message> {
        if messages.held.is_empty() {
            messages.held.push_back(messages.queue.recv().await?);
        }
        if self.acknowledges && matches!(messages.held.front(), Some((_, Some(_)))) {
            self.room.acquire().await.ok()?.forget();
        }
        messages.held.pop_front()
    }

    fn put(&self, (mut publish, other): Message) -> Next {
        let Some(other) = other else { return Next::Publish(publish) };
        if !self.acknowledges {
            publish.qos = QoS::AtMostOnce;
            return Next::Once(publish, other);
        }
        Next::Publish(self.lock().put(publish, other))
    }

    /// The next of those that are published again.
    fn again(&self, sent: &mut Sent, now: Instant) -> Option<Next> {
        if sent.due.is_some_and(|due| due <= now) {
            sent.due = None;
            sent.round.extend(std::mem::take(&mut sent.refused).into_values());
        }
        let packet = sent.round.pop_front()?;
        let message = sent.by_packet.get_mut(&packet)?;
        if message.expires.is_some_and(|expires| expires <= now) {
            let other = message.other;
            self.done(sent, packet);
            return Some(Next::Expired(other));
        }
        message.state = State::PublishedAgain;
        sent.again += 1;
        Some(Next::Publish(message.copy(now)))
    }

    /// The broker has answered. Nothing if it was not asked.
    pub(super) fn answered(&self, packet: NonZeroU16, reason: Reason, now: Instant) -> Option<Answer> {
        let mut sent = self.lock();
        let message = sent.by_packet.get_mut(&packet).filter(|message| message.state != State::Refused)?;
        let (other, unretained) = (message.other, message.unretained);
        let was_again = message.state == State::PublishedAgain;
        let waits = self.waits(reason, message);
        sent.again -= usize::from(was_again);
        if waits {
            self.refuse(&mut sent, packet, reason, now);
            return Some(Answer::Waits);
        }
        self.done(&mut sent, packet);
        Some(match (reason.is_error(), unretained) {
            (true, _) => Answer::Never(other),
            (false, true) => Answer::Unretained(other),
            (false, false) => Answer::Taken(other),
        })
    }

    /// Whether a broker that answers so may take the message later. This node says what is of the moment; another may
    /// mean by the other two that it never will.
    fn waits(&self, reason: Reason, message: &OpenMessage) -> bool {
        match (reason, self.side) {
            (Reason::QUOTA, _) | (Reason::UNSPECIFIED, Side::Here) => true,
            (Reason::UNSPECIFIED | Reason::IMPLEMENTATION, Side::There) => message.refusals < BRIDGE_TRIES_MAX,
            _ => false,
        }
    }

    fn refuse(&self, sent: &mut Sent, packet: NonZeroU16, reason: Reason, now: Instant) {
        let Some(message) = sent.by_packet.get_mut(&packet) else { return };
        message.state = State::Refused;
        message.refusals += 1;
        // The other broker may retain as much of the bridge as it will, and take the message but for that. This node says.
        let retains = matches!(self.side, Side::There) && reason == Reason::QUOTA && message.publish.retain;
        message.unretained = retains && !message.unretained;
        let (at_once, order) = (message.unretained, message.order);
        sent.refused.insert(order, packet);
        if at_once {
            sent.due = Some(now);
        } else if sent.due.is_none() {
            sent.due = Some(now + back_off(sent.rounds));
            sent.rounds += 1;
        }
        self.refuses.store(true, Ordering::Relaxed);
        self.changed.notify_one();
    }

    /// A message is open no longer: there is room for another.
    fn done(&self, sent: &mut Sent, packet: NonZeroU16) {
        sent.by_packet.remove(&packet);
        self.room.add_permits(1);
        if sent.again == 0 && sent.refused.is_empty() && sent.round.is_empty() && self.refuses.load(Ordering::Relaxed) {
            sent.rounds = 0;
            self.refuses.store(false, Ordering::Relaxed);
            self.changed.notify_one();
        }
    }
}

impl Sent {
    /// Keeps a message under an identifier that is free. Fewer are open than there are.
    fn put(&mut self, mut publish: Box<Publish>, other: NonZeroU16) -> Box<Publish> {
        let packet = loop {
            self.last_packet = self.last_packet.wrapping_add(1);
            // The last is the subscription's.
            if let Some(packet) = NonZeroU16::new(self.last_packet).filter(|packet| *packet != NonZeroU16::MAX)
                && !self.by_packet.contains_key(&packet)
            {
                break packet;
            }
        };
        publish.packet_id = Some(packet);
        let expiry_s = publish.properties.as_ref().and_then(|properties| properties.message_expiry_interval);
        let expires = expiry_s.map(|s| Instant::now() + Duration::from_secs(s.get().into()));
        self.last_order += 1;
        let (order, state) = (self.last_order, State::Published);
        let copy = publish.clone();
        let message = OpenMessage { publish, other, order, expires, refusals: 0, state, unretained: false };
        self.by_packet.insert(packet, message);
        copy
    }
}

impl OpenMessage {
    /// What is published again: with the time that it still has.
    fn copy(&self, now: Instant) -> Box<Publish> {
        let mut publish = self.publish.clone();
        publish.retain &= !self.unretained;
        if let (Some(properties), Some(expires)) = (&mut publish.properties, self.expires) {
            let left_s = u32::try_from(expires.duration_since(now).as_secs()).unwrap_or(u32::MAX);
            properties.message_expiry_interval = Some(NonZeroU32::new(left_s).unwrap_or(NonZeroU32::MIN));
        }
        publish
    }
}

fn back_off(rounds: u32) -> Duration {
    BRIDGE_BACK_OFF.saturating_mul(2_u32.saturating_pow(rounds)).min(BRIDGE_BACK_OFF_MAX)
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use rmqtt_codec::v5::PublishProperties;

    use super::*;

    const SOON: Duration = BRIDGE_BACK_OFF_MAX;

    fn id(number: u16) -> NonZeroU16 {
        NonZeroU16::new(number).unwrap()
    }

    fn message(expiry_s: Option<u32>) -> Box<Publish> {
        let message_expiry_interval = expiry_s.and_then(NonZeroU32::new);
        Box::new(Publish {
            dup: false,
            retain: false,
            qos: QoS::AtLeastOnce,
            topic: "a".into(),
            packet_id: None,
            payload: Vec::new().into(),
            properties: Some(PublishProperties { message_expiry_interval, ..PublishProperties::default() }),
        })
    }

    /// So many messages, published.
    fn open(side: Side, count: u16, expiry_s: Option<u32>) -> Open {
        let open = Open::with(side, 8, true);
        for number in 1..=count {
            open.put((message(expiry_s), Some(id(100 + number))));
        }
        open
    }

    /// What is published again then.
    fn round(open: &Open, now: Instant) -> Vec<(u16, Option<u32>)> {
        let mut sent = open.lock();
        let next = std::iter::from_fn(|| open.again(&mut sent, now));
        next.map(|next| match next {
            Next::Publish(publish) => {
                let expiry_s = publish.properties.unwrap().message_expiry_interval;
                (publish.packet_id.unwrap().get(), expiry_s.map(NonZeroU32::get))
            }
            Next::Once(..) => unreachable!("it acknowledges"),
            Next::Expired(other) => (other.get(), None),
        })
        .collect()
    }

    #[test]
    fn what_is_refused_comes_again_in_its_order_and_nothing_else() {
        let (open, now) = (open(Side::Here, 4, None), Instant::now());
        for number in [3, 1, 4] {
            assert_eq!(open.answered(id(number), Reason::QUOTA, now), Some(Answer::Waits));
        }
        assert_eq!(open.answered(id(3), Reason::SUCCESS, now), None, "it is not under way");
        assert_eq!(open.answered(id(2), Reason::SUCCESS, now), Some(Answer::Taken(id(102))));
        assert_eq!(round(&open, now), []);
        assert_eq!(round(&open, now + BRIDGE_BACK_OFF), [(1, None), (3, None), (4, None)]);
        let now = now + BRIDGE_BACK_OFF;
        for number in [1, 3] {
            assert_eq!(open.answered(id(number), Reason::SUCCESS, now), Some(Answer::Taken(id(100 + number))));
        }
        assert_eq!(open.answered(id(4), Reason::QUOTA, now), Some(Answer::Waits));
        assert_eq!(round(&open, now + BRIDGE_BACK_OFF), [], "it waits longer each time");
        assert!(open.refuses.load(Ordering::Relaxed));
        assert_eq!(round(&open, now + 2 * BRIDGE_BACK_OFF), [(4, None)]);
        assert_eq!(open.answered(id(4), Reason::SUCCESS, now), Some(Answer::Taken(id(104))));
        assert!(!open.refuses.load(Ordering::Relaxed));
        assert_eq!(open.lock().rounds, 0);
    }

    #[test]
    fn what_another_broker_refuses_again_and_again_without_a_word_is_left_out() {
        for reason in [Reason::UNSPECIFIED, Reason::IMPLEMENTATION] {
            let (open, mut now) = (open(Side::There, 1, None), Instant::now());
            for _ in 0..BRIDGE_TRIES_MAX {
                assert_eq!(open.answered(id(1), reason, now), Some(Answer::Waits));
                now += SOON;
                assert_eq!(round(&open, now), [(1, None)]);
            }
            assert_eq!(open.answered(id(1), reason, now), Some(Answer::Never(id(101))));
            assert!(!open.refuses.load(Ordering::Relaxed));
        }
        // It says that it has no room now.
        let (open, mut now) = (open(Side::There, 1, None), Instant::now());
        for _ in 0..100 {
            assert_eq!(open.answered(id(1), Reason::QUOTA, now), Some(Answer::Waits));
            now += SOON;
            assert_eq!(round(&open, now), [(1, None)]);
        }
    }

    #[test]
    fn what_waits_has_no_more_time_than_it_was_given() {
        let open = open(Side::Here, 1, Some(90));
        let now = Instant::now();
        assert_eq!(open.answered(id(1), Reason::QUOTA, now), Some(Answer::Waits));
        assert!(matches!(round(&open, now + SOON)[..], [(1, Some(29..=30))]));
        assert_eq!(open.answered(id(1), Reason::QUOTA, now + SOON), Some(Answer::Waits));
        assert_eq!(round(&open, now + 2 * SOON), [(101, None)], "it has expired");
        assert!(!open.refuses.load(Ordering::Relaxed));
    }
}
