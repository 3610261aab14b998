//! An app's life as it is typed: deploy, look, invoke, go back, remove; and how each refusal ends.

use std::path::Path;

use serde_json::json;

use crate::support::{Node, folder, guest_app, marram, python_app, write_manifest, write_python};

#[tokio::test]
async fn deploy_look_invoke_and_remove() {
    let node = Node::start().await;
    let app = guest_app("shop", "hello-p2", "");
    let deployed = node.marram(&["deploy"]).at(app.path()).run().await.expect(0);
    assert!(deployed.stdout.contains("main") && deployed.stdout.contains("component-0.2"), "{deployed:?}");
    let deployed = deployed.says(&["deployed shop", "routes: shop.example/..."]);
    assert!(!deployed.stdout.contains("deployed"), "messages are not data: {deployed:?}");
    let _ = node.get("shop", "/7").await.expect(200);
    node.marram(&["deploy"]).at(app.path()).run().await.expect(0).says(&["unchanged shop"]);

    let apps = node.marram(&["apps"]).done().await;
    assert!(apps.contains("shop") && apps.contains("ready") && apps.contains("1.0.0"), "{apps}");
    let one = node.marram(&["apps", "shop"]).done().await;
    assert!(one.contains("shop.example/...") && one.contains("serving"), "{one}");

    assert_eq!(node.marram(&["invoke", "shop/main"]).done().await, "Hello from Marram");
    let shown = node.marram(&["invoke", "shop/main", "/x?y=1", "--include"]).done().await;
    assert!(shown.starts_with("HTTP/1.1 200 OK\n") && shown.contains("marram-request-id: "), "{shown}");

    node.marram(&["rm", "shop"]).run().await.expect(0).without_data().says(&["removed shop"]);
    node.marram(&["apps"]).run().await.expect(0).without_data().says(&["no apps yet", "hint: "]);
    let _ = node.get("shop", "/7").await.expect(404);
    node.drain().await.expect(0);
}

#[tokio::test]
async fn invoke_passes_on_what_it_is_given() {
    let node = Node::start().await;
    node.deploy(guest_app("shop", "probe-p2", "").path()).await;
    let head = node.marram(&["invoke", "shop/main", "/headers?q=1", "-X", "DELETE", "-H", "x-own: 7"]).json().await;
    assert_eq!((&head["method"], &head["path"]), (&json!("DELETE"), &json!("/headers?q=1")));
    assert!(head["headers"].as_array().unwrap().contains(&json!(["x-own", "7"])), "{head}");

    assert_eq!(node.marram(&["invoke", "shop/main", "/echo", "--data", "typed"]).done().await.trim_end(), "typed");
    let piped = node.marram(&["invoke", "shop/main", "/echo", "--data", "@-"]).stdin("piped");
    assert_eq!(piped.done().await.trim_end(), "piped");
    let here = folder();
    std::fs::write(here.path().join("body"), "from a file").unwrap();
    let filed = node.marram(&["invoke", "shop/main", "/echo", "--data", "@body"]).at(here.path());
    assert_eq!(filed.done().await.trim_end(), "from a file");

    let answered = node.marram(&["invoke", "shop/main", "/status/404"]).run().await;
    answered.expect(0).says(&["it answers 404"]);
    node.marram(&["invoke", "shop/main", "/status/500", "--fail"]).run().await.expect(1);
    node.deploy(guest_app("broken", "bad", "").path()).await;
    let crashed = node.marram(&["invoke", "broken/main", "/trap"]).run().await;
    crashed.expect(0).says(&["the node answers in its place: 500 Internal Server Error"]);
    // A refusal of the node is no answer of the function, whatever is asked for.
    for more in [&["--fail"][..], &["--include"], &["-X", "HEAD"], &[]] {
        let missing = node.marram(&[&["invoke", "shop/other"][..], more].concat()).run().await;
        missing.expect(5).without_data().says(&["error: "]);
    }
    let missing = node.marram(&["invoke", "shop/other"]).run().await;
    missing.expect(5).says(&["error: app \"shop\" has no function \"other\": it has main"]);
    node.marram(&["invoke", "none/main"]).run().await.expect(5).without_data().says(&["error: ", "none"]);
    node.marram(&["invoke", "shop"]).run().await.expect(2).without_data().says(&["<app>/<function>"]);
    for header in ["Host: x", "content-length: 5", "transfer-encoding: chunked", "connection: x-own"] {
        let refused = node.marram(&["invoke", "shop/main", "/echo", "-H", header, "--data", "abc"]).run().await;
        refused.expect(2).without_data().says(&["marram sets ", "leave it out"]);
    }
}

#[tokio::test]
async fn a_rollback_goes_to_what_was_before_or_to_what_is_named() {
    let node = Node::start().await;
    let app = guest_app("shop", "hello-p2", "");
    let mut revisions = Vec::new();
    for version in ["EUR", "USD", "GBP"] {
        write_manifest(app.path(), "shop", "main.wasm", &format!("config = {{ currency = \"{version}\" }}"));
        revisions.push(node.deploy(app.path()).await["revision"].as_str().unwrap().to_owned());
    }
    let serving = || async { node.marram(&["apps", "shop", "--json"]).json().await["revision"].clone() };
    let back = node.marram(&["rollback", "shop"]).run().await.expect(0);
    back.says(&["rolled back shop"]);
    assert_eq!(serving().await, json!(revisions[1]));
    let to = node.marram(&["rollback", "shop", &revisions[2][7..19], "--json"]).json().await;
    assert_eq!((&to["revision"], &to["previous"]), (&json!(revisions[2]), &json!(revisions[1])));
    let unknown = node.marram(&["rollback", "shop", "ffffffffffff"]).run().await;
    unknown.expect(6).without_data().says(&["`marram apps shop` lists them"]);
    for verb in ["rollback", "rm"] {
        node.marram(&[verb, "none"]).run().await.expect(5).without_data().says(&["`marram apps` lists them"]);
    }
    for _ in 0..2 {
        node.marram(&["rollback", "shop"]).done().await;
    }
    node.marram(&["rollback", "shop"]).run().await.expect(7).without_data().says(&["no earlier revision"]);
    assert_eq!(serving().await, json!(revisions[0]));
}

