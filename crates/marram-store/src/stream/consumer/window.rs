//! What a consumer holds in memory: the events past its cursor that are handed out, wait for their turn, or were read ahead.
//!
//! Pure: no disk and no clock. Its size does not depend on the backlog. Each position after the cursor is in exactly one place:
//! settled (nowhere), `open`, or past `handed`. What an operation of the writer settles is only marked until the commit
//! (`close.rs`); until then it counts as unsettled.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::{Duration, Instant};

use marram_core::port::streams::{Delivery, Stored};
use marram_core::stream::ConsumerPolicy;

use super::close::due;
use crate::limits::{AHEAD_EVENTS_MAX, WINDOW_MAX};

/// Longer waits count as this long: an instant has to be able to hold them.
pub(super) const WAIT_MAX: Duration = Duration::from_secs(10 * 365 * 86_400);

/// What was settled, as durable counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(super) acked: u64,
    pub(super) dead_lettered: u64,
    pub(super) dropped: u64,
}

/// See the head of this file.
#[derive(Debug)]
pub(crate) struct Window {
    pub(super) policy: ConsumerPolicy,
    pub(super) paused: bool,
    /// Removed: nothing is delivered any more.
    pub(super) gone: bool,
    /// Events up to `handed` that are not settled.
    pub(super) open: BTreeMap<u64, Open>,
    /// Of these: to be delivered (again) now.
    pub(super) ready: BTreeSet<u64>,
    /// Of these: delivered as often as they may be, and not settled in time.
    pub(super) spent: BTreeSet<u64>,
    pub(super) timers: BTreeSet<(Instant, u64)>,
    /// The open events of each subject in their order, where the policy asks for order. Only the first of each moves.
    pub(super) subjects: HashMap<u64, VecDeque<u64>>,
    /// Events after `handed` that the filter takes, up to `read`.
    pub(super) ahead: VecDeque<Stored>,
    /// Events of `ready`, read again.
    pub(super) loaded: BTreeMap<u64, Stored>,
    pub(super) handed: u64,
    pub(super) read: u64,
    pub(super) in_flight: usize,
    pub(super) counts: Counts,
    pub(super) redelivered: u64,
    /// What operations of the current group settle.
    pub(super) pending: Counts,
    /// Up to here the current group drops events.
    pub(super) dropping: u64,
    /// Where the current group seeks to.
    pub(super) seeking: Option<u64>,
    /// Deliveries that were in flight when somebody sought: the next delivery of the same event counts on from there.
    pub(super) stale: BTreeMap<u64, u32>,
    /// Counts seeks and changes of the filter: a read that began before one is of no use after it.
    pub(super) epoch: u64,
    /// Somebody is reading for this window.
    pub(super) reading: bool,
    /// Somebody is sending what is spent to the dead-letter stream.
    pub(super) burying: bool,
    /// The cursor that the disk has.
    pub(super) saved: u64,
}

/// An event that is not settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Open {
    /// A hash of the subject; 0 if it is not known.
    pub(super) subject: u64,
    /// Deliveries so far.
    pub(super) attempt: u32,
    /// How many of these count no more, because somebody sought back.
    pub(super) base: u32,
    pub(super) state: State,
    pub(super) closing: Option<Closing>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Delivered, to be settled until then.
    InFlight(Instant),
    /// Not settled in time; still settled by the same attempt for as long as there is no other.
    Lapsed,
    /// To be delivered again at this time; the same on the wall clock, for the disk.
    Later { due: Instant, due_unix_ns: u64 },
    /// The same as it was read from the disk, before anybody has told the time ([`Window::anchor`]).
    Unanchored { due_unix_ns: u64 },
    /// To be delivered.
    Due,
    /// Behind another event of its subject.
    Held,
}

/// What becomes of an event with the commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Closing {
    Acked,
    DeadLettered,
    Retried { due: Instant, due_unix_ns: u64 },
}

/// What a pull has to do next.
#[derive(Debug)]
pub(super) enum Step {
    /// These were handed out.
    Deliver(Vec<Delivery>),
    /// The consumer was removed.
    Gone,
    /// Read on after this position, and give it to [`Window::filled`].
    ReadOn { after: u64, epoch: u64 },
    /// Read these again, and give them to [`Window::reloaded`].
    ReadAgain { positions: Vec<u64>, epoch: u64 },
    /// Send these to the dead-letter stream.
    Bury(Vec<(u64, u32)>),
    /// Wait for somebody to change something, and no longer than this.
    Wait(Option<Instant>),
}

impl Window {
    pub(super) fn new(policy: ConsumerPolicy, cursor: u64) -> Self {
        Self {
            policy,
            paused: false,
            gone: false,
            open: BTreeMap::new(),
            ready: BTreeSet::new(),
            spent: BTreeSet::new(),
            timers: BTreeSet::new(),
            subjects: HashMap::new(),
            ahead: VecDeque::new(),
            loaded: BTreeMap::new(),
            handed: cursor,
            read: cursor,
            in_flight: 0,
            counts: Counts::default(),
            redelivered: 0,
            pending: Counts::default(),
            dropping: 0,
            seeking: None,
            stale: BTreeMap::new(),
            epoch: 0,
            reading: false,
            burying: false,
            saved: cursor,
        }
    }

