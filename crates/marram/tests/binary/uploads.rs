//! What becomes of an upload that a node does not take: it is refused, or the connection breaks. Neither is ever a success.

use std::path::Path;
use std::sync::Arc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

use crate::support::{Node, folder, guest_app, marram, python_app};

/// More than the system keeps of a connection that nobody reads.
const LARGE_BYTES: u64 = 64 << 20;
/// A component may have 256 MiB.
const TOO_LARGE_BYTES: u64 = 257 << 20;

/// What a node says whose disk is full (RFC 9457).
fn refusal() -> String {
    let body = r#"{"title":"Insufficient Storage","status":507,"detail":"the disk is full: free some space","request_id":"7"}"#;
    let length = body.len();
    format!(
        "HTTP/1.1 507 Insufficient Storage\r\ncontent-type: application/problem+json\r\ncontent-length: {length}\r\n\r\n{body}"
    )
}

/// A node that has every component or none, reads the head of each other request, answers with `answer` once it may, and closes,
/// whatever else is on its way. Gives its URL.
async fn node(has: bool, answer: String, may: Arc<Notify>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            while head(&mut stream).await.is_some_and(|head| head.starts_with("HEAD ")) {
                let status = if has { "200 OK" } else { "404 Not Found" };
                let known = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n");
                stream.write_all(known.as_bytes()).await.unwrap();
            }
            may.notified().await;
            may.notify_one();
            // The client may have gone by now.
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    url
}

/// The head of a request, and nothing of its body; `None` if there is no more.
async fn head(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    String::from_utf8(head).ok()
}

fn at_once() -> Arc<Notify> {
    let may = Arc::new(Notify::new());
    may.notify_one();
    may
}

/// A file that takes no room on the disk.
fn sparse(path: &Path, bytes: u64) {
    std::fs::File::create(path).unwrap().set_len(bytes).unwrap();
}

/// Every verb that uploads, in a folder that has what they send.
const UPLOADS: [&[&str]; 5] = [
    &["blob", "put", "bucket", "large"],
    &["kv", "set", "bucket", "key", "@large"],
    &["stream", "publish", "stream", "--content-type", "text/plain", "-d", "@large"],
    &["invoke", "shop/main", "-d", "@large", "--fail"],
    &["deploy"],
];

fn files() -> tempfile::TempDir {
    let app = guest_app("shop", "hello-p2", "");
    sparse(&app.path().join("large"), LARGE_BYTES);
    sparse(&app.path().join("main.wasm"), LARGE_BYTES);
    app
}

#[tokio::test]
async fn why_a_node_refuses_an_upload_is_said_though_it_did_not_read_all_of_it() {
    let url = node(false, refusal(), at_once()).await;
    let files = files();
    for upload in UPLOADS {
        let ended = marram(upload).env("MARRAM_NODE", &url).at(files.path()).run().await.expect(1);
        if upload[0] == "invoke" {
            assert!(ended.stdout.contains("the disk is full") && ended.stderr.contains("507"), "{ended:?}");
        } else {
            ended.without_data().says(&["error: ", "the disk is full: free some space"]);
        }
    }
}

#[tokio::test]
async fn an_upload_whose_connection_breaks_is_a_failure_that_says_so() {
    let url = node(false, String::new(), at_once()).await;
    let files = files();
    for upload in UPLOADS {
        let ended = marram(upload).env("MARRAM_NODE", &url).at(files.path()).run().await.expect(1);
        ended.without_data().says(&["error: the connection to the node at", &url, "broke", "hint: "]);
    }
}

#[tokio::test]
async fn a_deployment_that_takes_long_says_what_the_node_does() {
    let may = Arc::new(Notify::new());
    let url = node(true, refusal(), Arc::clone(&may)).await;
    let app = python_app("shop");
    let mut deploy = marram(&["deploy"]).env("MARRAM_NODE", &url).at(app.path()).start().await;
    deploy.says("the first Python function takes longer").await;
    may.notify_one();
    let ended = deploy.ended().await.expect(1).without_data().says(&["the disk is full"]);
    assert_eq!(ended.stderr.matches("once for this node").count(), 1, "{ended:?}");
}

#[tokio::test]
async fn a_component_that_is_too_large_is_refused_with_its_function_and_the_limit() {
    let node = Node::start().await;
    let app = guest_app("shop", "hello-p2", "");
    sparse(&app.path().join("main.wasm"), TOO_LARGE_BYTES);
    let refused = node.marram(&["deploy"]).at(app.path()).run().await.expect(6).without_data();
    refused.says(&["the component of main", "at most 256 MiB"]);
    node.marram(&["apps"]).run().await.expect(0).without_data().says(&["no apps yet"]);
    // As large as it may be is another matter: it is taken, and is no component.
    let other = folder();
    std::fs::copy(app.path().join("marram.toml"), other.path().join("marram.toml")).unwrap();
    sparse(&other.path().join("main.wasm"), 1 << 20);
    let refused = node.marram(&["deploy"]).at(other.path()).run().await.expect(6).without_data();
    assert!(!refused.stderr.contains("at most"), "{refused:?}");
}
