//! Lines of the log about what may happen a thousand times a second.

use std::time::{Duration, Instant};

/// From one such line to the next.
const SELDOM_TIME: Duration = Duration::from_secs(60);

/// When it is said: at once, and then once a minute at most.
#[derive(Debug, Default)]
pub(crate) struct Seldom {
    said: Option<Instant>,
    unsaid: u64,
}

impl Seldom {
    /// It happens. How often it has since it was said, this time included, if it is to be said now.
    pub(crate) fn happens(&mut self, now: Instant) -> Option<u64> {
        self.unsaid += 1;
        if self.said.is_some_and(|said| now.saturating_duration_since(said) < SELDOM_TIME) {
            return None;
        }
        self.said = Some(now);
        Some(std::mem::take(&mut self.unsaid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_happens_often_is_said_once_a_minute() {
        let (mut seldom, start) = (Seldom::default(), Instant::now());
        let mut at = |seconds| seldom.happens(start + Duration::from_secs(seconds));
        assert_eq!([0, 1, 59, 60, 61, 200].map(&mut at), [Some(1), None, None, Some(3), None, Some(2)]);
    }
}
