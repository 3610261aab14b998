//! The admin API: who is let in, what it describes, what it shows of what ran, and what it never shows.

use std::collections::BTreeSet;

use http::Method;
use http_body_util::BodyExt as _;
use marram_node::{NodeConfig, Token};
use marram_testkit::{Ask, Reply, TestNode, eventually, get, guest, manifest};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::mqtt;

const SECRET: &str = "s3cret-that-nobody-may-see";

fn probe(app: &str, secrets: &str) -> String {
    manifest(app, &[("probe", "probe.wasm", "/...")]) + secrets
}

/// Every operation of the document as `METHOD /path`.
fn described() -> BTreeSet<String> {
    let paths = marram_node::openapi()["paths"].as_object().unwrap();
    let operations = paths.iter().flat_map(|(path, item)| {
        item.as_object().unwrap().keys().map(move |method| format!("{} {path}", method.to_uppercase()))
    });
    operations.collect()
}

/// Holds an answer to what the document says of its operation.
#[track_caller]
fn hold(operation: &str, reply: &Reply) {
    let document = marram_node::openapi();
    let (method, path) = operation.split_once(' ').unwrap();
    let operation = &document["paths"][path][method.to_lowercase()];
    let status = reply.status.to_string();
    let answers = &operation["responses"];
    let answer = answers.get(&status).unwrap_or(&answers["default"]);
    assert!(reply.status >= 400 || answers.get(&status).is_some(), "{path}: {status} is not described");
    let Some(content) = answer["content"].as_object() else {
        assert!(reply.body.is_empty(), "{path}: a body that is not described");
        return;
    };
    let media_type = reply.header("content-type").unwrap();
    // What a function answers may be anything.
    let described = content.get(media_type).or_else(|| content.get("*/*"));
    let described = described.unwrap_or_else(|| panic!("{path}: {media_type} is not among {content:?}"));
    let values: Vec<Value> = match media_type {
        "application/x-ndjson" => reply.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect(),
        json if json.contains("json") => vec![reply.json()],
        _ => return,
    };
    for value in values {
        crate::schema::check(document, &described["schema"], &value, path).unwrap();
    }
}

/// An operation as the document has it, a request for it, and the status that comes.
type Step = (String, Ask, u16);

fn step(operation: &str, ask: Ask, status: u16) -> Step {
    (operation.to_owned(), ask, status)
}

fn put(path: &str) -> Ask {
    Ask::new(Method::PUT, path)
}

fn post(path: &str) -> Ask {
    Ask::new(Method::POST, path)
}

fn delete(path: &str) -> Ask {
    Ask::new(Method::DELETE, path)
}

