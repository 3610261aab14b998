//! A node: the one crate that knows all the others and joins them.
//!
//! [`NodeConfig`] says what a node is, [`Node::start`] brings it up, [`Node::deploy`] puts an app on it, and
//! [`Node::drain`] ends it without dropping a request. The admin API ([`api`] are its types) does the same over HTTP.
//! A node needs no network to boot and to serve, and it never exits the process: that is `main`'s.

mod admin;
pub mod api;
mod config;
mod desired;
mod node;
mod observer;
mod package;
mod reconcile;
mod system;
mod unavailable;

pub use admin::openapi;
pub use config::{ConfigError, NodeConfig, TlsFiles, Token};
pub use node::Node;
pub use package::{ComponentSource, Package};
