//! Retained messages on their way to who has subscribed (MQTT-3.3.1-9).
//!
//! Each session gets them as it takes them: what there is no room for is not dropped, but looked for again later.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use marram_core::port::mqtt::{Change, Message, Qos, Subscription};

use super::Engine;
use super::commit::Source;
use super::publish::Target;
use super::retained::Amount;
use super::session::{Key, Session};
use super::timer::Timer;
use crate::limits::{Limits, REPLAY_STEP};
use crate::resident::Resident;
use crate::topic;

/// Retained messages that are sent before others have their turn.
const REPLAY_MESSAGES: usize = 32;

impl Engine {
    /// Sends some retained messages to the next session that has room for them.
    pub(super) fn replay_some(&mut self) {
        let Some(key) = self.replays.pop_front() else { return };
        let (now, share) = (self.clock.unix_ns(), self.share_bytes());
        let reserve = self.stats.reserve.load(Ordering::Relaxed);
        let Some(session) = self.sessions.get_mut(key) else { return };
        session.replaying = false;
        if session.link.is_none() {
            return;
        }
        let Some(replay) = session.replays.front() else { return };
        let Some(subscription) = session.subscriptions.get(&replay.filter).cloned() else {
            session.replays.pop_front();
            return self.pump(key);
        };
        let (mut found, mut given, mut expired) = (Vec::new(), Amount::default(), Vec::new());
        let (mut seen, mut last, mut is_full) = (0, None, false);
        for message in self.retained.range(&replay.filter, replay.after.as_ref()) {
            let is_over = message.expires_unix_ns.is_some_and(|expires| expires <= now);
            let is_its = topic::matches(&replay.filter, &message.topic)
                && !(subscription.no_local && message.publisher == session.client);
            if is_over {
                // One whose commit is under way would be forgotten with it.
                if !self.retained.is_under_way() {
                    expired.push(message.topic.clone());
                }
            } else if is_its {
                let (qos, size) = (subscription.qos.min(message.qos), message.size());
                let in_reserve = found.is_empty()
                    && session.is_idle()
                    && !(session.durable && qos > Qos::AtMostOnce)
                    && self.limits.has_reserve(reserve, size);
                is_full = !in_reserve && !session.takes_retained(qos, size, given, share, &self.limits);
                if is_full {
                    break;
                }
                given.count += 1;
                given.bytes += size;
                found.push(message.clone());
            }
            seen += 1;
            last = Some(message.topic.clone());
            if seen == REPLAY_STEP || found.len() == REPLAY_MESSAGES {
                break;
            }
        }
        let is_over = !is_full && seen < REPLAY_STEP && found.len() < REPLAY_MESSAGES;
        if is_over {
            session.replays.pop_front();
            self.replayed(key, &subscription.filter);
        } else if let Some(replay) = session.replays.front_mut() {
            replay.after = last.or(replay.after.take());
        }
        for topic in expired {
            self.retained.remove(&topic);
            self.batch.lazy(Change::Expire(topic));
        }
        self.send_retained(key, &subscription, found, share);
        self.replay_later(key, is_full);
    }

    fn send_retained(&mut self, key: Key, to: &Subscription, found: Vec<Arc<Message>>, share: usize) {
        let subscriptions = if to.id == 0 { Vec::new() } else { vec![to.id] };
        let is_kept = self.sessions.get(key).is_some_and(|session| session.durable);
        for message in found {
            let qos = to.qos.min(message.qos);
            let target = Target { key, qos, retain: true, seq: 0, subscriptions: subscriptions.clone(), shared: None };
            if is_kept && qos > Qos::AtMostOnce {
                self.publish_to(&message, target, Source::Nobody);
                continue;
            }
            // There is nothing to be kept of it: it goes at once.
            let resident = match message.size() <= share {
                true => Resident::new(message, &self.stats),
                false => Resident::reserve(message, &self.stats),
            };
            match qos {
                Qos::AtMostOnce => self.send_unacknowledged(target, &resident, usize::MAX),
                _ => self.take_in(target, &resident),
            }
        }
    }

    /// What was queued leads back here when it has been sent; the rest goes on when others have had their turn.
    fn replay_later(&mut self, key: Key, is_full: bool) {
        let Some(session) = self.sessions.get(key) else { return };
        let Some(link) = &session.link else { return };
        if !is_full {
            self.timers.set(self.clock.instant() + Duration::from_millis(1), Timer::Retry(key));
        } else if !link.outbox.await_taken() && session.out.in_flight.is_empty() {
            // Otherwise what it takes or acknowledges leads back here.
            self.retry_later(key);
        }
    }

    /// Every retained message of a subscription is on its way.
    fn replayed(&mut self, key: Key, filter: &str) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        let (durable, client) = (session.durable, session.client.clone());
        if let Some(ahead) = session.ahead.get_mut(filter) {
            return ahead.replayed();
        }
        let Some(subscription) = session.subscriptions.get_mut(filter) else { return };
        subscription.replay = false;
        if durable {
            self.batch.lazy(Change::Subscribe(client, subscription.clone()));
        }
    }
}

impl Session {
    /// Whether it gets a retained message of this size now, after those that it is `given` at the same time. Half of its room is
    /// left for what is new.
    fn takes_retained(&self, qos: Qos, size: usize, given: Amount, share: usize, limits: &Limits) -> bool {
        let out = &self.out;
        if self.durable && qos > Qos::AtMostOnce {
            let (count, bytes) = (out.queued + given.count as u64, out.queued_bytes + given.bytes as u64);
            let has_room = count < limits.queue_messages / 2 && bytes + size as u64 <= limits.queue_bytes / 2;
            return (count == 0 || has_room) && self.has_place(size as u64, limits);
        }
        let held = self.held_bytes() + given.bytes;
        let has_room = (held == 0 && size <= share) || held + size <= share.min(limits.outbound_bytes) / 2;
        has_room && out.has_packet(out.first_open())
    }
}
