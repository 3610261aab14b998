//! The hybrid logical clock: timestamps that follow the time of day where they can, and causality always
//! (Kulkarni et al., "Logical Physical Clocks", 2014).
//!
//! A timestamp is 48 bits of milliseconds since the Unix epoch and a 16-bit counter. It never goes back: while the wall
//! clock stands still or jumps back, the counter counts on, and a full counter carries into the milliseconds. A wall
//! clock that jumps ahead takes the timestamps with it for good: order is kept, and [`Hlc::ahead_ms`] says by how much, so
//! that somebody can be told. Timestamps from other nodes are taken only up to [`REMOTE_DRIFT_MAX_MS`] ahead: one node
//! with a wrong clock must not drag all the others along.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How far a timestamp of another node may be ahead of what this node takes for now: far more than clocks that are
/// synchronized at all differ by, and far less than what a wrong date does.
pub const REMOTE_DRIFT_MAX_MS: u64 = 60_000;

const COUNTER_BITS: u32 = 16;
const MS_MAX: u64 = (1 << (64 - COUNTER_BITS)) - 1;

/// Which copy of the data: 64 random bits, drawn once for each state directory.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct NodeId(pub u64);

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "n{:x}", self.0)
    }
}

/// A timestamp of the hybrid clock: milliseconds above, counter below. Greater is later.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Time(u64);

impl Time {
    /// The timestamp with these bits, as [`Time::bits`] gave them.
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// All 64 bits, to be kept.
    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// Milliseconds since the Unix epoch.
    #[must_use]
    pub const fn ms(self) -> u64 {
        self.0 >> COUNTER_BITS
    }

    /// Which of the timestamps within the millisecond.
    #[must_use]
    pub const fn counter(self) -> u16 {
        self.0 as u16
    }
}

impl fmt::Debug for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}+{}", self.ms(), self.counter())
    }
}

/// Which write: its timestamp, and who wrote, in the order of last-writer-wins. No two writes share one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Stamp {
    /// When.
    pub time: Time,
    /// Where; decides between two nodes that wrote at the same timestamp.
    pub node: NodeId,
}

impl Stamp {
    /// 16 bytes that sort as stamps do.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 16] {
        ((u128::from(self.time.0) << 64) | u128::from(self.node.0)).to_be_bytes()
    }

    /// The stamp whose [`Stamp::to_bytes`] these are.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        let both = u128::from_be_bytes(bytes);
        Self { time: Time((both >> 64) as u64), node: NodeId(both as u64) }
    }
}

impl fmt::Debug for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}@{:?}", self.time, self.node)
    }
}

/// Why the clock does not take a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClockError {
    /// A timestamp of another node is too far ahead.
    #[error(
        "a timestamp from another node is {ahead_ms} ms ahead of this node's clock, and {max_ms} ms is the most: set the clocks of both nodes right"
    )]
    RemoteAhead {
        /// By how much.
        ahead_ms: u64,
        /// What is allowed.
        max_ms: u64,
    },
    /// The 48 bits of milliseconds are used up (in the year 10889).
    #[error("the clock is past the last time that a timestamp can hold: set the node's clock right")]
    Exhausted,
}

/// The clock of one node. [`Hlc::last`] is what has to be kept; a restored clock goes on after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hlc {
    node: NodeId,
    last: Time,
}

impl Hlc {
    /// The clock of `node`, which has given out no timestamp after `last`.
    #[must_use]
    pub const fn new(node: NodeId, last: Time) -> Self {
        Self { node, last }
    }

    /// Whose clock this is.
    #[must_use]
    pub const fn node(&self) -> NodeId {
        self.node
    }

    /// The latest timestamp that was given out or taken in.
    #[must_use]
    pub const fn last(&self) -> Time {
        self.last
    }

    /// A stamp for a write: later than every one before, and as near to `wall_ms` as that allows.
    pub fn tick(&mut self, wall_ms: u64) -> Result<Stamp, ClockError> {
        let next = self.last.0.checked_add(1).ok_or(ClockError::Exhausted)?;
        if wall_ms > MS_MAX {
            return Err(ClockError::Exhausted);
        }
        self.last = Time(next.max(wall_ms << COUNTER_BITS));
        Ok(Stamp { time: self.last, node: self.node })
    }

    /// Takes note of a timestamp of another node: every later [`Hlc::tick`] is after it. On an error nothing has changed,
    /// and what carried the timestamp must not be taken either.
    pub fn observe(&mut self, remote: Time, wall_ms: u64) -> Result<(), ClockError> {
        let ahead_ms = remote.ms().saturating_sub(self.last.ms().max(wall_ms));
        if ahead_ms > REMOTE_DRIFT_MAX_MS {
            return Err(ClockError::RemoteAhead { ahead_ms, max_ms: REMOTE_DRIFT_MAX_MS });
        }
        self.last = self.last.max(remote);
        Ok(())
    }

