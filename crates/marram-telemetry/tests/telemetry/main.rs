//! What is seen of functions, by theme. One binary, because each that links the runtime or the store is large.

#![allow(clippy::unwrap_used, reason = "a test")]

mod logs;
mod metrics;
mod support;
mod usage;
