//! Sets and maps of `marram:crdt` in JavaScript and Python, through a whole node.

use marram_testkit::{TestNode, guest};
use serde_json::{Value, json};

/// The app of a script, beside a component that reads and writes the same bucket by the interfaces.
fn manifest(file: &str) -> String {
    format!(
        "manifest_version = 1\n[app]\nname = \"site\"\n\
         [[function]]\nname = \"script\"\ncomponent = \"{file}\"\non = [{{ http = \"/...\" }}]\nallow = {{ kv = [\"state\"] }}\n\
         [[function]]\nname = \"component\"\ncomponent = \"state.wasm\"\non = [{{ http = \"/wit/...\" }}]\n\
         allow = {{ kv = [\"state\"], publish = [\"trends\"], mqtt = [\"commands/#\"] }}\n"
    )
}

async fn start(file: &str, source: &str) -> TestNode {
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join(file);
    std::fs::write(&script, source).unwrap();
    let node = TestNode::start().await;
    let components = [("script", script), ("component", guest("state.wasm"))];
    node.deploy(&manifest(file), &components).await.unwrap();
    node
}

async fn check(node: &TestNode, cases: &[(&str, Value)]) {
    for (path, expected) in cases {
        assert_eq!(node.http().get(path).await.expect(200).json(), *expected, "{path}");
    }
}

/// What a component does to the same keys, by the admin API so that its own paths are as it knows them.
async fn component(node: &TestNode, path: &str, expected: &str) {
    let reply = node.admin().get(&format!("/v1/apps/site/functions/component/invoke{path}")).await;
    assert!(reply.text().contains(expected), "{path}: {expected:?} is not in {:?}", reply.text());
}

const JAVASCRIPT: &str = r#"
export default { async fetch(request, env) {
    const { state } = env.kv;
    const pumps = state.setAt("pumps"), plan = state.mapAt("plan");
    const show = (value) => Response.json(value ?? null);
    try {
        switch (new URL(request.url).pathname) {
            case "/none": return show([await pumps.contains("a"), await pumps.members(), await plan.get("a"), await plan.field("a"), await plan.entries()]);
            case "/add": await pumps.add("b", "a", "a"); await pumps.add(); return show([await pumps.members(), await pumps.contains("a"), await pumps.contains("c")]);
            case "/remove": await pumps.remove("b", "never"); return show(await pumps.members());
            case "/kinds": {
                const kinds = state.setAt("kinds");
                await kinds.add({ rms: 1.4 }, new Uint8Array([0x22, 0x31, 0x22]));
                return show([await kinds.members("json"), (await kinds.members("bytes")).map((member) => member.length), await kinds.contains({ rms: 1.4 })]);
            }
            case "/map": {
                await plan.set("name", "pump");
                await plan.set("limits", { rms: 1.5 });
                await plan.increment("stops", 3);
                await plan.increment("stops", -1);
                await plan.add("alarms", "hot", "loud");
                await plan.discard("alarms", "loud");
                return show([await plan.get("name"), await plan.get("limits", "json"), await plan.get("stops"), await plan.field("stops"), await plan.field("alarms")]);
            }
            case "/entries": return show(await plan.entries());
            case "/remove-fields": await plan.remove("name", "stops"); return show((await plan.entries()).map(([name]) => name));
            case "/names": return show([String(pumps), String(plan)]);
            case "/conflict": await state.setAt("plan").add("x"); return show("ok");
            case "/conflict-read": await state.mapAt("pumps").entries(); return show("ok");
            case "/conflict-kv": await state.get("pumps"); return show("ok");
            case "/large": await pumps.add(new Uint8Array(2 << 20)); return show("ok");
            case "/field": await plan.set("", "x"); return show("ok");
            case "/at-once": {
                const many = state.setAt("many");
                await Promise.all(Array.from({ length: 20 }, (_, n) => many.add(`m${n}`)));
                return show((await many.members()).length);
            }
        }
    } catch (error) {
        return show(`${error.kind}: ${error.message}`);
    }
} }
"#;

