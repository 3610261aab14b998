//! What the broker is given: time and randomness.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use marram_core::port::{Clock, Entropy};

/// The real time, shifted.
#[derive(Default)]
pub struct Time(AtomicU64);

impl Time {
    /// As if this much later.
    pub fn later(by: Duration) -> Self {
        Self(AtomicU64::new(by.as_nanos() as u64))
    }

    /// Sets the wall clock forward, or back. Time passes as it did.
    pub fn jump(&self, seconds: i64) {
        self.0.fetch_add((seconds * 1_000_000_000) as u64, Ordering::Relaxed);
    }
}

impl Clock for Time {
    fn unix_ns(&self) -> u64 {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos() as u64;
        now.wrapping_add(self.0.load(Ordering::Relaxed))
    }

    fn instant(&self) -> Instant {
        Instant::now()
    }
}

/// Counts; unlike from one start to the next because of the time.
pub struct Dice(AtomicU64);

impl Default for Dice {
    fn default() -> Self {
        Self(AtomicU64::new(Time::default().unix_ns()))
    }
}

impl Entropy for Dice {
    fn u64(&self) -> u64 {
        self.0.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed)
    }
}
