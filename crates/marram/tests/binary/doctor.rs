//! `marram doctor`: what is there, what is missing, and when that ends it with a failure.

use serde_json::{Value, json};

use crate::support::{Node, folder, guest_app, marram, start_node};
use rustix::process::Signal;

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

/// Bytes of a page of the database.
const PAGE_BYTES: usize = 4096;

/// Spoils every page but the first, which says what the file is, that `is_meant`. Gives how many.
fn spoil(database: &mut [u8], is_meant: impl Fn(&[u8]) -> bool) -> usize {
    let pages = database.chunks_mut(PAGE_BYTES).skip(1).filter(|page| is_meant(page));
    pages.map(|page| page.iter_mut().for_each(|byte| *byte ^= 0xff)).count()
}

#[tokio::test]
async fn a_damaged_database_is_a_finding_and_a_node_does_not_start_on_it() {
    let node = Node::start().await;
    node.deploy(guest_app("shop", "hello-p2", "").path()).await;
    node.marram(&["kv", "set", "limits", "a-key-to-be-found", "9.5"]).done().await;
    let Node { running, home, .. } = node;
    running.signal(Signal::TERM);
    running.ended().await.expect(0);
    let state = home.path().join("state");
    let doctor = |args: &[&str]| marram(&[&["doctor", "--state", state.to_str().unwrap()], args].concat());
    assert_eq!(doctor(&["--json"]).at(home.path()).json().await["ok"], json!(true));
    let log = state.join("node.db-wal").metadata().map_or(0, |log| log.len());
    assert_eq!(log, 0, "what is in the log would be read in the place of the pages");
    let whole = std::fs::read(state.join("node.db")).unwrap();
    let digest = marram_core::Digest::of(&std::fs::read(marram_testkit::guest("hello-p2")).unwrap());
    let blob = state.join("blobs/sha256").join(&digest.hex()[..2]).join(digest.hex());
    let component = std::fs::read(&blob).unwrap();

    let key = |page: &[u8]| page.windows(17).any(|bytes| bytes == b"a-key-to-be-found");
    let (mut of_keys, mut all) = (whole.clone(), whole.clone());
    assert!(spoil(&mut of_keys, key) > 0 && spoil(&mut all, |_| true) > 10);
    for (damaged, is_readable) in [(of_keys, true), (all, false)] {
        std::fs::write(state.join("node.db"), &damaged).unwrap();
        std::fs::remove_file(&blob).unwrap();
        let report = doctor(&["--json"]).at(home.path()).run().await.expect(1);
        let report: Value = serde_json::from_str(&report.stdout).unwrap();
        let found = report["checks"].as_array().unwrap().iter().find(|check| check["group"] == "State").unwrap();
        assert_eq!((&report["ok"], &found["verdict"]), (&json!(false), &json!("bad")), "{report}");
        let text = found["found"].as_str().unwrap();
        assert!(text.contains("the database is damaged (") && text.contains("restore node.db from a backup"), "{text}");
        // It goes on with what can be read.
        assert_eq!(text.contains(&format!("component {} is missing", digest.short())), is_readable, "{text}");
        let shown = doctor(&[]).at(home.path()).run().await.expect(1);
        assert!(shown.stdout.contains("restore node.db from a backup"), "{shown:?}");

        let refused = start_node(&home).await.ended().await.expect(1).without_data();
        let refused = refused.says(&["error: the node's database is damaged (", "restore node.db from a backup"]);
        assert_eq!(refused.stderr.matches("malformed").count(), 1, "once is enough: {refused:?}");
        std::fs::write(&blob, &component).unwrap();
    }
    // With the backup that it speaks of, all is well.
    std::fs::write(state.join("node.db"), &whole).unwrap();
    let node = Node::start_in(home).await;
    assert_eq!(node.marram(&["kv", "get", "limits", "a-key-to-be-found"]).done().await, "9.5");
    assert_eq!(node.get("shop", "/7").await.expect(200).text(), "Hello from Marram");
}
