//! Every limit of delivery and of schedules, with its reason.

use std::time::Duration;

/// Invocations of one trigger at the same time. More do not make two or four cores faster, and each may hold an answer.
pub(crate) const RUNS_MAX: u32 = 64;
/// Bytes of an answer that is an event, or a batch of them: twice the largest event.
pub(crate) const ANSWER_BYTES_MAX: usize = 2 << 20;
/// Bytes of a batch of events, roughly, before it goes: several of the largest events.
pub(crate) const BATCH_BYTES_MAX: u64 = 4 << 20;
/// Bytes of an answer's text that become a part of the reason.
pub(crate) const REASON_TEXT_BYTES_MAX: usize = 200;
/// The longest `Retry-After` that is passed on; the consumer's back-off bounds it again.
pub(crate) const RETRY_AFTER_MAX: Duration = Duration::from_secs(86_400);
/// The wait before an event is tried again that found no place, and the longest: these do not count as deliveries.
pub(crate) const HOLD: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));
/// The same for a pull or a publish that failed.
pub(crate) const STORE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));
/// Bytes of events that one trigger has pulled and not settled, beside those of the last pull. It pulls no more past that.
pub(crate) const HELD_BYTES_MAX: u64 = 32 << 20;
/// Deliveries of one pull.
pub(crate) const PULL_MAX: usize = 1_024;
/// Settlements of one transaction.
pub(crate) const SETTLE_MAX: usize = 1_024;
/// Events that are delivered alone because a batch with them failed; past this they are found anew.
pub(crate) const SUSPECTS_MAX: usize = 4_096;

/// The wall clock is looked at again at least so often: it can be set, and timers do not notice.
pub(crate) const CLOCK_CHECK: Duration = Duration::from_secs(30);
/// A moment that is no older than this when it is noticed was not missed.
pub(crate) const ON_TIME: Duration = Duration::from_secs(60);
/// Moments that `missed = "all"` makes up for at once, the latest ones.
pub(crate) const MISSED_MAX: usize = 1_000;
/// How long a clock that is behind the last planned moment is taken to be about to be set. After that it is believed.
pub(crate) const CLOCK_BEHIND: Duration = Duration::from_secs(3_600);
/// Events that wait behind another of their subject, past which that is said. At twice as many the store hands out no more.
pub(crate) const HELD_UP_MAX: u64 = 2_048;
