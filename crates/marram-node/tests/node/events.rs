//! Everything but a web request that starts a function, through a whole node: it is stored, delivered, settled, and what is
//! settled stays so after a restart.

use std::path::PathBuf;

use http::Method;
use marram_testkit::{Ask, TestNode, eventually};
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
        .body(json!({ "specversion": "1.0", "id": "1", "source": "/t", "type": "reading" }).to_string());
    let _ = app.node.admin().send(ask).await.expect(200);
    let seen = app.seen(1).await;
    let trace_seen = seen[0]["trace"].as_str().unwrap();
    assert_eq!(trace_seen.split('-').nth(1), trace.split('-').nth(1), "{trace_seen}");
    assert_ne!(trace_seen, trace, "the span is the invocation's own");
    app.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_public_front_takes_events_with_the_stream_s_token_only() {
    let app = App::start("{ stream = \"readings\" }", "[stream.readings]\ningest = true\n[stream.closed]\n").await;
    let event = |token: Option<&str>, stream: &str| {
        let ask = Ask::new(Method::POST, &format!("/v1/streams/{stream}/events"))
            .header("content-type", "application/cloudevents+json")
            .body(json!({ "specversion": "1.0", "id": "1", "source": "/t", "type": "reading" }).to_string());
        let ask = match token {
            Some(token) => ask.header("authorization", &format!("Bearer {token}")),
            None => ask,
        };
        app.node.http().send(ask)
    };
    let refused = event(None, "readings").await.expect(401).json();
    assert!(refused["detail"].as_str().unwrap().contains("Authorization: Bearer"), "{refused}");
    let _ = event(Some("a-token-of-nobody"), "readings").await.expect(401);
    let secret = Ask::new(Method::PUT, "/v1/apps/site/secrets/ingest_token").body("a-token-of-devices");
    let _ = app.node.admin().send(secret).await.expect(204);
    let _ = event(Some("a-token-of-nobody"), "readings").await.expect(401);
    let _ = event(Some("a-token-of-devices"), "closed").await.expect(404);
    assert_eq!(event(Some("a-token-of-devices"), "readings").await.expect(200).json()["published"][0]["position"], 1);
    app.seen(1).await;
    let rubbish = Ask::new(Method::POST, "/v1/streams/readings/events")
        .header("authorization", "Bearer a-token-of-devices")
        .body("{}");
    let refused = app.node.http().send(rubbish).await.expect(400).json();
    assert!(refused["detail"].as_str().unwrap().contains("ce-specversion"), "{refused}");
    app.node.stop().await;
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
async fn only_the_node_publishes_what_its_sources_say() {
    let app = App::start("{ http = \"/x\" }", "").await;
    for stream in ["mqtt", "keys", "objects", "schedule"] {
        let ask = Ask::new(Method::POST, &format!("/v1/streams/{stream}/events"))
            .header("content-type", "application/cloudevents+json")
            .body(json!({ "specversion": "1.0", "id": "1", "source": "/t", "type": "t" }).to_string());
        let _ = app.node.admin().send(ask).await.expect(409);
    }
    for (name, status) in [("Readings", 400), ("a.b", 400), ("nothing", 404)] {
        let _ = app.node.admin().get(&format!("/v1/streams/{name}/events")).await.expect(status);
    }
    app.node.stop().await;
}
