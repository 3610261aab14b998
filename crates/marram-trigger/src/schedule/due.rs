//! Which moments are to be fired now. Pure: the clock, the last planned moment and the policy in, moments out.

use marram_core::manifest::Missed;

use super::Cron;
use crate::limits::{MISSED_MAX, ON_TIME};

/// The moments in (`last`, `now`] that are fired, in order. The newest of what came is what is dealt with, whether it is
/// fired or not: `last` is to be that from then on.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Due {
    /// To be fired.
    pub(super) fire: Vec<u64>,
    /// The newest moment that came; `None` if none came.
    pub(super) newest: Option<u64>,
}

/// What is due at `now` if `last` was the last moment that was dealt with.
pub(super) fn due(cron: &Cron, last: u64, now: u64, missed: Missed) -> Due {
    let Some(newest) = cron.at_or_before(now).filter(|newest| *newest > last) else { return Due::default() };
    let on_time = now - newest <= ON_TIME.as_nanos() as u64;
    let fire = match missed {
        Missed::Skip if !on_time => Vec::new(),
        Missed::Skip | Missed::Once => vec![newest],
        Missed::All => {
            let mut fire = vec![newest];
            while fire.len() < MISSED_MAX
                && let Some(before) = fire.last().and_then(|at| cron.at_or_before(at - 1)).filter(|at| *at > last)
            {
                fire.push(before);
            }
            fire.reverse();
            fire
        }
    };
    Due { fire, newest: Some(newest) }
}
