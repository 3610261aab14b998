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
use super::session::{Key, Replay};
use crate::index::Taker;
use crate::outbox::Out;
use crate::topic::Filter;
use crate::wire::{Options, Reason, Retained};

/// A subscription that a step has made.
pub(super) struct Made {
    pub(super) filter: Arc<str>,
    /// Where its reason is in the answer.
    pub(super) at: usize,
    /// It gets the retained messages.
    pub(super) replay: bool,
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
                    made.push(Made { filter: subscription.filter.clone(), at, replay: subscription.replay });
                    if let Some(session) = self.sessions.get(from.key).filter(|session| session.durable) {
                        changes.push(Change::Subscribe(session.client.clone(), subscription));
                    }
                }
            }
        }
        self.batch.step(changes, Finish::SubAck(from, command.packet, reasons, made));
    }

    fn subscribe_one(&mut self, key: Key, text: &str, options: Options, id: u32) -> Result<Subscription, Reason> {
        let filter = Filter::parse(text).map_err(|_| Reason::FILTER_INVALID)?;
        let session = self.sessions.get_mut(key).ok_or(Reason::UNSPECIFIED)?;
        let is_new = !session.subscriptions.contains_key(text);
        let full =
            session.subscriptions.len() >= self.limits.filters_per_client || self.index.len() >= self.limits.filters;
        if is_new && full {
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
        session.subscriptions.insert(subscription.filter.clone(), subscription.clone());
        self.index.insert(filter, taker(key, &subscription));
        Ok(subscription)
    }

    /// Subscriptions are kept, or could not be: then there are none.
    pub(super) fn subscribed(
        &mut self,
        from: From,
        packet: NonZeroU16,
        mut reasons: Vec<Reason>,
        made: Vec<Made>,
        failure: Option<&Failure>,
    ) {
        for made in made {
            if let Some(failure) = failure {
                reasons[made.at] = reason_of(failure);
                self.forget_subscription(from.key, &made.filter);
            } else if made.replay
                && let Some(session) = self.sessions.get_mut(from.key)
            {
                session.replays.retain(|replay| replay.filter != made.filter);
                session.replays.push_back(Replay { filter: made.filter, after: None });
            }
        }
        let Some(session) = self.sessions.linked(from) else { return };
        if let Some(link) = &session.link {
            link.outbox.push(Out::SubAck(packet, reasons));
        }
        self.pump(from.key);
    }

    pub(super) fn unsubscribe(&mut self, from: From, packet: NonZeroU16, filters: Vec<ByteString>) {
        let (mut reasons, mut changes) = (Vec::new(), Vec::new());
        for filter in filters {
            let was = self.forget_subscription(from.key, &filter);
            reasons.push(if was { Reason::SUCCESS } else { Reason::NO_SUBSCRIPTION });
            if let Some(session) = self.sessions.get(from.key).filter(|session| session.durable && was) {
                changes.push(Change::Unsubscribe(session.client.clone(), (&*filter).into()));
            }
        }
        self.batch.step(changes, Finish::UnsubAck(from, packet, reasons));
    }

    /// Whether there was one.
    pub(super) fn forget_subscription(&mut self, key: Key, text: &str) -> bool {
        let Some(session) = self.sessions.get_mut(key) else { return false };
        let was = session.subscriptions.remove(text).is_some();
        if let (true, Ok(filter)) = (was, Filter::parse(text)) {
            self.index.remove(filter, key);
        }
        was
    }
}

pub(super) fn taker(key: Key, subscription: &Subscription) -> Taker<Key> {
    Taker {
        session: key,
        qos: subscription.qos,
        no_local: subscription.no_local,
        retain_as_published: subscription.retain_as_published,
        id: subscription.id,
    }
}
