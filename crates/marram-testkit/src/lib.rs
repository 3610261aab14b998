//! A real node in the process of a test, and what tests need around it.
//!
//! [`TestNode`] listens on free ports and keeps its state in a folder of its own; [`check`] is the short way: what is
//! deployed, what is asked, what is expected. [`guest`] finds the components that `make guests` builds. For tests only:
//! everything here panics with what was expected and what came instead.
//!
//! ```no_run
//! # async fn example() {
//! use marram_testkit::{check, expect, get, guest};
//!
//! let manifest = marram_testkit::manifest("shop", &[("price", "price.wasm", "/price/...")]);
//! check(&manifest, &[("price", guest("hello-p2"))], &[(get("/price/7"), expect(200, "Hello from Marram"))]).await;
//! # }
//! ```

#![allow(clippy::unwrap_used)]

mod client;
mod guests;
mod node;
mod s3;
mod wait;

pub use client::{Ask, Client, Reply, get};
pub use guests::guest;
pub use node::{TestNode, manifest};
pub use s3::{S3Chunks, S3Key};
pub use wait::eventually;

/// What an answer has to be.
#[derive(Clone, Debug)]
pub struct Expected {
    status: u16,
    part: String,
}

/// This status, and a body with this text in it.
#[must_use]
pub fn expect(status: u16, part: &str) -> Expected {
    Expected { status, part: part.to_owned() }
}

/// Deploys an app on a node of its own, asks it, and compares.
pub async fn check(manifest: &str, components: &[(&str, std::path::PathBuf)], cases: &[(Ask, Expected)]) {
    let node = TestNode::start().await;
    node.deploy(manifest, components).await.unwrap();
    for (ask, expected) in cases {
        let reply = node.http().send(ask.clone()).await;
        assert_eq!(reply.status, expected.status, "{ask:?} was answered with {reply:?}");
        let found = reply.text().contains(&expected.part);
        assert!(found, "{:?} is not in the answer to {ask:?}: {reply:?}", expected.part);
    }
    node.stop().await;
}
