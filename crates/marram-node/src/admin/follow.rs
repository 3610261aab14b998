//! Answers that go on until the client or the node ends them: how many there may be, and how each side learns that the
//! other one is gone.

use std::sync::Arc;
use std::time::Duration;

use marram_core::{Failure, Kind};
use tokio::sync::OwnedSemaphorePermit;

use super::Admin;

/// A follower gets an empty line this often, so that either side learns when the other is gone.
pub(super) const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// A place among the followers; it is given back when it is dropped.
pub(super) fn place(admin: &Admin) -> Result<OwnedSemaphorePermit, Failure> {
    Arc::clone(&admin.followers)
        .try_acquire_owned()
        .map_err(|_| Failure::new(Kind::Overloaded, "too many clients follow this node: end one, or try again later"))
}