fn steps_of_apps() -> Vec<Step> {
    let functions = "[[function]]\nname = \"hello\"\ncomponent = \"hello.wasm\"\non = [{ stream = \"readings\" }]\n";
    let text = probe("shop", "secrets = [\"api_key\"]\n") + functions;
    let (component, hello) = (std::fs::read(guest("probe-p2")).unwrap(), std::fs::read(guest("hello-p2")).unwrap());
    let (digest, other) =
        (marram_core::Digest::of(&component).to_string(), marram_core::Digest::of(&hello).to_string());
    let deployment = |text: &str| json!({ "manifest": text, "components": { "probe": digest, "hello": other } });
    let first = deployment(&text);
    let second = deployment(&text.replace("[app]\n", "[app]\nversion = \"2\"\n"));
    let (blob, head) = (format!("/v1/blobs/{digest}"), Ask::new(Method::HEAD, &format!("/v1/blobs/{digest}")));
    vec![
        step("GET /v1/apps", get("/v1/apps"), 200),
        step("HEAD /v1/blobs/{digest}", head.clone(), 404),
        step("PUT /v1/blobs/{digest}", put(&blob).body(component.clone()), 201),
        step("PUT /v1/blobs/{digest}", put(&blob).body(component), 200),
        step("PUT /v1/blobs/{digest}", put(&format!("/v1/blobs/{other}")).body(hello), 201),
        step("HEAD /v1/blobs/{digest}", head, 200),
        step("PUT /v1/apps/{app}", put("/v1/apps/shop").json(&first), 422),
        step("PUT /v1/apps/{app}/secrets/{name}", put("/v1/apps/shop/secrets/api_key").body(SECRET), 204),
        step("PUT /v1/apps/{app}", put("/v1/apps/shop").json(&first), 200),
        step("POST /v1/apps/{app}/rollback", post("/v1/apps/shop/rollback"), 409),
        step("PUT /v1/apps/{app}", put("/v1/apps/shop").json(&second), 200),
        step("POST /v1/apps/{app}/rollback", post("/v1/apps/shop/rollback"), 200),
        step("GET /v1/apps", get("/v1/apps"), 200),
        step("GET /v1/apps/{app}", get("/v1/apps/shop"), 200),
        step("GET /v1/apps/{app}/revisions", get("/v1/apps/shop/revisions"), 200),
        step("PUT /v1/apps/{app}/secrets/{name}", put("/v1/apps/shop/secrets/other").body(SECRET), 204),
        step("GET /v1/apps/{app}/secrets", get("/v1/apps/shop/secrets"), 200),
        step("DELETE /v1/apps/{app}/secrets/{name}", delete("/v1/apps/shop/secrets/api_key"), 409),
        step("DELETE /v1/apps/{app}/secrets/{name}", delete("/v1/apps/shop/secrets/other"), 204),
        step("DELETE /v1/apps/{app}/secrets/{name}", delete("/v1/apps/shop/secrets/other"), 404),
    ]
}

fn steps_of_functions() -> Vec<Step> {
    let operation = "/v1/apps/{app}/functions/{function}/invoke/";
    let mut steps = vec![step(&format!("GET {operation}"), get("/v1/apps/shop/functions/none/invoke/"), 404)];
    for method in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] {
        for (rest, path) in [("", ""), ("{path}", "any/path")] {
            let ask = Ask::new(method.parse().unwrap(), &format!("/v1/apps/shop/functions/hello/invoke/{path}"));
            steps.push(step(&format!("{method} {operation}{rest}"), ask, 200));
        }
    }
    steps
}