    /// How far the clock is ahead of `wall_ms`: some milliseconds under load, more only after the wall clock was set back.
    #[must_use]
    pub const fn ahead_ms(&self, wall_ms: u64) -> u64 {
        self.last.ms().saturating_sub(wall_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY_MS: u64 = 86_400_000;
    const NOW_MS: u64 = 1_790_000_000_000;

    fn clock() -> Hlc {
        Hlc::new(NodeId(7), Time::default())
    }

    #[test]
    fn it_follows_the_wall_clock_and_counts_within_a_millisecond() {
        let mut clock = clock();
        let times = [NOW_MS, NOW_MS, NOW_MS + 1].map(|wall| clock.tick(wall).unwrap().time);
        assert_eq!(times.map(|time| (time.ms(), time.counter())), [(NOW_MS, 0), (NOW_MS, 1), (NOW_MS + 1, 0)]);
    }

    #[test]
    fn a_wall_clock_that_jumps_a_day_ahead_and_back_changes_no_order() {
        let mut clock = clock();
        let walls = [NOW_MS, NOW_MS + DAY_MS, NOW_MS, 0, NOW_MS + 1, NOW_MS + DAY_MS + 5];
        let stamps = walls.map(|wall| clock.tick(wall).unwrap());
        assert!(stamps.is_sorted_by(|a, b| a < b), "{stamps:?}");
        assert_eq!(stamps[5].time.ms(), NOW_MS + DAY_MS + 5);
        assert_eq!((clock.ahead_ms(NOW_MS), clock.ahead_ms(NOW_MS + 2 * DAY_MS)), (DAY_MS + 5, 0));
    }

    #[test]
    fn a_full_counter_carries() {
        let mut clock = clock();
        let first = clock.tick(NOW_MS).unwrap();
        let last = (0..0x1_0000).map(|_| clock.tick(NOW_MS).unwrap()).last().unwrap();
        assert_eq!((last.time.ms(), last.time.counter()), (NOW_MS + 1, 0));
        assert!(last > first && clock.tick(NOW_MS + 1).unwrap() > last);
    }

    #[test]
    fn a_restored_clock_goes_on_after_what_it_gave_out() {
        let mut before = clock();
        let stamp = before.tick(NOW_MS + DAY_MS).unwrap();
        let mut after = Hlc::new(NodeId(7), Time::from_bits(before.last().bits()));
        assert!(after.tick(NOW_MS).unwrap() > stamp);
    }

    #[test]
    fn a_remote_time_is_taken_up_to_the_cap() {
        let mut clock = clock();
        let at = |ms: u64| Time::from_bits(ms << COUNTER_BITS);
        clock.observe(at(NOW_MS + REMOTE_DRIFT_MAX_MS), NOW_MS).unwrap();
        assert!(clock.tick(NOW_MS).unwrap().time > at(NOW_MS + REMOTE_DRIFT_MAX_MS));

        let before = clock.clone();
        let far = at(NOW_MS + 2 * REMOTE_DRIFT_MAX_MS + 1);
        let error = clock.observe(far, NOW_MS).unwrap_err();
        assert_eq!(error, ClockError::RemoteAhead { ahead_ms: REMOTE_DRIFT_MAX_MS + 1, max_ms: REMOTE_DRIFT_MAX_MS });
        assert_eq!(clock, before);
        // One from the past changes nothing.
        clock.observe(at(5), NOW_MS).unwrap();
        assert_eq!(clock, before);
    }

    #[test]
    fn the_end_of_time_is_an_error_and_not_a_wrap() {
        assert_eq!(clock().tick(MS_MAX + 1), Err(ClockError::Exhausted));
        assert!(clock().tick(MS_MAX).is_ok());
        assert_eq!(Hlc::new(NodeId(1), Time(u64::MAX)).tick(0), Err(ClockError::Exhausted));
    }

    proptest::proptest! {
        #[test]
        fn bytes_sort_as_stamps_do(a: (u64, u64), b: (u64, u64)) {
            let [a, b] = [a, b].map(|(time, node)| Stamp { time: Time(time), node: NodeId(node) });
            proptest::prop_assert_eq!(a.cmp(&b), a.to_bytes().cmp(&b.to_bytes()));
            proptest::prop_assert_eq!(Stamp::from_bytes(a.to_bytes()), a);
        }

        /// Whatever the wall clock and other nodes do, stamps only grow.
        #[test]
        fn stamps_only_grow(steps in proptest::collection::vec((0u64..MS_MAX, 0u64..u64::MAX), 1..100)) {
            let mut clock = clock();
            let mut last = Stamp::default();
            for (wall, remote) in steps {
                let taken = clock.observe(Time(remote), wall).is_ok();
                let Ok(stamp) = clock.tick(wall) else { continue };
                proptest::prop_assert!(stamp > last && (!taken || stamp.time > Time(remote)));
                last = stamp;
            }
        }
    }
}
