//! Sessions: whose they are, what they subscribed to, and what is on its way to them.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use marram_core::accept::network;
use marram_core::port::mqtt::{ClientId, Qos, SessionRecord, Subscription, Will};

use super::ByClient;
use super::message::{ClientState, From, Link};
use super::spare::Shared;
use super::subscribe::Ahead;
use super::timer::Set;
use crate::limits::{Limits, SEQ_SPAN_MAX, WAITING_MAX};
use crate::resident::Resident;
use crate::stats::{self, Stats};

/// Where a session is. One that is gone is not taken for the next in its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Key {
    slot: u32,
    generation: u32,
}

impl Key {
    /// Of no session: where [`super::spare::Spares`] are.
    pub(crate) const SPARES: Self = Self { slot: u32::MAX, generation: 0 };
}

/// Whose part of the node's room it is that something takes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) enum Owner {
    /// The node's own; or it is not known any more, because it had no name and the node has started since. Nobody is
    /// held to account for it.
    #[default]
    Nobody,
    /// A user, or the name in a certificate.
    User(Arc<str>),
    /// A client without a name: the address that it comes from, and in IPv6 the network of it, as it has all of that.
    Address(IpAddr),
}

impl Owner {
    pub(crate) fn of(user: Option<&Arc<str>>, address: Option<SocketAddr>) -> Self {
        match (user, address) {
            (Some(user), _) => Self::User(user.clone()),
            (None, Some(address)) => Self::Address(network(address.ip())),
            (None, None) => Self::Nobody,
        }
    }
}

/// Whether there is room for so many more: nobody has more than there is left for others then.
pub(crate) const fn has_share(own: usize, all: usize, more: usize, max: usize) -> bool {
    own + all + more <= max
}

/// What an owner has of what is limited for all.
#[derive(Clone, Copy, Default)]
struct Held {
    sessions: usize,
    filters: usize,
}

/// All sessions.
#[derive(Default)]
pub(super) struct Sessions {
    slots: Vec<(u32, Option<Box<Session>>)>,
    free: Vec<u32>,
    by_client: ByClient<Key>,
    by_owner: HashMap<Owner, Held>,
}

impl Sessions {
    pub(super) fn insert(&mut self, session: Session) -> Key {
        let client = session.client.clone();
        self.hold(&session);
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push((0, None));
            u32::try_from(self.slots.len() - 1).expect("sessions are limited far below 2^32")
        });
        let entry = &mut self.slots[slot as usize];
        entry.1 = Some(Box::new(session));
        let key = Key { slot, generation: entry.0 };
        self.by_client.insert(client, key);
        key
    }

    pub(super) fn get(&self, key: Key) -> Option<&Session> {
        let (generation, session) = self.slots.get(key.slot as usize)?;
        session.as_deref().filter(|_| *generation == key.generation)
    }

    pub(super) fn get_mut(&mut self, key: Key) -> Option<&mut Session> {
        let (generation, session) = self.slots.get_mut(key.slot as usize)?;
        session.as_deref_mut().filter(|_| *generation == key.generation)
    }

    /// The session of a connection that is still its connection.
    pub(super) fn linked(&mut self, from: From) -> Option<&mut Session> {
        self.get_mut(from.key)
            .filter(|session| session.link.as_ref().is_some_and(|link| link.connection == from.connection))
    }

    pub(super) fn find(&self, client: &str) -> Option<Key> {
        self.by_client.get(client).copied()
    }

    pub(super) fn remove(&mut self, key: Key) -> Option<Box<Session>> {
        self.get(key)?;
        let entry = self.slots.get_mut(key.slot as usize)?;
        let session = entry.1.take()?;
        entry.0 = entry.0.wrapping_add(1);
        self.free.push(key.slot);
        self.by_client.remove(&session.client);
        self.release(&session);
        Some(session)
    }

    /// A session is from now on somebody else's.
    pub(super) fn give(&mut self, key: Key, owner: Owner) {
        let Some(mut session) = self.slots.get_mut(key.slot as usize).and_then(|slot| slot.1.take()) else { return };
        self.release(&session);
        session.owner = owner;
        self.hold(&session);
        self.slots[key.slot as usize].1 = Some(session);
    }

    fn hold(&mut self, session: &Session) {
        if session.owner != Owner::Nobody {
            let held = self.by_owner.entry(session.owner.clone()).or_default();
            held.sessions += 1;
            held.filters += session.subscriptions.len();
        }
    }

    fn release(&mut self, session: &Session) {
        let Some(held) = self.by_owner.get_mut(&session.owner) else { return };
        held.sessions -= 1;
        held.filters -= session.subscriptions.len();
        if held.sessions == 0 {
            self.by_owner.remove(&session.owner);
        }
    }

    /// How many sessions an owner has.
    pub(super) fn len_of(&self, owner: &Owner) -> usize {
        self.by_owner.get(owner).map_or(0, |held| held.sessions)
    }

    /// How many subscriptions the owner of a session has.
    pub(super) fn filters_of(&self, session: &Session) -> usize {
        self.by_owner.get(&session.owner).map_or(0, |held| held.filters)
    }

    /// Notes a subscription. What there was of the same filter.
    pub(super) fn set_subscription(&mut self, key: Key, subscription: Subscription) -> Option<Subscription> {
        let session = self.get_mut(key)?;
        let owner = session.owner.clone();
        let was = session.subscriptions.insert(subscription.filter.clone(), subscription);
        if let Some(held) = self.by_owner.get_mut(&owner).filter(|_| was.is_none()) {
            held.filters += 1;
        }
        was
    }

    /// Forgets a subscription. What there was.
    pub(super) fn remove_subscription(&mut self, key: Key, filter: &str) -> Option<Subscription> {
        let session = self.get_mut(key)?;
        let owner = session.owner.clone();
        let was = session.subscriptions.remove(filter)?;
        if let Some(held) = self.by_owner.get_mut(&owner) {
            held.filters -= 1;
        }
        Some(was)
    }

    pub(super) fn len(&self) -> usize {
        self.by_client.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Key, &Session)> {
        self.slots.iter().zip(0..).filter_map(|((generation, session), slot)| {
            session.as_deref().map(|session| (Key { slot, generation: *generation }, session))
        })
    }
}

