//! Whether the disk is quick enough to be waited for on the thread of who writes.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};
use std::time::Duration;

/// A commit that usually takes no longer is waited for on the caller's thread. Two changes of threads take 20 to 150 µs; and what
/// holds a thread of the runtime for a tenth of a tick holds up nobody whom guests do not hold up for longer.
const QUICK: Duration = Duration::from_micros(500);
/// So many commits of one write each have to come one after the other before the next is taken to be alone, too.
const ALONE_STREAK: u32 = 8;
/// After so many commits on callers' threads the writer's own looks whether the log is long; and after one that was not quick, as
/// large ones are not.
const COMMITS_PER_LOOK: u32 = 64;

/// How the last commits went. Changed by one at a time, who has the transaction.
#[derive(Debug)]
pub(super) struct Quick {
    /// How many were of one write, up to the last one.
    alone: AtomicU32,
    /// What those usually took: a mean in which an eighth is the last one's.
    usual_ns: AtomicU64,
    /// Whether the last one was not quick.
    was_long: AtomicBool,
}

impl Quick {
    /// Nobody knows the disk yet.
    pub(super) fn new() -> Self {
        Self { alone: AtomicU32::new(0), usual_ns: AtomicU64::new(LONGEST_NS), was_long: AtomicBool::new(false) }
    }

    /// A commit of one write has taken so long.
    pub(super) fn alone(&self, took: Duration) {
        self.alone.fetch_add(1, Relaxed);
        self.was_long.store(took > QUICK, Relaxed);
        // One that took very long is one: a disk has such moments.
        let took = u64::try_from(took.as_nanos()).unwrap_or(LONGEST_NS).min(LONGEST_NS);
        let usual = self.usual_ns.load(Relaxed);
        self.usual_ns.store(usual - usual / 8 + took / 8, Relaxed);
    }

    /// A commit of several writes, or one that failed.
    pub(super) fn other(&self) {
        self.alone.store(0, Relaxed);
    }

    /// Whether the next write is for its own thread.
    pub(super) fn is_likely(&self) -> bool {
        self.alone.load(Relaxed) >= ALONE_STREAK && self.usual_ns.load(Relaxed) <= QUICK.as_nanos() as u64
    }

    /// Whether the writer's thread has to look at the log.
    pub(super) fn is_time_to_look(&self) -> bool {
        self.alone.load(Relaxed).is_multiple_of(COMMITS_PER_LOOK) || self.was_long.load(Relaxed)
    }

    /// As if it had been so for long.
    #[cfg(test)]
    pub(super) fn believe(&self) {
        self.alone.fetch_add(ALONE_STREAK, Relaxed);
        self.usual_ns.store(0, Relaxed);
    }
}

/// The most that one commit counts for.
const LONGEST_NS: u64 = 2 * QUICK.as_nanos() as u64;

#[cfg(test)]
mod tests {
    use super::*;

    const fn us(us: u64) -> Duration {
        Duration::from_micros(us)
    }

    #[test]
    fn what_is_usual_counts_and_not_the_last_one() {
        let quick = Quick::new();
        (0..5).for_each(|_| quick.alone(us(100)));
        assert!(!quick.is_likely(), "it was not known for long");
        (0..5).for_each(|_| quick.alone(us(100)));
        assert!(quick.is_likely());
        // The disk has a moment; then it has become slow; then it is quick again.
        quick.alone(Duration::from_secs(1));
        assert!(quick.is_likely());
        (0..8).for_each(|_| quick.alone(us(2_000)));
        assert!(!quick.is_likely());
        (0..8).for_each(|_| quick.alone(us(200)));
        assert!(quick.is_likely());
        (0..100).for_each(|_| quick.alone(us(550)));
        assert!(!quick.is_likely());
    }

    #[test]
    fn the_log_is_looked_at_now_and_then_and_after_what_took_long() {
        let quick = Quick::new();
        let looks = (1..=128).filter(|_| {
            quick.alone(us(100));
            quick.is_time_to_look()
        });
        assert_eq!(looks.collect::<Vec<_>>(), [64, 128]);
        quick.alone(us(501));
        assert!(quick.is_time_to_look());
        quick.alone(us(500));
        assert!(!quick.is_time_to_look());
    }

    #[test]
    fn who_was_not_alone_is_not_expected_to_be() {
        let quick = Quick::new();
        quick.believe();
        assert!(quick.is_likely());
        quick.other();
        for _ in 0..8 {
            assert!(!quick.is_likely());
            quick.alone(us(10));
        }
        assert!(quick.is_likely());
    }
}
