//! What the broker counts, for metrics.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Counters and gauges at one moment.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Counts { $($(#[$doc])* pub $name: u64,)* }

        /// The counters, one atomic each.
        #[derive(Debug, Default)]
        pub(crate) struct Stats { $(pub(crate) $name: AtomicU64,)* }

        impl Stats {
            pub(crate) fn counts(&self) -> Counts {
                Counts { $($name: self.$name.load(Ordering::Relaxed),)* }
            }
        }
    };
}

counters! {
    /// Connections now, those without a CONNECT yet included.
    connections,
    /// Connections ever.
    accepted,
    /// Connections that were refused: at the limit, malformed, not authorized.
    refused,
    /// Sessions now, connected or not.
    sessions,
    /// Subscriptions now.
    subscriptions,
    /// Retained messages now.
    retained,
    /// Messages that clients published.
    received,
    /// Messages that were sent to clients, repetitions included.
    sent,
    /// QoS 1 and 2 messages that were not acknowledged because they could not be kept.
    rejected,
    /// QoS 0 messages that a slow client did not get.
    dropped_slow,
    /// Messages that a session did not get because its queue was full.
    dropped_full,
    /// Messages that a session did not get because they had expired.
    dropped_expired,
    /// Messages that a session did not get because they are larger than its client takes.
    dropped_large,
    /// QoS 0 messages that could not be kept for a stream, or as retained.
    lost,
    /// Messages that were refused for want of permission.
    unauthorized,
    /// Messages that a bridge did not carry, because they never could be.
    bridge_left_out,
    /// Retained messages of a bridge that went over and were not retained, for want of room.
    bridge_unretained,
    /// Packets that were malformed or against the protocol.
    faults,
    /// Commits that failed as a whole.
    commits_failed,
    /// Bytes of messages in memory now.
    memory,
    /// Besides them, bytes of those that were larger than the part of their client.
    reserve,
}

pub(crate) fn add(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Ordering::Relaxed);
}

/// How many there are now.
pub(crate) fn set(counter: &AtomicU64, n: u64) {
    counter.store(n, Ordering::Relaxed);
}

pub(crate) fn sub(counter: &AtomicU64, n: u64) {
    counter.fetch_sub(n, Ordering::Relaxed);
}
