//! Deployments and removals that fail, or whose node ends, between any two of their writes: the app is what it was and is
//! owed what it was owed, or it is what it was to become, and nobody is owed anything for what is no more.
//!
//! `strace` makes the sync of one commit after the other fail for real, or kills the node at it.

use serde_json::Value;
use tempfile::TempDir;

use super::disk::need_strace;
use crate::support::{Node, client, folder, home};

const OWED: &str = "site/take/stream:readings";
const OTHER: &str = "site/take/stream:other";
/// Many more commits than a change has.
const COMMITS_MAX: usize = 12;

/// An app whose one function has this trigger.
fn app(on: &str) -> TempDir {
    let app = folder();
    let manifest = format!(
        "manifest_version = 1\n[app]\nname = \"site\"\n[[function]]\nname = \"take\"\ncomponent = \"index.js\"\non = [{on}]\n"
    );
    std::fs::write(app.path().join("marram.toml"), manifest).unwrap();
    let script = "export default { fetch: () => new Response(null, { status: 204 }) };\n";
    std::fs::write(app.path().join("index.js"), script).unwrap();
    app
}

/// Deploys the app, and leaves it an event that it does not take yet. It begins at what is new, so that a consumer that was
/// made once more would not have it.
async fn owe(node: &Node, app: &TempDir) -> Value {
    node.deploy(app.path()).await;
    node.marram(&["stream", "pause", "readings", "--consumer", OWED]).done().await;
    node.marram(&["stream", "publish", "readings", "-d", "1"]).done().await;
    let [owed] = &consumers(node).await[..] else { panic!("there is one consumer") };
    assert_eq!((&owed["id"], &owed["paused"]), (&OWED.into(), &true.into()), "{owed}");
    owed.clone()
}

/// The consumers of all streams.
async fn consumers(node: &Node) -> Vec<Value> {
    let streams = client(&node.admin_url).get("/v1/streams").await.expect(200).json();
    let of = |stream: &Value| stream["consumers"].as_array().unwrap().clone();
    streams["streams"].as_array().unwrap().iter().flat_map(of).collect()
}

/// Whether the app is what it was before the change. Then it stands where it stood.
async fn is_as_it_was(node: &Node, owed: &Value) -> bool {
    let app = client(&node.admin_url).get("/v1/apps/site").await;
    if app.status == 404 || !app.json()["manifest"].as_str().unwrap().contains("readings") {
        return false;
    }
    let place = |consumer: &Value| ["id", "cursor", "paused", "acked", "dropped"].map(|name| consumer[name].clone());
    let found: Vec<_> = consumers(node).await.iter().map(place).collect();
    assert_eq!(found, [place(owed)], "what it was owed before the change");
    true
}

/// Ends the node, which may have been killed already.
async fn stopped(node: Node) -> TempDir {
    let Node { running, home, .. } = node;
    running.signal(rustix::process::Signal::TERM);
    let ended = running.ended().await;
    assert!(matches!(ended.code, None | Some(0)), "{ended:?}");
    home
}

/// Tries the change with a disk that does `how` at the first sync of the node's log, then at the second, and so on until it
/// succeeds. Whoever is `left` afterwards is a consumer of what the change has made.
async fn check(how: &str, change: &[&str], left: &[&str]) {
    need_strace();
    let (first, second) = (app("{ stream = \"readings\", from = \"new\" }"), app("{ stream = \"other\" }"));
    let mut node = Node::start_in(home("").await).await;
    let (mut cut_short, mut done) = (0, false);
    for commit in 1..=COMMITS_MAX {
        let owed = owe(&node, &first).await;
        let home = stopped(node).await;
        let log = home.path().canonicalize().unwrap().join("state/node.db-wal");
        let inject = format!("inject=fsync,fdatasync:{how}:when={commit}");
        let arguments = ["-D", "-f", "-qq", "-o", "/dev/null", "-P", log.to_str().unwrap(), "-e", &inject];
        node = Node::start_under(home, "strace", &arguments).await;
        done = node.marram(change).at(second.path()).run().await.code == Some(0);
        if !done && client(&node.admin_url).try_send(marram_testkit::get("/v1/node")).await.is_ok() {
            is_as_it_was(&node, &owed).await;
        }
        node = Node::start_in(stopped(node).await).await;
        if is_as_it_was(&node, &owed).await {
            assert!(!done, "it was acknowledged");
        } else {
            let found: Vec<_> = consumers(&node).await.iter().map(|consumer| consumer["id"].clone()).collect();
            assert_eq!(found, left, "after commit {commit}");
        }
        if done {
            break;
        }
        cut_short += 1;
    }
    assert!(done && cut_short > 0, "this has shown nothing: {cut_short} were cut short");
    node.drain().await.expect(0);
}

const KILLED: &str = "signal=SIGKILL";
const FAILED: &str = "error=EIO";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deployment_that_is_killed_between_its_writes_forgets_nothing_that_is_owed() {
    check(KILLED, &["deploy"], &[OTHER]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deployment_that_fails_between_its_writes_forgets_nothing_that_is_owed() {
    check(FAILED, &["deploy"], &[OTHER]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removal_that_is_killed_between_its_writes_leaves_no_consumer_behind() {
    check(KILLED, &["rm", "site"], &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removal_that_fails_between_its_writes_leaves_no_consumer_behind() {
    check(FAILED, &["rm", "site"], &[]).await;
}
