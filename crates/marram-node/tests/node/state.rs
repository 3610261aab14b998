//! What functions keep and tell others, through a whole node: keys, collections, events and MQTT messages, by every interface
//! that offers them, and only where the manifest grants it.

use http::Method;
use marram_testkit::{Ask, TestNode, eventually, guest};
use serde_json::{Value, json};

const GRANTS: &str = "allow = { kv = [\"state\"], publish = [\"trends\"], mqtt = [\"commands/#\"] }";

struct App {
    node: TestNode,
}

impl App {
    /// A node with the guest as the one function of an app, under `/`.
    async fn start(component: &str, grants: &str) -> Self {
        let node = TestNode::start().await;
        node.deploy(&manifest(component, grants), &[("state", guest(component))]).await.unwrap();
        Self { node }
    }

    async fn calls(&self, calls: &[(&str, &str)]) {
        for (path, expected) in calls {
            let reply = self.node.http().get(path).await;
            assert!(reply.text().contains(expected), "{path}: {expected:?} is not in {:?}", reply.text());
        }
    }

    async fn events(&self, stream: &str) -> Vec<Value> {
        let reply = self.node.admin().get(&format!("/v1/streams/{stream}/events")).await.expect(200);
        reply.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    async fn warnings(&self) -> String {
        self.node.admin().get("/v1/logs").await.text()
    }
}

fn manifest(component: &str, grants: &str) -> String {
    format!(
        "manifest_version = 1\n[app]\nname = \"site\"\n[[function]]\nname = \"state\"\ncomponent = \"{component}\"\n\
         on = [{{ http = \"/...\" }}]\n{grants}\n"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_by_the_second_draft() {
    let mut app = App::start("state.wasm", GRANTS).await;
    app.calls(&[
        ("/kv/state/get/a", "None"),
        ("/kv/state/set/a/one", "set"),
        ("/kv/state/get/a", "Some(\"one\")"),
        ("/kv/state/exists/a", "true"),
        ("/kv/state/set-many/b/c/d", "set"),
        ("/kv/state/get-many/a/x/b", "[Some((\"a\", \"one\")), None, Some((\"b\", \"many\"))]"),
        ("/kv/state/list", "a b c d"),
        ("/kv/state/delete-many/b/c", "deleted"),
        ("/kv/state/delete/d", "deleted"),
        ("/kv/state/exists/d", "false"),
        // What is listed is there, also where it cannot be read here.
        ("/set/state/add/s/x", "added"),
        ("/kv/state/exists/s", "true"),
        ("/kv/state/get/s", "Other("),
        ("/kv/state/delete/s", "deleted"),
        ("/kv/state/exists/s", "false"),
        ("/kv/state/increment/n/5", "5"),
        ("/kv/state/increment/n/-7", "-2"),
        ("/kv/state/increment/a/1", "Other("),
        ("/kv/state/cas/a/two", "swapped"),
        ("/kv/state/lost-cas/a/four/three", "swapped after Some(\"three\")"),
        ("/kv/state/lost-cas/new/four/three", "swapped after Some(\"three\")"),
        ("/kv/state/set//empty", "Other("),
    ])
    .await;
    // What was told to be set is there, whoever asks, also after a restart.
    app.node = app.node.restart().await;
    app.calls(&[("/kv/state/get/a", "Some(\"four\")"), ("/kv/state/list", "a n new")]).await;
    assert_eq!(app.node.admin().get("/v1/kv/state/keys/a").await.expect(200).text(), "four");
    app.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_by_the_first_draft() {
    let app = App::start("state-draft.wasm", "allow = { kv = [\"state\"] }").await;
    app.calls(&[
        ("/state/set/a/one", "set"),
        ("/state/get/a", "Some(\"one\")"),
        ("/state/exists/b", "false"),
        ("/state/increment/n/5", "5"),
        ("/state/increment/n/18446744073709551615", "use wasi:keyvalue@0.2.0-draft2"),
        // There is no number below 0 here, so that none comes about.
        ("/state/set/low/-5", "set"),
        ("/state/increment/low/1", "use wasi:keyvalue@0.2.0-draft2"),
        ("/state/get/low", "Some(\"-5\")"),
        ("/state/increment/low/7", "2"),
        ("/state/delete/low", "deleted"),
        ("/state/delete/a", "deleted"),
        ("/state/get/a", "None"),
        ("/state/count", "1 keys in 1 pages"),
        ("/state/list-from/17", "not the latest cursor"),
        ("/other/get/a", "AccessDenied"),
    ])
    .await;
    // More than a page, whose cursor is a number here.
    for hundreds in 0..11 {
        let many: Vec<_> = (0..100).map(|n| format!("k{hundreds:02}{n:02}")).collect();
        app.calls(&[(&format!("/state/set-many/{}", many.join("/")), "set")]).await;
    }
    app.calls(&[("/state/count", "1101 keys in 2 pages")]).await;
    app.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bucket_without_a_name_is_the_only_one_that_was_granted() {
    for (component, path) in [("state.wasm", "/kv/"), ("state-draft.wasm", "/")] {
        let app = App::start(component, GRANTS).await;
        app.calls(&[(&format!("{path}/set/a/one"), "set"), (&format!("{path}state/get/a"), "Some(\"one\")")]).await;
        app.node.stop().await;
        let app = App::start(component, "allow = { kv = [\"state\", \"other\"], publish = [\"trends\"] }").await;
        app.calls(&[(&format!("{path}/get/a"), "open one of \\\"state\\\", \\\"other\\\" by its name")]).await;
        assert!(app.warnings().await.contains("site/state opens the default bucket"), "{component}");
        app.node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_that_go_and_things_that_grow() {
    let app = App::start("state.wasm", GRANTS).await;
    app.calls(&[
        ("/expiring/state/set/short/x/0", "Invalid("),
        ("/expiring/state/set/short/x/600000", "set"),
        ("/expiring/state/remaining/none", "None"),
        ("/kv/state/get/short", "Some(\"x\")"),
        ("/counter/state/value/c", "None"),
        ("/counter/state/add/c/41", "41"),
        ("/counter/state/add/c/1", "42"),
        ("/counter/state/value/c", "Some(42)"),
        ("/kv/state/get/c", "Some(\"42\")"),
        ("/set/state/members/s", "None"),
        ("/set/state/add/s/b/a/b", "added"),
        ("/set/state/remove/s/b/z", "removed"),
        ("/set/state/members/s", "Some([\"a\"])"),
        ("/set/state/contains/s/a", "true"),
        ("/set/state/contains/s/b", "false"),
        ("/map/state/put/m/name/pump", "changed"),
        ("/map/state/increment/m/hours/7", "changed"),
        ("/map/state/add/m/alarms/hot", "changed"),
        ("/map/state/get/m/hours", "None Some(7) []"),
        ("/map/state/get/m/alarms", "None None [\"hot\"]"),
        ("/map/state/discard/m/alarms/hot", "changed"),
        // A field in which nothing is left is not there.
        ("/map/state/keys/m", "Some([\"hours\", \"name\"])"),
        ("/map/state/remove/m/name", "changed"),
        ("/map/state/get/m/name", "nothing"),
        // One kind of thing at a time.
        ("/map/state/get/s/a", "Conflict("),
        ("/set/state/add/c/x", "Conflict("),
        ("/counter/state/add/m/1", "Conflict("),
    ])
    .await;
    let remaining = app.node.http().get("/expiring/state/remaining/short").await.text();
    let left: u64 = remaining.trim_start_matches("Some(").trim_end_matches(')').parse().unwrap();
    assert!((1..=600_000).contains(&left), "{remaining}");
    app.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_that_a_function_publishes() {
    let app = App::start("state.wasm", GRANTS).await;
    app.calls(&[
        ("/publish/trends/pump-1/=pump-2", "[(1, false), (2, false)]"),
        ("/publish/trends/=pump-2/pump-3", "[(2, true), (3, false)]"),
        ("/publish/trends/fine/!", "Invalid("),
        ("/publish/secret/x", "AccessDenied("),
        ("/send/streams/trends/hello", "sent"),
        ("/send/nats/trends/hello", "Connection("),
        ("/send/default/secret/hello", "PermissionDenied("),
    ])
    .await;
    let traced = Ask::new(Method::GET, "/publish/trends/traced")
        .header("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
    assert_eq!(app.node.http().send(traced).await.status, 200);
    let events = app.events("trends").await;
    let subjects: Vec<_> = events.iter().map(|event| event["subject"].as_str().unwrap()).collect();
    assert_eq!(subjects, ["pump-1", "=pump-2", "pump-3", "sent", "traced"]);
    let first = &events[0];
    assert_eq!((&first["type"], &first["source"]), (&json!("com.example.published"), &json!("/functions/site/state")));
    assert_eq!((&first["data"], &first["unit"]), (&json!({ "rms": 1.4 }), &json!("mm/s")));
    assert_eq!(first["id"].as_str().unwrap().len(), 32, "{first}");
    let sent = &events[3];
    assert_eq!((&sent["type"], &sent["color"]), (&json!("com.example.sent"), &json!("green")));
    assert_eq!((&sent["datacontenttype"], &sent["data"]), (&json!("text/plain"), &json!("hello")));
    assert!(events[4]["traceparent"].as_str().unwrap().starts_with("00-0af7651916cd43dd8448eb211c80319c-"));
    // A refusal is in the log, whatever the guest makes of it.
    let told = app.warnings().await;
    assert!(told.contains("site/state may not publish to the stream") && told.contains("allow.publish"), "{told}");
    app.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_host_holds_for_a_function_has_a_limit() {
    let app = App::start("state.wasm", GRANTS).await;
    app.calls(&[("/hoard/20/1000000", "20")]).await;
    let refused = app.node.http().get("/hoard/100/1000000").await;
    assert_eq!(refused.status, 500, "{refused:?}");
    assert!(refused.text().contains("bytes with the host"), "{refused:?}");
    let many: Vec<_> = (0..=1_000).map(|n| format!("k{n}")).collect();
    app.calls(&[
        ("/hoard/20/1000000", "20"),
        (&format!("/kv/state/get-many/{}", many.join("/")), "more than 1000 keys at once"),
    ])
    .await;
    app.node.stop().await;
}

/// A script that tells what it is sent.
const LISTENER: &str = r#"
export default { async fetch(request, env) {
    await env.kv.state.put(request.headers.get("ce-subject"), await request.text() + " from " + request.headers.get("ce-source"));
    return new Response(null, { status: 204 });
} }
"#;

#[tokio::test(flavor = "multi_thread")]
async fn commands_by_mqtt_reach_functions_without_any_device() {
    let app = App::start("state.wasm", GRANTS).await;
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("index.js");
    std::fs::write(&script, LISTENER).unwrap();
    let listening = "manifest_version = 1\n[app]\nname = \"listening\"\n[[function]]\nname = \"ear\"\n\
                     component = \"index.js\"\non = [{ mqtt = \"commands/#\" }]\nallow = { kv = [\"state\"] }\n";
    app.node.deploy(listening, &[("ear", script)]).await.unwrap();
    app.calls(&[
        ("/mqtt/commands/pump-1/stop", "published"),
        ("/mqtt/other/x", "AccessDenied("),
        ("/mqtt/commands/+/x", "Invalid("),
    ])
    .await;
    let heard = eventually("the message comes by", || async {
        let reply = app.node.admin().get("/v1/kv/state/keys/commands/pump-1").await;
        (reply.status == 200).then(|| reply.text())
    })
    .await;
    // A `%` is encoded in the header (CloudEvents HTTP binding §3.1.3.2).
    assert_eq!(heard, "stop from /mqtt/site%252Fstate");
    app.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_not_granted_is_refused_at_deploy_with_the_line_to_add() {
    let node = TestNode::start().await;
    for (grants, wanted) in [
        ("", "add `allow = { kv = [\"<bucket>\"] }` to the function"),
        ("allow = { publish = [\"trends\"] }", "add `kv = [\"<bucket>\"]` to its `allow`"),
        (
            "allow = { kv = [\"state\"] }",
            "add `publish = [\"<stream>\"]` or `mqtt = [\"<topic filter>\"]` to its `allow`",
        ),
    ] {
        let refused =
            node.deploy(&manifest("state.wasm", grants), &[("state", guest("state.wasm"))]).await.unwrap_err();
        let message = refused.message();
        assert!(message.contains("function \"state\"") && message.contains(wanted), "{grants}: {message}");
    }
    node.stop().await;
}

/// Everything that `env` offers, a call a path.
const SCRIPT: &str = r#"
export default { async fetch(request, env) {
    const { kv: { state }, stream: { trends }, mqtt } = env;
    const show = (value) => Response.json(value ?? null);
    try {
        switch (new URL(request.url).pathname) {
            case "/kinds": return show([Object.keys(env), Object.keys(env.kv), Object.keys(env.stream), String(state)]);
            case "/get": return show(await state.get("a"));
            case "/put": await state.put("a", "one"); return show(await state.get("a"));
            case "/json": await state.put("j", { rms: 1.4 }); return show(await state.get("j", "json"));
            case "/bytes": await state.put("b", new Uint8Array([0, 10, 255])); return show([...await state.get("b", { type: "bytes" })]);
            case "/lines": await state.put("l", "a\nb\n"); return show([await state.get("l"), (await state.get("l", "arrayBuffer")).byteLength]);
            case "/increment": return show([await state.increment("n"), await state.increment("n", -3)]);
            case "/list": return show(await state.list({ prefix: "", limit: 2 }));
            case "/rest": return show(await state.list({ cursor: (await state.list({ limit: 2 })).cursor }));
            case "/delete": await state.delete("a"); return show(await state.get("a"));
            case "/expires": {
                await state.put("e", "x", { expirationTtl: 60 });
                const { expiration } = await state.getWithVersion("e");
                return show(expiration - Date.now() / 1000 > 55 && expiration - Date.now() / 1000 < 61);
            }
            case "/versions": {
                const first = await state.put("v", "1", { ifVersion: null });
                const second = await state.put("v", "2", { ifVersion: first });
                const lost = await state.put("v", "3", { ifVersion: first }).catch((error) => [error instanceof Error, error.kind]);
                return show([(await state.getWithVersion("v")).version === second, lost]);
            }
            case "/at-once": {
                await Promise.all(Array.from({ length: 50 }, (_, n) => state.put(`k${n}`, String(n))));
                return show((await Promise.all(Array.from({ length: 50 }, (_, n) => state.get(`k${n}`)))).map(Number).reduce((a, b) => a + b));
            }
            case "/publish": return show([
                await trends.publish({ rms: 1.4 }, { type: "trend", subject: "pump", id: "1", extensions: { unit: "mm/s" } }),
                await trends.publishBatch([{ data: "text" }, { data: new Uint8Array([1, 2]) }, { type: "empty", id: "1", source: "/elsewhere" }]),
            ]);
            case "/mqtt": await mqtt.publish("commands/pump", "stop", { qos: 2, retain: true, userProperties: { by: "script" } }); return show("ok");
            case "/mqtt-denied": await mqtt.publish("other", "stop"); return show("ok");
            case "/bad-key": await state.get(""); return show("ok");
            case "/bad-event": await trends.publish("x", { extensions: { "Not A Name": "x" } }); return show("ok");
            case "/bad-qos": await mqtt.publish("commands/x", "y", { qos: 7 }); return show("ok");
            case "/bad-value": await state.put("a", undefined); return show("ok");
            case "/blob": await state.put("blob", new Blob(["one"], { type: "text/x" })); return show(await state.get("blob"));
            case "/emptied": {
                const values = [Promise.resolve("x"), new Response("x"), new Response("x").body, new Map(), new Set(), new FormData(),
                    new URLSearchParams("a=1"), new Headers(), new Error("x")];
                const told = await Promise.all(values.map((value) => state.put("no", value).catch((error) => error.message)));
                return show([told.map((message) => message.split(" is not a value: ")[0]), await state.get("no")]);
            }
            case "/fields": {
                class AppError extends Error { code = 4; }
                class OrderPlaced extends Event { constructor(order) { super("order"); this.order = order; } }
                class Store extends EventTarget { data = 1; }
                class Pairs extends Map { toJSON() { return [...this]; } }
                const values = [new AppError("x"), new OrderPlaced(7), new Store(), new Pairs([[1, 2]]), { toJSON: () => ({}) }];
                return show(await Promise.all(values.map(async (value, n) => { await state.put(`f${n}`, value); return state.get(`f${n}`, "json"); })));
            }
            case "/taken": {
                await state.put("t1", "x", { expirationTtl: 60, ttl: 60, ifVersion: undefined, metadata: undefined });
                await state.put("t2", "y", { ttl: 60, expirationTtl: undefined });
                const { expiration } = await state.getWithVersion("t2");
                const page = await state.list({ prefix: "t", limit: 1 });
                return show([expiration > Date.now() / 1000, await Promise.all(["t1", "t2"].map(state.get, state)), (await state.list({ prefix: "t", ...page })).keys]);
            }
            case "/options": return show(await Promise.all([
                state.put("no", "x", { ttlSeconds: 60 }), state.put("no", "x", 60), state.get("no", { typ: "json" }), state.delete("no", { ifEtag: "1" }),
                state.list({ prefx: "a" }), state.get(["a", "b"]), state.put(undefined, "x"), trends.publish("x", { Type: "t" }),
                mqtt.publish("commands/x", "y", { retained: true }),
            ].map((call) => call.then(() => "done", (error) => error.message))));
        }
    } catch (error) {
        return show(`${error.kind}: ${error.message}`);
    }
} }
"#;

async fn script(grants: &str, source: &str) -> (Result<(), String>, TestNode, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("index.js");
    std::fs::write(&file, source).unwrap();
    let node = TestNode::start().await;
    let deployed = node.deploy(&manifest("index.js", grants), &[("state", file)]).await;
    (deployed.map(|_| ()).map_err(|failure| failure.message().to_owned()), node, folder)
}

#[tokio::test(flavor = "multi_thread")]
async fn javascript_has_it_in_env() {
    let (deployed, node, _folder) = script(GRANTS, SCRIPT).await;
    deployed.unwrap();
    let cases = [
        ("/kinds", json!([["mqtt", "kv", "stream"], ["state"], ["trends"], "[object KeyBucket]"])),
        ("/get", json!(null)),
        ("/put", json!("one")),
        ("/json", json!({ "rms": 1.4 })),
        ("/bytes", json!([0, 10, 255])),
        ("/lines", json!(["a\nb\n", 4])),
        ("/increment", json!([1, -2])),
        ("/list", json!({ "keys": [{ "name": "a" }, { "name": "b" }], "list_complete": false, "cursor": "b" })),
        ("/rest", json!({ "keys": [{ "name": "j" }, { "name": "l" }, { "name": "n" }], "list_complete": true })),
        ("/delete", json!(null)),
        ("/expires", json!(true)),
        ("/versions", json!([true, [true, "conflict"]])),
        ("/at-once", json!(1225)),
        ("/mqtt", json!("ok")),
        ("/blob", json!("one")),
        ("/fields", json!([{ "code": 4 }, { "order": 7 }, { "data": 1 }, [[1, 2]], {}])),
        ("/taken", json!([true, ["x", "y"], [{ "name": "t2" }]])),
        (
            "/emptied",
            json!([
                [
                    "a Promise",
                    "a Response",
                    "a ReadableStream",
                    "a Map",
                    "a Set",
                    "a FormData",
                    "a URLSearchParams",
                    "a Headers",
                    "an Error"
                ],
                null
            ]),
        ),
        (
            "/options",
            json!([
                "put of env.kv has no option ttlSeconds; it has expirationTtl, expiration, ifVersion",
                "the options of put of env.kv are an object, not 60",
                "get of env.kv has no option typ; it has type, cacheTtl",
                "delete of env.kv has no option ifEtag; it has ifVersion",
                "list of env.kv has no option prefx; it has prefix, limit, cursor",
                "a name is text, not [ 'a', 'b' ]",
                "a name is text, not undefined",
                "publish of env.stream has no option Type; it has type, subject, id, source, time, contentType, dataSchema, extensions",
                "publish of env.mqtt has no option retained; it has qos, retain, expiry, contentType, responseTopic, correlationData, userProperties",
            ]),
        ),
    ];
    for (path, expected) in cases {
        assert_eq!(node.http().get(path).await.expect(200).json(), expected, "{path}");
    }
    for (path, part) in [
        ("/mqtt-denied", "unauthorized: site/state may not publish to the topic \"other\""),
        ("/bad-key", "invalid: "),
        ("/bad-event", "`Not A Name`"),
        ("/bad-qos", "`qos` is 7"),
        ("/bad-value", "is not a value"),
    ] {
        let told = node.http().get(path).await.expect(200).text();
        assert!(told.contains(part.split_once('"').map_or(part, |(before, _)| before)), "{path}: {told}");
    }
    let published = node.http().get("/publish").await.expect(200).json();
    let at = |position| json!({ "position": position, "duplicate": false });
    assert_eq!(published, json!([at(1), [at(2), at(3), at(4)]]));
    let events = node.admin().get("/v1/streams/trends/events").await.expect(200).text();
    let events: Vec<Value> = events.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((&events[0]["data"], &events[0]["unit"]), (&json!({ "rms": 1.4 }), &json!("mm/s")));
    assert_eq!((&events[1]["datacontenttype"], &events[1]["type"]), (&json!("text/plain"), &json!("marram.message")));
    assert_eq!(events[2]["data_base64"], "AQI=");
    assert_eq!((&events[3]["source"], events[3].get("data")), (&json!("/elsewhere"), None));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn javascript_sees_nothing_that_was_not_granted_and_nothing_is_hidden() {
    let source = "export default { fetch(request, env) { return Response.json(Object.keys(env)); } }";
    let (deployed, node, _folder) = script("config = { color = \"red\" }", source).await;
    deployed.unwrap();
    assert_eq!(node.http().get("/").await.expect(200).json(), json!(["color"]));
    node.stop().await;
    let (deployed, node, _folder) = script("config = { kv = \"x\" }\nallow = { kv = [\"state\"] }", source).await;
    let refused = deployed.unwrap_err();
    assert!(refused.contains("`env.kv`") && refused.contains("rename"), "{refused}");
    node.stop().await;
}

/// The same in Python.
const PYTHON: &str = r#"
from marram import Response, StateError

def fetch(request, env):
    state, trends = env.kv.state, env.stream["trends"]
    try:
        return Response.json(answer(request.path, env, state, trends))
    except StateError as error:
        return Response.json([error.kind, str(error)])
    except AttributeError as error:
        return Response.json(str(error))

def answer(path, env, state, trends):
    match path:
        case "/put":
            version = state.put("a", "one", if_version=None)
            return [state.get("a"), state.get_with_version("a")[1] == version, state.get("b", "none")]
        case "/json": state.put("j", {"rms": 1.4}, ttl=60); return state.get_json("j")
        case "/increment": return [state.increment("n", 5), state.increment("n", -7)]
        case "/keys": return list(state.keys())
        case "/delete": state.delete("a"); return state.get_bytes("a")
        case "/conflict": state.put("j", "x", if_version=None)
        case "/publish": return trends.publish_batch([{"data": {"rms": 1}, "type": "trend", "extensions": {"unit": "mm"}}, {"data": b"\x01"}])
        case "/mqtt": env.mqtt.publish("commands/pump", "stop", retain=True); return "ok"
        case "/denied": env.mqtt.publish("other", "stop")
        case "/other": return env.kv.other
"#;

#[tokio::test(flavor = "multi_thread")]
async fn python_has_it_in_env() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("app.py");
    std::fs::write(&file, PYTHON).unwrap();
    let node = TestNode::start().await;
    node.deploy(&manifest("app.py", GRANTS), &[("state", file)]).await.unwrap();
    let cases = [
        ("/put", json!(["one", true, "none"])),
        ("/json", json!({ "rms": 1.4 })),
        ("/increment", json!([5, -2])),
        ("/keys", json!(["a", "j", "n"])),
        ("/delete", json!(null)),
        ("/publish", json!([1, 2])),
        ("/mqtt", json!("ok")),
        ("/other", json!("'other' was not granted: add it to the function's `allow.kv`")),
    ];
    for (path, expected) in cases {
        assert_eq!(node.http().get(path).await.expect(200).json(), expected, "{path}");
    }
    assert_eq!(node.http().get("/conflict").await.expect(200).json()[0], "conflict");
    assert_eq!(node.http().get("/denied").await.expect(200).json()[0], "unauthorized");
    node.stop().await;
}
