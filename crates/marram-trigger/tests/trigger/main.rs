//! Triggers on streams that can be held and failed, by theme. One binary, because each that links the runtime or the store is large.

#![allow(clippy::unwrap_used, reason = "a test")]

mod batches;
mod deliver;
mod schedule;
mod set;
mod support;
mod wiring;
