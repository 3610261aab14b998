//! What guests can do, what they cannot, and what holds them. One binary, because each that links the runtime or the store is large.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test")]

mod components;
mod deploy_errors;
mod host;
mod javascript;
mod limits;
mod outbound;
mod python;
mod small_space;
mod texts;
