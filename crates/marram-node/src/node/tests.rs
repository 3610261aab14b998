//! What only somebody who reaches the store of a running node can bring about.

#![allow(clippy::unwrap_used)]

use http::Method;
use marram_testkit::{Ask, Client, guest, manifest};

use super::*;

/// SQLite's own limit on its file: it reports a full disk, as it would for the real one.
async fn set_pages_max(node: &Node, pages: i64) {
    let writer = node.parts.store.writer();
    let set = writer.write(move |db| Ok(db.pragma_update_and_check(None, "max_page_count", pages, |_| Ok(()))?));
    set.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_changes_until_there_is_space_and_serves_on() {
    let state = tempfile::tempdir().unwrap();
    let free = "127.0.0.1:0".parse().unwrap();
    let config = NodeConfig { listen: free, admin: free, state: state.path().join("state"), ..NodeConfig::default() };
    let node = Node::start(NodeConfig { instances: 64, ..config }).await.unwrap();
    let (http, admin) = (Client::new(node.http_addr()), Client::new(node.admin_addr()));
    let package = |comment: &str| Package {
        manifest: manifest("shop", &[("price", "price.wasm", "/price")]) + "# " + comment,
        components: [("price".to_owned(), ComponentSource::Path(guest("hello-p2")))].into(),
    };
    let first = node.deploy(package("first")).await.unwrap().revision;

    set_pages_max(&node, 1).await;
    let large = "x".repeat(500_000);
    let refused = node.deploy(package(&large)).await.unwrap_err();
    assert_eq!((refused.kind(), refused.status().as_u16()), (Kind::StorageFull, 507));
    assert!(refused.message().contains("free some space"), "{refused}");
    let set = |n: usize| Ask::new(Method::PUT, &format!("/v1/apps/shop/secrets/s{n}")).body("x".repeat(60_000));
    let mut kept = 0;
    let reply = loop {
        let reply = admin.send(set(kept)).await;
        if reply.status != 204 {
            break reply.expect(507);
        }
        kept += 1;
    };
    assert_eq!(reply.json()["type"], "urn:marram:problem:storage-full");
    assert!(reply.header("retry-after").is_some());
    // What was there before goes on, and can be read.
    let _ = http.get("/price").await.expect(200);
    let app = admin.get("/v1/apps/shop").await.expect(200).json();
    assert_eq!(app["revision"], first.to_string());
    let secrets = admin.get("/v1/apps/shop/secrets").await.expect(200).json();
    assert_eq!(secrets["secrets"].as_array().unwrap().len(), kept, "everything acknowledged, and nothing else");

    set_pages_max(&node, 1 << 20).await;
    let second = node.deploy(package(&large)).await.unwrap();
    assert_eq!(second.previous, Some(first));
    let _ = admin.send(set(kept)).await.expect(204);
    let _ = http.get("/price").await.expect(200);
    node.drain().await;
}
