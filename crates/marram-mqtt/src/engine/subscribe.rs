//! Subscriptions are made and removed.

use std::num::NonZeroU16;
use std::sync::Arc;

use bytestring::ByteString;
use marram_core::Failure;
use marram_core::port::mqtt::{Change, Subscription};

use super::Engine;
use super::commit::Finish;
use super::finish::reason_of;
use super::message::{From, SubscribeCommand};
use super::session::{Key, Replay, Session, has_share};
use crate::index::Taker;
use crate::outbox::Out;
use crate::topic::Filter;
use crate::wire::{Options, Reason, Retained};

/// A subscription that a step has made.
pub(super) struct Made {
    subscription: Subscription,
    /// Where its reason is in the answer.
    at: usize,
}

/// A filter of a durable session of which the journal does not have yet what is in memory.
pub(super) struct Ahead {
    /// Under way that change it.
    steps: usize,
    /// What the journal has, as far as is known.
    kept: Option<Subscription>,
}

impl Ahead {
    /// Every retained message of the kept subscription is on its way.
    pub(super) fn replayed(&mut self) {
        // Not written: what is under way comes before that, and is not to be undone.
        self.kept.iter_mut().for_each(|kept| kept.replay = false);
    }
}

impl Engine {
    pub(super) fn subscribe(&mut self, from: From, command: SubscribeCommand) {
        let (mut reasons, mut made, mut changes) = (Vec::new(), Vec::new(), Vec::new());
        for (at, (filter, options)) in command.filters.into_iter().enumerate() {
            let subscription = options.and_then(|options| self.subscribe_one(from.key, &filter, options, command.id));
            match subscription {
                Err(reason) => reasons.push(reason),
                Ok(subscription) => {
                    reasons.push(Reason(subscription.qos.level()));
                    if let Some(session) = self.sessions.get(from.key).filter(|session| session.durable) {
                        changes.push(Change::Subscribe(session.client.clone(), subscription.clone()));
                    }
                    made.push(Made { subscription, at });
                }
            }
        }
        self.batch.step(changes, Finish::SubAck(from, command.packet, reasons, made));
    }

    fn subscribe_one(&mut self, key: Key, text: &str, options: Options, id: u32) -> Result<Subscription, Reason> {
        let filter = Filter::parse(text).map_err(|_| Reason::FILTER_INVALID)?;
        let session = self.sessions.get(key).ok_or(Reason::UNSPECIFIED)?;
        let is_new = !session.subscriptions.contains_key(text);
        let has_room = session.subscriptions.len() < self.limits.filters_per_client
            && has_share(self.sessions.filters_of(session), self.index.len(), 1, self.limits.filters);
        if is_new && !has_room {
            return Err(Reason::QUOTA);
        }
        let replay = match options.retained {
            // A group gets none: there would be no saying who (§4.8.2).
            _ if filter.group.is_some() => false,
            Retained::Always => true,
            Retained::IfNew => is_new,
            Retained::Never => false,
        };
        let subscription = Subscription {
            filter: text.into(),
            qos: options.qos,
            no_local: options.no_local,
            retain_as_published: options.retain_as_published,
            id,
            replay: replay && self.retained.may_have_any(),
        };
        let replaced = self.sessions.set_subscription(key, subscription.clone());
        let session = self.sessions.get_mut(key).ok_or(Reason::UNSPECIFIED)?;
        session.go_ahead(&subscription.filter, replaced);
        let taker = taker(key, &subscription, session.durable);
        self.index.insert(filter, taker);
        Ok(subscription)
    }

    /// Subscriptions are kept, or could not be: then it is as before.
    pub(super) fn subscribed(
        &mut self,
        from: From,
        packet: NonZeroU16,
        mut reasons: Vec<Reason>,
        made: Vec<Made>,
        failure: Option<&Failure>,
    ) {
        for made in made {
            let Made { subscription, at } = made;
            let filter = subscription.filter.clone();
            if let Some(failure) = failure {
                reasons[at] = reason_of(failure);
                self.go_back(from.key, &filter);
                continue;
            }
            let Some(session) = self.sessions.get_mut(from.key) else { continue };
            if subscription.replay {
                session.replays.retain(|replay| replay.filter != filter);
                session.replays.push_back(Replay { filter: filter.clone(), after: None });
            }
            session.kept(&filter, Some(subscription));
        }
        let Some(session) = self.sessions.linked(from) else { return };
        if let Some(link) = &session.link {
            link.outbox.push(Out::SubAck(packet, reasons));
        }
        self.pump(from.key);
    }

