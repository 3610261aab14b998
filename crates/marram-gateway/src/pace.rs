//! Keeps clients that ignore `retry-after` from taking the node's time from others.
//!
//! A refusal for want of a place is answered at once. A request for the same function that comes on the same connection
//! before the `retry-after` of that refusal is over has not waited as it was asked to: it waits here for the rest of it,
//! and is tried then. A client that honours `retry-after` never notices; one that hammers gets about one try a second
//! and connection, and costs a timer instead of a core.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::Target;

/// Functions remembered on a connection. Past these the one that is over first is forgotten.
const REMEMBERED_MAX: usize = 8;

/// The refusals on a connection.
#[derive(Default)]
pub(crate) struct Pace {
    /// Whether there is any: all that most requests look at.
    any: AtomicBool,
    refusals: Mutex<Vec<(usize, Instant)>>,
}

impl Pace {
    /// How long a request to `target` has to wait.
    pub(crate) fn wait(&self, target: &Arc<Target>, now: impl FnOnce() -> Instant) -> Option<Duration> {
        if !self.any.load(Relaxed) {
            return None;
        }
        let now = now();
        let mut refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        refusals.retain(|(_, until)| *until > now);
        self.any.store(!refusals.is_empty(), Relaxed);
        refusals.iter().find(|(refused, _)| *refused == key(target)).map(|(_, until)| *until - now)
    }

    /// Notes that `target` refused a request and asked for this patience.
    pub(crate) fn refused(&self, target: &Arc<Target>, until: Instant) {
        let mut refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        refusals.retain(|(refused, _)| *refused != key(target));
        if refusals.len() == REMEMBERED_MAX
            && let Some(first) = (0..refusals.len()).min_by_key(|at| refusals[*at].1)
        {
            refusals.swap_remove(first);
        }
        refusals.push((key(target), until));
        self.any.store(true, Relaxed);
    }
}

/// The wait, and up to a half of it more: clients that were refused at the same moment are not to come back at the same
/// moment.
pub(crate) fn spread(wait: Duration, random: u64) -> Duration {
    wait + wait.mul_f64((random >> 32) as f64 / f64::from(u32::MAX) / 2.0)
}

/// Identifies a target for as long as a refusal is remembered; a coincidence with a later one costs a second's wait.
fn key(target: &Arc<Target>) -> usize {
    Arc::as_ptr(target) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_never_shorter_and_at_most_half_as_long_again() {
        let wait = Duration::from_secs(1);
        assert_eq!(spread(wait, 0), wait);
        assert_eq!(spread(wait, u64::MAX), wait * 3 / 2);
        let middle = spread(wait, 1 << 63);
        assert!(middle > wait * 124 / 100 && middle < wait * 126 / 100, "{middle:?}");
    }
}
