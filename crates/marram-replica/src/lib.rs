//! What replicas agree by: a hybrid logical clock, and data types whose copies become equal whatever order, loss or
//! repetition their changes met on the way.
//!
//! Every type here is a join semilattice: `merge` is commutative, associative and idempotent, and every change returns a
//! *delta*, a small state that has the same effect when it is merged (Almeida, Shoker, Baquero, "Delta State Replicated
//! Data Types", 2018). So a change can be sent once, twice, late, or as part of the whole state.
//!
//! Pure logic: no I/O, no randomness, and the time of day is passed in. Two rules are the caller's:
//!
//! - a change is durable before its delta leaves the node: what was sent must not be forgotten and made differently again;
//! - a [`NodeId`] belongs to one copy of the data. Who restores an old copy takes a new id.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod causal;
mod clock;
mod counter;
mod entry;
mod map;
mod register;
mod set;
mod vector;

pub use causal::Causal;
pub use clock::{ClockError, Hlc, NodeId, REMOTE_DRIFT_MAX_MS, Stamp, Time};
pub use counter::{CounterError, PnCounter};
pub use entry::{Entry, EntryError, Part, Shape};
pub use map::{FieldOutOfRange, Item, MapChange, OrMap};
pub use register::Register;
pub use set::{OrSet, SetChange};
pub use vector::{Context, Dot, VersionVector};
