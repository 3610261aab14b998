//! The timers of an instance, in the order in which they fire: when they are due, and of those that are due together, as
//! they were set. So a timer waits for each that was set before it for the same time or less (html.spec.whatwg.org §8.6).

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use marram_js_abi::Event;
use tokio::task::AbortHandle;
use tokio::time::Instant;
use wasmtime::Result;

use super::engine::State;
use super::live::Live;
use super::operations::check_handles;
use super::tasks::spawn;

/// When a timer is due, and which one it is of all that were set.
type Place = (Instant, u64);

/// What waits, and the task that waits for the first of it. Nothing of it costs an instance that sets no timer.
#[derive(Default)]
pub(super) struct Timers {
    /// The operation of each.
    queue: BTreeMap<Place, u32>,
    places: HashMap<u32, Place>,
    /// How many were set, and how many alarms there were.
    set: u64,
    alarms: u64,
    alarm: Option<Alarm>,
}

/// A task that sleeps until the first timer is due.
struct Alarm {
    at: Instant,
    number: u64,
    task: AbortHandle,
}

impl Timers {
    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    fn set(&mut self, op: u32, due: Instant) {
        self.clear(op);
        self.set += 1;
        let place = (due, self.set);
        self.queue.insert(place, op);
        self.places.insert(op, place);
    }

    fn clear(&mut self, op: u32) {
        if let Some(place) = self.places.remove(&op) {
            self.queue.remove(&place);
        }
    }

    fn first(&self) -> Option<Instant> {
        self.queue.first_key_value().map(|((due, _), _)| *due)
    }

    /// Takes the first timer out, if it is due.
    fn take_due(&mut self, now: Instant) -> Option<u32> {
        let entry = self.queue.first_entry().filter(|entry| entry.key().0 <= now)?;
        let op = entry.remove();
        self.places.remove(&op);
        Some(op)
    }

    /// Forgets all of them.
    pub(super) fn stop(&mut self) {
        if let Some(alarm) = self.alarm.take() {
            alarm.task.abort();
        }
        self.queue.clear();
        self.places.clear();
    }
}

impl<T: State> Live<T> {
    pub(super) fn set_timer(self: &Arc<Self>, op: u32, after: Duration) -> Result<()> {
        let mut shared = self.lock();
        check_handles(&shared)?;
        shared.timers.set(op, Instant::now() + after);
        self.wind(&mut shared.timers);
        Ok(())
    }

    /// Its event may be on its way already; JavaScript does not know the timer any more then.
    pub(super) fn clear_timer(&self, op: u32) {
        // The alarm may find nothing to do.
        self.lock().timers.clear(op);
    }

    /// Has the first timer waited for. A new alarm takes the place of one that would be late.
    fn wind(self: &Arc<Self>, timers: &mut Timers) {
        let Some(at) = timers.first() else { return };
        if timers.alarm.as_ref().is_some_and(|alarm| alarm.at <= at) {
            return;
        }
        timers.alarms += 1;
        let (live, number) = (Arc::downgrade(self), timers.alarms);
        let task = spawn(async move {
            tokio::time::sleep_until(at).await;
            if let Some(live) = live.upgrade()
                && live.ring(number)
            {
                live.drive(|| true).await;
            }
        });
        let Some(task) = task else { return };
        if let Some(late) = timers.alarm.replace(Alarm { at, number, task }) {
            late.task.abort();
        }
    }

    /// Tells JavaScript of every timer that is due, in order, and waits for the next one. Says whether there were any.
    fn ring(self: &Arc<Self>, number: u64) -> bool {
        let mut shared = self.lock();
        // It may have been replaced while it woke up. From here on nobody stops it: what it tells has to be driven.
        if shared.timers.alarm.take_if(|alarm| alarm.number == number).is_none() {
            return false;
        }
        let now = Instant::now();
        let mut any = false;
        while let Some(op) = shared.timers.take_due(now) {
            shared.tell(&Event::Timer { op });
            any = true;
        }
        self.wind(&mut shared.timers);
        any
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timers_are_due_in_the_order_in_which_they_were_set() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut timers = Timers::default();
        for (op, ms) in [(9, 5), (2, 5), (7, 0), (3, 1), (4, 30), (1, 5)] {
            timers.set(op, at(ms));
        }
        timers.clear(2);
        timers.clear(100);
        // Set again, it comes behind those of its time.
        timers.set(9, at(5));
        let due = |timers: &mut Timers, ms| std::iter::from_fn(|| timers.take_due(at(ms))).collect::<Vec<_>>();
        assert_eq!(due(&mut timers, 5), [7, 3, 1, 9]);
        assert_eq!((timers.first(), timers.len()), (Some(at(30)), 1));
        assert!(due(&mut timers, 29).is_empty());
        timers.stop();
        assert_eq!((timers.first(), due(&mut timers, 60)), (None, vec![]));
        assert!(timers.places.is_empty());
    }
}
