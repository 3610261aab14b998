//! Input that is wrong, at every door but that of the web: events, keys, and functions that fail on what they get. It is
//! refused by name, nothing of it is kept, and nobody else notices.

use std::collections::BTreeSet;
use std::path::Path;

use http::Method;
use marram_core::limits::{EVENT_DATA_BYTES_MAX, KEY_BYTES_MAX, KV_VALUE_BYTES_MAX, PUBLISH_BYTES_MAX};
use marram_testkit::{Ask, Client, Reply, TestNode, eventually};
use serde_json::{Value, json};

const TOKEN: &str = "a-token-of-devices";

/// An event in binary mode, without a fault.
fn binary() -> Ask {
    post().header("ce-specversion", "1.0").header("ce-id", "1").header("ce-source", "/s").header("ce-type", "t")
}

fn post() -> Ask {
    Ask::new(Method::POST, "/v1/streams/readings/events").header("authorization", &format!("Bearer {TOKEN}"))
}

fn structured(body: impl Into<Vec<u8>>) -> Ask {
    post().header("content-type", "application/cloudevents+json").body(body.into())
}

fn batch(body: impl Into<Vec<u8>>) -> Ask {
    post().header("content-type", "application/cloudevents-batch+json").body(body.into())
}

const GOOD: &str = r#"{"specversion":"1.0","id":"1","source":"/s","type":"t"}"#;

fn with(rest: &str) -> String {
    format!("{},{rest}}}", &GOOD[..GOOD.len() - 1])
}

