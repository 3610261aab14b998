//! What the host and the JavaScript engine say to each other, in postcard's encoding.
//!
//! The engine is a core WebAssembly module with three exports and never blocks:
//! - `marram_alloc(len) -> ptr` gives room for a message of up to `len` bytes, valid until it is asked for more;
//! - `marram_load(ptr, len) -> packed` takes a [`Load`] and answers with a [`Loaded`];
//! - `marram_turn(ptr, len) -> packed` takes a batch of [`Event`]s, runs JavaScript until it has nothing left to do, and
//!   answers with a batch of [`Action`]s.
//!
//! `packed` is `ptr << 32 | len`; the answer is valid until the next call. A batch is its messages one after the
//! other. The engine ships inside the same binary as the host, so the encoding carries no version.
//!
//! This crate must never read a clock, do I/O, or know about JavaScript values.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "tests"))]
#![forbid(unsafe_code)]

mod batch;
pub mod lines;
mod message;

pub use batch::{Batch, decode, encode, push};
pub use message::{Action, BodyIn, BodyOut, Code, Event, Level, Load, Loaded, Redirect, ScriptError, Sink, Source};

/// An encoding that cannot be read: the two sides were built from different sources.
pub type Malformed = postcard::Error;

/// Splits the `packed` result of an export into pointer and length.
pub fn unpack(packed: u64) -> (u32, u32) {
    ((packed >> 32) as u32, packed as u32)
}

/// Joins a pointer and a length into the result of an export.
pub fn pack(ptr: u32, len: u32) -> u64 {
    u64::from(ptr) << 32 | u64::from(len)
}
