//! `marram logs` and `marram usage`: what ran, who said what, and what it took.

use serde_json::json;

use crate::support::{Ended, Node, guest_app, lines};

async fn node() -> Node {
    let node = Node::start().await;
    node.deploy(guest_app("shop", "probe-p2", "").path()).await;
    node.deploy(guest_app("bar", "probe-p2", "").path()).await;
    node
}

/// Has a function log, and gives the id of the request.
async fn log(node: &Node, app: &str) -> String {
    let reply = node.get(app, "/log").await.expect(200);
    reply.header("marram-request-id").unwrap().to_owned()
}

#[tokio::test]
async fn lines_are_found_by_app_function_and_request() {
    let node = node().await;
    let (shop, bar) = (log(&node, "shop").await, log(&node, "bar").await);
    let all = lines(&node.marram(&["logs", "--json"]).done().await);
    assert!(all.iter().any(|line| line["app"] == "shop") && all.iter().any(|line| line["app"] == "bar"), "{all:?}");
    let requests = |text: &str| lines(text).iter().map(|line| line["request"].clone()).collect::<Vec<_>>();
    let of_one = requests(&node.marram(&["logs", "--json", "--request", &shop]).done().await);
    assert!(!of_one.is_empty() && of_one.iter().all(|request| *request == json!(shop)), "{of_one:?}");
    let of_app = requests(&node.marram(&["logs", "--json", "--app", "bar", "--function", "main"]).done().await);
    assert!(!of_app.is_empty() && of_app.iter().all(|request| *request == json!(bar)), "{of_app:?}");
    let quiet = node.marram(&["logs", "--json", "--function", "other"]).done().await;
    assert_eq!(quiet, "");
    let loud = lines(&node.marram(&["logs", "--json", "--level", "warn"]).done().await);
    assert!(!loud.is_empty() && loud.iter().all(|line| line["level"] == "warn"), "{loud:?}");
    let last = lines(&node.marram(&["logs", "--json", "-n", "1"]).done().await);
    assert_eq!(last.len(), 1);
    assert_eq!(last[0], all[all.len() - 1]);

    let shown = node.marram(&["logs", "--since", "1h"]).done().await;
    let line = shown.lines().find(|line| line.contains("shop/main")).unwrap();
    assert!(line.contains(&shop[shop.len() - 6..]), "{line}");
    for wrong in ["xyz", "ff", "zzzzzzzzzzzzzzzz", "+123456789abcdef"] {
        let refused = node.marram(&["logs", "--request", wrong]).run().await.expect(2).without_data();
        refused.says(&["16 hexadecimal digits", "marram-request-id"]);
    }
    let none = node.marram(&["logs", "--function", "other"]).run().await.expect(0).without_data();
    none.says(&["nothing of what is asked for was logged yet"]);
    node.marram(&["logs", "--since", "yesterday"]).run().await.expect(2).without_data();
}

#[tokio::test]
async fn following_shows_what_comes_and_ends_with_the_node() {
    let node = node().await;
    let before = log(&node, "shop").await;
    let mut follow = node.marram(&["logs", "--follow", "--json", "--app", "shop"]).start().await;
    // What was logged before comes first: then it follows.
    follow.prints(&before).await;
    log(&node, "bar").await;
    let after = log(&node, "shop").await;
    let seen = follow.prints(&after).await;
    assert!(lines(&seen).iter().all(|line| line["app"] == "shop"), "{seen}");
    node.drain().await.expect(0);
    follow.ended().await.expect(1).says(&["the node ended the log"]);
}

#[tokio::test]
async fn usage_adds_up() {
    let node = node().await;
    for app in ["shop", "shop", "bar"] {
        log(&node, app).await;
    }
    let usage = || async { node.marram(&["usage", "--json"]).json().await };
    let invocations = marram_testkit::eventually("three invocations are in the usage", || async {
        let usage = usage().await;
        let of = |app: &str| usage["usage"].as_array()?.iter().find(|used| used["app"] == app)?["invocations"].as_u64();
        (of("shop")? + of("bar")? == 3).then(|| (of("shop"), of("bar")))
    });
    assert_eq!(invocations.await, (Some(2), Some(1)));
    let shown = node.marram(&["usage"]).done().await;
    for part in ["shop/main", "bar/main", "total"] {
        assert!(shown.contains(part), "{part} is not in {shown}");
    }
    let one = node.marram(&["usage", "--app", "bar", "--function", "main", "--since", "1h"]).done().await;
    assert!(one.contains("bar/main") && !one.contains("shop/main"), "{one}");
    let nothing: Ended = node.marram(&["usage", "--app", "none"]).run().await;
    nothing.expect(0).without_data().says(&["nothing was used"]);
}
