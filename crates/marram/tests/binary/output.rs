//! What goes where: data to stdout, messages to stderr, JSON where it is asked for, colours only where they are wanted.

use serde_json::Value;

use crate::support::{Node, guest_app, marram};

/// Every reading command, with data to show.
async fn reads(node: &Node) -> Vec<Vec<&'static str>> {
    let app = guest_app("shop", "probe-p2", "secrets = [\"api_key\"]");
    node.marram(&["secret", "set", "shop", "api_key"]).stdin("x").done().await;
    node.deploy(app.path()).await;
    let _ = node.get("shop", "/log").await.expect(200);
    for write in [
        ["stream", "publish", "readings", "-d", "{\"rms\":1.5}"].as_slice(),
        &["kv", "set", "limits", "pump-7", "9.5"],
        &["blob", "buckets", "--create", "files"],
        &["blob", "put", "files", "-", "--name", "a"],
    ] {
        node.marram(write).stdin("").done().await;
    }
    marram_testkit::eventually("the run is in the usage", || async {
        let usage = node.marram(&["usage", "--json"]).json().await;
        (usage["usage"][0]["invocations"] == 1).then_some(())
    })
    .await;
    vec![
        vec!["apps"],
        vec!["apps", "shop"],
        vec!["usage"],
        vec!["secret", "ls", "shop"],
        vec!["logs", "--app", "shop"],
        vec!["doctor", "/"],
        vec!["stream", "ls"],
        vec!["stream", "tail", "readings", "--from", "1", "--no-follow"],
        vec!["kv", "ls"],
        vec!["kv", "ls", "limits"],
        vec!["kv", "get", "limits", "pump-7"],
        vec!["blob", "buckets"],
        vec!["blob", "ls", "files"],
    ]
}

#[tokio::test]
async fn every_read_gives_json_when_asked() {
    let node = Node::start().await;
    for read in reads(&node).await {
        let ended = node.marram(&[&read[..], &["--json"]].concat()).run().await.expect(0);
        // What there can be any number of is one document a line; everything else is one document.
        let is_a_list = matches!(read[0], "logs" | "stream" | "kv" | "blob");
        let documents: Vec<&str> = if is_a_list { ended.stdout.lines().collect() } else { vec![&ended.stdout] };
        assert!(!documents.is_empty(), "{read:?}");
        for text in documents {
            let value: Value = serde_json::from_str(text).unwrap_or_else(|error| panic!("{read:?}: {error}: {text}"));
            assert!(value.is_object(), "{read:?}: {value}");
        }
        assert_eq!(ended.stderr, "", "{read:?}");
    }
    let help = marram(&["--help"]).done().await;
    let verbs = ["apps", "usage", "logs", "doctor", "deploy", "rollback", "mqtt clients", "kv watch", "kv set"];
    let streams = ["stream ls", "stream tail", "stream publish", "stream replay", "stream pause", "stream dlq"];
    for verb in verbs.into_iter().chain(streams) {
        let words: Vec<_> = verb.split(' ').collect();
        assert!(help.contains(words[0]), "{help}");
        let help = marram(&[&words[..], &["--help"]].concat()).done().await;
        assert!(help.contains("--json"), "{verb} has no --json");
    }
}

#[tokio::test]
async fn colours_are_for_terminals_and_for_those_who_ask() {
    const ESCAPE: char = '\u{1b}';
    let node = Node::start().await;
    for read in reads(&node).await {
        let run = |name: &'static str| node.marram(&read).env(name, "1").run();
        let plain = node.marram(&read).run().await.expect(0);
        assert!(!plain.stdout.contains(ESCAPE) && !plain.stderr.contains(ESCAPE), "{read:?}: {plain:?}");
        assert!(!run("NO_COLOR").await.stdout.contains(ESCAPE), "{read:?}");
        let is_plain = matches!(read[..], ["usage" | "secret" | "kv", ..] | ["blob", "buckets"]);
        if !is_plain {
            assert!(run("CLICOLOR_FORCE").await.stdout.contains(ESCAPE), "{read:?} has no colours");
        }
        let forced = node.marram(&[&read[..], &["--json"]].concat()).env("CLICOLOR_FORCE", "1").run().await;
        assert!(!forced.stdout.contains(ESCAPE), "{read:?}: JSON has no colours");
    }
    let refused = node.marram(&["apps", "none"]).env("NO_COLOR", "1").run().await.expect(5);
    assert!(refused.stderr.starts_with("error: "), "{refused:?}");
    let refused = node.marram(&["apps", "none"]).env("CLICOLOR_FORCE", "1").run().await.expect(5);
    assert!(refused.stderr.contains(ESCAPE), "{refused:?}");
}

#[tokio::test]
async fn help_and_version_are_data_and_mistakes_are_not() {
    assert!(marram(&["--version"]).done().await.starts_with("marram "));
    marram(&[]).run().await.expect(2).without_data().says(&["Usage: marram"]);
    marram(&["deplyo"]).run().await.expect(2).without_data().says(&["deploy"]);
    for shell in ["bash", "zsh", "fish"] {
        assert!(marram(&["completions", shell]).done().await.contains("marram"), "{shell}");
    }
}
