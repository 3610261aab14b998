//! A whole node in this process, by theme. One binary, because each that links the runtime or the store is large.

#![allow(clippy::unwrap_used, reason = "a test")]

mod admin;
mod bad_input;
mod bridge;
mod busy;
mod collections;
mod deploy;
mod events;
mod hostile;
mod invoke;
mod many;
mod metrics;
mod mqtt;
mod objects;
mod outbound;
mod python;
mod schema;
mod state;
mod swap;
mod tls;
mod toolchains;
mod watch;
