//! Code is compiled in a process of its own: the node does not keep the memory of a compiler, and hears what it says.

use crate::support::{Node, folder, marram, write_manifest};

/// What a node of JavaScript functions may hold (issue "Run functions", Speed).
const RESIDENT_MIB_MAX: f64 = 60.0;

/// The home's code cache has the Python engine, so that of JavaScript is compiled here.
#[tokio::test]
async fn after_the_javascript_engine_was_compiled_its_memory_is_given_back() {
    let node = Node::start().await;
    let app = folder();
    std::fs::write(app.path().join("index.js"), "export default { fetch() { return new Response('made') } }").unwrap();
    write_manifest(app.path(), "script", "index.js", "");
    node.deploy(app.path()).await;
    assert_eq!(node.get("script", "/").await.expect(200).text(), "made");
    let metrics = marram_testkit::get("/metrics");
    let metrics = crate::support::client(&node.admin_url).send(metrics).await.expect(200).text();
    let resident = metrics.lines().find_map(|line| line.strip_prefix("process_resident_memory_bytes ")).unwrap();
    let resident = resident.parse::<f64>().unwrap() / f64::from(1 << 20);
    assert!(resident < RESIDENT_MIB_MAX, "{resident} MiB");
    node.drain().await.expect(0);
}

#[tokio::test]
async fn what_the_compiler_says_reaches_who_deployed() {
    let node = Node::start().await;
    let app = folder();
    let mut half = std::fs::read(marram_testkit::guest("hello-p2")).unwrap();
    half.truncate(half.len() / 2);
    std::fs::write(app.path().join("main.wasm"), half).unwrap();
    write_manifest(app.path(), "half", "main.wasm", "");
    let refused = node.marram(&["deploy"]).at(app.path()).run().await.expect(6);
    refused.says(&["component cannot be compiled: failed to parse", "build it again"]);
    node.drain().await.expect(0);
}

#[tokio::test]
async fn by_hand_it_says_that_it_is_not_for_hands() {
    marram(&["compile", "component", "elsewhere"]).run().await.expect(1).without_data().says(&["started by a node"]);
}
