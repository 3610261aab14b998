//! The store through its public doors, by theme. One binary, because each that links the runtime or the store is large.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test")]

mod collections;
mod crash;
mod damage;
mod deployments;
mod disk_failures;
mod keys;
mod keys_crash;
mod keys_events;
mod keys_model;
mod secrets;
mod streams_crash;
mod support;
