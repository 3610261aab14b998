//! What the loop starts: runs, pulls, settlements, and the beat that says that somebody is still at it.

use std::sync::Arc;

use futures::FutureExt as _;
use marram_core::port::streams::{Delivery, Settle, Settlement};
use tokio::time::Instant;

use super::{Engine, Held, settle};
use crate::deliver::{request, run};
use crate::limits::{BATCH_BYTES_MAX, HELD_BYTES_MAX, PULL_MAX, SETTLE_MAX};

impl Engine {
    pub(super) fn take(&mut self, delivery: Delivery) {
        let (position, attempt) = (delivery.stored.position, delivery.attempt);
        let bytes = delivery.stored.event.size();
        self.forget(position);
        self.held.insert(position, Held { attempt, bytes });
        self.held_bytes += bytes;
        if self.shared.plan.batch.is_some() && self.suspects.contains(&delivery.stored.position) {
            return self.alone.push_back(delivery);
        }
        if self.waiting.is_empty() {
            self.first_waits_since = Instant::now();
        }
        self.waiting_bytes += request::size(&delivery.stored.event);
        self.waiting.push_back(delivery);
    }

    /// Starts as many runs as there may be. Nothing starts while an answer waits to be published: answers are in memory.
    pub(super) fn start_runs(&mut self) {
        let runs_max = self.shared.plan.runs_max(&self.shared.target.load());
        while self.runs.len() < runs_max && self.stuck.is_empty() {
            let next = match self.alone.pop_front() {
                Some(delivery) => vec![delivery],
                None => self.next_batch(),
            };
            if next.is_empty() {
                return;
            }
            self.running += next.len();
            self.runs.spawn(run::run(Arc::clone(&self.shared), next));
        }
    }

    /// The next event, or the next batch if it is full or has waited long enough.
    pub(super) fn next_batch(&mut self) -> Vec<Delivery> {
        let Some(batch) = self.shared.plan.batch else {
            return self
                .waiting
                .pop_front()
                .into_iter()
                .inspect(|one| self.waiting_bytes -= request::size(&one.stored.event))
                .collect();
        };
        let bytes_max = BATCH_BYTES_MAX.min(self.shared.target.load().body_bytes_max);
        let full = self.waiting.len() >= batch.max as usize || self.waiting_bytes >= bytes_max;
        let due = self.batch_due().is_some_and(|due| due <= self.now);
        if !(full || due) {
            return Vec::new();
        }
        let (mut next, mut bytes) = (Vec::with_capacity(self.waiting.len().min(batch.max as usize)), 0);
        while next.len() < batch.max as usize
            && let Some(delivery) = self.waiting.front()
        {
            let size = request::size(&delivery.stored.event);
            if !next.is_empty() && bytes + size > bytes_max {
                break;
            }
            bytes += size;
            next.extend(self.waiting.pop_front());
        }
        self.waiting_bytes -= bytes;
        self.first_waits_since = self.now;
        next
    }

    /// Asks for as much as there is room for: what can run, and as much again, so that there is always a next one.
    pub(super) fn start_pull(&mut self) {
        let full = self.held_bytes >= HELD_BYTES_MAX || !self.stuck.is_empty();
        if self.pulling.is_some() || full || !self.pull_pause.is_over(self.now) {
            return;
        }
        let each = self.shared.plan.batch.map_or(1, |batch| batch.max as usize);
        let runs_max = self.shared.plan.runs_max(&self.shared.target.load());
        let room = (2 * runs_max * each).saturating_sub(self.running + self.waiting.len() + self.alone.len());
        // A few at a time cost as much as many: it waits until a good part is free.
        if room * 4 < runs_max * each {
            return;
        }
        let (consumer, max) = (Arc::clone(&self.consumer), room.min(PULL_MAX));
        self.pulling = Some(async move { consumer.pull(max).await }.boxed());
    }

    pub(super) fn start_settle(&mut self) {
        if self.settling.is_some() || !self.settle_pause.is_over(self.now) {
            return;
        }
        let group: Vec<_> = if !self.settled.is_empty() {
            let mut deliveries = 0;
            let fits = |settle: &&Settle| {
                deliveries += settle.count();
                deliveries <= SETTLE_MAX
            };
            // One settlement is never cut, and no batch has more than that.
            let whole = self.settled.iter().take_while(fits).count().max(1);
            self.settled.drain(..whole).collect()
        } else {
            self.stuck.pop_front().into_iter().collect()
        };
        if !group.is_empty() {
            let consumer = Arc::clone(&self.consumer);
            self.settling = Some(async move { (group.clone(), consumer.settle(group).await) }.boxed());
        }
    }

    /// Says of everything that is here that somebody is still at it.
    pub(super) fn start_beat(&mut self) {
        if self.held.is_empty() || self.beating.is_some() {
            return;
        }
        let at_it = |(position, held): (&u64, &Held)| Settle {
            position: *position,
            attempt: held.attempt,
            ..settle(Settlement::InProgress)
        };
        let (consumer, settles) = (Arc::clone(&self.consumer), self.held.iter().map(at_it).collect());
        self.beating = Some(async move { consumer.settle(settles).await }.boxed());
    }
}
