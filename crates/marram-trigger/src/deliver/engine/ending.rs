//! What becomes of what the loop has started.

use marram_core::port::streams::{Settle, Settlement};
use marram_core::{Failure, Retry};

use super::Engine;
use crate::deliver::run::Settled;
use crate::deliver::status::add;
use crate::limits::{HELD_UP_MAX, STORE, SUSPECTS_MAX};

impl Engine {
    /// A run catches the panics of what it runs, and nobody aborts one but the drain, which does not look any more. Were there
    /// one all the same, its events come again when this process starts anew.
    pub(super) fn outcome(&self, ended: Result<Vec<Settled>, tokio::task::JoinError>) -> Vec<Settled> {
        ended.unwrap_or_else(|error| {
            tracing::error!(trigger = self.shared.plan.source, %error, "a run ended without saying how");
            Vec::new()
        })
    }

    pub(super) fn ended(&mut self, ended: Vec<Settled>) {
        for Settled { settle, alone } in ended {
            self.running -= settle.count();
            let counters = &self.shared.counters;
            match &settle.settlement {
                Settlement::Retry { reason, .. } => {
                    add(&counters.retried, 1);
                    counters.failed(reason);
                }
                Settlement::DeadLetter { reason } => {
                    add(&counters.dead_lettered, 1);
                    counters.failed(reason);
                }
                _ => {}
            }
            if alone {
                self.suspect(&settle);
            }
            self.settled.push(settle);
        }
    }

    /// Delivers what it is about alone from now on.
    fn suspect(&mut self, settle: &Settle) {
        if self.shared.plan.batch.is_none() {
            return;
        }
        if self.suspects.len() + settle.count() > SUSPECTS_MAX {
            self.suspects.clear();
        }
        self.suspects.extend(settle.deliveries().map(|(position, _)| position));
    }

    pub(super) fn is_settled(&mut self, settle: &Settle) {
        for (position, attempt) in settle.deliveries() {
            // What was delivered again meanwhile is still held.
            if self.held.get(&position).is_some_and(|held| held.attempt == attempt) {
                self.forget(position);
            }
            if settle.settlement == Settlement::Ack {
                self.suspects.remove(&position);
            }
        }
        if settle.settlement == Settlement::Ack {
            add(&self.shared.counters.acked, settle.count());
            add(&self.shared.counters.outputs, settle.outputs.len());
        }
    }

    pub(super) fn forget(&mut self, position: u64) {
        if let Some(held) = self.held.remove(&position) {
            self.held_bytes -= held.bytes;
        }
    }

    /// None of them was settled. Those that publish nothing go first from now on, and the others one at a time.
    pub(super) fn settle_failed(&mut self, settles: Vec<Settle>, failure: &Failure) {
        self.failed("settle", failure);
        let (mut publish, plain): (Vec<_>, Vec<_>) = settles.into_iter().partition(|settle| !settle.outputs.is_empty());
        let apart = !publish.is_empty() && (!plain.is_empty() || publish.len() > 1);
        match (failure.retry_after(), apart) {
            (_, true) => {}
            (Retry::After(after), false) => self.settle_pause.wait(after, self.shared.entropy.u64()),
            (Retry::Never, false) => {
                if let Some(refused) = publish.pop() {
                    self.refused(refused, failure);
                } else {
                    // The consumer is gone, and with it what it was owed.
                    plain.iter().flat_map(Settle::deliveries).for_each(|(position, _)| self.forget(position));
                    return;
                }
            }
        }
        self.settled.splice(..0, plain);
        self.stuck.extend(publish);
    }

    /// Its answer is nothing for the output, and will not be the next time. That of a batch may be for one of its events only,
    /// or for their number: it costs them no delivery, and next each comes alone.
    fn refused(&mut self, mut refused: Settle, failure: &Failure) {
        refused.outputs.clear();
        refused.settlement = if refused.others.is_empty() {
            let reason = format!("its answer cannot be published: {failure}");
            Settlement::DeadLetter { reason }
        } else {
            self.suspect(&refused);
            Settlement::Release
        };
        self.settled.push(refused);
    }

    pub(super) fn pull_failed(&mut self, failure: &Failure) {
        self.failed("pull", failure);
        let after = match failure.retry_after() {
            Retry::After(after) => after,
            Retry::Never => STORE.1,
        };
        self.pull_pause.wait(after, self.shared.entropy.u64());
    }

    /// Says once, for as long as it is so, that events which fail hold up many others of their subjects.
    pub(super) fn say_if_held_up(&mut self) {
        let state = self.consumer.state();
        // What is due while nothing is paused or fails is taken soon; what stays waits behind another.
        let held_up = state.held >= HELD_UP_MAX && (self.held_up || state.retrying > 0);
        if held_up && !self.held_up {
            let (trigger, held, at) = (&self.shared.plan.source, state.held, state.cursor + 1);
            tracing::warn!(
                trigger,
                held,
                at,
                "many events wait behind one of their subject that fails; at 4096 all subjects wait: mend the function, or let it give up sooner with less `retry`"
            );
        }
        self.held_up = held_up;
    }

    pub(super) fn failed(&self, what: &str, failure: &Failure) {
        let text = format!("{what}: {failure}");
        if self.shared.counters.read().last_failure.as_ref() != Some(&text) {
            tracing::warn!(trigger = self.shared.plan.source, failure = ?failure, "cannot {what}; trying again");
        }
        self.shared.counters.failed(&text);
    }
}
