//! Clients come and go.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use marram_core::Failure;
use marram_core::port::mqtt::{Change, ClientId};
use tokio::sync::oneshot;

use super::Engine;
use super::commit::{Finish, Records};
use super::handover::HandOver;
use super::message::{Accepted, From, Hello};
use super::session::{Ended, Key, Outgoing, Owner, Session, has_share};
use super::timer::Timer;
use crate::outbox::Close;
use crate::stats;
use crate::topic::Filter;
use crate::wire::Reason;

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Farewell {
    /// With a DISCONNECT, which may say how long the session is kept.
    Said(Reason, Option<u32>),
    /// Without.
    Lost,
}

pub(super) type Reply = oneshot::Sender<Result<Accepted, (Reason, &'static str)>>;

impl Engine {
    /// A client that may connect gets its session: the one that there is, or a new one.
    pub(super) fn connect(&mut self, mut hello: Hello, reply: Reply) {
        if self.draining {
            // Who asked may be gone; so below.
            return drop(reply.send(Err((Reason::UNAVAILABLE, "this node is shutting down"))));
        }
        let mut assigned = None;
        if hello.client.is_empty() {
            let name: ClientId = format!("auto-{}", self.unique()).into();
            hello.client = (&*name).into();
            assigned = Some(name);
        }
        let (mut replaced, mut is_new) = (None, true);
        if let Some(key) = self.sessions.find(&hello.client) {
            is_new = false;
            let session = self.sessions.get(key);
            if session.is_some_and(|session| session.user != hello.identity.user) {
                let words = "this client identifier has a session of another user";
                return drop(reply.send(Err((Reason::NOT_AUTHORIZED, words))));
            }
            self.take_over(key);
            if hello.clean {
                replaced = self.remove_session(key);
            }
        }
        if let Some(handover) = self.handovers.get_mut(&*hello.client) {
            return handover.then_connect(hello, reply);
        }
        hello.expiry_s = hello.expiry_s.min(self.limits.session_expiry_s);
        self.connections += 1;
        hello.link.connection = self.connections;
        let owner = Owner::of(hello.identity.user.as_ref(), hello.link.address);
        // One that has ended holds its queue until others have taken that.
        let all = self.sessions.len() + self.handovers.len();
        let own = if is_new { self.sessions.len_of(&owner) } else { 0 };
        match self.sessions.find(&hello.client) {
            Some(key) => {
                self.sessions.give(key, owner);
                self.resume(key, hello, reply);
            }
            None if !has_share(own, all, 1, self.limits.sessions) => {
                replaced.into_iter().for_each(|client| self.batch.lazy(Change::End(client)));
                let words = match all >= self.limits.sessions {
                    true => "this node has as many sessions as it may",
                    false => "this user or address has as many sessions as it may",
                };
                drop(reply.send(Err((Reason::QUOTA, words))));
            }
            None => self.begin(hello, assigned, replaced, reply),
        }
    }

    /// The old connection of a client goes (§3.1.4-3).
    fn take_over(&mut self, key: Key) {
        let Some(link) = self.sessions.get(key).and_then(|session| session.link.as_ref()) else { return };
        let words = "the same client identifier has connected again";
        link.outbox.close(Close { reason: Reason::TAKEN_OVER, words, when_answered: false });
        let connection = link.connection;
        self.ended(From { key, connection }, Farewell::Lost);
    }

    /// A new session, in place of the recorded one of `replaced`.
    fn begin(&mut self, hello: Hello, assigned: Option<ClientId>, replaced: Option<ClientId>, reply: Reply) {
        let Hello { client, expiry_s, will, identity, link, .. } = hello;
        let (durable, recorded) = (expiry_s > 0, expiry_s > 0 || will.is_some());
        let connection = link.connection;
        let session = Session {
            client: assigned.clone().unwrap_or_else(|| (&*client).into()),
            owner: Owner::of(identity.user.as_ref(), link.address),
            user: identity.user,
            expiry_s,
            durable,
            recorded,
            link: Some(link),
            ended: None,
            will,
            subscriptions: HashMap::new(),
            ahead: HashMap::new(),
            received: BTreeMap::new(),
            out: Outgoing { reading: true, ..Outgoing::default() },
            replays: VecDeque::new(),
            replaying: false,
            mark: (0, 0),
            dropped: 0,
        };
        let change = match recorded {
            true => Some(Change::Session { record: Box::new(session.record()), fresh: true }),
            false => replaced.map(Change::End),
        };
        let key = self.sessions.insert(session);
        stats::add(&self.stats.sessions, 1);
        let from = From { key, connection };
        let accepted = Accepted { from, session_present: false, assigned, expiry_s };
        self.batch.step(change, Finish::Connected(reply, Box::new(accepted)));
    }

    fn resume(&mut self, key: Key, hello: Hello, reply: Reply) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        let Hello { expiry_s, will, identity, link, .. } = hello;
        let connection = link.connection;
        for timer in session.ended.take().into_iter().flat_map(|ended| ended.timers) {
            self.timers.unset(timer);
        }
        session.expiry_s = expiry_s;
        session.will = will;
        session.link = Some(link);
        // The queue is read once everything before this has been written.
        session.out.reading = true;
        session.out.behind = session.out.queued > 0;
        session.recorded = true;
        let mut changes = vec![Change::Session { record: Box::new(session.record()), fresh: false }];
        let client = session.client.clone();
        let forbidden: Vec<Arc<str>> = session
            .subscriptions
            .keys()
            .filter(|text| !Filter::parse(text).is_ok_and(|filter| identity.may_subscribe(filter.topic)))
            .cloned()
            .collect();
        for filter in forbidden {
            // What it may do has changed since.
            self.forbid_subscription(key, &filter);
            changes.push(Change::Unsubscribe(client.clone(), filter));
        }
        let from = From { key, connection };
        let accepted = Accepted { from, session_present: true, assigned: None, expiry_s };
        self.batch.step(changes, Finish::Connected(reply, Box::new(accepted)));
    }

    /// The session is kept, or could not be: then there is no connection.
    pub(super) fn connected(&mut self, reply: Reply, accepted: Accepted, failure: Option<&Failure>) {
        let from = accepted.from;
        if let Some(failure) = failure {
            drop(reply.send(Err((super::finish::reason_of(failure), "this node cannot keep a session"))));
            if let Some(session) = self.sessions.linked(from) {
                session.will = None;
            }
            if accepted.session_present {
                return self.ended(from, Farewell::Lost);
            }
            let Some(session) = self.sessions.get_mut(from.key) else { return };
            // What could not be written may have been the end of an older session.
            session.recorded = true;
            if let Some(connection) = session.link.as_ref().map(|link| link.connection) {
                // Whoever has taken it over meanwhile has no session to go on with.
                self.cut(From { key: from.key, connection }, failure);
            }
            return self.end_session(from.key);
        }
        if reply.send(Ok(accepted)).is_err() {
            // The client left while it was written.
            return self.ended(from, Farewell::Lost);
        }
        if let Some(session) = self.sessions.linked(from) {
            session.out.reading = false;
            self.pump(from.key);
        }
    }

    /// A connection is over. Its session goes, or waits.
    pub(super) fn ended(&mut self, from: From, farewell: Farewell) {
        let now = self.clock.instant();
        let unix_ns = self.clock.unix_ns();
        let expiry_max = self.limits.session_expiry_s;
        let Some(session) = self.sessions.linked(from) else { return };
        if let Farewell::Said(reason, expiry_s) = farewell {
            session.expiry_s = expiry_s.map_or(session.expiry_s, |asked| asked.min(expiry_max));
            if reason == Reason::SUCCESS {
                session.will = None;
            }
        }
        if session.expiry_s == 0 || !session.durable {
            return self.end_session(from.key);
        }
        session.link = None;
        session.out.unload();
        session.ended = Some(Ended { unix_ns, timers: Vec::new() });
        let (expiry_s, recorded) = (session.expiry_s, session.recorded);
        let will_delay_s = session.will.as_ref().map(|will| will.delay_s);
        let record = session.record();
        if recorded {
            self.batch.lazy(Change::Session { record: Box::new(record), fresh: false });
        }
        let mut set = Vec::new();
        if expiry_s < u32::MAX {
            set.push(self.timers.set(now + Duration::from_secs(expiry_s.into()), Timer::Expiry(from.key)));
        }
        match will_delay_s {
            Some(_) if self.draining => {}
            Some(0) => self.publish_will(from.key),
            Some(delay_s) => {
                set.push(self.timers.set(now + Duration::from_secs(delay_s.into()), Timer::Will(from.key)))
            }
            None => {}
        }
        if let Some(ended) = self.sessions.get_mut(from.key).and_then(|session| session.ended.as_mut()) {
            ended.timers.extend(set);
        }
    }

    /// Records that nobody waited for could not be written: what they say by now is written later. Otherwise a session that
    /// has ended would be there again after the next start.
    pub(super) fn put_back(&mut self, records: Records) {
        for (client, end) in records {
            if self.batch.has_record(&client) {
                continue;
            }
            let session = self.sessions.find(&client).and_then(|key| self.sessions.get(key));
            match session.filter(|session| session.recorded) {
                // Its connection writes it anew.
                Some(session) if session.link.is_some() => {}
                Some(session) => {
                    let record = Box::new(session.record());
                    self.batch.lazy(Change::Session { record, fresh: false });
                }
                None if end => self.batch.lazy(Change::End(client)),
                None => self.handovers.get_mut(&client).into_iter().for_each(HandOver::is_not_recorded),
            }
        }
    }

    /// A session goes, with everything that belongs to it. Its will is published if it has not been (§3.1.2-8).
    pub(super) fn end_session(&mut self, key: Key) {
        if let Some(client) = self.remove_session(key) {
            self.batch.lazy(Change::End(client));
        }
    }

    /// The same in memory. Whose record has then to be ended now, if it has one.
    fn remove_session(&mut self, key: Key) -> Option<ClientId> {
        let session = self.sessions.get_mut(key)?;
        session.link = None;
        for timer in session.ended.take().into_iter().flat_map(|ended| ended.timers) {
            self.timers.unset(timer);
        }
        let will_waits = session.will.is_some() && self.draining;
        if !will_waits {
            self.publish_will(key);
        }
        let mut session = self.sessions.remove(key)?;
        stats::sub(&self.stats.sessions, 1);
        for text in session.subscriptions.keys() {
            if let Ok(filter) = Filter::parse(text) {
                self.index.remove(filter, key);
            }
        }
        if !session.durable {
            session.out.take_left().into_iter().for_each(|left| self.pass_on(&left.message, left.shared));
        }
        let ends_now = session.recorded && !will_waits && !self.begin_handover(key, &session);
        ends_now.then_some(session.client)
    }
}
