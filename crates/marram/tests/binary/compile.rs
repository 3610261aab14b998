//! Code is compiled in a process of its own: the node does not keep the memory of a compiler, and hears what it says.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

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

/// What was kept makes the same code as nothing does, and nobody else's is taken.
#[test]
fn functions_are_kept_and_found_again() {
    let dir = folder();
    let kept = dir.path().join("functions");
    let wasm = std::fs::read(marram_testkit::guest("hello-p2")).unwrap();
    let compiled = compile_by_hand(&wasm, None);
    assert!(!kept.exists());
    let first = compile_by_hand(&wasm, Some((&kept, [7; 32])));
    let bytes = || std::fs::metadata(&kept).unwrap().len();
    let once = bytes();
    let again = compile_by_hand(&wasm, Some((&kept, [7; 32])));
    assert!(compiled == first && compiled == again);
    // Cranelift finds a few of them under another hash; without what was kept it would be twice as much.
    assert!(bytes() < once * 5 / 4, "{once} bytes, then {}", bytes());
    std::fs::write(&kept, b"not what a node wrote, and long enough for the code").unwrap();
    assert!(compile_by_hand(&wasm, Some((&kept, [7; 32]))) == compiled);
    assert!(bytes() > once * 3 / 4, "it was replaced");
}

/// As a node starts it: the key before the component, if there is a file.
fn compile_by_hand(wasm: &[u8], functions: Option<(&Path, [u8; 32])>) -> Vec<u8> {
    let mut compiler = Command::new(env!("CARGO_BIN_EXE_marram"))
        .args(["compile", "component", "pooled"])
        .args(functions.map(|(file, _)| file))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let key = functions.map_or(Vec::new(), |(_, key)| key.to_vec());
    compiler.stdin.take().unwrap().write_all(&[&key, wasm].concat()).unwrap();
    let output = compiler.wait_with_output().unwrap();
    assert!(output.status.success());
    output.stdout
}

/// Its stdin stays open here, so that it would wait for the rest of the component for ever.
#[tokio::test]
async fn it_does_not_outlive_whoever_reads_its_code() {
    let mut compiler = Command::new(env!("CARGO_BIN_EXE_marram"))
        .args(["compile", "component", "pooled"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    drop(compiler.stdout.take());
    let compiler = std::cell::RefCell::new(compiler);
    let ended = marram_testkit::eventually("the compiler ends", async || compiler.borrow_mut().try_wait().unwrap());
    assert_eq!(ended.await.code(), Some(1));
}

#[tokio::test]
async fn by_hand_it_says_that_it_is_not_for_hands() {
    marram(&["compile", "component", "elsewhere"]).run().await.expect(1).without_data().says(&["started by a node"]);
}
