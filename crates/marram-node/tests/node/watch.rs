//! Components that watch keys by `wasi:keyvalue/watcher`, through a whole node: told of each change, in both drafts, and settled
//! as every other run is.

use http::Method;
use marram_testkit::{Ask, Reply, TestNode, eventually, guest};
use serde_json::Value;

const GRANT: &str = "allow = { kv = [\"state\"] }";
const RETRY: &str = "retry = { max = 3, backoff = \"1ms..5ms\" }";

struct App {
    node: TestNode,
}

impl App {
    async fn start(component: &str, on: &str, more: &str) -> Self {
        let node = TestNode::start().await;
        node.deploy(&manifest(component, on, more), &[("watch", guest(component))]).await.unwrap();
        Self { node }
    }

    async fn put(&self, key: &str, value: &str) {
        let ask = Ask::new(Method::PUT, &format!("/v1/kv/state/keys/{key}")).body(value.to_owned());
        let _ = self.node.admin().send(ask).await.expect(200);
    }

    async fn delete(&self, key: &str) {
        let ask = Ask::new(Method::DELETE, &format!("/v1/kv/state/keys/{key}"));
        let _ = self.node.admin().send(ask).await.expect(200);
    }

    /// Waits until the component has noted this of a key.
    async fn noted(&self, key: &str, wanted: &str) {
        let path = format!("/v1/kv/state/keys/log/{key}");
        eventually(&format!("{key} is noted as {wanted:?}"), || async {
            let reply = self.node.admin().get(&path).await;
            (reply.status == 200 && reply.text() == wanted).then_some(())
        })
        .await;
    }

    async fn events(&self, stream: &str, count: usize) -> Vec<Value> {
        eventually(&format!("{count} events of {stream}"), || async {
            let reply: Reply = self.node.admin().get(&format!("/v1/streams/{stream}/events")).await;
            let events: Vec<Value> = match reply.status {
                200 => reply.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect(),
                _ => Vec::new(),
            };
            (events.len() == count).then_some(events)
        })
        .await
    }

    async fn invocations(&self, count: usize) -> Vec<Value> {
        eventually(&format!("{count} invocations"), || async {
            let reply = self.node.admin().get("/v1/invocations?app=site").await.expect(200).json();
            let all = reply["invocations"].as_array().unwrap().clone();
            (all.len() == count).then_some(all)
        })
        .await
    }

    async fn logs(&self) -> String {
        self.node.admin().get("/v1/logs").await.expect(200).text()
    }
}

fn manifest(component: &str, on: &str, more: &str) -> String {
    format!(
        "manifest_version = 1\n[app]\nname = \"site\"\n[[function]]\nname = \"watch\"\ncomponent = \"{component}\"\n\
         on = [{on}]\n{more}\n"
    )
}

