//! Objects over the admin API.

use http::Method;
use marram_testkit::{Ask, TestNode};

#[tokio::test(flavor = "multi_thread")]
async fn objects_are_stored_listed_fetched_and_deleted() {
    let mut node = TestNode::start().await;
    let send = async |node: &TestNode, method, path: &str| node.admin().send(Ask::new(method, path)).await;
    let _ = send(&node, Method::GET, "/v1/objects/none").await.expect(404);
    let _ = send(&node, Method::PUT, "/v1/objects/b").await.expect(201);
    let _ = send(&node, Method::PUT, "/v1/objects/b").await.expect(200);
    let content: Vec<u8> = (0..600_000).map(|n| (n % 251) as u8).collect();
    let put = |name: &str| Ask::new(Method::PUT, &format!("/v1/objects/b/{name}")).body(content.clone());
    let stored = node.admin().send(put("a/b%20c%2F..").header("content-type", "image/png")).await.expect(200).json();
    assert_eq!((&stored["name"], &stored["size"]), (&"a/b c/..".into(), &600_000.into()));
    assert_eq!(stored["digest"], marram_core::Digest::of(&content).to_string());
    let _ = node.admin().send(put("z").header("if-none-match", "*")).await.expect(200);
    let _ = node.admin().send(put("z").header("if-none-match", "*")).await.expect(409);
    let _ = node.admin().send(put("z").header("if-match", "\"x\"")).await.expect(409);
    let _ = node.admin().send(put("a%0Ab")).await.expect(422);
    node = node.restart().await;
    let reply = send(&node, Method::GET, "/v1/objects/b/a/b%20c/..").await.expect(200);
    assert_eq!((reply.body.to_vec(), reply.header("object-content-type")), (content.clone(), Some("image/png")));
    let list = send(&node, Method::GET, "/v1/objects/b?delimiter=%2F&limit=1").await.expect(200).json();
    assert_eq!((&list["prefixes"][0], &list["next"]), (&"a/".into(), &"a/".into()));
    let list = send(&node, Method::GET, "/v1/objects/b?delimiter=%2F&limit=1&after=a%2F").await.expect(200).json();
    assert_eq!((&list["objects"][0]["name"], &list["next"]), (&"z".into(), &serde_json::Value::Null));
    let _ = send(&node, Method::DELETE, "/v1/objects/b").await.expect(409);
    let _ = send(&node, Method::DELETE, "/v1/objects/b/z").await.expect(204);
    let _ = send(&node, Method::DELETE, "/v1/objects/b/z").await.expect(404);
    let _ = send(&node, Method::DELETE, "/v1/objects/b/a/b%20c/..").await.expect(204);
    let _ = send(&node, Method::DELETE, "/v1/objects/b").await.expect(204);
    node.stop().await;
}
