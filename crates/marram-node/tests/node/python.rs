//! Python on a node: an instance that is used for long, and what is known of a function that raises.

use marram_testkit::{TestNode, eventually};
use serde_json::json;

const ANSWERS: &str = r#"
from marram import Response

def fetch(request, env):
    return Response(b"x" * (4 << 20))
"#;

#[tokio::test(flavor = "multi_thread")]
async fn large_answers_do_not_fill_an_instance() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("app.py");
    std::fs::write(&file, ANSWERS).unwrap();
    let node = TestNode::start().await;
    let manifest = "manifest_version = 1\n[app]\nname = \"site\"\n[[function]]\nname = \"f\"\ncomponent = \"app.py\"\n\
                    on = [{ http = \"/\" }]\nlimits = { memory = \"64MiB\" }\ninstances = { reuse = 1000 }\n";
    node.deploy(manifest, &[("f", file)]).await.unwrap();
    // Twice as much as the instance has memory.
    for _ in 0..32 {
        assert_eq!(node.http().get("/").await.expect(200).body.len(), 4 << 20);
    }
    node.stop().await;
}

const RAISES: &str = r#"
def fetch(request, env):
    raise ValueError("no such price")
"#;

#[tokio::test(flavor = "multi_thread")]
async fn an_exception_is_a_failed_invocation() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("app.py");
    std::fs::write(&file, RAISES).unwrap();
    let node = TestNode::start().await;
    let manifest = "manifest_version = 1\n[app]\nname = \"site\"\n[[function]]\nname = \"f\"\ncomponent = \"app.py\"\n\
                    on = [{ http = \"/\" }]\n";
    node.deploy(manifest, &[("f", file)]).await.unwrap();
    let reply = node.http().get("/").await.expect(500);
    assert_eq!(reply.header("content-type"), Some("application/problem+json"));
    let id = reply.header("marram-request-id").unwrap();
    assert_eq!((&reply.json()["type"], &reply.json()["request_id"]), (&json!("urn:marram:problem:trap"), &json!(id)));
    assert!(!reply.text().contains("price"), "what it was is for the log: {reply:?}");
    let log = eventually("its log says why", || async {
        let log = node.admin().get(&format!("/v1/logs?request={id}")).await.expect(200).text();
        log.contains("ValueError: no such price").then_some(log)
    });
    assert!(log.await.contains("Traceback"));
    let failed = "faas_errors_total{app=\"site\",function=\"f\",outcome=\"trap\"} 1";
    eventually("the failure is counted", || async {
        node.admin().get("/metrics").await.expect(200).text().contains(failed).then_some(())
    })
    .await;
    node.stop().await;
}