    /// Hands out up to `max` events, oldest first, or says what has to happen before that. `last` is the newest position.
    pub(super) fn take(&mut self, max: usize, now: Instant, last: u64) -> Step {
        if self.gone {
            return Step::Gone;
        }
        self.lapse(now);
        if !self.spent.is_empty() && !self.burying && self.seeking.is_none() {
            self.burying = true;
            let spent = self.spent.iter().filter_map(|at| Some((*at, self.open.get(at)?.attempt)));
            return Step::Bury(spent.collect());
        }
        let in_flight_max = usize::try_from(self.policy.in_flight_max).unwrap_or(WINDOW_MAX).clamp(1, WINDOW_MAX);
        let max = max.max(1).min(in_flight_max.saturating_sub(self.in_flight));
        if self.paused || self.seeking.is_some() || max == 0 {
            return Step::Wait(self.next_timer());
        }
        let mut deliveries = Vec::with_capacity(max.min(self.ready.len() + self.ahead.len()));
        while deliveries.len() < max
            && let Some(at) = self.ready.first().copied()
        {
            let Some(delivery) = self.deliver_again(at, now) else { break };
            deliveries.push(delivery);
        }
        if deliveries.is_empty() && !self.ready.is_empty() {
            if std::mem::replace(&mut self.reading, true) {
                return Step::Wait(self.next_timer());
            }
            let positions = self.ready.iter().copied().take(max).collect();
            return Step::ReadAgain { positions, epoch: self.epoch };
        }
        while self.ready.is_empty() && deliveries.len() < max && self.open.len() < WINDOW_MAX {
            let Some(stored) = self.ahead.pop_front() else { break };
            deliveries.extend(self.deliver_first(stored, now));
        }
        if !deliveries.is_empty() {
            return Step::Deliver(deliveries);
        }
        if self.open.len() < WINDOW_MAX
            && let Some((after, epoch)) = self.read_on(last)
        {
            return Step::ReadOn { after, epoch };
        }
        Step::Wait(self.next_timer())
    }

    /// Whether there is little left of what was read ahead, and more to be read.
    pub(super) fn wants(&self, last: u64) -> bool {
        self.ahead.len() < AHEAD_EVENTS_MAX / 4 && self.read < last && !self.reading
    }

    /// Begins a read, if one is wanted: after which position, and in which epoch.
    pub(super) fn read_on(&mut self, last: u64) -> Option<(u64, u64)> {
        let wanted = self.wants(last) && !self.paused && self.seeking.is_none();
        self.reading |= wanted;
        wanted.then_some((self.read, self.epoch))
    }

    /// What was read after `after`: everything up to `through`, of which `events` are what the filter takes.
    pub(super) fn filled(&mut self, after: u64, epoch: u64, through: u64, events: impl IntoIterator<Item = Stored>) {
        if self.epoch == epoch && self.read == after {
            self.ahead.extend(events);
            self.read = through.max(after);
        }
    }

    /// What was read again of `positions`, all of which were looked for. What is no longer there was dropped.
    pub(super) fn reloaded(&mut self, positions: &[u64], epoch: u64, events: Vec<Stored>) {
        if self.epoch != epoch {
            return;
        }
        self.loaded.clear();
        self.loaded.extend(events.into_iter().map(|stored| (stored.position, stored)));
        for at in positions {
            if !self.loaded.contains_key(at) && *at > self.dropping && self.ready.contains(at) {
                self.counts.dropped += 1;
                self.close(*at);
            }
        }
    }

    fn deliver_first(&mut self, stored: Stored, now: Instant) -> Option<Delivery> {
        let at = stored.position;
        self.handed = at;
        let base = self.stale.remove(&at).unwrap_or(0);
        let subject = subject_hash(&stored.event.subject);
        let mut open = Open { subject, attempt: base, base, state: State::Held, closing: None };
        if self.policy.order_by_subject {
            let before = self.subjects.entry(subject).or_default();
            before.push_back(at);
            if before.len() > 1 {
                self.open.insert(at, open);
                return None;
            }
        }
        open.state = State::Due;
        self.open.insert(at, open);
        self.hand_out(stored, now)
    }

    fn deliver_again(&mut self, at: u64, now: Instant) -> Option<Delivery> {
        let stored = self.loaded.remove(&at)?;
        self.ready.remove(&at);
        self.hand_out(stored, now)
    }

    fn hand_out(&mut self, stored: Stored, now: Instant) -> Option<Delivery> {
        let until = now + self.policy.ack_wait.min(WAIT_MAX);
        let open = self.open.get_mut(&stored.position)?;
        open.attempt += 1;
        open.state = State::InFlight(until);
        self.redelivered += u64::from(open.attempt > open.base + 1);
        self.in_flight += 1;
        self.timers.insert((until, stored.position));
        Some(Delivery { attempt: open.attempt, stored })
    }

