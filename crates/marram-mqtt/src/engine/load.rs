//! A node starts again: what was kept is there, and what became due meanwhile happens.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use marram_core::port::mqtt::{Loaded, StoredSession};

use super::Engine;
use super::session::{Ended, Key, Outgoing, Owner, Received, Replay, Session};
use super::subscribe::taker;
use super::timer::Timer;
use crate::stats;
use crate::topic::Filter;

impl Engine {
    pub(super) fn load(&mut self, loaded: Loaded) {
        let keys: Vec<_> = loaded.sessions.into_iter().map(|stored| self.load_session(stored)).collect();
        for message in loaded.retained {
            let owner = self.sessions.find(&message.publisher).map_or(Owner::Nobody, |key| self.owner(key));
            self.retained.set(message, owner);
        }
        // Only now, when everybody who gets a will is there.
        for key in keys {
            self.set_timers(key);
        }
    }

    fn load_session(&mut self, stored: StoredSession) -> Key {
        let StoredSession { record, subscriptions, received, queued, queued_bytes, first_seq, last_seq, shared } =
            stored;
        // A node that was killed says nothing of the end of its connections: they ended just now, and everything that was in
        // a queue may have been sent.
        let (unix_ns, resent_seq) = match record.ended_unix_ns {
            Some(ended) => (ended, record.sent_seq),
            None => (self.clock.unix_ns(), last_seq),
        };
        let replays: VecDeque<_> = subscriptions
            .iter()
            .filter(|subscription| subscription.replay)
            .map(|subscription| Replay { filter: subscription.filter.clone(), after: None })
            .collect();
        let session = Session {
            client: record.client,
            // The address of one without a user is not kept.
            owner: Owner::of(record.user.as_ref(), None),
            user: record.user,
            expiry_s: record.expiry_s,
            durable: record.expiry_s > 0,
            recorded: true,
            link: None,
            ended: Some(Ended { unix_ns, timers: Vec::new() }),
            will: record.will,
            subscriptions: subscriptions.iter().map(|s| (s.filter.clone(), s.clone())).collect(),
            ahead: HashMap::new(),
            received: received.into_iter().map(|packet| (packet, Received::Kept)).collect(),
            out: Outgoing {
                last_seq: last_seq.max(record.sent_seq),
                kept_seq: last_seq.max(record.sent_seq),
                first_seq,
                resent_seq,
                queued,
                queued_bytes,
                shared,
                behind: queued > 0,
                loaded_seq: if queued > 0 { first_seq.saturating_sub(1) } else { last_seq.max(record.sent_seq) },
                ..Outgoing::default()
            },
            replays,
            replaying: false,
            mark: (0, 0),
            dropped: 0,
        };
        let lasts = session.durable;
        let key = self.sessions.insert(session);
        stats::add(&self.stats.sessions, 1);
        for subscription in &subscriptions {
            if let Ok(filter) = Filter::parse(&subscription.filter) {
                self.index.insert(filter, taker(key, subscription, lasts));
            }
        }
        key
    }

    fn set_timers(&mut self, key: Key) {
        let (now, now_unix_ns) = (self.clock.instant(), self.clock.unix_ns());
        let Some(session) = self.sessions.get(key) else { return };
        let Some(ended) = &session.ended else { return };
        let gone = Duration::from_nanos(now_unix_ns.saturating_sub(ended.unix_ns));
        let left = |seconds: u32| Duration::from_secs(seconds.into()).saturating_sub(gone);
        let (expiry_s, will) = (session.expiry_s, session.will.as_ref().map(|will| left(will.delay_s)));
        let mut set = Vec::new();
        if expiry_s < u32::MAX {
            if left(expiry_s).is_zero() {
                return self.end_session(key);
            }
            set.push(self.timers.set(now + left(expiry_s), Timer::Expiry(key)));
        }
        if let Some(delay) = will {
            set.push(self.timers.set(now + delay, Timer::Will(key)));
        }
        if let Some(ended) = self.sessions.get_mut(key).and_then(|session| session.ended.as_mut()) {
            ended.timers.extend(set);
        }
    }
}
