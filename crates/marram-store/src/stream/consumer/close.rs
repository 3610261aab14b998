//! What an operation of the writer does to a consumer: marked when the operation runs, done after the commit, or taken back.

use std::time::Instant;

use marram_core::event::SubjectFilter;
use marram_core::stream::ConsumerPolicy;

use super::window::{Closing, Counts, State, WAIT_MAX, Window};
use crate::limits::WINDOW_MAX;

/// One operation's change of one consumer.
#[derive(Debug)]
pub(crate) enum Change {
    /// These positions are closed as they were marked.
    Closed(Vec<u64>),
    /// Events were dropped: up to where a drop went before, and how many were owed.
    Dropped {
        before: u64,
        owed: u64,
    },
    /// Everything from [`Window::seeking`] on is owed again, and `owed` events before it no more.
    Sought {
        before: Option<u64>,
        owed: u64,
    },
    Paused(bool),
    /// Another policy, and subjects of open events that were not known.
    Policy(Box<ConsumerPolicy>, Vec<(u64, u64)>),
    Made,
    Removed,
    /// Only the cursor is written.
    Saved,
}

impl Window {
    /// Marks a delivery as settled, unless it is not the latest of its event, or was settled already.
    pub(super) fn mark(&mut self, at: u64, attempt: u32, closing: Closing) -> bool {
        if self.seeking.is_some() || at <= self.dropping || self.gone {
            return false;
        }
        let Some(open) = self.open.get_mut(&at) else { return false };
        let delivered = matches!(open.state, State::InFlight(_) | State::Lapsed);
        if open.attempt != attempt || !delivered || open.closing.is_some() {
            return false;
        }
        open.closing = Some(closing);
        // What has lapsed must not be delivered again while it is being settled.
        self.ready.remove(&at);
        self.spent.remove(&at);
        self.pending.count(closing, true);
        true
    }

    /// Marks it differently: the dead-letter stream had no room.
    pub(super) fn mark_instead(&mut self, at: u64, closing: Closing) {
        let Some(open) = self.open.get_mut(&at) else { return };
        if let Some(before) = open.closing.replace(closing) {
            self.pending.count(before, false);
            self.pending.count(closing, true);
        }
    }

    /// How many deliveries of the event count.
    pub(super) fn attempts(&self, at: u64) -> u32 {
        self.open.get(&at).map_or(0, |open| open.attempt - open.base)
    }

    /// Whether the consumer is still owed an event, within the transaction.
    pub(crate) fn owes(&self, at: u64, subject: &str) -> bool {
        if self.seeking.is_some_and(|target| at >= target) {
            return takes(&self.policy.filter, subject);
        }
        if at <= self.dropping || self.seeking.is_some() {
            return false;
        }
        if at <= self.handed {
            return self.open.get(&at).is_some_and(|open| !closes(open.closing));
        }
        takes(&self.policy.filter, subject)
    }

    /// How many events before `target` are handed out and owed, within the transaction; and from where on nothing is handed out.
    pub(super) fn open_before(&self, target: u64) -> (u64, u64) {
        if let Some(sought) = self.seeking {
            return (0, sought.max(self.dropping + 1));
        }
        let open = self.open.range(self.dropping + 1..target.max(self.dropping + 1));
        let owed = open.filter(|(_, open)| !closes(open.closing)).count();
        (owed as u64, self.handed.max(self.dropping) + 1)
    }

    /// Marks everything up to `through` as dropped, of which it was owed `owed`.
    pub(crate) fn mark_dropped(&mut self, through: u64, owed: u64) -> Change {
        let before = self.dropping;
        self.dropping = before.max(through);
        self.pending.dropped += owed;
        Change::Dropped { before, owed }
    }

    /// Marks everything before `target` as settled, of which it was owed `owed`: those count as dropped.
    pub(super) fn mark_sought(&mut self, target: u64, owed: u64) -> Change {
        self.pending.dropped += owed;
        Change::Sought { before: self.seeking.replace(target), owed }
    }

    /// After the commit.
    pub(super) fn commit(&mut self, change: Change) {
        match change {
            Change::Closed(positions) => positions.into_iter().for_each(|at| self.commit_closed(at)),
            Change::Dropped { owed, .. } => {
                self.pending.dropped -= owed;
                self.counts.dropped += owed;
                self.forget_through(self.dropping);
            }
            Change::Sought { owed, .. } => {
                self.pending.dropped -= owed;
                self.counts.dropped += owed;
                if let Some(target) = self.seeking.take() {
                    self.seek(target);
                }
            }
            Change::Paused(paused) => self.paused = paused,
            Change::Policy(policy, learnt) => self.set_policy(*policy, &learnt),
            Change::Removed => self.gone = true,
            Change::Made | Change::Saved => {}
        }
        self.saved = self.cursor();
    }

    /// After a rollback.
    pub(super) fn abort(&mut self, change: Change) {
        match change {
            Change::Closed(positions) => {
                for at in positions {
                    let Some(open) = self.open.get_mut(&at) else { continue };
                    let Some(closing) = open.closing.take() else { continue };
                    let lapsed = open.state == State::Lapsed;
                    self.pending.count(closing, false);
                    if lapsed {
                        self.rest(at);
                    }
                }
            }
            Change::Dropped { before, owed } => {
                self.dropping = before;
                self.pending.dropped -= owed;
            }
            Change::Sought { before, owed } => {
                self.seeking = before;
                self.pending.dropped -= owed;
            }
            Change::Made => self.gone = true,
            Change::Paused(_) | Change::Policy(..) | Change::Removed | Change::Saved => {}
        }
    }