    /// Measures waits that were read from the disk from now on. None is longer than the longest back-off, wherever the wall
    /// clock has gone since.
    pub(super) fn anchor(&mut self, now: Instant, now_unix_ns: u64) {
        for (at, open) in &mut self.open {
            let State::Unanchored { due_unix_ns } = open.state else { continue };
            let wait = Duration::from_nanos(due_unix_ns.saturating_sub(now_unix_ns)).min(self.policy.backoff_max);
            let (due, due_unix_ns) = due(now, now_unix_ns, wait);
            open.state = State::Later { due, due_unix_ns };
            self.timers.insert((due, *at));
        }
    }

    /// Takes note of every time that has passed.
    fn lapse(&mut self, now: Instant) {
        while let Some((time, at)) = self.timers.first().copied().filter(|(time, _)| *time <= now) {
            self.timers.remove(&(time, at));
            let Some(open) = self.open.get_mut(&at) else { continue };
            match open.state {
                // It is being settled. Should that fail, it has its time once more.
                State::InFlight(_) if open.closing.is_some() => {
                    let until = now + self.policy.ack_wait.min(WAIT_MAX);
                    open.state = State::InFlight(until);
                    self.timers.insert((until, at));
                    if until <= now {
                        break;
                    }
                }
                State::InFlight(_) => {
                    open.state = State::Lapsed;
                    self.in_flight -= 1;
                    self.rest(at);
                }
                State::Later { .. } => {
                    open.state = State::Due;
                    self.ready.insert(at);
                }
                State::Lapsed | State::Unanchored { .. } | State::Due | State::Held => {}
            }
        }
    }

    /// Puts what has lapsed where the next pull finds it.
    pub(super) fn rest(&mut self, at: u64) {
        let Some(open) = self.open.get(&at) else { return };
        if open.attempt - open.base >= self.policy.deliveries_max.max(1) {
            self.spent.insert(at);
        } else {
            self.ready.insert(at);
        }
    }

    /// Begins the ack wait of a delivery again.
    pub(super) fn extend(&mut self, at: u64, attempt: u32, now: Instant) {
        let until = now + self.policy.ack_wait.min(WAIT_MAX);
        let Some(open) = self.open.get_mut(&at).filter(|open| open.attempt == attempt) else { return };
        match open.state {
            State::InFlight(before) => {
                self.timers.remove(&(before, at));
            }
            State::Lapsed if open.closing.is_none() => {
                self.ready.remove(&at);
                self.spent.remove(&at);
                self.in_flight += 1;
            }
            _ => return,
        }
        open.state = State::InFlight(until);
        self.timers.insert((until, at));
    }

    /// Takes back a delivery that did not get anywhere: it is due at once, and does not count. The disk has it as delivered,
    /// which comes to the same after a restart.
    pub(super) fn release(&mut self, at: u64, attempt: u32) {
        let latest = |open: &&mut Open| open.attempt == attempt && open.closing.is_none();
        let Some(open) = self.open.get_mut(&at).filter(latest) else { return };
        match open.state {
            State::InFlight(until) => {
                self.timers.remove(&(until, at));
                self.in_flight -= 1;
            }
            State::Lapsed => drop(self.spent.remove(&at)),
            _ => return,
        }
        open.base += 1;
        open.state = State::Due;
        self.ready.insert(at);
    }

    /// Removes an open event; the next of its subject may go.
    pub(super) fn close(&mut self, at: u64) {
        let Some(open) = self.open.remove(&at) else { return };
        match open.state {
            State::InFlight(until) => {
                self.in_flight -= 1;
                self.timers.remove(&(until, at));
            }
            State::Later { due, .. } => drop(self.timers.remove(&(due, at))),
            State::Lapsed | State::Unanchored { .. } | State::Due | State::Held => {}
        }
        self.ready.remove(&at);
        self.spent.remove(&at);
        self.loaded.remove(&at);
        let Some(queue) = self.subjects.get_mut(&open.subject) else { return };
        match queue.front() {
            Some(front) if *front == at => drop(queue.pop_front()),
            _ => queue.retain(|other| *other != at),
        }
        let Some(next) = queue.front().copied() else {
            self.subjects.remove(&open.subject);
            return;
        };
        if let Some(open) = self.open.get_mut(&next).filter(|open| open.state == State::Held) {
            open.state = State::Due;
            self.ready.insert(next);
        }
    }

    /// When something changes by itself.
    fn next_timer(&self) -> Option<Instant> {
        self.timers.first().map(|(time, _)| *time)
    }
}

/// Stable: it is on the disk. FNV-1a of 64 bits, never 0. Two subjects with one hash only wait for each other.
pub(super) fn subject_hash(subject: &str) -> u64 {
    let hash = subject
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    hash.max(1)
}