fn steps_of_streams() -> Vec<Step> {
    let event = json!({ "specversion": "1.0", "id": "1", "source": "/t", "type": "reading" });
    let event = |ask: Ask| ask.header("content-type", "application/cloudevents+json").body(event.to_string());
    let consumer = |more: Value| {
        let mut body = json!({ "consumer": "shop/hello/stream:readings" });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    let (pause, replay) = (consumer(json!({ "paused": true })), consumer(json!({ "from": "first" })));
    let (events, one) = ("/v1/streams/readings/events", "/v1/streams/{stream}");
    vec![
        step("POST /v1/streams/{stream}/events", event(post(events)), 200),
        step("POST /v1/streams/{stream}/events", post(events).body("no event"), 400),
        step("POST /v1/streams/{stream}/events", event(post("/v1/streams/keys/events")), 409),
        step("POST /v1/streams/{stream}/events", event(post("/v1/streams/readings.dead/events")), 409),
        step("POST /v1/streams/{stream}/events", event(post("/v1/streams/spare/events")), 200),
        step("GET /v1/streams", get("/v1/streams"), 200),
        step("GET /v1/streams/{stream}/events", get(&format!("{events}?from=first&limit=1")), 200),
        step("GET /v1/streams/{stream}/events", get("/v1/streams/none/events"), 404),
        step("POST /v1/streams/{stream}/redrive", post("/v1/streams/readings/redrive"), 200),
        step("POST /v1/streams/{stream}/pause", post("/v1/streams/readings/pause").json(&pause), 200),
        step("POST /v1/streams/{stream}/pause", post("/v1/streams/other/pause").json(&pause), 404),
        step("POST /v1/streams/{stream}/replay", post("/v1/streams/readings/replay").json(&replay), 200),
        step(&format!("DELETE {one}"), delete("/v1/streams/readings"), 409),
        step(&format!("DELETE {one}"), delete("/v1/streams/spare"), 204),
        step(&format!("DELETE {one}"), delete("/v1/streams/none"), 404),
    ]
}

fn steps_of_keys() -> Vec<Step> {
    let key = "/v1/kv/limits/keys/pump/7";
    vec![
        step("PUT /v1/kv/{bucket}/keys/{key}", put(&format!("{key}?ttl=1h")).body("1.5"), 200),
        step("PUT /v1/kv/{bucket}/keys/{key}", put(key).header("if-none-match", "*").body("2"), 409),
        step("GET /v1/kv", get("/v1/kv"), 200),
        step("GET /v1/kv/{bucket}", get("/v1/kv/limits?prefix=pump&limit=1"), 200),
        step("GET /v1/kv/{bucket}/keys/{key}", get(key), 200),
        step("DELETE /v1/kv/{bucket}/keys/{key}", delete(key), 200),
        step("DELETE /v1/kv/{bucket}/keys/{key}", delete(key), 200),
        step("GET /v1/kv/{bucket}/keys/{key}", get(key), 404),
    ]
}

fn steps_of_objects() -> Vec<Step> {
    let object = "/v1/objects/photos/a/b";
    vec![
        step("PUT /v1/objects/{bucket}", put("/v1/objects/photos"), 201),
        step("PUT /v1/objects/{bucket}", put("/v1/objects/photos"), 200),
        step("PUT /v1/objects/{bucket}/{name}", put(object).body("x"), 200),
        step("GET /v1/objects", get("/v1/objects"), 200),
        step("GET /v1/objects/{bucket}", get("/v1/objects/photos?limit=1"), 200),
        step("GET /v1/objects/{bucket}", get("/v1/objects/none"), 404),
        step("GET /v1/objects/{bucket}/{name}", get(object), 200),
        step("DELETE /v1/objects/{bucket}", delete("/v1/objects/photos"), 409),
        step("DELETE /v1/objects/{bucket}/{name}", delete(object), 204),
        step("DELETE /v1/objects/{bucket}", delete("/v1/objects/photos"), 204),
    ]
}

/// What a node says of itself, and of what ran and who is connected.
fn steps_of_the_node() -> Vec<Step> {
    vec![
        step("GET /v1/health", get("/v1/health"), 200),
        step("GET /v1/node", get("/v1/node"), 200),
        step("GET /v1/openapi.json", get("/v1/openapi.json"), 200),
        step("GET /v1/logs", get("/v1/logs?app=shop"), 200),
        step("GET /v1/logs", get("/v1/logs?apps=shop"), 400),
        step("GET /v1/logs", get("/v1/logs?since=yesterday"), 400),
        step("GET /v1/usage", get("/v1/usage?since=1h"), 200),
        step("GET /v1/invocations", get("/v1/invocations?limit=5"), 200),
        step("GET /metrics", get("/metrics"), 200),
        step("GET /v1/mqtt/clients", get("/v1/mqtt/clients"), 200),
        step("DELETE /v1/mqtt/clients/{client}", delete("/v1/mqtt/clients/pump-7?forget=true"), 204),
        step("DELETE /v1/mqtt/clients/{client}", delete("/v1/mqtt/clients/nobody"), 404),
        step("DELETE /v1/apps/{app}", delete("/v1/apps/shop"), 204),
    ]
}

/// The first line of an answer that has no end.
async fn watched(node: &TestNode) -> Reply {
    let mut answer = node.admin().open(get("/v1/kv/limits/watch?prefix=pump")).await.unwrap();
    let _ = node.admin().send(put("/v1/kv/limits/keys/pump/8").body("1.5")).await.expect(200);
    let body = answer.frame().await.unwrap().unwrap().into_data().unwrap();
    Reply { status: answer.status().as_u16(), headers: answer.headers().clone(), body }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_is_as_the_document_says() {
    let node = TestNode::start_with(|config| {
        config.prices = Some(marram_telemetry::PriceList::default());
        config.mqtt.listen = Some("127.0.0.1:0".parse().unwrap());
    })
    .await;
    let mut pump = mqtt::client::Client::tcp(&mqtt::address(&node, "mqtt")).await;
    assert_eq!(pump.hello("pump-7", None).await, Some(0));
    let steps = [
        steps_of_apps(),
        steps_of_functions(),
        steps_of_streams(),
        steps_of_keys(),
        steps_of_objects(),
        steps_of_the_node(),
    ];
    // Those that have answered with what they are for, and not with a problem.
    let mut held = BTreeSet::new();
    for (operation, ask, status) in steps.into_iter().flatten() {
        let reply = node.admin().send(ask).await;
        assert_eq!(reply.status, status, "{operation}: {reply:?}");
        assert!(reply.header("marram-request-id").is_some(), "{operation}");
        // A browser takes nothing of it for a page of the API.
        let kept_apart = (reply.header("content-security-policy"), reply.header("x-content-type-options"));
        assert_eq!(kept_apart, (Some("sandbox"), Some("nosniff")), "{operation}");
        assert!(!reply.text().contains(SECRET), "{operation} shows a secret");
        if !operation.starts_with("HEAD") {
            hold(&operation, &reply);
        }
        if status < 400 {
            held.insert(operation);
        }
    }
    let watch = "GET /v1/kv/{bucket}/watch";
    let line = watched(&node).await;
    assert!(!line.body.is_empty());
    hold(watch, &line);
    held.insert(watch.to_owned());
    assert_eq!(held, described(), "each operation that is described has a step here");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn router_and_document_know_the_same_operations() {
    let node = TestNode::start().await;
    assert_eq!(node.admin().get("/v1/openapi.json").await.expect(200).json(), *marram_node::openapi());
    let described = described();
    let paths: BTreeSet<_> =
        described.iter().map(|operation| operation.split_once(' ').unwrap().1.to_owned()).collect();
    for path in paths {
        for method in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] {
            let known = described.contains(&format!("{method} {path}"));
            let as_get = method == "HEAD" && described.contains(&format!("GET {path}"));
            let concrete = path
                .replace("{app}", "none")
                .replace("{function}", "f")
                .replace("{path}", "p")
                .replace("{name}", "n")
                .replace("{digest}", "d");
            let reply = node.admin().send(Ask::new(method.parse().unwrap(), &concrete)).await;
            assert_eq!(reply.status != 405, known || as_get, "{method} {concrete}: {reply:?}");
            if reply.status == 405 {
                // RFC 9110 §15.5.6; axum names HEAD beside GET.
                let allow: BTreeSet<_> = reply.header("allow").unwrap().split(',').map(str::trim).collect();
                let takes = |method: &&str| described.contains(&format!("{method} {path}"));
                assert!(!allow.contains(method) && !allow.is_empty(), "{method} {concrete}: {allow:?}");
                let mut methods = ["GET", "POST", "PUT", "PATCH", "DELETE"].iter();
                assert!(
                    methods.all(|method| allow.contains(method) == takes(method)),
                    "{method} {concrete}: {allow:?}"
                );
            }
            assert!(!reply.text().contains("has no /"), "{method} {concrete} is not routed: {reply:?}");
        }
    }
    let reply = node.admin().get("/v2/apps").await.expect(404);
    assert_eq!(reply.json()["type"], "urn:marram:problem:not-found");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_token_is_asked_for_everywhere_but_at_the_health() {
    let token = "0123456789abcdef0123456789abcdef";
    let node = TestNode::start_with(|config| config.token = Some(Token::new(token).unwrap())).await;
    let _ = node.admin().get("/v1/health").await.expect(200);
    for path in ["/v1/node", "/v1/apps", "/metrics", "/v1/openapi.json", "/v1/logs", "/nothing"] {
        let reply = node.admin().get(path).await.expect(401);
        assert_eq!(reply.header("www-authenticate"), Some("Bearer realm=\"marram\""));
        let _ = node.admin().clone().with_token("0123456789abcdef0123456789abcdeF").get(path).await.expect(401);
    }
    let operator = node.admin().clone().with_token(token);
    assert!(!operator.get("/v1/node").await.expect(200).text().contains(token));
    // A function that is invoked through the API does not see the token.
    node.deploy(&probe("shop", ""), &[("probe", guest("probe-p2"))]).await.unwrap();
    let seen = operator.get("/v1/apps/shop/functions/probe/invoke/headers?q=1").await.expect(200);
    assert!(!seen.text().contains(token), "{seen:?}");
    assert_eq!(seen.json()["path"], "/headers?q=1");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_web_page_and_an_open_address_are_kept_out() {
    let node = TestNode::start().await;
    node.deploy(&probe("shop", ""), &[("probe", guest("probe-p2"))]).await.unwrap();
    let here = format!("http://{}", node.node().admin_addr());
    // What a page of a function's answer could do: change what it likes, and start functions by images of any page.
    let set = put("/v1/apps/evil/secrets/x").body("hi");
    let _ = node.admin().send(set.header("origin", &here).header("sec-fetch-site", "same-origin")).await.expect(401);
    let invoke = || get("/v1/apps/shop/functions/probe/invoke/status/200");
    for (name, value) in [
        ("origin", here.as_str()),
        ("origin", "https://evil.example"),
        ("origin", "null"),
        ("sec-fetch-site", "same-origin"),
        ("sec-fetch-site", "cross-site"),
        ("host", "rebound.example"),
    ] {
        let _ = node.admin().send(invoke().header(name, value)).await.expect(401);
    }
    assert_eq!(node.admin().get("/v1/apps/evil/secrets").await.expect(200).json()["secrets"], json!([]));
    // Somebody has typed it.
    let _ = node.admin().send(invoke().header("sec-fetch-site", "none")).await.expect(200);
    // The first of two hosts would do.
    let twice = get("/v1/apps").header("host", "rebound.example").bytes(node.node().admin_addr());
    let mut connection = tokio::net::TcpStream::connect(node.node().admin_addr()).await.unwrap();
    connection.write_all(&twice).await.unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("more than one Host"), "{answer}");
    node.stop().await;
    let open = NodeConfig { admin: "0.0.0.0:0".parse().unwrap(), ..NodeConfig::default() };
    let error = marram_node::Node::start(open).await.err().unwrap().to_string();
    assert!(error.contains("token") && error.contains("TLS"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_reach_the_function_and_nothing_else() {
    let node = TestNode::start().await;
    let text = probe("shop", "secrets = [\"api_key\"]\n");
    let components = [("probe", guest("probe-p2"))];
    let missing = node.deploy(&text, &components).await.unwrap_err();
    assert!(missing.message().contains("marram secret set shop api_key"), "{missing}");
    let set = |value: &str| Ask::new(Method::PUT, "/v1/apps/shop/secrets/api_key").body(value.to_owned());
    let _ = node.admin().send(set("one")).await.expect(204);
    node.deploy(&text, &components).await.unwrap();
    assert!(node.http().get("/env").await.expect(200).text().contains("one"));
    // A new value is in use with the next request, without a deployment.
    let _ = node.admin().send(set(SECRET)).await.expect(204);
    assert!(node.http().get("/env").await.expect(200).text().contains(SECRET));
    let listed = node.admin().get("/v1/apps/shop/secrets").await.expect(200).json();
    assert_eq!(
        (&listed["secrets"][0]["name"], &listed["secrets"][0]["functions"]),
        (&json!("api_key"), &json!(["probe"]))
    );

    let node = node.restart().await;
    assert!(node.http().get("/env").await.expect(200).text().contains(SECRET));
    for path in ["/v1/apps", "/v1/apps/shop", "/v1/apps/shop/secrets", "/v1/logs", "/metrics", "/v1/node"] {
        assert!(!node.admin().get(path).await.expect(200).text().contains(SECRET), "{path} shows the secret");
    }
    for bad in [set("x").body(vec![0xff]), Ask::new(Method::PUT, "/v1/apps/shop/secrets/a%2Fb").body("x")] {
        let _ = node.admin().send(bad).await.expect(422);
    }
    let _ = node.admin().send(set("x").body(vec![b'x'; (64 << 10) + 1])).await.expect(413);
    let state = node.state_dir().to_owned();
    for file in std::fs::read_dir(&state).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_file()) {
        let bytes = std::fs::read(&file).unwrap();
        let found = bytes.windows(SECRET.len()).any(|window| window == SECRET.as_bytes());
        assert!(!found, "{} has the secret in clear text", file.display());
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_usage_and_metrics_add_up() {
    let node = TestNode::start().await;
    node.deploy(&probe("shop", ""), &[("probe", guest("probe-p2"))]).await.unwrap();
    let mut follow = node.admin().open(get("/v1/logs?app=shop&follow=true")).await.unwrap();
    let reply = node.http().get("/log").await.expect(200);
    let request = reply.header("marram-request-id").unwrap().to_owned();
    let followed = follow.frame().await.unwrap().unwrap().into_data().unwrap();
    assert!(String::from_utf8_lossy(&followed).contains(&request), "{followed:?}");
    for _ in 0..9 {
        let _ = node.http().get("/status/200").await.expect(200);
    }
    let echoed = Ask::new(Method::POST, "/v1/apps/shop/functions/probe/invoke/echo").body("12345");
    assert_eq!(node.admin().send(echoed).await.expect(200).text(), "12345");

    // A record is made when the answer has ended, which the client may see a moment earlier.
    let usage = eventually("eleven invocations are in the usage", || async {
        let usage = node.admin().get("/v1/usage?app=shop").await.expect(200).json();
        (usage["usage"][0]["invocations"] == 11).then(|| usage["usage"][0].clone())
    })
    .await;
    assert_eq!((&usage["failed"], &usage["bytes_in"], &usage["outcomes"]["ok"]), (&json!(0), &json!(5), &json!(11)));
    let invocations = node.admin().get("/v1/invocations?app=shop").await.expect(200).json();
    let invocations = invocations["invocations"].as_array().unwrap().clone();
    assert_eq!(invocations.len(), 11);
    let sum = |field: &str| invocations.iter().map(|one| one[field].as_u64().unwrap()).sum::<u64>();
    for field in ["wall_ns", "cpu_ns", "bytes_in", "bytes_out"] {
        assert_eq!(usage[field].as_u64(), Some(sum(field)), "{field}");
    }
    let lines = node.admin().get(&format!("/v1/logs?request={request}")).await.expect(200).text();
    assert!(!lines.is_empty() && lines.lines().all(|line| line.contains(&request)), "{lines}");

    let metrics = node.admin().get("/metrics").await.expect(200).text();
    for line in ["marram_apps 1", "marram_functions 1", "marram_apps_failed 0"] {
        assert!(metrics.lines().any(|metric| metric.starts_with(line)), "{line} is not in {metrics}");
    }
    let invoked = metrics.lines().filter(|line| line.starts_with("faas_invocations_total{"));
    let total: f64 = invoked.map(|line| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap()).sum();
    assert!((total - 11.0).abs() < f64::EPSILON, "{metrics}");
    // The ten of the front; the one through the admin API did not pass it.
    assert!(metrics.contains("marram_http_requests_total{status=\"2xx\"} 10"), "{metrics}");

    // A follower does not hold a drain up.
    node.stop().await;
    assert!(follow.frame().await.is_none_or(|frame| frame.is_err() || frame.is_ok_and(|frame| frame.is_data())));
}
