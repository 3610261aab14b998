//! The broker over real sockets, on a journal in memory that can be held, failed and crashed.

#![allow(clippy::unwrap_used, missing_docs)]

mod bad_input;
mod bridging;
mod client;
mod clock;
mod conformance;
mod connecting;
mod delivery;
mod durability;
mod fixture;
mod handover;
mod journal;
mod limits;
mod memory;
mod node;
mod refused;
mod retained;
mod sessions;
mod shares;
mod spares;
mod subscriptions;
mod transports;
mod websocket;
mod wills;