    pub(super) fn unsubscribe(&mut self, from: From, packet: NonZeroU16, filters: Vec<ByteString>) {
        let (mut reasons, mut changes, mut removed) = (Vec::new(), Vec::new(), Vec::new());
        for filter in filters {
            let was = self.forget_subscription(from.key, &filter);
            reasons.push(if was.is_some() { Reason::SUCCESS } else { Reason::NO_SUBSCRIPTION });
            if let Some(was) = was
                && let Some(session) = self.sessions.get_mut(from.key).filter(|session| session.durable)
            {
                let filter = was.filter.clone();
                session.go_ahead(&filter, Some(was));
                changes.push(Change::Unsubscribe(session.client.clone(), filter.clone()));
                removed.push(filter);
            }
        }
        self.batch.step(changes, Finish::UnsubAck(from, packet, reasons, removed));
    }

    /// Subscriptions are removed for good, or could not be: then it is as before.
    pub(super) fn unsubscribed(
        &mut self,
        from: From,
        packet: NonZeroU16,
        reasons: Vec<Reason>,
        removed: Vec<Arc<str>>,
        failure: Option<&Failure>,
    ) {
        let Some(failure) = failure else {
            if let Some(session) = self.sessions.get_mut(from.key) {
                removed.iter().for_each(|filter| session.kept(filter, None));
            }
            return self.send(from, Out::UnsubAck(packet, reasons));
        };
        removed.iter().for_each(|filter| self.go_back(from.key, filter));
        self.cut(from, failure);
    }

    /// What there was.
    fn forget_subscription(&mut self, key: Key, text: &str) -> Option<Subscription> {
        let was = self.sessions.remove_subscription(key, text)?;
        if let Ok(filter) = Filter::parse(text) {
            self.index.remove(filter, key);
        }
        Some(was)
    }

    /// The client may not have it any more: it does not come back.
    pub(super) fn forbid_subscription(&mut self, key: Key, text: &str) {
        self.forget_subscription(key, text);
        if let Some(ahead) = self.sessions.get_mut(key).and_then(|session| session.ahead.get_mut(text)) {
            ahead.kept = None;
        }
    }

    /// A step that changes a filter has failed. After the last one there is what the journal has, as after a restart.
    fn go_back(&mut self, key: Key, text: &Arc<str>) {
        let Some(kept) = self.sessions.get_mut(key).and_then(|session| session.step_over(text)) else { return };
        let Some(kept) = kept else {
            self.forget_subscription(key, text);
            return;
        };
        let Some(session) = self.sessions.get_mut(key) else { return };
        if let Ok(filter) = Filter::parse(text) {
            self.index.insert(filter, taker(key, &kept, session.durable));
        }
        if kept.replay && session.replays.iter().all(|replay| replay.filter != *text) {
            session.replays.push_back(Replay { filter: text.clone(), after: None });
        }
        self.sessions.set_subscription(key, kept);
    }
}

impl Session {
    /// A step that changes a filter begins. Before it, there `was` this.
    fn go_ahead(&mut self, filter: &Arc<str>, was: Option<Subscription>) {
        if self.durable {
            self.ahead.entry(filter.clone()).or_insert(Ahead { steps: 0, kept: was }).steps += 1;
        }
    }

    /// A step that changes a filter is over: this is what the journal has of it.
    fn kept(&mut self, filter: &Arc<str>, kept: Option<Subscription>) {
        if let Some(ahead) = self.ahead.get_mut(filter) {
            ahead.kept = kept;
        }
        self.step_over(filter);
    }

    /// One of the steps that change a filter is over. What the journal has, if it was the last.
    fn step_over(&mut self, filter: &Arc<str>) -> Option<Option<Subscription>> {
        let ahead = self.ahead.get_mut(filter)?;
        ahead.steps -= 1;
        if ahead.steps > 0 {
            return None;
        }
        self.ahead.remove(filter).map(|ahead| ahead.kept)
    }
}

/// `lasts` says that the session's queue is in the journal.
pub(super) fn taker(key: Key, subscription: &Subscription, lasts: bool) -> Taker<Key> {
    Taker {
        session: key,
        qos: subscription.qos,
        lasts,
        no_local: subscription.no_local,
        retain_as_published: subscription.retain_as_published,
        id: subscription.id,
    }
}
