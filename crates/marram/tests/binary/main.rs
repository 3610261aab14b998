//! The real binary as a child process: what people type and scripts wait for, what comes back, and how it ends.
//!
//! Nothing here sleeps: each wait is for something that is said or answered, with a deadline.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test")]

mod apps;
mod blob;
mod build;
mod compile;
mod doctor;
mod examples;
mod flood;
mod kill;
mod kv;
mod logs;
mod losses;
mod maintenance;
mod mqtt;
mod new;
mod node;
mod output;
mod process;
mod secret;
mod stream;
mod support;
mod templates;
mod up;
mod uploads;
