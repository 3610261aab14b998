//! Marram's words and ports.
//!
//! Every other crate meets here: names and digests, the manifest, what can fail and whose fault it is, the limits, and
//! the traits ([`port`]) through which crates that do not know each other work together. Nothing in this crate does
//! I/O, starts a task, or reads a clock.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod accept;
pub mod capture;
pub mod digest;
pub mod event;
pub mod failure;
pub mod hop;
pub mod identity;
pub mod limits;
pub mod manifest;
pub mod name;
pub mod outbound;
pub mod port;
pub mod problem;
pub mod quantity;
pub mod record;
pub mod route;
pub mod stream;
pub mod time;
pub mod trace;

pub use digest::Digest;
pub use event::Event;
pub use failure::{Blame, Failure, Kind, Retry};
pub use identity::FunctionId;
pub use name::Name;
