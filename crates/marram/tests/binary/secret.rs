//! `marram secret`: a value goes in through stdin, reaches the function, and is shown nowhere.

use serde_json::json;

use crate::support::{Node, guest_app};

const VALUE: &str = "s3cret-that-nobody-may-see";

#[tokio::test]
async fn a_secret_is_set_listed_used_and_removed() {
    let node = Node::start().await;
    let app = guest_app("shop", "probe-p2", "secrets = [\"api_key\"]");
    let missing = node.marram(&["deploy"]).at(app.path()).run().await;
    missing.expect(6).without_data().says(&["marram secret set shop api_key"]);

    // What `echo` adds is not part of the value.
    let set = node.marram(&["secret", "set", "shop", "api_key"]).stdin(&format!("{VALUE}\n")).run().await;
    let set = set.expect(0).without_data().says(&["set api_key of shop"]);
    assert!(!set.stderr.contains(VALUE), "{set:?}");
    node.deploy(app.path()).await;
    let seen = node.get("shop", "/env").await.expect(200).text();
    assert!(seen.contains(&format!("\"{VALUE}\"")), "{seen}");

    let listed = node.marram(&["secret", "ls", "shop"]).done().await;
    assert!(listed.contains("api_key") && listed.contains("main") && !listed.contains(VALUE), "{listed}");
    let listed = node.marram(&["secret", "ls", "shop", "--json"]).json().await;
    assert_eq!(listed["secrets"][0]["name"], json!("api_key"));
    assert!(!listed.to_string().contains(VALUE), "{listed}");

    let used = node.marram(&["secret", "rm", "shop", "api_key"]).run().await;
    used.expect(7).without_data().says(&["main", "api_key", "deploy first"]);
    node.marram(&["secret", "rm", "shop", "other"]).run().await.expect(5).without_data();
    node.marram(&["rm", "shop"]).done().await;
    node.marram(&["secret", "ls", "shop"]).run().await.expect(0).without_data().says(&["shop has no secrets"]);
    let log = node.drain().await.stderr;
    assert!(!log.contains(VALUE), "{log}");
}

#[tokio::test]
async fn a_value_is_never_an_argument_and_never_empty() {
    let node = Node::start().await;
    node.marram(&["secret", "set", "shop", "api_key", VALUE]).run().await.expect(2).without_data();
    let empty = node.marram(&["secret", "set", "shop", "api_key"]).stdin("\n").run().await;
    empty.expect(6).without_data().says(&["the value is empty", "hint: "]);
    for action in ["set", "rm"] {
        let unnamed = node.marram(&["secret", action, "shop", ""]).run().await;
        unnamed.expect(2).without_data().says(&["the name is empty"]);
    }
    let large = node.marram(&["secret", "set", "shop", "api_key"]).stdin(&"x".repeat((64 << 10) + 1)).run().await;
    large.expect(6).without_data().says(&["more than 65536 bytes"]);
    node.marram(&["secret", "ls", "shop"]).run().await.expect(0).without_data();
}
