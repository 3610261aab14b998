//! The task of one schedule: it sleeps until the next moment, publishes what is due, and writes down how far it is.

use std::sync::Arc;
use std::time::{Duration, Instant};

use marram_core::Failure;
use marram_core::port::{Clock, Entropy, Kv, Streams};
use marram_core::stream::StreamName;
use tokio_util::sync::CancellationToken;

use super::due::due;
use super::{Schedule, mark};
use crate::deliver::spread;
use crate::limits::{CLOCK_BEHIND, CLOCK_CHECK, STORE};

/// What a timer works with.
pub struct Timer {
    /// What comes, and when.
    pub schedule: Schedule,
    /// Where it is published.
    pub streams: Arc<dyn Streams>,
    /// Where the last planned moment is kept.
    pub kv: Arc<dyn Kv>,
    /// Time of day.
    pub clock: Arc<dyn Clock>,
    /// How waits are spread.
    pub entropy: Arc<dyn Entropy>,
    /// Ends it.
    pub stop: CancellationToken,
}

impl Timer {
    /// The last planned moment that was dealt with; a new schedule begins now. Durable when it resolves.
    pub async fn prepare(&self) -> Result<u64, Failure> {
        if let Some(last) = mark::load(&*self.kv, &self.schedule)? {
            let (streams, schedule) = (Arc::clone(&self.streams), self.schedule.clone());
            let read = tokio::task::spawn_blocking(move || mark::published_since(&streams, &schedule, last));
            return read.await.unwrap_or(Ok(last));
        }
        let now = self.clock.unix_ns();
        mark::store(&*self.kv, &self.schedule, now).await?;
        Ok(now)
    }

    /// Publishes what is due after `last`, and gives the last moment that was dealt with.
    async fn fire(&self, last: u64, now: u64) -> Result<u64, Failure> {
        let due = due(&self.schedule.cron, last, now, self.schedule.missed);
        if !due.fire.is_empty() {
            let events = due.fire.into_iter().map(|planned| self.schedule.event(planned)).collect();
            self.streams.publish(&StreamName::schedule(), events).await?;
        }
        Ok(due.newest.unwrap_or(last))
    }
}

/// How far a timer is.
struct Progress {
    /// The last planned moment that was dealt with.
    last: u64,
    /// The one that is written down.
    written: u64,
    /// Since when the clock is behind.
    behind_since: Option<Instant>,
}

/// Runs a timer from where [`Timer::prepare`] said that it was, until it is stopped.
pub async fn run(timer: Timer, last: u64) {
    let mut progress = Progress { last, written: last, behind_since: None };
    let mut pause = STORE.0;
    while !timer.stop.is_cancelled() {
        let wait = match step(&timer, &mut progress).await {
            Ok(()) => {
                pause = STORE.0;
                let now = timer.clock.unix_ns();
                let next = timer.schedule.cron.after(progress.last.max(now)).unwrap_or(u64::MAX);
                // What came while the last one was published is due at once.
                let due = timer.schedule.cron.after(progress.last).is_some_and(|due| due <= now);
                if due { Duration::ZERO } else { Duration::from_nanos(next.saturating_sub(now)).min(CLOCK_CHECK) }
            }
            Err(failure) => {
                tracing::warn!(schedule = &*timer.schedule.subject, failure = ?failure, "cannot fire; trying again");
                let wait = spread(pause, timer.entropy.u64());
                pause = (pause * 2).min(STORE.1);
                wait
            }
        };
        tokio::select! {
            biased;
            () = timer.stop.cancelled() => {}
            () = tokio::time::sleep(wait) => {}
        }
    }
}

/// Publishes what is due, then writes down that it was. Where only the second fails, only the second is tried again.
async fn step(timer: &Timer, progress: &mut Progress) -> Result<(), Failure> {
    let now = timer.clock.unix_ns();
    if now >= progress.last {
        progress.behind_since = None;
        progress.last = timer.fire(progress.last, now).await?;
    } else if is_believed(timer, progress) {
        tracing::warn!(
            schedule = &*timer.schedule.subject,
            "the clock went back for good: the schedule goes on from here"
        );
        (progress.last, progress.behind_since) = (now, None);
    }
    if progress.written != progress.last {
        mark::store(&*timer.kv, &timer.schedule, progress.last).await?;
        progress.written = progress.last;
    }
    Ok(())
}

/// The clock is behind what was planned last. It is waited for, and in the end believed.
fn is_believed(timer: &Timer, progress: &mut Progress) -> bool {
    let now = timer.clock.instant();
    now.saturating_duration_since(*progress.behind_since.get_or_insert(now)) >= CLOCK_BEHIND
}
