//! A function at its limit of concurrent requests: one runs, one waits, and who comes then is told when to come again.

use http::Method;
use marram_testkit::{Ask, TestNode, eventually, get};
use serde_json::Value;

/// Each request waits until the gate is open.
const GATE: &str = r#"
export default { async fetch(request, env) {
    while (!(await env.kv.state.get("open"))) await new Promise((done) => setTimeout(done, 5));
    return new Response("through");
} }
"#;

const APP: &str = r#"
manifest_version = 1
[app]
name = "site"
[[function]]
name = "gate"
component = "index.js"
on = [{ http = "/gate" }]
allow = { kv = ["state"] }
limits = { concurrency = 1, queue = 1 }
"#;

/// Waits until this many requests run and this many wait.
async fn until(node: &TestNode, running: u64, queued: u64) {
    eventually(&format!("{running} requests run and {queued} wait"), || async {
        let view: Value = node.admin().get("/v1/apps/site").await.expect(200).json();
        let status = &view["functions"][0]["status"];
        (status["running"] == running && status["queued"] == queued).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_runs_and_one_waits_and_the_next_is_told_when_to_come_again() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("index.js");
    std::fs::write(&file, GATE).unwrap();
    let node = TestNode::start().await;
    node.deploy(APP, &[("gate", file)]).await.unwrap();

    let runs = node.http().get("/gate");
    let waits = async {
        until(&node, 1, 0).await;
        node.http().get("/gate").await
    };
    let refused = async {
        until(&node, 1, 1).await;
        // At once: nobody goes through before the gate is open, and that is after this.
        let refused = node.http().get("/gate").await;
        let open = Ask::new(Method::PUT, "/v1/kv/state/keys/open").body("1");
        let _ = node.admin().send(open).await.expect(200);
        refused
    };
    let (runs, waits, refused) = tokio::join!(runs, waits, refused);
    let refused = refused.expect(503);
    let seconds: u64 = refused.header("retry-after").expect("it says when to come again").parse().unwrap();
    assert!((1..=60).contains(&seconds), "{seconds}");
    let problem = refused.json();
    assert_eq!((&problem["type"], &problem["status"]), (&"urn:marram:problem:overloaded".into(), &503.into()));
    for reply in [runs, waits] {
        assert_eq!(reply.expect(200).text(), "through");
    }
    // There is room again.
    until(&node, 0, 0).await;
    assert_eq!(node.http().send(get("/gate")).await.expect(200).text(), "through");
    node.stop().await;
}
