//! CPU time of guests: measured around each poll, and looked at once a tick while a guest runs on, which is where a limit
//! is enforced. Fuel would count instructions at two to three times the cost.
//!
//! The thread's CPU clock is exact, and reading it is a system call that costs as much as a small part of a small run. A
//! poll that nothing interrupts takes as much wall time as CPU time, and wall time costs next to nothing to read. So a
//! short poll is charged its wall time, and of a longer one the CPU clock tells whether the thread was interrupted. The
//! clock is read at the end of such a poll and, for where it began, taken from the last time that this thread read it: at
//! most [`READING_AGE_NS`] before. A poll is thus never charged too little; it is charged too much only if its thread was
//! interrupted in it, and by no more than [`SHORT_NS`] or [`READING_AGE_NS`].

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use rustix::time::{ClockId, clock_gettime};

/// Up to here a poll is charged its wall time. A thread that is interrupted by another is away for milliseconds.
const SHORT_NS: u64 = 100_000;
/// How old a reading of the CPU clock may be when a poll begins. A busy thread reads it this often, for half a percent.
const READING_AGE_NS: u64 = 200_000;

/// What a thread's two clocks showed at the same moment, in nanoseconds.
#[derive(Clone, Copy, Default)]
struct Reading {
    wall_ns: u64,
    cpu_ns: u64,
}

thread_local! {
    static LAST: Cell<Reading> = const { Cell::new(Reading { wall_ns: 0, cpu_ns: 0 }) };
}

impl Reading {
    fn take(wall_ns: u64) -> Self {
        let reading = Self { wall_ns, cpu_ns: clock_ns(ClockId::ThreadCPUTime) };
        LAST.set(reading);
        reading
    }
}

/// The beginning of a poll, on the thread that polls.
#[derive(Clone, Copy, Default)]
struct Mark {
    wall_ns: u64,
    /// The CPU clock then, or shortly before.
    cpu_ns: u64,
}

impl Mark {
    fn now() -> Self {
        let wall_ns = wall_ns();
        let last = LAST.get();
        let fresh = wall_ns.saturating_sub(last.wall_ns) <= READING_AGE_NS;
        let reading = if fresh { last } else { Reading::take(wall_ns) };
        Self { wall_ns, cpu_ns: reading.cpu_ns }
    }

    fn used_ns(self) -> u64 {
        let now_ns = wall_ns();
        let wall_ns = now_ns.saturating_sub(self.wall_ns);
        if wall_ns <= SHORT_NS { wall_ns } else { self.used_exactly_ns(now_ns) }
    }

    /// By the CPU clock, however short it was: never more than [`Self::used_ns`] says from then on.
    fn used_exactly_ns(self, now_ns: u64) -> u64 {
        let cpu_ns = Reading::take(now_ns).cpu_ns.saturating_sub(self.cpu_ns);
        cpu_ns.min(now_ns.saturating_sub(self.wall_ns))
    }
}

fn wall_ns() -> u64 {
    clock_ns(ClockId::Monotonic)
}

fn clock_ns(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0)
}

/// When the poll of an instance that is going on began, and how much it may use; and what the instance holds, which its
/// limiter counts and who pays for the poll is told.
#[derive(Default)]
pub(crate) struct PollClock {
    wall_ns: AtomicU64,
    cpu_ns: AtomicU64,
    allowed_ns: AtomicU64,
    memory_bytes: AtomicU64,
}

impl PollClock {
    /// Whether the poll that is going on has used more than it may. Called from the epoch callback, on the same thread.
    pub(crate) fn is_over(&self) -> bool {
        let begun = Mark { wall_ns: self.wall_ns.load(Ordering::Relaxed), cpu_ns: self.cpu_ns.load(Ordering::Relaxed) };
        begun.used_exactly_ns(wall_ns()) > self.allowed_ns.load(Ordering::Relaxed)
    }

    /// How much the poll that is going on, or the next one, may use.
    pub(crate) fn allow_ns(&self, ns: u64) {
        self.allowed_ns.store(ns, Ordering::Relaxed);
    }

    /// Linear memory of the instance. It never shrinks, so this is also the peak.
    pub(crate) fn memory_bytes(&self) -> u64 {
        self.memory_bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn set_memory_bytes(&self, bytes: u64) {
        self.memory_bytes.store(bytes, Ordering::Relaxed);
    }
}

/// Who pays for the CPU time of a poll.
pub(crate) trait Account {
    /// A poll begins: how much it may use, in nanoseconds.
    fn allowed_ns(&self) -> u64;
    /// It has ended: what it has used, and how much memory its instance has now, in bytes.
    fn charge(&self, ns: u64, memory_bytes: u64);
}

/// Polls a guest's future and charges its CPU time.
pub(crate) fn poll_charged<F: Future + ?Sized>(
    guest: Pin<&mut F>,
    clock: &PollClock,
    account: &(impl Account + ?Sized),
    cx: &mut Context<'_>,
) -> Poll<F::Output> {
    clock.allow_ns(account.allowed_ns());
    let begun = Mark::now();
    clock.wall_ns.store(begun.wall_ns, Ordering::Relaxed);
    clock.cpu_ns.store(begun.cpu_ns, Ordering::Relaxed);
    let result = guest.poll(cx);
    account.charge(begun.used_ns(), clock.memory_bytes());
    result
}

/// Shared by the poller and the store's epoch callback.
pub(crate) type SharedPollClock = Arc<PollClock>;

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    fn work_until(end: Instant) {
        while Instant::now() < end {
            std::hint::spin_loop();
        }
    }

    #[test]
    fn work_is_charged_in_short_polls_and_in_long_ones() {
        for span in [Duration::from_micros(50), Duration::from_millis(20)] {
            let (begun, cpu_ns) = (Mark::now(), clock_ns(ClockId::ThreadCPUTime));
            work_until(Instant::now() + span);
            let (used_ns, exact_ns) = (begun.used_ns(), clock_ns(ClockId::ThreadCPUTime) - cpu_ns);
            let least_ns = exact_ns.saturating_sub(20_000);
            assert!((least_ns..exact_ns + 2 * READING_AGE_NS).contains(&used_ns), "{used_ns} of {exact_ns}");
        }
    }

    #[test]
    fn what_is_charged_is_never_less_than_what_a_limit_was_held_against() {
        for span in [Duration::ZERO, Duration::from_micros(50), Duration::from_millis(1)] {
            let begun = Mark::now();
            work_until(Instant::now() + span);
            let held_ns = begun.used_exactly_ns(wall_ns());
            let charged_ns = begun.used_ns();
            assert!(charged_ns >= held_ns, "{charged_ns} of {held_ns}");
        }
    }

    #[test]
    fn waiting_is_not_charged() {
        work_until(Instant::now() + Duration::from_millis(1));
        let begun = Mark::now();
        std::thread::sleep(Duration::from_millis(30));
        let used = Duration::from_nanos(begun.used_ns());
        assert!(used < Duration::from_millis(5), "{used:?}");
    }

    #[test]
    fn a_reading_from_long_ago_is_not_used() {
        LAST.set(Reading::default());
        let begun = Mark::now();
        work_until(Instant::now() + Duration::from_micros(200));
        let used = Duration::from_nanos(begun.used_ns());
        assert!(used < Duration::from_millis(100), "{used:?}");
    }
}
