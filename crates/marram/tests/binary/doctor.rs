//! `marram doctor`: what is there, what is missing, and when that ends it with a failure.

use serde_json::{Value, json};

use crate::support::{Node, folder, guest_app, marram};

fn check<'a>(report: &'a Value, name: &str) -> &'a Value {
    let checks = report["checks"].as_array().unwrap();
    checks.iter().find(|check| check["name"] == name).unwrap_or_else(|| panic!("{name} is not in {report}"))
}

#[tokio::test]
async fn it_says_what_is_there_and_how_to_get_the_rest() {
    let here = folder();
    let report = marram(&["doctor", "--json"]).at(here.path()).env("PATH", "/nowhere").json().await;
    assert_eq!(report["ok"], json!(true), "nothing here needs a toolchain: {report}");
    for engine in ["component-0.2", "component-0.3", "python"] {
        assert_eq!(check(&report, engine)["verdict"], json!("ok"), "{report}");
    }
    for tool in ["cargo", "target wasm32-wasip2", "node", "npm", "python3", "componentize-py"] {
        let check = check(&report, tool);
        assert_eq!(check["verdict"], json!("missing"), "{report}");
        assert!(check["hint"].is_string(), "{check}");
    }
    let shown = marram(&["doctor"]).at(here.path()).env("PATH", "/nowhere").done().await;
    assert!(shown.contains("cargo") && shown.contains("install Rust"), "{shown}");
}

#[tokio::test]
async fn what_an_app_needs_and_lacks_is_a_failure() {
    let app = guest_app("shop", "hello-p2", "build = { command = \"cd . && cargo build\" }");
    let report = marram(&["doctor", "--json"]).at(app.path()).env("PATH", "/nowhere").run().await.expect(1);
    let report: Value = serde_json::from_str(&report.stdout).unwrap();
    assert_eq!((&report["ok"], &check(&report, "cargo")["verdict"]), (&json!(false), &json!("bad")), "{report}");
    assert_eq!(check(&report, "main")["verdict"], json!("ok"), "{report}");
    std::fs::remove_file(app.path().join("main.wasm")).unwrap();
    let shown = marram(&["doctor"]).at(app.path()).env("PATH", "/nowhere").run().await.expect(1);
    assert!(shown.stdout.contains("main.wasm is not there"), "{shown:?}");
}

#[tokio::test]
async fn a_damaged_state_is_found_also_while_a_node_runs() {
    let node = Node::start().await;
    node.deploy(guest_app("shop", "hello-p2", "").path()).await;
    let state = node.home.path().join("state");
    let doctor = || marram(&["doctor", "--json", "--state", state.to_str().unwrap()]).at(node.home.path());
    assert_eq!(doctor().json().await["ok"], json!(true));
    let digest = marram_core::Digest::of(&std::fs::read(marram_testkit::guest("hello-p2")).unwrap());
    let blob = state.join("blobs/sha256").join(&digest.hex()[..2]).join(digest.hex());
    std::fs::write(&blob, "altered").unwrap();
    let report = doctor().run().await.expect(1);
    assert!(report.stdout.contains("damaged or altered") && report.stdout.contains(&digest.short()), "{report:?}");
    std::fs::remove_file(&blob).unwrap();
    let report = doctor().run().await.expect(1);
    assert!(report.stdout.contains("is missing"), "{report:?}");
}