/// What is wrong, the request, its answer, and a part of what that says.
fn malformed_events() -> Vec<(&'static str, Ask, u16, &'static str)> {
    let deep = format!("\"data\":{}", "[".repeat(1_000_000));
    let many = format!("[{}]", vec![GOOD; 1_001].join(","));
    vec![
        ("no event at all", post().body("x"), 400, "not a CloudEvent"),
        ("no id", post().header("ce-specversion", "1.0").header("ce-source", "/s").header("ce-type", "t"), 400, "id"),
        ("another version", binary().header("ce-specversion", "0.3"), 400, "specversion"),
        ("a source that is no URI", binary().header("ce-source", "a b"), 400, "source"),
        ("a time that is none", binary().header("ce-time", "yesterday"), 400, "time"),
        ("percent and no digits", binary().header("ce-subject", "50%"), 400, "subject"),
        ("no UTF-8 behind the percents", binary().header("ce-subject", "%ff%fe"), 400, "not UTF-8"),
        ("a control character", binary().header("ce-subject", "a%00b"), 400, "subject"),
        ("an attribute of 5,000 bytes", binary().header("ce-subject", &"x".repeat(5_000)), 400, "4096"),
        ("data over the limit", binary().body(vec![0; EVENT_DATA_BYTES_MAX + 1]), 400, "1048576"),
        ("a body over the limit", binary().body(vec![0; PUBLISH_BYTES_MAX + 1]), 413, "8388608"),
        ("JSON that ends early", structured(&GOOD[..20]), 400, "line 1"),
        ("a list", structured("[]"), 400, "CloudEvent"),
        ("bytes that are no UTF-8", structured(b"{\"specversion\":\"1.0\",\"id\":\"\xff\"}"), 400, "CloudEvent"),
        ("half a surrogate", structured(with(r#""x":"\ud800""#)), 400, "not a character"),
        ("an attribute twice", structured(with(r#""id":"2""#)), 400, "twice"),
        ("data in two ways", structured(with(r#""data":1,"data_base64":"AA==""#)), 400, "keep one"),
        ("what is not base64", structured(with(r#""data_base64":"?""#)), 400, "base64"),
        ("brackets without end", structured(with(&deep)), 400, "CloudEvent"),
        ("a batch that is none", batch(GOOD), 400, "a list of events"),
        ("one that is wrong among good ones", batch(format!("[{GOOD},{{}}]")), 400, "event 1 of the batch"),
        ("more than a batch may have", batch(many), 400, "1000"),
        ("another format", post().header("content-type", "application/cloudevents+avro"), 400, "avro"),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_events_are_refused_by_name_and_none_is_kept() {
    let node = TestNode::start().await;
    let manifest = "manifest_version = 1\n[app]\nname = \"site\"\n[stream.readings]\ningest = true\n";
    node.deploy(manifest, &[]).await.unwrap();
    let secret = Ask::new(Method::PUT, "/v1/apps/site/secrets/ingest_token").body(TOKEN);
    let _ = node.admin().send(secret).await.expect(204);
    let mut wrong = Vec::new();
    for door in [node.admin(), node.http()] {
        for (what, ask, status, part) in malformed_events() {
            let reply = answer(door, ask).await;
            let detail = reply.json()["detail"].as_str().unwrap().to_owned();
            if reply.status != status || !detail.contains(part) || detail.len() > 500 {
                wrong.push(format!("{what}: {} {detail:?}", reply.status));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    let streams = node.admin().get("/v1/streams").await.expect(200).json();
    assert_eq!(streams["streams"][0]["last"], 0, "{streams}");
    // And the next one that is right is the first.
    let taken = node.http().send(binary()).await.expect(200).json();
    assert_eq!(taken["published"][0]["position"], 1);
    node.stop().await;
}

/// An answer that comes before the whole body was sent may cut the connection off under the client: it asks again then.
async fn answer(door: &Client, ask: Ask) -> Reply {
    eventually("an answer", || async { door.try_send(ask.clone()).await.ok() }).await
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_and_values_over_the_limit_are_refused_and_none_is_kept() {
    let node = TestNode::start().await;
    let key = |key: &str| format!("/v1/kv/state/keys/{key}");
    let put = |path: &str| Ask::new(Method::PUT, path).body("value");
    let cases = [
        ("a key of 1,025 bytes", put(&key(&"k".repeat(KEY_BYTES_MAX + 1))), 422),
        ("a key of 1,026 bytes in 513 characters", put(&key(&"%C3%A4".repeat(513))), 422),
        ("a key of no bytes", put(&key("")), 422),
        ("a key of no bytes, read", Ask::new(Method::GET, &key("")), 422),
        ("an object of no name", put("/v1/objects/photos/"), 422),
        ("a key with U+0000", put(&key("a%00b")), 422),
        ("a key with a line break", put(&key("a%0Ab")), 422),
        ("a key that is no UTF-8", put(&key("%FF")), 400),
        ("a value of one byte too many", put(&key("k")).body(vec![0; KV_VALUE_BYTES_MAX + 1]), 413),
        ("a bucket that is no name", put("/v1/kv/..%2Fstate/keys/k"), 400),
        ("a bucket of the node's own", put("/v1/kv/marram-schedule/keys/k"), 422),
        ("a time to live of nothing", put("/v1/kv/state/keys/k?ttl=0s"), 400),
        ("a time that is none", put(&key("k?ttl=-1s")), 400),
        ("an age past all ages", put(&key("k?ttl=99999999999999999999d")), 400),
        ("an expectation that is none", put(&key("k")).header("if-match", "\"not a version\""), 400),
    ];
    let mut wrong = Vec::new();
    for (what, ask, status) in cases {
        let reply = answer(node.admin(), ask).await;
        if reply.status != status || reply.json()["detail"].as_str().unwrap().len() > 500 {
            wrong.push(format!("{what}: {reply:?}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(node.admin().get("/v1/kv").await.expect(200).json(), json!({ "buckets": [] }));
    // The most that is taken is taken.
    let most = put(&key(&"k".repeat(KEY_BYTES_MAX))).body(vec![7; KV_VALUE_BYTES_MAX]);
    let _ = answer(node.admin(), most).await.expect(200);
    assert_eq!(node.admin().get("/v1/kv/state").await.expect(200).json()["keys"].as_array().unwrap().len(), 1);
    node.stop().await;
}

/// Throws at whatever says that it is poison, at its first attempt and at every other.
const SCRIPT: &str = r#"
export default { async fetch(request) {
    if (request.headers.get("ce-type") === "poison") throw new Error("poison");
    return new Response(request.headers.get("ce-subject"), { headers: { "content-type": "text/plain",
        "ce-specversion": "1.0", "ce-id": crypto.randomUUID(), "ce-source": "/seen", "ce-type": "seen" } });
} }
"#;

const POISONED: &str = r#"
manifest_version = 1
[app]
name = "site"
[[function]]
name = "ordered"
component = "index.js"
on = [{ stream = "readings", order = "subject", retry = { max = 3, backoff = "4s..5s" } }]
output = "ordered-seen"
[[function]]
name = "other"
component = "index.js"
on = [{ stream = "others" }]
output = "others-seen"
"#;

async fn publish(node: &TestNode, stream: &str, kind: &str, id: &str, subject: &str) {
    let ask = binary().at(&format!("/v1/streams/{stream}/events")).header("ce-type", kind).header("ce-id", id);
    let _ = node.admin().send(ask.header("ce-subject", subject)).await.expect(200);
}

/// The data of the events of a stream.
async fn data(node: &TestNode, stream: &str) -> Vec<String> {
    let reply = node.admin().get(&format!("/v1/streams/{stream}/events")).await;
    let events = reply.text();
    let lines = events.lines().filter(|_| reply.status == 200);
    let of = |line: &str| serde_json::from_str::<Value>(line).unwrap()["data"].as_str().unwrap_or_default().to_owned();
    lines.map(of).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn poison_holds_up_its_own_subject_and_nobody_else() {
    let node = TestNode::start().await;
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("index.js");
    std::fs::write(&script, SCRIPT).unwrap();
    node.deploy(POISONED, &[("ordered", script.clone()), ("other", script)]).await.unwrap();
    // Poison first, for every subject but one, and behind each an event that waits for it.
    for n in 0..20 {
        publish(&node, "readings", "poison", &format!("p{n}"), &format!("bad/{n}")).await;
        publish(&node, "readings", "reading", &format!("after{n}"), &format!("bad/{n}")).await;
    }
    publish(&node, "readings", "reading", "good", "good").await;
    publish(&node, "others", "reading", "other", "elsewhere").await;
    eventually("the other function's event", || async {
        (data(&node, "others-seen").await == ["elsewhere"]).then_some(())
    })
    .await;
    eventually("the other subject's event", || async {
        data(&node, "ordered-seen").await.contains(&"good".to_owned()).then_some(())
    })
    .await;
    assert_eq!(data(&node, "readings.dead").await, [""; 0], "the others were served after the poison");
    // The poison is put aside in the end, and what waited for it goes on.
    let settled = eventually("everything is settled", || async {
        let streams = node.admin().get("/v1/streams").await.expect(200).json();
        let of = |name: &str| streams["streams"].as_array().unwrap().iter().find(|s| s["name"] == name).cloned();
        let consumer = of("readings").unwrap()["consumers"][0].clone();
        (consumer["cursor"] == 41).then_some(consumer)
    })
    .await;
    assert_eq!((&settled["acked"], &settled["dead_lettered"]), (&json!(21), &json!(20)), "{settled}");
    let mut seen = data(&node, "ordered-seen").await;
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), 21, "{seen:?}");
    // Each was tried as often as the manifest says, and not once more.
    let dead = node.admin().get("/v1/streams/readings.dead/events").await.expect(200).text();
    let attempts: Vec<_> =
        dead.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["marramattempts"].clone()).collect();
    assert_eq!(attempts, vec![json!(3); 20]);
    node.stop().await;
}

/// Every test of the workspace, as `<file or module>::<name>`.
fn tests(folder: &Path, found: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            tests(&path, found);
            continue;
        }
        let Ok(text) = std::fs::read_to_string(&path) else { continue };
        let stem = path.file_stem().unwrap().to_string_lossy().into_owned();
        let of_folder = path.parent().unwrap().file_name().unwrap().to_string_lossy().into_owned();
        let module = if ["mod", "tests", "main"].contains(&&*stem) { of_folder } else { stem };
        let mut test = false;
        for line in text.lines().map(str::trim_start) {
            if let Some(rest) = line.strip_prefix("async fn ").or_else(|| line.strip_prefix("fn ")) {
                if test {
                    found.insert(format!("{module}::{}", rest.split('(').next().unwrap_or_default()));
                }
                test = false;
            } else if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
                test = true;
            }
        }
    }
}

#[test]
fn every_test_that_the_book_names_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut found = BTreeSet::new();
    tests(&root.join("crates"), &mut found);
    let page = std::fs::read_to_string(root.join("docs/book/src/bad-input.md")).unwrap();
    let named: Vec<_> = page.split('`').skip(1).step_by(2).filter(|name| name.contains("::")).collect();
    assert!(named.len() > 40, "{named:?}");
    let missing: Vec<_> = named.iter().filter(|name| !found.contains(**name)).collect();
    assert!(missing.is_empty(), "there are no such tests: {missing:?}");
}