#[tokio::test(flavor = "multi_thread")]
async fn in_javascript() {
    let mut node = start("index.js", JAVASCRIPT).await;
    let nothing = json!({ "value": null, "count": null, "members": [] });
    let with = |name: &str, value: Value| {
        let mut field = nothing.clone();
        field[name] = value;
        field
    };
    check(
        &node,
        &[
            ("/none", json!([false, [], null, null, []])),
            ("/add", json!([["a", "b"], true, false])),
            ("/remove", json!(["a"])),
            ("/kinds", json!([["1", { "rms": 1.4 }], [3, 11], true])),
            ("/map", json!(["pump", { "rms": 1.5 }, null, with("count", json!(2)), with("members", json!(["hot"]))])),
            (
                "/entries",
                json!([
                    ["alarms", with("members", json!(["hot"]))],
                    ["limits", with("value", json!("{\"rms\":1.5}"))],
                    ["name", with("value", json!("pump"))],
                    ["stops", with("count", json!(2))]
                ]),
            ),
            ("/remove-fields", json!(["alarms", "limits"])),
            ("/names", json!(["[object KeySet]", "[object KeyMap]"])),
            ("/at-once", json!(20)),
        ],
    )
    .await;
    for (path, part) in [
        ("/conflict", "conflict: "),
        ("/conflict-read", "conflict: the key holds a set"),
        ("/conflict-kv", "conflict: "),
        ("/large", "body-too-large: "),
        ("/field", "invalid: "),
    ] {
        let told = node.http().get(path).await.expect(200).text();
        assert!(told.contains(part), "{path}: {told}");
    }
    // The same sets and maps as components have.
    component(&node, "/set/state/members/pumps", "a").await;
    component(&node, "/set/state/add/pumps/from-wit", "added").await;
    node = node.restart().await;
    check(&node, &[("/remove", json!(["a", "from-wit"]))]).await;
    node.stop().await;
}

const PYTHON: &str = r#"
from marram import Response, StateError

def fetch(request, env):
    state = env.kv.state
    try:
        return Response.json(answer(request.path, state, state.set_at("pumps"), state.map_at("plan")))
    except StateError as error:
        return Response.json(error.kind)

def answer(path, state, pumps, plan):
    match path:
        case "/none": return [pumps.contains("a"), pumps.members(), plan.get("a"), plan.get("a", "none"), plan.field("a"), plan.entries()]
        case "/add":
            pumps.add("b", "a", "a")
            return [pumps.members(), pumps.contains("a"), pumps.contains("c"), [len(member) for member in pumps.members("bytes")]]
        case "/remove": pumps.remove("b", "never"); return pumps.members()
        case "/map":
            plan.set("limits", {"rms": 1.5})
            plan.increment("stops", 3)
            plan.increment("stops", -1)
            plan.add("alarms", "hot", "loud")
            plan.discard("alarms", "loud")
            stops = plan.field("stops")
            return [plan.get("limits", kind="json"), stops.value, stops.count, plan.field("alarms").members]
        case "/entries": return [[name, *field] for name, field in plan.entries()]
        case "/remove-fields": plan.remove("limits", "stops"); return [name for name, _ in plan.entries()]
        case "/conflict": state.set_at("plan").add("x")
        case "/conflict-read": state.map_at("pumps").entries()
"#;

#[tokio::test(flavor = "multi_thread")]
async fn in_python() {
    let node = start("app.py", PYTHON).await;
    check(
        &node,
        &[
            ("/none", json!([false, [], null, "none", null, []])),
            ("/add", json!([["a", "b"], true, false, [1, 1]])),
            ("/remove", json!(["a"])),
            ("/map", json!([{ "rms": 1.5 }, null, 2, ["hot"]])),
            (
                "/entries",
                json!([
                    ["alarms", null, null, ["hot"]],
                    ["limits", "{\"rms\": 1.5}", null, []],
                    ["stops", null, 2, []]
                ]),
            ),
            ("/remove-fields", json!(["alarms"])),
            ("/conflict", json!("conflict")),
            ("/conflict-read", json!("conflict")),
        ],
    )
    .await;
    component(&node, "/set/state/members/pumps", "a").await;
    node.stop().await;
}