/// One session.
pub(super) struct Session {
    pub(super) client: ClientId,
    pub(super) user: Option<Arc<str>>,
    /// Who is held to account for it.
    pub(super) owner: Owner,
    /// Seconds that it is kept without a connection.
    pub(super) expiry_s: u32,
    /// Its queue is in the journal. Otherwise it ends with its connection, and its queue is in memory alone.
    pub(super) durable: bool,
    /// There is a record of it in the journal.
    pub(super) recorded: bool,
    pub(super) link: Option<Link>,
    pub(super) ended: Option<Ended>,
    pub(super) will: Option<Will>,
    pub(super) subscriptions: HashMap<Arc<str>, Subscription>,
    /// Filters of which the journal does not have yet what is here.
    pub(super) ahead: HashMap<Arc<str>, Ahead>,
    /// QoS 2 messages of the client that are not released yet: as many as there are identifiers, because 3.1.1 has no
    /// Receive Maximum, and a client may send all it has before it looks at the first PUBREC.
    pub(super) received: BTreeMap<u16, Received>,
    pub(super) out: Outgoing,
    /// Subscriptions that get retained messages, and the last topic that each got.
    pub(super) replays: VecDeque<Replay>,
    /// It is in the engine's list of sessions with replays.
    pub(super) replaying: bool,
    /// The search of the index that found it last, and where in its results.
    pub(super) mark: (u64, usize),
    pub(super) dropped: u64,
}

/// When a connection ended, in nanoseconds since the Unix epoch, and what is to happen then.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) unix_ns: u64,
    pub(super) timers: Vec<Set>,
}

/// How far a QoS 2 message of the client has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Received {
    /// Its commit is under way.
    Pending,
    /// It is kept, and delivered.
    Kept,
}

/// Retained messages for a new subscription.
pub(super) struct Replay {
    pub(super) filter: Arc<str>,
    /// The last topic that was looked at.
    pub(super) after: Option<Arc<str>>,
}

/// What is on its way to the client.
#[derive(Default)]
pub(super) struct Outgoing {
    /// The last place that was given.
    pub(super) last_seq: u64,
    /// While there is no connection: no place before this one is open.
    pub(super) first_seq: u64,
    /// Up to here a message may have been sent on an earlier connection.
    pub(super) resent_seq: u64,
    /// The last place that was sent on this connection.
    pub(super) sent_seq: u64,
    /// Sent and not acknowledged, in their order.
    pub(super) in_flight: VecDeque<Sent>,
    /// To be sent next.
    pub(super) waiting: VecDeque<Entry>,
    pub(super) in_flight_bytes: usize,
    pub(super) waiting_bytes: usize,
    /// Of what was sent and would be another's ([`Sent::left`]).
    pub(super) left_bytes: usize,
    /// Bytes of what it inherits in memory alone once that is out of the queue of another member of its group.
    pub(super) promised_bytes: usize,
    /// Places whose commit is under way, and the last one that was kept: those after it that could not be are given again.
    pub(super) under_commit: u32,
    pub(super) kept_seq: u64,
    /// Messages in the queue, sent or not, in memory or not.
    pub(super) queued: u64,
    pub(super) queued_bytes: u64,
    /// There may be messages of groups among them.
    pub(super) shared: bool,
    /// The journal has messages past `loaded_seq` that are not in memory.
    pub(super) behind: bool,
    /// The last place that is, or was, in memory.
    pub(super) loaded_seq: u64,
    /// A page is being read; something came that it may not have.
    pub(super) reading: bool,
    pub(super) missed: bool,
    /// It is tried again later to read it, or to send retained messages.
    pub(super) retrying: bool,
    /// The queue is full: said once in the log, until it is not.
    pub(super) said_full: bool,
    /// QoS 0 messages are dropped because the client is slow: said once in the log for a connection.
    pub(super) said_slow: bool,
}

