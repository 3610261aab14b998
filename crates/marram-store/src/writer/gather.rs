//! Whether the writer waits for a moment for those whom it has just answered.
//!
//! Callers that write again as soon as they are answered would form two halves otherwise: while the one is committed, the other
//! lines up and comes next, so that each sync is only for half of them. So the writer looks once more who has come before it commits,
//! and waits a little for those who are missing: beside a sync of a slow disk that is nothing. Where they do not come back, it
//! soon stops waiting for them.

use std::time::Duration;

/// The part of a commit's usual time that is waited at most.
const WINDOW_DIVISOR: u32 = 4;
/// And never longer than this: callers in this process and in its neighbourhood are back by then.
const WINDOW_MAX: Duration = Duration::from_millis(1);
/// So long the writer stays awake, since to sleep and to wake takes as long as most callers do. Where syncs are quick, nobody waits
/// for longer.
const AWAKE: Duration = Duration::from_micros(200);
/// And looks so often afterwards.
const NAP: Duration = Duration::from_micros(50);
/// After so many times in vain, the longest rest has been reached.
const MISSES_MAX: u32 = 6;

/// How it went so far.
#[derive(Debug, Default)]
pub(super) struct Gather {
    /// What commits usually take: a mean in which an eighth is the last one's.
    usual: Duration,
    /// Those who were answered or left waiting by the last commit.
    expected: usize,
    /// Whether this group waits; not known before nobody more is there.
    waits: Option<bool>,
    /// How often they did not come, one after the other.
    misses: u32,
    /// Groups for which it is not tried again.
    rest: u32,
}

impl Gather {
    /// A commit has taken so long. `waiting` did before its answers were given: the group, and those who had lined up.
    pub(super) fn committed(&mut self, took: Duration, waiting: usize) {
        self.usual = self.usual - self.usual / 8 + took / 8;
        (self.expected, self.waits) = (waiting, None);
    }

    /// Whether others may come to a group of so many.
    pub(super) fn is_open(&self, group: usize) -> bool {
        group < self.expected
    }

    /// Whether a group of so many waits for others, where nobody has come since it last looked. `passed`: since the last answers.
    pub(super) fn waits(&mut self, group: usize, passed: Duration) -> bool {
        if !self.is_open(group) {
            if self.waits == Some(true) {
                self.misses = 0;
            }
            return false;
        }
        // Who has been away for longer was not just answered.
        let in_time = passed < self.window();
        let waits = *self.waits.get_or_insert_with(|| {
            let is_tried = self.rest == 0;
            self.rest = self.rest.saturating_sub(1);
            is_tried && in_time
        });
        if waits && in_time {
            return true;
        }
        if waits {
            self.misses = (self.misses + 1).min(MISSES_MAX);
            self.rest = (1 << self.misses) - 1;
        }
        false
    }

    fn window(&self) -> Duration {
        (self.usual / WINDOW_DIVISOR).min(WINDOW_MAX)
    }

    /// Lets others go on for a moment; so much of the window is over.
    pub(super) fn pause(passed: Duration) {
        if passed < AWAKE {
            std::thread::yield_now();
        } else {
            std::thread::sleep(NAP);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn us(us: u64) -> Duration {
        Duration::from_micros(us)
    }

    /// Commits of so many, each of which took as long, until that is usual.
    fn after(took: Duration, waiting: usize) -> Gather {
        let mut gather = Gather::default();
        (0..100).for_each(|_| gather.committed(took, waiting));
        gather
    }

    #[test]
    fn a_group_waits_for_those_who_were_answered() {
        let mut gather = after(us(400), 16);
        assert!(gather.is_open(8));
        assert!(gather.waits(8, us(10)));
        assert!(gather.waits(15, us(95)));
        assert!(!gather.is_open(16));
        assert!(!gather.waits(16, us(95)));
        gather.committed(us(400), 16);
        assert!(gather.waits(8, us(10)), "they came");
        assert!(!gather.waits(17, us(20)));
    }

    #[test]
    fn nobody_waits_for_long() {
        for (usual, longest) in [(us(400), us(100)), (Duration::from_secs(1), WINDOW_MAX)] {
            let mut gather = after(usual, 2);
            assert!(gather.waits(1, longest - us(1)));
            assert!(!gather.waits(1, longest));
        }
    }

    #[test]
    fn who_comes_late_is_no_miss() {
        let mut gather = after(us(400), 16);
        assert!(!gather.waits(1, Duration::from_secs(1)));
        gather.committed(us(400), 16);
        assert!(gather.waits(8, us(10)));
    }

    #[test]
    fn who_is_alone_does_not_wait() {
        assert!(!after(us(400), 1).waits(1, us(1)));
        assert!(!Gather::default().waits(1, us(1)));
    }

    #[test]
    fn where_they_do_not_come_back_it_is_seldom_tried() {
        let mut gather = after(us(400), 16);
        let mut tries = |groups: usize, come: bool| {
            let tried = (0..groups).filter(|_| {
                let tried = gather.waits(8, us(10));
                let group = if come { 16 } else { 8 };
                assert!(!gather.waits(group, us(100)));
                gather.committed(us(400), 16);
                tried
            });
            tried.count()
        };
        assert_eq!(tries(2 + 4 + 8 + 16 + 32, false), 5);
        assert_eq!(tries(640, false), 10);
        // From the first time on that they do, each group waits again.
        tries(64, true);
        assert_eq!(tries(10, true), 10);
    }
}
