//! Clients that misbehave: bodies that are cut off or too large, heads without end, and what is left of them.

use std::time::Duration;

use marram_testkit::{TestNode, eventually};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::clients::presign;
use super::{address, key, start};

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
