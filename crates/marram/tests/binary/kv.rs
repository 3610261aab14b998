//! `marram kv`: keys are set, read, listed, watched and removed; with `--json` each of them is an object on a line.

use marram_testkit::eventually;
use serde_json::{Value, json};

use crate::support::{Node, folder, lines};

/// The longest value (`docs/book/src/reference/limits.md`).
const VALUE_BYTES_MAX: usize = 1 << 20;

#[tokio::test]
async fn keys_go_in_and_come_back_as_they_were() {
    let node = Node::start().await;
    let files = folder();
    let kv = |args: &[&str]| node.marram(&[&["kv"], args].concat()).at(files.path());
    kv(&["ls"]).run().await.expect(0).without_data().says(&["no bucket has a key yet"]);
    kv(&["ls", "limits"]).run().await.expect(0).without_data().says(&["no key in limits yet", "`marram kv ls`"]);
    assert_eq!(kv(&["ls", "limits", "--json"]).done().await, "");
    kv(&["get", "limits", "pump/7"]).run().await.expect(5).without_data().says(&["pump/7", "marram kv ls limits"]);

    kv(&["set", "limits", "pump/7", "9.5"]).run().await.expect(0).without_data().says(&["set pump/7 in limits"]);
    assert_eq!(kv(&["get", "limits", "pump/7"]).done().await, "9.5", "the value, and no line break");
    let version = kv(&["set", "limits", "pump/7", "@-", "--json"]).stdin("10").json().await["version"].clone();
    let read = kv(&["get", "limits", "pump/7", "--json"]).json().await;
    assert_eq!(read, json!({ "bucket": "limits", "key": "pump/7", "version": version, "text": "10" }));
    std::fs::write(files.path().join("binary"), b"\xff\x00").unwrap();
    kv(&["set", "limits", "raw", "@binary"]).done().await;
    assert_eq!(kv(&["get", "limits", "raw", "--json"]).json().await["base64"], "/wA=");
    kv(&["set", "limits", "raw", "@none"]).run().await.expect(5).without_data().says(&["cannot open none"]);
    kv(&["set", "limits", "short", "x", "--ttl", "1h"]).done().await;
    for (span, why) in [("0s", "stays for a while"), ("1000000d", "the longest is 213503d")] {
        kv(&["set", "limits", "short", "x", "--ttl", span]).run().await.expect(2).without_data().says(&["--ttl", why]);
    }
    assert!(kv(&["get", "limits", "short", "--json"]).json().await["expires"].is_string());

    let version = version.as_str().unwrap();
    kv(&["set", "limits", "pump/7", "1", "--if-absent"]).run().await.expect(7).without_data().says(&["pump/7"]);
    kv(&["set", "limits", "pump/7", "11", "--if-version", version]).done().await;
    kv(&["set", "limits", "pump/7", "12", "--if-version", version]).run().await.expect(7).without_data();
    let refused = kv(&["set", "limits", "pump/7", "12", "--if-version", "7"]).run().await.expect(6).without_data();
    refused.says(&["\"7\" is not a version", "hint: `marram kv get limits pump/7 --json` shows it"]);
    assert_eq!(kv(&["get", "limits", "pump/7"]).done().await, "11");

    assert_eq!(lines(&kv(&["ls", "--json"]).done().await), [json!({ "bucket": "limits" })]);
    kv(&["ls", "--prefix", "pump/"]).run().await.expect(2).without_data().says(&["<BUCKET>"]);
    let keys = lines(&kv(&["ls", "limits", "--json"]).done().await);
    assert_eq!(keys, [json!({ "key": "pump/7" }), json!({ "key": "raw" }), json!({ "key": "short" })]);
    assert_eq!(kv(&["ls", "limits", "--prefix", "pump/"]).done().await, "pump/7\n");
    let nothing = kv(&["ls", "limits", "--prefix", "fan"]).run().await.expect(0).without_data();
    nothing.says(&["no key that begins with \"fan\" in limits yet"]);

    kv(&["rm", "limits", "raw"]).run().await.expect(0).without_data().says(&["removed raw in limits"]);
    kv(&["rm", "limits", "raw"]).run().await.expect(0).without_data().says(&["was not there: raw"]);
    assert_eq!(kv(&["rm", "limits", "raw", "--json"]).json().await, json!({ "version": null }));
}

#[tokio::test]
async fn a_value_that_is_too_large_is_refused_with_its_key_and_the_limit() {
    let node = Node::start().await;
    let files = folder();
    for bytes in [VALUE_BYTES_MAX + 1, 16 * VALUE_BYTES_MAX] {
        std::fs::write(files.path().join("large"), vec![b'x'; bytes]).unwrap();
        let refused = node.marram(&["kv", "set", "limits", "pump/7", "@large"]).at(files.path()).run().await;
        refused.expect(6).without_data().says(&["\"pump/7\" in limits", &VALUE_BYTES_MAX.to_string()]);
    }
    node.marram(&["kv", "get", "limits", "pump/7"]).run().await.expect(5).without_data();
    let key = "k".repeat(1025);
    let refused = node.marram(&["kv", "set", "limits", &key, "1"]).run().await.expect(6).without_data();
    assert!(!refused.says(&["1025 bytes"]).stderr.contains(&key[..100]), "it is cut short");
}

#[tokio::test]
async fn a_watch_shows_changes_as_they_happen_and_ends_with_the_node() {
    let node = Node::start().await;
    let kv = |args: &[&str]| node.marram(&[&["kv"], args].concat());
    let mut pumps = kv(&["watch", "limits", "--prefix", "pump/", "--json"]).start().await;
    let mut all = kv(&["watch", "limits"]).start().await;
    // What happened before a watch is there is not shown: once one change is, they all are.
    eventually("both watches are there", || async {
        kv(&["set", "limits", "pump/first", "1"]).done().await;
        (!pumps.stdout().is_empty() && !all.stdout().is_empty()).then_some(())
    })
    .await;
    for args in [
        ["set", "limits", "fan/1", "3"].as_slice(),
        &["set", "limits", "pump/7", "9\nexpired"],
        &["rm", "limits", "pump/7"],
    ] {
        kv(args).done().await;
    }
    all.prints("deleted").await;
    pumps.prints("\"deleted\"").await;
    node.drain().await.expect(0);
    let pumps = pumps.ended().await.expect(1).says(&["the node ended the watch"]);
    let mut seen = lines(&pumps.stdout);
    seen.retain(|change| change["key"] != "pump/first");
    let seen: Vec<_> = seen.iter().map(|change| ["key", "event", "text"].map(|name| change[name].clone())).collect();
    let expected =
        [[json!("pump/7"), json!("created"), json!("9\nexpired")], [json!("pump/7"), json!("deleted"), Value::Null]];
    assert_eq!(seen, expected, "those of its prefix, and no other");
    let all = all.ended().await.expect(1);
    for part in ["fan/1  3", "created", r"pump/7  9\nexpired"] {
        assert!(all.stdout.contains(part), "{part:?} is not in {all:?}");
    }
}
