//! Everything but a web request that starts a function, through a whole node: it is stored, delivered, settled, and what is
//! settled stays so after a restart.

mod again;
mod doors;

use std::path::PathBuf;
use std::time::Duration;

use http::Method;
use marram_testkit::{Ask, TestNode, eventually, get};
use serde_json::{Value, json};
use tempfile::TempDir;

/// What it does with an event is in the event's type; what it has seen is in its answer to a web request of another kind: it
/// publishes what it sees to `seen`.
const SCRIPT: &str = r#"
export default { async fetch(request) {
    const of = (name) => request.headers.get(name);
    switch (of("ce-type")) {
        case "fails": return new Response("not now", { status: 500 });
        case "wrong": return new Response("never", { status: 400 });
        case "traps": throw new Error("poison");
    }
    const seen = { type: of("ce-type"), subject: of("ce-subject"), id: of("ce-id"), trace: of("traceparent"), data: await request.text() };
    return new Response(JSON.stringify(seen), { headers: {
        "content-type": "application/json", "ce-specversion": "1.0", "ce-id": `seen-${of("ce-id")}`, "ce-source": "/test", "ce-type": "seen",
    } });
} }
"#;

struct App {
    node: TestNode,
    _script: TempDir,
}

impl App {
    /// A node with one function that has these triggers, and publishes what it sees.
    async fn start(on: &str, more: &str) -> Self {
        let node = TestNode::start().await;
        let script = tempfile::tempdir().unwrap();
        let app = Self { node, _script: script };
        app.deploy(on, more).await;
        app
    }

    async fn deploy(&self, on: &str, more: &str) {
        let file: PathBuf = self._script.path().join("index.js");
        std::fs::write(&file, SCRIPT).unwrap();
        let manifest = format!(
            "manifest_version = 1\n[app]\nname = \"site\"\n[[function]]\nname = \"watch\"\ncomponent = \"index.js\"\n\
             on = [{on}]\noutput = \"seen\"\n{more}"
        );
        self.node.deploy(&manifest, &[("watch", file)]).await.unwrap();
    }

    async fn publish(&self, stream: &str, kind: &str, id: &str, subject: &str, data: &str) -> Value {
        let ask = Ask::new(Method::POST, &format!("/v1/streams/{stream}/events"))
            .header("ce-specversion", "1.0")
            .header("ce-id", id)
            .header("ce-source", "/test")
            .header("ce-type", kind)
            .header("ce-subject", subject)
            .header("content-type", "text/plain")
            .body(data.to_owned());
        self.node.admin().send(ask).await.expect(200).json()
    }

