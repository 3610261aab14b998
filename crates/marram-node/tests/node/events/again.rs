//! Events that a function in JavaScript hands on: what comes to it can be published as it is.

use http::Method;
use marram_testkit::{Ask, TestNode, eventually};
use serde_json::{Value, json};

/// Everything that comes, once more.
const AGAIN: &str = r#"
export default { async fetch(request, env) {
    await env.stream.copy.publishBatch(await request.json());
    return new Response();
} }
"#;

#[tokio::test(flavor = "multi_thread")]
async fn javascript_publishes_a_batch_again_as_it_came() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("index.js");
    std::fs::write(&file, AGAIN).unwrap();
    let node = TestNode::start().await;
    let manifest = "manifest_version = 1\n[app]\nname = \"site\"\n[[function]]\nname = \"again\"\ncomponent = \"index.js\"\n\
                    on = [{ stream = \"first\", batch = { max = 8, wait = \"20ms\" } }]\n\
                    allow = { publish = [\"copy\"] }\n[stream.first]\n";
    node.deploy(manifest, &[("again", file)]).await.unwrap();
    let mut sent = json!([
        { "specversion": "1.0", "id": "1", "source": "/pump/7", "type": "reading", "subject": "pump",
          "datacontenttype": "application/vnd.pump+json; charset=utf-8", "dataschema": "https://schema.example/rms",
          "line": "north", "data": { "rms": 1.5, "tags": ["a", "ü"] } },
        { "specversion": "1.0", "id": "2", "source": "/t", "type": "text", "datacontenttype": "text/plain", "data": "1.4 mm/s" },
        { "specversion": "1.0", "id": "3", "source": "/t", "type": "word", "datacontenttype": "application/json", "data": "fine" },
        { "specversion": "1.0", "id": "4", "source": "/t", "type": "null", "datacontenttype": "application/json", "data": null },
        { "specversion": "1.0", "id": "5", "source": "/t", "type": "frame", "datacontenttype": "image/png", "data_base64": "AAEC/w==" },
        { "specversion": "1.0", "id": "6", "source": "/t", "type": "nothing" },
    ]);
    for event in sent.as_array_mut().unwrap() {
        event["time"] = json!("2026-11-27T12:00:00Z");
    }
    let ask =
        Ask::new(Method::POST, "/v1/streams/first/events").header("content-type", "application/cloudevents-batch+json");
    let _ = node.admin().send(ask.body(sent.to_string())).await.expect(200);
    let mut copies = eventually("all of them were published again", || async {
        let reply = node.admin().get("/v1/streams/copy/events").await;
        let events: Vec<Value> = reply.text().lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        (reply.status == 200 && events.len() == 6).then_some(events)
    })
    .await;
    for copy in &mut copies {
        // What the node adds to every event.
        assert!(copy.as_object_mut().unwrap().remove("marramposition").is_some(), "{copy}");
        assert!(copy.as_object_mut().unwrap().remove("traceparent").is_some(), "{copy}");
    }
    assert_eq!(json!(copies), sent);
    node.stop().await;
}
