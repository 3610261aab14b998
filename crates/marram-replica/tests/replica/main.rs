//! The laws of the replicated types, an oracle, and a simulation of three replicas. One binary, because each that links the runtime or the store is large.

#![allow(clippy::unwrap_used, reason = "a test")]

mod batches;
mod laws;
mod oracle;
mod simulation;
mod support;