#[tokio::test]
async fn a_dry_run_says_what_would_be_and_changes_nothing() {
    let node = Node::start().await;
    let app = guest_app("shop", "hello-p3", "");
    let tried = node.marram(&["deploy", "--dry-run"]).at(app.path()).run().await.expect(0);
    assert!(tried.stdout.contains("component-0.3"), "{tried:?}");
    tried.says(&["could deploy shop"]);
    assert_eq!(node.marram(&["apps", "--json"]).json().await, json!({ "apps": [] }));
}

#[tokio::test]
async fn everything_that_starts_a_function_is_shown() {
    let node = Node::start().await;
    let events = ["stream:readings", "schedule:0 6 * * * UTC", "key:limits/*"];
    let more = "[[function]]\nname = \"counts\"\ncomponent = \"main.wasm\"\n\
                on = [{ stream = \"readings\" }, { schedule = \"0 6 * * *\" }, { key = \"limits/*\" }]";
    let app = guest_app("shop", "hello-p2", more);
    let deployed = node.marram(&["deploy"]).at(app.path()).run().await.expect(0);
    deployed.says(&["routes: shop.example/...", &format!("events: {}", events.join("  "))]);
    let shown = node.marram(&["apps", "shop"]).done().await;
    for part in ["TRIGGERS", "shop.example/..."].iter().chain(&events) {
        assert!(shown.contains(part), "{part:?} is not in {shown}");
    }
}

#[tokio::test]
async fn an_app_without_functions_says_what_it_has_in_their_place() {
    let node = Node::start().await;
    let app = folder();
    let manifest =
        "manifest_version = 1\n[app]\nname = \"site\"\n[stream.alarms]\n[stream.readings]\n[bucket.uploads]\n";
    std::fs::write(app.path().join("marram.toml"), manifest).unwrap();
    let deployed = node.marram(&["deploy"]).at(app.path()).run().await.expect(0).without_data();
    deployed.says(&["deployed site", "no functions; streams: alarms  readings; buckets: uploads"]);
    let shown = node.marram(&["apps", "site"]).done().await;
    assert!(shown.contains("no functions; streams: alarms  readings; buckets: uploads"), "{shown}");
    assert!(!shown.contains("FUNCTION") && shown.contains("serving"), "{shown}");
}

#[tokio::test]
async fn each_refusal_has_its_code_and_its_next_step() {
    let node = Node::start().await;
    let here = folder();
    let deploy = |folder: &Path| node.marram(&["deploy"]).at(folder);
    deploy(here.path()).run().await.expect(5).without_data().says(&["no marram.toml", "hint: make an app"]);

    write_manifest(here.path(), "shop", "main.wasm", "limit = { memory = \"64MiB\" }");
    let misspelt = deploy(here.path()).run().await.expect(6).without_data();
    misspelt.says(&["marram.toml", "line 10", "did you mean `limits`?"]);
    write_manifest(here.path(), "shop", "main.wasm", "");
    deploy(here.path()).run().await.expect(5).without_data().says(&["main.wasm is not there", "hint: "]);
    std::fs::write(here.path().join("main.wasm"), b"\0asm\x01\0\0\0").unwrap();
    deploy(here.path()).run().await.expect(6).without_data().says(&["\"main\"", "core WebAssembly module"]);

    let script = python_app("script");
    write_python(script.path(), "    return 1 +");
    deploy(script.path()).run().await.expect(6).without_data().says(&["\"main\"", "app.py:5:", "SyntaxError"]);

    node.deploy(guest_app("shop", "hello-p2", "").path()).await;
    let rival = guest_app("rival", "hello-p2", "");
    let manifest = std::fs::read_to_string(rival.path().join("marram.toml")).unwrap();
    std::fs::write(rival.path().join("marram.toml"), manifest.replace("rival.example", "shop.example")).unwrap();
    deploy(rival.path()).run().await.expect(7).without_data().says(&["rival", "shop", "shop.example/..."]);
    node.marram(&["rm", "rival"]).run().await.expect(5).without_data().says(&["rival"]);

    // Nobody listens at port 1, and the admin API does not speak TLS.
    let nobody = marram(&["apps", "--node", "http://127.0.0.1:1"]).run().await;
    nobody.expect(3).without_data().says(&["no node answers", "hint: start one with `marram up`"]);
    let https = node.admin_url.replace("http:", "https:");
    let refused = marram(&["apps", "--node", &https]).run().await.expect(3).without_data();
    refused.says(&["TLS", "hint: it speaks no TLS: write http://"]);
    marram(&["apps", "--node", "shop"]).run().await.expect(2).without_data().says(&["hint: write --node"]);
    let front = marram(&["apps", "--node", &node.http_url]).run().await;
    front.expect(5).without_data();
}
