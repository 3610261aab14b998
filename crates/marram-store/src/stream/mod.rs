//! Durable streams of events: what is published is on the disk before anybody is told, and stays until it is settled or, where
//! its stream says so, too old.
//!
//! All changes are operations of the one writer. Others that store something and capture it as an event call [`append`] within
//! their own operation: the two are then durable together or not at all.

// What only keys, MQTT and objects call.
#![cfg_attr(not(test), allow(unused_imports, dead_code))]

mod append;
mod capture;
mod encode;
mod hub;
mod key;
mod ledger;
mod policy;
mod room;
mod seen;

pub(crate) use append::{append, append_all};
pub use capture::Captures;
pub(crate) use encode::Encoded;
pub(crate) use hub::Hub;
pub(crate) use ledger::Ledger;

#[cfg(test)]
mod tests;