/// A message in memory.
pub(super) struct Entry {
    pub(super) seq: u64,
    pub(super) qos: Qos,
    pub(super) retain: bool,
    pub(super) subscriptions: Vec<u32>,
    /// The group that the session gets it for.
    pub(super) shared: Option<Shared>,
    pub(super) message: Arc<Resident>,
}

/// A message that the client has not acknowledged.
pub(super) struct Sent {
    pub(super) seq: u64,
    pub(super) bytes: usize,
    pub(super) state: SentState,
    /// The message itself, where it is nowhere else and another client would get it.
    pub(super) left: Option<Box<Left>>,
}

/// What another member of a group gets if this session ends.
pub(super) struct Left {
    pub(super) shared: Shared,
    pub(super) message: Arc<Resident>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SentState {
    /// PUBLISH was sent with this QoS.
    Published(Qos),
    /// PUBREC came; that is being written.
    Releasing,
    /// PUBREL was sent.
    Released,
}

/// The packet identifier of a place: the same whenever it is sent, without being kept anywhere.
pub(super) const fn packet_of(seq: u64) -> u16 {
    (seq % 65_535) as u16 + 1
}

impl Outgoing {
    pub(super) fn find(&self, packet: u16) -> Option<usize> {
        self.in_flight.iter().position(|sent| packet_of(sent.seq) == packet)
    }

    /// Whether another place can be given: its packet identifier has to be unlike those of all that are open.
    pub(super) fn has_packet(&self, first_open: u64) -> bool {
        self.last_seq.saturating_sub(first_open) < SEQ_SPAN_MAX
    }

    /// The oldest place that is open, as far as is known.
    pub(super) fn first_open(&self) -> u64 {
        let behind = self.behind.then_some(self.loaded_seq);
        self.first_held().into_iter().chain(behind).min().unwrap_or(self.last_seq)
    }

    /// The oldest place that is in memory.
    fn first_held(&self) -> Option<u64> {
        let in_flight = self.in_flight.front().map(|sent| sent.seq);
        let waiting = self.waiting.front().map(|entry| entry.seq);
        in_flight.into_iter().chain(waiting).min()
    }

    /// Notes what was sent, in its place: what is read again may have come further than what is before it.
    pub(super) fn sent(&mut self, sent: Sent) {
        self.sent_seq = self.sent_seq.max(sent.seq);
        self.in_flight_bytes += sent.bytes;
        self.left_bytes += if sent.left.is_some() { sent.bytes } else { 0 };
        let at = self.in_flight.partition_point(|there| there.seq < sent.seq);
        self.in_flight.insert(at, sent);
    }

    pub(super) fn next_seq(&mut self) -> u64 {
        self.last_seq += 1;
        self.last_seq
    }

    /// The commit of a place is over. A disk that is full for long does not use up the packet identifiers.
    pub(super) fn committed(&mut self, seq: u64, is_kept: bool) {
        self.under_commit = self.under_commit.saturating_sub(1);
        if is_kept {
            self.kept_seq = self.kept_seq.max(seq);
        }
        if self.under_commit == 0 {
            self.last_seq = self.kept_seq;
            self.loaded_seq = self.loaded_seq.min(self.last_seq);
            self.first_seq = self.first_seq.min(self.last_seq + 1);
        }
    }

    /// Bytes of a message of the queue, on average.
    pub(super) fn mean_bytes(&self) -> usize {
        usize::try_from(self.queued_bytes / self.queued.max(1)).unwrap_or(usize::MAX)
    }

