//! Clients that misbehave: bodies that are cut off or too large, heads without end, and what is left of them.

use std::time::Duration;

use marram_testkit::{Ask, TestNode, eventually, get};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

use super::bad_input::{put, send, site};
use super::clients::presign;
use super::{address, key, start};

/// What others may have to wait while one client floods, on a machine that is busy with other tests as well. What is
/// idle is closed by itself after 30 s only.
const SLOWEST: Duration = Duration::from_secs(5);
/// More than the S3 API has room for.
const FLOOD: usize = 300;

/// Sends bytes as they are, and reads what comes until the node ends it.
pub(super) async fn exchange(node: &TestNode, bytes: &[u8], close: bool) -> String {
    let mut stream = TcpStream::connect(address(node)).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    if close {
        stream.shutdown().await.unwrap();
    }
    let mut answer = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(60), stream.read_to_end(&mut answer));
    read.await.expect("the node ends it").ok();
    String::from_utf8_lossy(&answer).into_owned()
}

pub(super) fn uploads_under_way(node: &TestNode) -> usize {
    std::fs::read_dir(node.state_dir().join("blobs/uploads")).unwrap().count()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_cut_off_or_too_large_leaves_nothing() {
    let node = start(vec![key("everything", &["*"], &["*"])]).await;
    let _ = node.admin().send(marram_testkit::Ask::new(http::Method::PUT, "/v1/objects/uploads")).await.expect(201);
    let put = presign(&node, "uploads", "k").await;
    let head = |length: u64| {
        format!(
            "PUT {put} HTTP/1.1\r\nhost: {}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n",
            address(&node)
        )
    };
    // A body that ends before it is whole.
    let cut = [head(1_000_000).into_bytes(), vec![7; 400_000]].concat();
    exchange(&node, &cut, true).await;
    let gone = eventually("the upload is gone", || async { (uploads_under_way(&node) == 0).then_some(()) });
    gone.await;
    // One that says of itself that it is too large is refused before it is sent.
    let answer = exchange(&node, head(u64::MAX / 4).as_bytes(), false).await;
    assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("EntityTooLarge"), "{answer}");
    let list = node.admin().get("/v1/objects/uploads").await.expect(200).json();
    assert_eq!(list["objects"].as_array().unwrap().len(), 0);
    assert_eq!(uploads_under_way(&node), 0);
    // A head that is too large ends the connection.
    let endless = [b"GET / HTTP/1.1\r\nx: ".to_vec(), vec![b'x'; 64 << 10]].concat();
    let answer = exchange(&node, &endless, false).await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431"), "{answer}");
    // Nobody else is held up by a hundred that say nothing.
    let mut silent = Vec::new();
    for _ in 0..100 {
        silent.push(TcpStream::connect(address(&node)).await.unwrap());
    }
    let whole = [head(5).into_bytes(), b"whole".to_vec()].concat();
    let answer = exchange(&node, &whole, false).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    node.stop().await;
}

/// A connection of another machine than the one that asks.
async fn stranger(node: &TestNode) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
    socket.connect(address(node)).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_ask_for_nothing_keep_nobody_out() {
    let (node, good) = site().await;
    let host = address(&node);
    // A request that is under way, of the one who floods: it stays, however many come.
    let url = presign(&node, "uploads", "slow").await;
    let mut slow = stranger(&node).await;
    let head = format!("PUT {url} HTTP/1.1\r\nhost: {host}\r\ncontent-length: 8\r\nconnection: close\r\n\r\nhalf");
    slow.write_all(head.as_bytes()).await.unwrap();
    eventually("the upload begins", || async { (uploads_under_way(&node) == 1).then_some(()) }).await;
    for round in ["", "GET /uploads/k HTTP/1.1\r\nhost: x\r\n", "GET /uploads/k HTTP/1.1\r\nhost: x\r\n\r\n"] {
        let mut flood = Vec::new();
        for _ in 0..FLOOD {
            let mut stream = stranger(&node).await;
            stream.write_all(round.as_bytes()).await.ok();
            flood.push(stream);
        }
        let asked = good.sign(put("/uploads/k"), host);
        let answer = tokio::time::timeout(SLOWEST, send(&node, &asked)).await.expect("others are answered");
        assert!(answer.starts_with("HTTP/1.1 200"), "{round:?}: {answer}");
        drop(flood);
    }
    slow.write_all(b"half").await.unwrap();
    let mut answer = String::new();
    let read = tokio::time::timeout(SLOWEST, slow.read_to_string(&mut answer)).await;
    read.expect("the node ends it").unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    node.stop().await;
}

/// Of the contents on the disk, one is taken away by hand.
#[tokio::test(flavor = "multi_thread")]
async fn a_content_that_is_missing_is_a_failure_from_the_first_byte() {
    let (node, good) = site().await;
    let host = address(&node);
    let ask = async |ask: Ask| send(&node, &good.sign(ask, host)).await;
    let stored = ask(put("/uploads/june.pdf").body("content that is nowhere else")).await;
    assert!(stored.starts_with("HTTP/1.1 200"), "{stored}");
    let digest = marram_core::Digest::of(b"content that is nowhere else").hex();
    let mut folders = vec![node.state_dir().join("blobs")];
    let mut removed = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if entry.is_dir() {
                folders.push(entry);
            } else if entry.display().to_string().replace('/', "").contains(&digest) {
                std::fs::remove_file(entry).unwrap();
                removed += 1;
            }
        }
    }
    assert_eq!(removed, 1);
    let answer = ask(get("/uploads/june.pdf")).await;
    let told = "the content of &quot;june.pdf&quot; is missing on this node";
    assert!(answer.starts_with("HTTP/1.1 500") && answer.contains(told), "{answer}");
    node.stop().await;
}
