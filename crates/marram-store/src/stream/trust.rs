//! Whether the wall clock is believed when it says that events are old.
//!
//! A node without a battery begins in 1970 and is put right by the network minutes later; a time server may be wrong for a
//! while. What is removed in such a moment does not come back, and what is kept an hour longer harms nobody.

use std::time::{Duration, Instant};

use crate::limits::{CLOCK_JUMP_MIN, CLOCK_TRUSTED_AFTER};

/// The clocks at the last look, and until when the one on the wall is doubted.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Trust {
    last: Option<(Instant, u64)>,
    doubted_until: Option<Instant>,
}

impl Trust {
    /// Looks at both clocks, and says whether age may be a reason to remove something: not for a while after the wall clock has
    /// gone forward by more than the time that passed.
    pub(super) fn look(&mut self, (instant, unix_ns): (Instant, u64)) -> bool {
        if let Some((last, last_unix_ns)) = self.last.replace((instant, unix_ns)) {
            let passed = instant.saturating_duration_since(last);
            let said = Duration::from_nanos(unix_ns.saturating_sub(last_unix_ns));
            if said > passed + CLOCK_JUMP_MIN {
                self.doubted_until = Some(instant + CLOCK_TRUSTED_AFTER);
            }
        }
        self.doubted_until.is_none_or(|until| until <= instant)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jump_forward_is_doubted_for_an_hour() {
        let (mut trust, begin) = (Trust::default(), Instant::now());
        let mut look =
            |seconds: u64, unix_s: u64| trust.look((begin + Duration::from_secs(seconds), unix_s * 1_000_000_000));
        assert!(look(0, 1_000));
        // Time that really passes is believed, however long nobody looked; so is a clock that goes back.
        assert!(look(90_000, 91_000));
        assert!(look(90_001, 91_060));
        assert!(look(90_002, 0));
        assert!(!look(90_003, 1_700_000_000));
        assert!(!look(93_602, 1_700_003_599));
        assert!(look(93_603, 1_700_003_600));
    }
}
