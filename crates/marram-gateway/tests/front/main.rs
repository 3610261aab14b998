//! The front over real sockets, with functions that are closures.

mod answers;
mod bytes;
mod drain;
mod http2;
mod limits;
mod requests;
mod routes;
mod streams;
mod support;
