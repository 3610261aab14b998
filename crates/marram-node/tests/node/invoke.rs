//! `marram invoke` and its like: what a function answered counts as it was, whatever the door.

use http::Method;
use marram_testkit::{Ask, TestNode, eventually};

/// The body is complete some time after the last of its bytes has come, and the function goes on after that.
const LATE: &str = r#"
const pause = (ms) => new Promise((done) => setTimeout(done, ms));
export default { async fetch(request, env, ctx) {
    ctx.waitUntil(pause(40).then(() => console.log("afterwards")));
    const body = new ReadableStream({ async start(controller) {
        await pause(5);
        controller.enqueue(new TextEncoder().encode("12345"));
        await pause(20);
        controller.close();
    } });
    return new Response(body, { headers: { "content-length": "5" } });
} }
"#;

const APP: &str = r#"
manifest_version = 1
[app]
name = "site"
[[function]]
name = "late"
component = "index.js"
on = [{ http = "/late" }]
"#;

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_of_a_declared_length_is_whole_when_that_much_has_come() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("index.js");
    std::fs::write(&file, LATE).unwrap();
    let node = TestNode::start().await;
    node.deploy(APP, &[("late", file)]).await.unwrap();
    let path = "/v1/apps/site/functions/late/invoke/";
    for (client, path) in [(node.admin(), path), (node.http(), "/late")] {
        assert_eq!(client.get(path).await.expect(200).text(), "12345");
        // Nobody takes the body of this one.
        assert_eq!(client.send(Ask::new(Method::HEAD, path)).await.expect(200).text(), "");
    }
    eventually("four went well, and were not cut short", || async {
        let usage = node.admin().get("/v1/usage?app=site").await.expect(200).json();
        let logs = node.admin().get("/v1/logs?app=site").await.expect(200).text();
        let usage = &usage["usage"][0];
        assert_eq!(usage["failed"].as_u64().unwrap_or(0), 0, "{usage}");
        (usage["outcomes"]["ok"] == 4 && logs.matches("afterwards").count() == 4).then_some(())
    })
    .await;
    node.stop().await;
}
