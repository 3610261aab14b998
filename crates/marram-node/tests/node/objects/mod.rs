//! Objects through a whole node: other people's S3 clients, functions that react, the admin API, and clients that misbehave.

mod admin;
mod bad_input;
mod clients;
mod deletes;
mod events;
mod functions;
mod hostile;
mod ranges;
mod refused;
mod said;
mod streamed;
mod trailers;

use std::net::SocketAddr;

use marram_node::{S3Config, S3Key};
use marram_testkit::TestNode;

pub(crate) const SECRET: &str = "a-secret-of-32-visible-characters";

/// An access key with these buckets.
pub(crate) fn key(id: &str, read: &[&str], write: &[&str]) -> S3Key {
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    S3Key { id: id.into(), secret: Some(SECRET.into()), secret_file: None, read: names(read), write: names(write) }
}

/// A node with an S3 API, and these keys.
pub(crate) async fn start(keys: Vec<S3Key>) -> TestNode {
    TestNode::start_with(|config| {
        config.s3 = S3Config { listen: Some("127.0.0.1:0".parse().unwrap()), keys, ..S3Config::default() };
    })
    .await
}

/// Where its S3 API is.
pub(crate) fn endpoint(node: &TestNode) -> String {
    node.node().urls().iter().find(|(name, _)| *name == "s3").unwrap().1.clone()
}

pub(crate) fn address(node: &TestNode) -> SocketAddr {
    endpoint(node).strip_prefix("http://").unwrap().parse().unwrap()
}
