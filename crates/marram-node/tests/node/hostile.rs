//! Every bad function and every bad client at once: they take neither the node down, nor a function that does no wrong.

use std::net::SocketAddr;
use std::time::Duration;

use marram_testkit::{Ask, Client, TestNode, eventually, get, guest, manifest};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// What the guest `bad` does, and the outcomes that this may have.
const BAD: [(&str, &[&str]); 13] = [
    ("loop", &["cpu-limit", "deadline"]),
    ("alloc", &["resource-limit"]),
    ("recurse", &["trap"]),
    ("handles", &["resource-limit"]),
    ("log-flood", &["cpu-limit", "deadline", "ok"]),
    ("big-headers", &["no-response", "trap", "resource-limit", "ok"]),
    ("trap", &["trap"]),
    ("trap-after-headers", &["trap"]),
    ("panic", &["trap"]),
    ("exit/3", &["trap"]),
    ("no-response", &["no-response"]),
    ("never", &["deadline"]),
    ("never-end", &["deadline"]),
];

fn bad() -> String {
    let functions = BAD.map(|(path, _)| {
        let name = path.replace('/', "-");
        format!(
            "[[function]]\nname = \"{name}\"\ncomponent = \"bad.wasm\"\non = [{{ http = \"{name}.example/...\" }}]\n\
             limits = {{ cpu = \"100ms\", deadline = \"1s\", memory = \"16MiB\", log = \"16KiB\", concurrency = 2 }}\n"
        )
    });
    format!("manifest_version = 1\n[app]\nname = \"bad\"\n{}", functions.concat())
}

/// Asks a bad function, and takes whatever comes.
async fn ask_bad(client: Client, path: &'static str) {
    let host = format!("{}.example", path.replace('/', "-"));
    for _ in 0..4 {
        if let Ok(reply) = client.try_send(get(&format!("/{path}")).header("host", &host)).await {
            assert!(reply.status >= 500 || reply.status == 200, "{path}: {reply:?}");
        }
    }
}

/// Writes this, and holds the connection for as long as the node does, or until `patience` is over.
async fn connect(to: SocketAddr, bytes: Vec<u8>, patience: Duration) {
    let Ok(mut stream) = TcpStream::connect(to).await else { return };
    let _ = stream.write_all(&bytes).await;
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(patience, stream.read_to_end(&mut answer)).await;
}

fn bad_clients() -> Vec<Vec<u8>> {
    let head = "POST / HTTP/1.1\r\nhost: good.example\r\n";
    vec![
        format!("GET / HTTP/1.1\r\nhost: good.example\r\n{}\r\n", "x: y\r\n".repeat(10_000)).into_bytes(),
        b"GET / HTTP/1.1\r\nhost: good.exa".to_vec(),
        format!("{head}content-length: 100\r\n\r\nslow").into_bytes(),
        format!("{head}content-length: 99999999999\r\n\r\n").into_bytes(),
        format!("{head}content-length: 1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n").into_bytes(),
        format!("{head}content-length: 1\r\ncontent-length: 2\r\n\r\nab").into_bytes(),
        format!("{head}transfer-encoding: chunked\r\n\r\nffffffffffffffff1\r\n").into_bytes(),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\xff".to_vec(),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
        vec![0xff; 100_000],
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_takes_the_node_down_or_a_neighbour_with_it() {
    let node = TestNode::start().await;
    let good = manifest("good", &[("good", "good.wasm", "good.example/...")]);
    node.deploy(&good, &[("good", guest("hello-p2"))]).await.unwrap();
    let names: Vec<_> = BAD.iter().map(|(path, _)| path.replace('/', "-")).collect();
    let components: Vec<_> = names.iter().map(|name| (name.as_str(), guest("bad"))).collect();
    node.deploy(&bad(), &components).await.unwrap();

    let mut trouble = JoinSet::new();
    for (path, _) in BAD {
        trouble.spawn(ask_bad(node.http().clone(), path));
    }
    for bytes in bad_clients() {
        for _ in 0..5 {
            trouble.spawn(connect(node.node().http_addr(), bytes.clone(), Duration::from_secs(3)));
        }
    }
    let mut asked = 0;
    while !trouble.is_empty() {
        let reply = node.http().send(get("/").header("host", "good.example")).await;
        assert_eq!((reply.status, reply.text().as_str()), (200, "Hello from Marram"), "{reply:?}");
        asked += 1;
        while let Some(ended) = trouble.try_join_next() {
            ended.unwrap();
        }
    }
    assert!(asked > 20, "it was asked {asked} times only");
    assert_eq!(node.admin().get("/v1/health").await.expect(200).json()["status"], "ready");
    each_has_its_outcome(&node).await;
    // And each of them serves the next request that it can.
    for name in &names {
        let reply = node.http().send(get("/ok").header("host", &format!("{name}.example"))).await.expect(200);
        assert_eq!(reply.text(), "ok\n", "{name}");
    }
    let _ = node.admin().send(Ask::new(http::Method::DELETE, "/v1/apps/bad")).await.expect(204);
    node.stop().await;
}

async fn each_has_its_outcome(node: &TestNode) {
    for (path, outcomes) in BAD {
        let name = path.replace('/', "-");
        let used = eventually(&name, || async {
            let usage = node.admin().get(&format!("/v1/usage?app=bad&function={name}")).await.expect(200).json();
            (usage["usage"][0]["invocations"] == 4).then(|| usage["usage"][0]["outcomes"].clone())
        });
        for (outcome, count) in used.await.as_object().unwrap() {
            assert!(outcomes.contains(&outcome.as_str()), "{name}: {count} × {outcome}");
        }
    }
}
