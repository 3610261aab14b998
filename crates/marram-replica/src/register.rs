//! The last-writer-wins register.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::Stamp;

/// What the latest write left: a value, or nothing where it was a removal. The expiry is part of the write and travels with
/// it, so that every copy lets go of the value at the same time.
///
/// The order is that of the stamps. Two writes never share one; should a node's id be in use twice after all, the values
/// decide, so that copies still become equal.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct Register {
    /// Which write. The default is before every write.
    pub stamp: Stamp,
    /// What it wrote; `None` is a removal.
    pub value: Option<Bytes>,
    /// From then on there is nothing; nanoseconds since the Unix epoch.
    pub expires_unix_ns: Option<u64>,
}

impl Register {
    /// Whether the time of what was written is over.
    #[must_use]
    pub fn expired(&self, now_unix_ns: u64) -> bool {
        self.expires_unix_ns.is_some_and(|expires| expires <= now_unix_ns)
    }

    /// The join: the later write.
    pub fn merge(&mut self, other: &Self) {
        if other > self {
            self.clone_from(other);
        }
    }
}