    /// What other members of groups get of what is in memory alone: not what may have been sent at QoS 2 (MQTT-4.8.2-5).
    pub(super) fn take_left(&mut self) -> Vec<Left> {
        let sent = self.in_flight.drain(..).filter_map(|sent| sent.left.map(|left| *left));
        let waiting = self.waiting.drain(..);
        sent.chain(waiting.filter_map(|Entry { shared, message, .. }| Some(Left { shared: shared?, message })))
            .collect()
    }

    /// Takes everything out of memory.
    pub(super) fn unload(&mut self) {
        // What is past `loaded_seq` has not been in memory: it is in the journal, or its commit is under way.
        let before = self.first_held().map_or(self.loaded_seq, |seq| seq - 1);
        self.in_flight = VecDeque::new();
        self.waiting = VecDeque::new();
        self.in_flight_bytes = 0;
        self.waiting_bytes = 0;
        self.left_bytes = 0;
        self.reading = false;
        self.said_slow = false;
        self.behind = self.queued > 0;
        self.loaded_seq = if self.behind { before } else { self.last_seq };
        self.first_seq = self.loaded_seq + 1;
        self.resent_seq = self.resent_seq.max(self.sent_seq);
    }
}

impl Session {
    /// Whether its durable queue takes one more of this size.
    pub(super) fn has_place(&self, size: u64, limits: &Limits) -> bool {
        let out = &self.out;
        let first_open = match self.link {
            Some(_) => out.first_open(),
            None if out.queued == 0 => out.last_seq,
            None => out.first_seq,
        };
        out.queued < limits.queue_messages
            && out.queued_bytes + size <= limits.queue_bytes
            && out.has_packet(first_open)
    }

    /// Whether its queue in memory alone takes one more of this size.
    pub(super) fn has_memory(&self, size: usize, used: u64, limits: &Limits) -> bool {
        let out = &self.out;
        self.link.is_some()
            && out.queued < limits.queue_messages
            && self.held_bytes() + size <= limits.share_bytes(used)
            && out.has_packet(out.first_open())
    }

    /// Whether one more of this size of its durable queue is taken into memory, of which all use so much.
    pub(super) fn has_load_room(&self, size: usize, used: u64, limits: &Limits) -> bool {
        let out = &self.out;
        let few = out.waiting.len() < WAITING_MAX && out.waiting_bytes + size <= limits.outbound_bytes;
        (out.waiting.is_empty() || few) && self.held_bytes() + size <= limits.share_bytes(used)
    }

    /// Whether it has taken and acknowledged everything.
    pub(super) fn is_idle(&self) -> bool {
        self.out.in_flight.is_empty() && self.held_bytes() == 0
    }

    /// Bytes of messages that are in memory for it.
    pub(super) fn held_bytes(&self) -> usize {
        let sent = self.link.as_ref().map_or(0, |link| link.outbox.bytes());
        self.out.waiting_bytes + self.out.promised_bytes + self.out.left_bytes + sent
    }

    /// Whether it gets a QoS 1 or 2 message of this size if it is chosen for it. `used` is the memory that all use.
    pub(super) fn has_room(&self, size: usize, used: u64, limits: &Limits) -> bool {
        if self.durable { self.has_place(size as u64, limits) } else { self.has_memory(size, used, limits) }
    }

    /// Its queue is full: it does not get a new message.
    pub(super) fn drop_new(&mut self, stats: &Stats) {
        self.dropped += 1;
        stats::add(&stats.dropped_full, 1);
        if !std::mem::replace(&mut self.out.said_full, true) {
            tracing::warn!(
                client = &*self.client,
                queued = self.out.queued,
                "the queue of an MQTT session is full: new messages for it are dropped"
            );
        }
    }

    pub(super) fn record(&self) -> SessionRecord {
        SessionRecord {
            client: self.client.clone(),
            user: self.user.clone(),
            expiry_s: self.expiry_s,
            ended_unix_ns: self.ended.as_ref().map(|ended| ended.unix_ns),
            sent_seq: self.out.resent_seq.max(self.out.sent_seq),
            will: self.will.clone(),
        }
    }

    pub(super) fn state(&self) -> ClientState {
        let link = self.link.as_ref();
        let mut subscriptions: Vec<_> = self.subscriptions.keys().cloned().collect();
        subscriptions.sort_unstable();
        ClientState {
            client: self.client.clone(),
            user: self.user.clone(),
            address: link.and_then(|link| link.address),
            version: link.map(|link| link.version),
            connected_unix_ns: link.map(|link| link.connected_unix_ns),
            keep_alive_s: link.map_or(0, |link| link.keep_alive_s),
            expiry_s: self.expiry_s,
            subscriptions,
            queued: self.out.queued,
            in_flight: self.out.in_flight.len(),
            dropped: self.dropped,
        }
    }
}
