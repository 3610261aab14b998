//! Whether the writer waits for a moment for those whom it has just answered.
//!
//! Callers that write again as soon as they are answered would form two halves otherwise: while the one is committed, the other
//! lines up and comes next, so that each sync is only for half of them. What such callers take to come back is little beside a
//! sync of a slow disk; and where they do not come back, the writer soon stops waiting for them.

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
    /// How often they did not come, one after the other.
    misses: u32,
    /// Groups for which it is not tried again.
    rest: u32,
}

impl Gather {
    /// A commit has taken so long. `waiting` did before its answers were given: the group, and those who had lined up.
    pub(super) fn committed(&mut self, took: Duration, waiting: usize) {
        self.usual = self.usual - self.usual / 8 + took / 8;
        self.expected = waiting;
    }

    /// How long a group of so many waits for others, from the last answers on, and how many it is to be then.
    pub(super) fn window(&mut self, group: usize) -> Option<(Duration, usize)> {
        if group == 0 || group >= self.expected {
            return None;
        }
        if self.rest > 0 {
            self.rest -= 1;
            return None;
        }
        Some(((self.usual / WINDOW_DIVISOR).min(WINDOW_MAX), self.expected))
    }

    /// Lets others go on for a moment; so much of the window is over.
    pub(super) fn pause(passed: Duration) {
        if passed < AWAKE {
            std::thread::yield_now();
        } else {
            std::thread::sleep(NAP);
        }
    }

    /// The group has waited for others.
    pub(super) fn waited(&mut self, all_came: bool) {
        if all_came {
            self.misses = 0;
        } else {
            self.misses = (self.misses + 1).min(MISSES_MAX);
            self.rest = (1 << self.misses) - 1;
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
        let (window, expected) = gather.window(8).expect("half of them are missing");
        assert_eq!(expected, 16);
        assert!(window > us(95) && window <= us(100), "{window:?}");
        gather.waited(true);
        assert!(gather.window(15).is_some());
        assert_eq!(gather.window(16), None);
        assert_eq!(gather.window(17), None);
    }

    #[test]
    fn nobody_waits_for_long() {
        assert_eq!(after(Duration::from_secs(1), 2).window(1), Some((WINDOW_MAX, 2)));
    }

    #[test]
    fn who_is_alone_does_not_wait() {
        assert_eq!(after(us(400), 1).window(1), None);
        assert_eq!(after(us(400), 2).window(0), None, "there is nothing to commit");
        assert_eq!(Gather::default().window(1), None);
    }

    #[test]
    fn where_they_do_not_come_back_it_is_seldom_tried() {
        let mut gather = after(us(400), 16);
        let mut tries = |groups: usize, come: bool| {
            let tried = (0..groups).filter(|_| {
                let tried = gather.window(8).is_some();
                if tried {
                    gather.waited(come);
                }
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