    /// The events of a stream that are kept; none if it is not there.
    async fn events(&self, stream: &str) -> Vec<Value> {
        let reply = self.node.admin().get(&format!("/v1/streams/{stream}/events")).await;
        if reply.status == 404 {
            return Vec::new();
        }
        reply.expect(200).text().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Waits until the function has seen this many events, and gives what it saw.
    async fn seen(&self, count: usize) -> Vec<Value> {
        let seen = eventually("the function sees its events", || async {
            let seen = self.events("seen").await;
            (seen.len() >= count).then_some(seen)
        });
        seen.await.into_iter().map(|event| event["data"].clone()).collect()
    }

    async fn consumer(&self, stream: &str) -> Value {
        let streams = self.node.admin().get("/v1/streams").await.expect(200).json();
        let stream = streams["streams"].as_array().unwrap().iter().find(|s| s["name"] == stream).unwrap().clone();
        stream["consumers"][0].clone()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_s_events_reach_the_function_once_also_over_a_restart() {
    let mut app = App::start("{ stream = \"readings\" }", "").await;
    for n in 1..=3 {
        let published = app.publish("readings", "reading", &format!("r{n}"), "plant/1", "1.4").await;
        assert_eq!(published["published"][0], json!({ "position": n, "duplicate": false }));
    }
    let again = app.publish("readings", "reading", "r3", "plant/1", "1.4").await;
    assert_eq!(again["published"][0], json!({ "position": 3, "duplicate": true }));
    for seen in app.seen(3).await {
        let of = |name: &str| seen[name].as_str().unwrap().to_owned();
        assert_eq!([of("type"), of("subject"), of("data")], ["reading", "plant/1", "1.4"]);
    }
    app.node = app.node.restart().await;
    app.publish("readings", "reading", "r4", "plant/1", "1.5").await;
    let seen = app.seen(4).await;
    let mut ids: Vec<_> = seen.iter().map(|event| event["id"].as_str().unwrap()).collect();
    // Three of them ran at the same time.
    ids.sort_unstable();
    assert_eq!(ids, ["r1", "r2", "r3", "r4"]);
    let consumer = app.consumer("readings").await;
    assert_eq!((&consumer["acked"], &consumer["dead_lettered"]), (&json!(4), &json!(0)));
    app.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_is_tried_again_and_then_put_aside_and_comes_back_when_asked() {
    let retry = "{ stream = \"readings\", retry = { max = 3, backoff = \"1ms..5ms\" } }";
    let app = App::start(retry, "").await;
    for (kind, id) in [("fails", "f"), ("wrong", "w"), ("traps", "t"), ("reading", "good")] {
        app.publish("readings", kind, id, "s", "x").await;
    }
    app.seen(1).await;
    let dead = eventually("three are put aside", || async {
        let dead = app.events("readings.dead").await;
        (dead.len() == 3).then_some(dead)
    })
    .await;
    let of = |id: &str| dead.iter().find(|event| event["id"] == id).unwrap();
    assert_eq!((&of("f")["marramattempts"], &of("w")["marramattempts"]), (&json!(3), &json!(1)));
    assert_eq!(of("t")["marramattempts"], 3);
    assert!(of("f")["marramreason"].as_str().unwrap().contains("500"), "{}", of("f"));
    assert_eq!(of("w")["marramconsumer"], "site/watch/stream:readings");

    let redriven = app.node.admin().send(Ask::new(Method::POST, "/v1/streams/readings/redrive")).await.expect(200);
    assert_eq!(redriven.json(), json!({ "redriven": 3 }));
    let dead = eventually("they die again", || async {
        let dead = app.events("readings.dead").await;
        (dead.len() == 3 && dead[0]["marramposition"] != "1").then_some(dead)
    })
    .await;
    assert_eq!(dead.iter().filter(|event| event["type"] == "wrong").count(), 1);
    let consumer = app.consumer("readings").await;
    assert_eq!((&consumer["acked"], &consumer["dead_lettered"]), (&json!(1), &json!(6)));
    app.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn changed_keys_and_time_start_functions() {
    let app = App::start("{ key = \"thresholds/*\" }, { schedule = \"* * * * * *\" }", "").await;
    let put = |key: &str, value: &str| {
        app.node.admin().send(Ask::new(Method::PUT, &format!("/v1/kv/thresholds/keys/{key}")).body(value.to_owned()))
    };
    let _ = put("rms", "1.5").await.expect(200);
    let _ = put("deep/rms", "1.5").await.expect(200);
    let seen = eventually("a key and two seconds", || async {
        let seen = app.events("seen").await;
        let of = |kind: &str| seen.iter().filter(|event| event["data"]["type"] == kind).cloned().collect::<Vec<_>>();
        let (keys, times) = (of("marram.key.created"), of("marram.schedule.fired"));
        (!keys.is_empty() && times.len() >= 2).then_some((keys, times))
    });
    let (keys, times) = seen.await;
    assert_eq!(keys.len(), 1, "`*` is one segment: {keys:?}");
    assert_eq!((&keys[0]["data"]["subject"], &keys[0]["data"]["data"]), (&json!("thresholds/rms"), &json!("1.5")));
    assert_ne!(times[0]["data"]["id"], times[1]["data"]["id"]);
    app.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trace_goes_on_through_the_stream() {
    let app = App::start("{ stream = \"readings\" }", "").await;
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let ask = Ask::new(Method::POST, "/v1/streams/readings/events")
        .header("content-type", "application/cloudevents+json")
        .header("traceparent", trace)
        .header("tracestate", "vendor=1")
        .body(json!({ "specversion": "1.0", "id": "1", "source": "/t", "type": "reading" }).to_string());
    let _ = app.node.admin().send(ask).await.expect(200);
    assert_eq!(app.events("readings").await[0]["tracestate"], "vendor=1");
    let seen = app.seen(1).await;
    let trace_seen = seen[0]["trace"].as_str().unwrap();
    assert_eq!(trace_seen.split('-').nth(1), trace.split('-').nth(1), "{trace_seen}");
    assert_ne!(trace_seen, trace, "the span is the invocation's own");
    app.node.stop().await;
}

/// It publishes what it gets to `tried`, fails where one of the events says so, and asks for another time where there is one
/// that it has not seen before.
const BATCHES: &str = r#"
export default { async fetch(request, env) {
    const batch = await request.json();
    const { tried, once } = env.stream;
    await tried.publish({ media: request.headers.get("content-type"), ids: batch.map((event) => event.id) });
    if (batch.some((event) => event.type === "fails")) return new Response("not now", { status: 500 });
    const again = batch.filter((event) => event.type === "again");
    const seen = await Promise.all(again.map(({ id }) => once.publish("", { id, source: "/once", type: "seen" })));
    return new Response("", { status: seen.every(({ duplicate }) => duplicate) ? 200 : 503 });
} }
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_function_gets_batches_and_gets_those_again_that_it_fails() {
    let node = TestNode::start().await;
    let script = tempfile::tempdir().unwrap();
    let file = script.path().join("index.js");
    std::fs::write(&file, BATCHES).unwrap();
    let manifest = "manifest_version = 1\n[app]\nname = \"site\"\n[[function]]\nname = \"watch\"\ncomponent = \"index.js\"\n\
                    on = [{ stream = \"in\", batch = { max = 8, wait = \"20ms\" }, \
                            retry = { max = 8, backoff = \"1ms..5ms\" } }]\n\
                    allow = { publish = [\"tried\", \"once\"] }\n[stream.in]\n[stream.tried]\n";
    let app = App { node, _script: script };
    app.node.deploy(manifest, &[("watch", file)]).await.unwrap();
    let publish = async |events: Vec<Value>| {
        let ask = Ask::new(Method::POST, "/v1/streams/in/events")
            .header("content-type", "application/cloudevents-batch+json");
        let _ = app.node.admin().send(ask.body(json!(events).to_string())).await.expect(200);
    };
    let event =
        |kind: &str, id: usize| json!({ "specversion": "1.0", "id": id.to_string(), "source": "/t", "type": kind });
    let settled = async |acked: u64, dead: u64| {
        eventually(&format!("{acked} are done and {dead} are put aside"), || async {
            let consumer = app.consumer("in").await;
            let count = |name: &str| consumer[name].as_u64().unwrap();
            (count("acked") == acked && count("dead_lettered") == dead && count("in_flight") == 0).then_some(())
        })
        .await;
    };
    // What each run got.
    let tried = async || -> Vec<Vec<String>> {
        let ids = |event: Value| -> Vec<String> {
            assert_eq!(event["data"]["media"], "application/cloudevents-batch+json");
            serde_json::from_value(event["data"]["ids"].clone()).unwrap()
        };
        app.events("tried").await.into_iter().map(ids).collect()
    };

    // One of twenty fails for ever: the others of its batch are done without it, and it comes alone until it is given up.
    let kind = |id| if id == 5 { "fails" } else { "reading" };
    publish((0..20).map(|id| event(kind(id), id)).collect()).await;
    settled(19, 1).await;
    let runs = tried().await;
    assert!(runs.iter().all(|ids| (1..=8).contains(&ids.len())), "{runs:?}");
    assert!(runs.iter().any(|ids| ids.len() == 8), "twenty are there at once: {runs:?}");
    let all: std::collections::BTreeSet<_> = runs.iter().flatten().cloned().collect();
    assert_eq!(all.len(), 20, "{runs:?}");
    let alone = runs.iter().filter(|ids| ids[..] == ["5"]).count();
    assert_eq!(alone, 8, "each delivery ends with it alone: {runs:?}");
    let dead = app.events("in.dead").await;
    assert_eq!((dead.len(), &dead[0]["id"], &dead[0]["marramattempts"]), (1, &json!("5"), &json!(8)));

    // What is refused for all of a batch comes again, all of it, and is done then.
    publish((100..110).map(|id| event("again", id)).collect()).await;
    settled(29, 1).await;
    let runs = tried().await;
    for id in 100..110 {
        let times = runs.iter().flatten().filter(|other| **other == id.to_string()).count();
        assert!(times >= 2, "{id} came {times} times: {runs:?}");
    }
    app.node.stop().await;
}

/// Each part of a node waits for what runs in it, all at the same time.
#[tokio::test(flavor = "multi_thread")]
async fn a_drain_has_one_deadline_for_requests_and_events() {
    let drain = Duration::from_secs(3);
    let node = TestNode::start_with(|config| config.drain = drain).await;
    let script = tempfile::tempdir().unwrap();
    let file = script.path().join("index.js");
    std::fs::write(&file, "export default { fetch: () => new Promise((done) => setTimeout(done, 60_000)) }").unwrap();
    let manifest = "manifest_version = 1\n[app]\nname = \"site\"\n[[function]]\nname = \"slow\"\ncomponent = \"index.js\"\n\
                    on = [{ http = \"/slow\" }, { stream = \"in\" }]\nlimits = { deadline = \"60s\" }\n[stream.in]\n";
    let app = App { node, _script: script };
    app.node.deploy(manifest, &[("slow", file)]).await.unwrap();
    app.publish("in", "reading", "1", "s", "x").await;
    let request = app.node.http().try_send(get("/slow"));
    let draining = async {
        eventually("both run", || async {
            let view = app.node.admin().get("/v1/apps/site").await.expect(200).json();
            (view["functions"][0]["status"]["running"] == 2).then_some(())
        })
        .await;
        let begun = std::time::Instant::now();
        app.node.node().drain().await;
        begun.elapsed()
    };
    let (_, took) = tokio::join!(request, draining);
    assert!(took >= drain && took < drain * 2, "{took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_waits_while_it_is_paused_and_is_replayed() {
    let app = App::start("{ stream = \"readings\" }", "").await;
    let consumer = "site/watch/stream:readings";
    let post = |verb: &str, body: Value| {
        app.node.admin().send(Ask::new(Method::POST, &format!("/v1/streams/readings/{verb}")).json(&body))
    };
    app.publish("readings", "reading", "1", "s", "x").await;
    app.seen(1).await;
    let paused = post("pause", json!({ "consumer": consumer, "paused": true })).await.expect(200).json();
    assert_eq!(paused["paused"], true);
    app.publish("readings", "reading", "2", "s", "x").await;
    assert_eq!(app.consumer("readings").await["handed"], 1);
    let _ = post("pause", json!({ "consumer": consumer, "paused": false })).await.expect(200);
    app.seen(2).await;
    // Answers are events of their own ids, and the same again within the window is one: only the books tell.
    let _ = post("replay", json!({ "consumer": consumer, "from": "first" })).await.expect(200);
    eventually("both are delivered again", || async { (app.consumer("readings").await["acked"] == 4).then_some(()) })
        .await;
    assert_eq!(app.events("seen").await.len(), 2);
    let nobody = post("replay", json!({ "consumer": "nobody", "from": "first" })).await.expect(404).json();
    assert!(nobody["detail"].as_str().unwrap().contains("marram stream ls"), "{nobody}");
    let _ = post("replay", json!({ "consumer": consumer, "from": "yesterday" })).await.expect(400);
    app.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trigger_that_is_no_more_owes_nothing_and_an_app_may_have_streams_only() {
    let app = App::start("{ stream = \"readings\" }, { http = \"/x\" }", "").await;
    app.publish("readings", "reading", "1", "s", "x").await;
    app.seen(1).await;
    app.deploy("{ http = \"/x\" }", "").await;
    let streams = app.node.admin().get("/v1/streams").await.expect(200).json();
    let readings = streams["streams"].as_array().unwrap().iter().find(|s| s["name"] == "readings").unwrap().clone();
    assert_eq!(readings["consumers"], json!([]));

    let only = "manifest_version = 1\n[app]\nname = \"only\"\n[stream.plain]\nretain = { bytes = \"4MiB\" }\n";
    app.node.deploy(only, &[]).await.unwrap();
    let other = only.replace("only", "other").replace("4MiB", "8MiB");
    let refused = app.node.deploy(&other, &[]).await.unwrap_err();
    for part in ["\"other\"", "\"only\"", "\"plain\""] {
        assert!(refused.message().contains(part), "{part} is not in {refused}");
    }
    app.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_an_app_declares_or_consumes_is_not_removed_and_its_triggers_go_on() {
    let declared = "[stream.plain]\nretain = { bytes = \"4MiB\" }\n";
    let app = App::start("{ stream = \"readings\" }, { http = \"/x\" }", declared).await;
    let remove =
        async |stream: &str| app.node.admin().send(Ask::new(Method::DELETE, &format!("/v1/streams/{stream}"))).await;
    for (stream, who) in
        [("readings", "function \"watch\" of app \"site\" consumes it"), ("plain", "app \"site\" declares it")]
    {
        let refused = remove(stream).await.expect(409).json();
        assert_eq!(refused["type"], "urn:marram:problem:conflict", "{refused}");
        let said = refused["detail"].as_str().unwrap();
        assert!(said.contains(who) && said.contains("marram rm"), "{said}");
    }
    app.publish("readings", "reading", "1", "s", "x").await;
    app.seen(1).await;
    // What an app only publishes to may go, and comes back.
    let _ = remove("seen").await.expect(204);
    assert_eq!(app.events("seen").await.len(), 0);
    app.publish("readings", "reading", "2", "s", "x").await;
    app.seen(1).await;
    // A version without it lets it go.
    app.deploy("{ http = \"/x\" }", declared).await;
    let _ = remove("readings").await.expect(204);
    let _ = app.node.admin().send(Ask::new(Method::DELETE, "/v1/apps/site")).await.expect(204);
    let _ = remove("plain").await.expect(204);
    app.node.stop().await;
}
