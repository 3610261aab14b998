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

/// What a client can ask one after the other while functions compute on every thread: each of their threads looks for what has come
/// from the network whenever it goes from one function to the next, and not after so many turns only.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn functions_that_compute_keep_nobody_waiting_for_the_network() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("index.js");
    std::fs::write(&file, "export default { fetch() { for (;;); } }").unwrap();
    let node = TestNode::start().await;
    let app = "manifest_version = 1\n[app]\nname = \"site\"\n[[function]]\nname = \"spin\"\ncomponent = \"index.js\"\n\
        on = [{ http = \"/spin\" }]\ninstances = \"fresh\"\nlimits = { cpu = \"1s\", deadline = \"60s\" }\n";
    node.deploy(app, &[("spin", file)]).await.unwrap();
    let spinning = async {
        let four = futures::future::join_all((0..4).map(|_| node.http().get("/spin"))).await;
        four.into_iter().for_each(|reply| _ = reply.expect(500));
    };
    let mut spinning = Box::pin(spinning);
    let asking = async {
        until(&node, 4, 0).await;
        for _ in 0..25 {
            let _ = node.http().get("/elsewhere").await.expect(404);
        }
    };
    tokio::select! {
        () = spinning.as_mut() => panic!("each of four functions has computed for a second before 25 requests were answered"),
        () = asking => {}
    }
    spinning.as_mut().await;
    drop(spinning);
    node.stop().await;
}
