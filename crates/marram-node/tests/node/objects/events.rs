//! An object that comes in over S3 starts a function.

use http::Method;
use marram_testkit::{Ask, eventually};
use serde_json::Value;

use super::{key, start};

const SCRIPT: &str = r#"
export default { async fetch(request) {
    const of = (name) => request.headers.get(name);
    const seen = { type: of("ce-type"), subject: of("ce-subject"), data: await request.json() };
    return new Response(JSON.stringify(seen), { headers: {
        "content-type": "application/json", "ce-specversion": "1.0", "ce-id": of("ce-id"), "ce-source": "/test", "ce-type": "seen",
    } });
} }
"#;

#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_is_created_or_deleted_starts_a_function() {
    let node = start(vec![key("everything", &["*"], &["*"])]).await;
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("index.js");
    std::fs::write(&script, SCRIPT).unwrap();
    let manifest = "manifest_version = 1\n[app]\nname = \"site\"\n[bucket.archive]\n[[function]]\nname = \"watch\"\n\
        component = \"index.js\"\non = [{ object = \"uploads/*.png\" }]\noutput = \"seen\"\n";
    node.deploy(manifest, &[("watch", script)]).await.unwrap();
    // What the app declares and listens to is there.
    let buckets = node.admin().get("/v1/objects").await.expect(200).json();
    let names: Vec<_> = buckets["buckets"].as_array().unwrap().iter().map(|bucket| &bucket["bucket"]).collect();
    assert_eq!(names, ["archive", "uploads"]);

    let put =
        |path: &str, body: &str| Ask::new(Method::PUT, path).header("content-type", "image/png").body(body.to_owned());
    let _ = node.admin().send(put("/v1/objects/uploads/a.txt", "no picture")).await.expect(200);
    let _ = node.admin().send(put("/v1/objects/uploads/deep/a.png", "too deep")).await.expect(200);
    let url = super::clients::presign(&node, "uploads", "a.png").await;
    let reply =
        marram_testkit::Client::new(super::address(&node)).send(Ask::new(Method::PUT, &url).body("a picture")).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    let _ = node.admin().send(Ask::new(Method::DELETE, "/v1/objects/uploads/a.png")).await.expect(204);

    let seen = eventually("the function sees both", || async {
        let reply = node.admin().get("/v1/streams/seen/events").await;
        let seen: Vec<Value> = if reply.status == 404 {
            vec![]
        } else {
            reply.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
        };
        (seen.len() >= 2).then_some(seen)
    })
    .await;
    let mut seen: Vec<_> = seen.iter().map(|event| &event["data"]).collect();
    seen.sort_by_key(|seen| seen["type"].to_string());
    assert_eq!(seen.len(), 2, "{seen:?}");
    assert_eq!(seen[0]["type"], "marram.object.created");
    assert_eq!(seen[1]["type"], "marram.object.deleted");
    for event in seen {
        assert_eq!(event["subject"], "uploads/a.png");
        assert_eq!((&event["data"]["bucket"], &event["data"]["name"]), (&"uploads".into(), &"a.png".into()));
        assert_eq!(event["data"]["size"], 9);
        assert_eq!(event["data"]["etag"].as_str().unwrap().len(), 32);
    }
    node.stop().await;
}
