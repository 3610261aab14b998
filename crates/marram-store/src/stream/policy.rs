//! Policies as the disk has them.

use std::time::Duration;

use marram_core::stream::{Overflow, StreamPolicy};
use rusqlite::Row;

use crate::StoreError;

/// The columns `bytes_max, age_ns, overflow, dedupe_ns`. What is more than a column holds counts as the most.
pub(super) fn stream_columns(policy: &StreamPolicy) -> [i64; 4] {
    let overflow = match policy.overflow {
        Overflow::Reject => 0,
        Overflow::DropOldest => 1,
    };
    [i64::try_from(policy.bytes_max).unwrap_or(i64::MAX), nanos(policy.age_max), overflow, nanos(policy.dedupe)]
}

/// The policy of a row whose columns begin at `at`.
pub(super) fn stream_from_row(row: &Row<'_>, at: usize) -> Result<StreamPolicy, StoreError> {
    Ok(StreamPolicy {
        bytes_max: row.get(at)?,
        age_max: Duration::from_nanos(row.get(at + 1)?),
        overflow: if row.get::<_, i64>(at + 2)? == 0 { Overflow::Reject } else { Overflow::DropOldest },
        dedupe: Duration::from_nanos(row.get(at + 3)?),
    })
}

fn nanos(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}