/// One change after another, each noted by the handle that came with it: sets, deletes, and what goes away by itself.
async fn told_of_each_change(component: &str) {
    let mut app = App::start(component, "{ key = \"state/*\", order = \"subject\" }", GRANT).await;
    let values: Vec<_> = (1..=20).map(|n| n.to_string()).collect();
    for value in &values {
        app.put("a", value).await;
    }
    app.delete("a").await;
    app.put("a", "again").await;
    app.noted("a", &format!("{};gone;again;", values.join(";"))).await;
    app.put("short?ttl=1ms", "soon").await;
    app.noted("short", "soon;gone;").await;
    // Metered and numbered as any other run: an answer of 204, the value's bytes in, nothing out.
    let seen = app.invocations(24).await;
    let with = |bytes: u64| seen.iter().filter(|run| run["bytes_in"] == bytes).count();
    assert!(seen.iter().all(|run| run["outcome"] == "ok" && run["status"] == 204 && run["bytes_out"] == 0), "{seen:?}");
    assert_eq!((with(1), with(2), with(5), with(4), with(0)), (9, 11, 1, 1, 2));
    // What is acknowledged does not come again, and what comes does, also where nobody looks at the component first.
    app.node = app.node.restart().await;
    app.put("b", "1").await;
    app.noted("b", "1;").await;
    app.noted("short", "soon;gone;").await;
    app.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn by_the_first_draft() {
    told_of_each_change("watch-draft.wasm").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn by_the_second_draft() {
    told_of_each_change("watch.wasm").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn beside_a_handler_of_0_3() {
    told_of_each_change("watch-p3.wasm").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_is_tried_again_and_then_put_aside() {
    for component in ["watch-draft.wasm", "watch-p3.wasm"] {
        let limits = "limits = { deadline = \"2s\", cpu = \"50ms\" }";
        let app =
            App::start(component, &format!("{{ key = \"state/*\", {RETRY} }}"), &format!("{GRANT}\n{limits}")).await;
        app.put("once", "trap once").await;
        app.noted("once", "trap once;").await;
        // One after the other: what ends an instance of 0.3 ends what else is in it.
        app.put("traps", "trap").await;
        app.events("keys.dead", 1).await;
        app.put("spins", "spin").await;
        let dead = app.events("keys.dead", 2).await;
        let of = |subject: &str| dead.iter().find(|event| event["subject"] == subject).unwrap();
        for (subject, reason) in [("state/traps", "the function crashed"), ("state/spins", "of CPU time")] {
            let event = of(subject);
            assert_eq!(
                (&event["marramattempts"], &event["type"]),
                (&3.into(), &"marram.key.created".into()),
                "{event}"
            );
            assert!(event["marramreason"].as_str().unwrap().contains(reason), "{event}");
        }
        // Its developer reads why.
        assert!(app.logs().await.contains("asked to"), "the panic is in the log");
        app.node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_beside_the_watcher_gets_everything_else() {
    for component in ["watch.wasm", "watch-p3.wasm"] {
        let on = "{ http = \"/...\" }, { key = \"state/*\" }, { stream = \"keys\" }";
        let app = App::start(component, on, GRANT).await;
        let claim = Ask::new(Method::POST, "/")
            .header("ce-specversion", "1.0")
            .header("ce-id", "1")
            .header("ce-source", "/kv/state")
            .header("ce-type", "marram.key.created")
            .header("ce-subject", "state/claimed")
            .header("marram-trigger", "key:state/*")
            .body("x");
        // A request is a request, whatever it says of itself.
        assert_eq!(app.node.http().send(claim).await.expect(200).text(), "a request");
        app.put("a", "1").await;
        app.noted("a", "1;").await;
        // The request, the change as a call, and the same event out of the stream as a request.
        let runs = app.invocations(3).await;
        let mut statuses: Vec<_> = runs.iter().map(|run| run["status"].as_u64().unwrap()).collect();
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 200, 204]);
        assert_eq!(app.node.admin().get("/v1/kv/state/keys/log/claimed").await.status, 404);
        app.node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trigger_is_no_grant_of_the_bucket() {
    for component in ["watch-draft.wasm", "watch.wasm"] {
        let app = App::start(component, "{ key = \"state/*\" }", "").await;
        app.put("a", "1").await;
        eventually("it is told, and its handle refuses", || async {
            let logs = app.logs().await;
            let told = logs.contains("a is 1, and the bucket says Error::AccessDenied");
            let unnamed =
                logs.contains("opens the default bucket") && logs.contains("and was granted none: add `kv = [");
            (told && unnamed && logs.contains("add \\\"state\\\" to its allow.kv")).then_some(())
        })
        .await;
        assert_eq!(app.node.admin().get("/v1/kv/state/keys/log/a").await.status, 404);
        app.node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_change_of_a_key_finds_no_handler() {
    let app = App::start("watch-draft.wasm", "{ key = \"state/*\" }", GRANT).await;
    let invoke =
        Ask::new(Method::POST, "/v1/apps/site/functions/watch/invoke/").header("marram-trigger", "key:state/*");
    let invoked = app.node.admin().send(invoke).await.expect(404);
    assert!(invoked.text().contains("changes of keys only"), "{invoked:?}");
    app.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_that_asks_for_something_else_is_refused() {
    let node = TestNode::start().await;
    let key = "{ key = \"state/*\" }";
    for (component, on, more, parts) in [
        ("watch-draft.wasm", "", GRANT, ["watcher@0.2.0-draft and no HTTP handler", "on = [{ key = \"<bucket>/*\" }]"]),
        ("watch-draft.wasm", "{ key = \"state/*\" }, { http = \"/x\" }", GRANT, ["`http:/x`", "export wasi:http/"]),
        (
            "watch-draft.wasm",
            "{ key = \"state/*\" }, { schedule = \"* * * * *\" }",
            GRANT,
            ["`schedule:* * * * * UTC`", "take that out"],
        ),
        (
            "watch-draft.wasm",
            key,
            "output = \"seen\"\nallow = { kv = [\"state\"] }",
            ["output \"seen\"", "take `output` out"],
        ),
        (
            "watch.wasm",
            "{ key = \"state/*\", batch = { max = 8, wait = \"1ms\" } }",
            GRANT,
            ["`key:state/*` has a `batch`", "take `batch` out"],
        ),
        // Without a key trigger the store is what it is everywhere else.
        ("watch.wasm", "{ http = \"/...\" }", "", ["wasi:keyvalue/store@0.2.0-draft2", "kv = [\"<bucket>\"]"]),
    ] {
        let refused = node.deploy(&manifest(component, on, more), &[("watch", guest(component))]).await.unwrap_err();
        for part in parts {
            assert!(refused.message().contains(part), "{on}: {part:?} is not in {}", refused.message());
        }
    }
    node.stop().await;
}