    fn commit_closed(&mut self, at: u64) {
        let Some(open) = self.open.get_mut(&at) else { return };
        let Some(closing) = open.closing.take() else { return };
        self.pending.count(closing, false);
        self.counts.count(closing, true);
        let Closing::Retried { due, due_unix_ns } = closing else {
            self.close(at);
            return;
        };
        if let State::InFlight(until) = open.state {
            self.in_flight -= 1;
            self.timers.remove(&(until, at));
        }
        open.state = State::Later { due, due_unix_ns };
        self.timers.insert((due, at));
    }

    fn forget_through(&mut self, through: u64) {
        while let Some((at, open)) = self.open.first_key_value().filter(|(at, _)| **at <= through) {
            if let Some(closing) = open.closing {
                self.pending.count(closing, false);
            }
            self.close(*at);
        }
        while self.ahead.front().is_some_and(|stored| stored.position <= through) {
            self.ahead.pop_front();
        }
        self.handed = self.handed.max(through);
        if self.read < through {
            self.read = through;
            // A read that is under way began before it.
            self.epoch += 1;
        }
    }

    fn seek(&mut self, target: u64) {
        let delivered = self.open.iter().filter(|(_, open)| open.attempt > 0);
        self.stale.extend(delivered.map(|(at, open)| (*at, open.attempt)));
        while self.stale.len() > 2 * WINDOW_MAX {
            self.stale.pop_last();
        }
        for open in self.open.values() {
            if let Some(closing) = open.closing {
                self.pending.count(closing, false);
            }
        }
        self.open.clear();
        self.ready.clear();
        self.spent.clear();
        self.timers.clear();
        self.subjects.clear();
        self.loaded.clear();
        self.in_flight = 0;
        // What was dropped before is not owed again, however far back.
        self.go_on_after(target.saturating_sub(1));
    }

    fn set_policy(&mut self, policy: ConsumerPolicy, learnt: &[(u64, u64)]) {
        let reorder = policy.order_by_subject != self.policy.order_by_subject || !learnt.is_empty();
        for (at, subject) in learnt {
            if let Some(open) = self.open.get_mut(at) {
                open.subject = *subject;
            }
        }
        if policy.filter != self.policy.filter {
            // What the filter did not take counts as settled.
            self.go_on_after(self.handed_point());
        }
        self.policy = policy;
        if reorder {
            self.order();
        }
    }

    fn go_on_after(&mut self, position: u64) {
        self.ahead.clear();
        self.handed = position;
        self.read = position;
        self.epoch += 1;
    }

    /// Builds the order of subjects anew from what is open.
    pub(super) fn order(&mut self) {
        self.subjects.clear();
        for (at, open) in &mut self.open {
            let behind = self.policy.order_by_subject && {
                let queue = self.subjects.entry(open.subject).or_default();
                queue.push_back(*at);
                queue.len() > 1
            };
            match (behind, open.state) {
                (true, State::Due) => {
                    open.state = State::Held;
                    self.ready.remove(at);
                }
                (false, State::Held) => {
                    open.state = State::Due;
                    self.ready.insert(*at);
                }
                _ => {}
            }
        }
    }

    /// Up to here every event is settled, open, or not taken.
    pub(super) fn handed_point(&self) -> u64 {
        let before = self.ahead.front().map_or(self.read, |stored| stored.position - 1);
        self.handed.max(before)
    }

    /// Every event up to here is settled on the disk.
    pub(super) fn cursor(&self) -> u64 {
        self.open.first_key_value().map_or_else(|| self.handed_point(), |(at, _)| at - 1)
    }

    /// The cursor as the transaction has it.
    pub(super) fn cursor_within(&self) -> u64 {
        if let Some(target) = self.seeking {
            return target.saturating_sub(1).max(self.dropping);
        }
        let first = self.open.iter().find(|(at, open)| **at > self.dropping && !closes(open.closing));
        first.map_or_else(|| self.handed_point(), |(at, _)| at - 1).max(self.dropping)
    }
}

impl Counts {
    fn count(&mut self, closing: Closing, more: bool) {
        let count = match closing {
            Closing::Acked => &mut self.acked,
            Closing::DeadLettered => &mut self.dead_lettered,
            Closing::Retried { .. } => return,
        };
        *count = if more { *count + 1 } else { count.saturating_sub(1) };
    }
}

/// Whether the event is settled for good with the commit.
pub(super) fn closes(closing: Option<Closing>) -> bool {
    matches!(closing, Some(Closing::Acked | Closing::DeadLettered))
}

/// Whether the filter takes an event of this subject. Only [`SubjectFilter::All`] takes events without one.
pub(crate) fn takes(filter: &SubjectFilter, subject: &str) -> bool {
    match filter {
        SubjectFilter::All => true,
        _ => !subject.is_empty() && filter.matches(subject),
    }
}

/// A wait from now on, as both clocks have it.
pub(super) fn due(now: Instant, now_unix_ns: u64, wait: std::time::Duration) -> (Instant, u64) {
    let wait = wait.min(WAIT_MAX);
    let nanos = u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX);
    (now + wait, now_unix_ns.saturating_add(nanos))
}
