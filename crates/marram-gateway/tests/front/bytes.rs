//! Bytes that are not, or not quite, HTTP/1.1: what is answered, and that the next request is not inside of them.

use futures::StreamExt as _;
use http_body_util::{BodyExt as _, StreamBody};
use marram_core::port::full_body;
use marram_gateway::Limits;
use proptest::prelude::*;
use tokio::io::AsyncWriteExt as _;

use crate::support::*;

/// Sends `request`; the answers have these statuses, the last one carries `detail`, and the connection closes.
async fn check(request: &str, expected: &[u16], detail: &str) {
    let front = mirrored().await;
    let answer = front.exchange(request).await;
    assert_eq!(statuses(&answer), expected, "to {request:?}:\n{answer}");
    assert_has(&answer, &[detail]);
    if expected.last().is_some_and(|status| *status >= 400) {
        assert_has(
            &answer,
            &["application/problem+json", "marram-request-id: ", "connection: close", "date: ", "urn:marram:problem:"],
        );
    }
}

/// `request line`, `host`, these lines, and a second request that must never be answered.
fn smuggle(lines: &str, body: &str) -> String {
    format!("POST / HTTP/1.1\r\nhost: a\r\n{lines}\r\n\r\n{body}GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n")
}

#[tokio::test]
async fn lengths_that_can_be_read_in_two_ways() {
    check(&smuggle("content-length: 5\r\ntransfer-encoding: chunked", "0\r\n\r\n"), &[400], "contradict").await;
    check(&smuggle("transfer-encoding: chunked\r\ncontent-length: 5", "0\r\n\r\n"), &[400], "contradict").await;
    check(&smuggle("content-length: 5\r\ncontent-length: 6", "hello"), &[400], "twice").await;
    check(&smuggle("content-length: 5\r\ncontent-length: 5", "hello"), &[400], "twice").await;
    for value in ["5, 5", "+5", "-5", "0x5", "5 5", "", "99999999999999999999", "5a"] {
        check(&smuggle(&format!("content-length: {value}"), "hello"), &[400], "not a number").await;
    }
    for value in ["gzip, chunked", "chunked, identity", "xchunked", "chunked;q=1", "", "\"chunked\"", "identity"] {
        check(&smuggle(&format!("transfer-encoding: {value}"), "0\r\n\r\n"), &[400], "transfer-encoding").await;
    }
    check(&smuggle("transfer-encoding: chunked\r\ntransfer-encoding: chunked", "0\r\n\r\n"), &[400], "one `chunked`")
        .await;
    check("POST / HTTP/1.0\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", &[400], "HTTP/1.1").await;
}

#[tokio::test]
async fn lines_that_can_be_read_in_two_ways() {
    check("GET / HTTP/1.1\nhost: a\n\n", &[400], "LF without CR").await;
    check("GET / HTTP/1.1\r\nhost: a\nx: 1\r\n\r\n", &[400], "LF without CR").await;
    check(&smuggle("x: 1\r\n folded: 2", ""), &[400], "folded").await;
    check(&smuggle("x: 1\r\n\tfolded: 2", ""), &[400], "folded").await;
    check(&smuggle("content-length : 5", "hello"), &[400], "no valid name").await;
    check(&smuggle("content-length\t: 5", "hello"), &[400], "no valid name").await;
    check(&smuggle(": 5", ""), &[400], "no valid name").await;
    check(&smuggle("x", ""), &[400], "no valid name").await;
    check(&smuggle("x\0y: 5", ""), &[400], "no valid name").await;
    check(&smuggle("x: a\rb", ""), &[400], "control").await;
    check(&smuggle("x: a\0b", ""), &[400], "control").await;
}

#[tokio::test]
async fn request_lines() {
    for line in [
        "GET /",
        "GET  / HTTP/1.1",
        "GET / HTTP/1.1 ",
        " GET / HTTP/1.1",
        "GET / HTTP/2.0",
        "GET / HTTP/0.9",
        "GET / http/1.1",
        "G\u{e9}T / HTTP/1.1",
        "GET /\u{e9} HTTP/1.1",
        "GET /a b HTTP/1.1",
        "GET\t/ HTTP/1.1",
        "\0",
        "\u{16}\u{3}\u{1}", // a TLS handshake
    ] {
        check(&format!("{line}\r\nhost: a\r\n\r\n"), &[400], "request line").await;
    }
    check("\r\n\r\nGET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n", &[200], "GET http://a/").await;
}

#[tokio::test]
async fn chunks() {
    let chunked = |body: &str| smuggle("transfer-encoding: chunked", body);
    for body in [
        "5 \r\nhello\r\n0\r\n\r\n",
        "0x5\r\nhello\r\n0\r\n\r\n",
        "+5\r\nhello\r\n0\r\n\r\n",
        "-1\r\n\r\n",
        "\r\n",
        ";x\r\n",
        "5\nhello\n0\n\n",
        "5\r\nhello!\r\n0\r\n\r\n",
        "5\r\nhello\n0\r\n\r\n",
        "fffffffffffffffff\r\nhello\r\n0\r\n\r\n",
        "5;a\nb\r\nhello\r\n0\r\n\r\n",
        "0\r\nx: 1\n\r\n",
        "0\r\nx: 1\r\n folded: 1\r\n\r\n",
    ] {
        check(&chunked(body), &[400], "framing is malformed").await;
    }
    let close =
        |body| format!("POST / HTTP/1.1\r\nhost: a\r\nconnection: close\r\ntransfer-encoding: Chunked\r\n\r\n{body}");
    check(&close("5;a=b\r\nhello\r\n0\r\n\r\n"), &[200], "\n\nhello").await;
    check(&close("5\r\nhello\r\n6\r\n world\r\n00\r\nx: 1\r\n\r\n"), &[200], "\n\nhello world\ntrailer x: 1").await;
}

#[tokio::test]
async fn hosts() {
    check("GET / HTTP/1.1\r\n\r\n", &[400], "host is missing").await;
    check("GET / HTTP/1.1\r\nhost: a\r\nhost: a\r\n\r\n", &[400], "several host").await;
    for host in ["", "a b", "a/b", "u@a", "a:b", "a:99999", ":80", "a,b", "a\"b", "[::1"] {
        check(&format!("GET / HTTP/1.1\r\nhost: {host}\r\n\r\n"), &[400], "the host is not").await;
    }
    check("GET / HTTP/1.0\r\n\r\n", &[200], "GET http://127.0.0.1:").await;
    check("GET http://b/x HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n", &[200], "GET http://b/x\nhost: b\n").await;
    check("GET / HTTP/1.1\r\nhost: [::1]:80\r\nconnection: close\r\n\r\n", &[200], "GET http://[::1]:80/").await;
}

#[tokio::test]
async fn targets() {
    for path in ["/..", "/a/../b", "/a/%2e%2e/b", "/%2E./b", "/./b", "/a/."] {
        let front = mirrored().await;
        let answer = front.exchange(format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")).await;
        assert_eq!(statuses(&answer), [400], "{path}");
    }
    for target in ["shop.example", "shop.example:80", "*", "a/b", "http://a:b:c/", "http:/a"] {
        check(&format!("GET {target} HTTP/1.1\r\nhost: a\r\n\r\n"), &[400], "neither a path").await;
    }
    for target in ["/<", "/a>", "/`", "/\"", "/a#b", "/?a=\"", "http://a/#b"] {
        check(&format!("GET {target} HTTP/1.1\r\nhost: a\r\n\r\n"), &[400], "must be escaped").await;
    }
    for target in ["a:1", "a:b:c", "/"] {
        check(&format!("CONNECT {target} HTTP/1.1\r\nhost: a\r\n\r\n"), &[400], "tunnels").await;
    }
    check("GET /?a={`}|^ HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n", &[200], "GET http://a/?a={`}|^\n").await;
    let front = mirrored().await;
    for (request, status) in [
        ("CONNECT a:1 HTTP/1.1\r\nhost: a:1\r\n", 400),
        ("GET ftp://a/ HTTP/1.1\r\nhost: a\r\n", 400),
        ("OPTIONS * HTTP/1.1\r\nhost: a\r\n", 404),
        ("GET /.well-known/%20 HTTP/1.1\r\nhost: a\r\n", 200),
    ] {
        let answer = front.exchange(format!("{request}connection: close\r\n\r\n")).await;
        assert_eq!(statuses(&answer), [status], "{request}");
    }
}

/// What came before a bad request is answered before it is refused.
#[tokio::test]
async fn a_pipeline_that_goes_wrong() {
    let good = "GET /1 HTTP/1.1\r\nhost: a\r\n\r\nPOST /2 HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabc";
    check(&format!("{good}GET /3 HTTP/1.1\r\nhost: a\nx\r\n\r\n"), &[200, 200, 400], "LF without CR").await;
}

/// However the request before it is answered: at once, later, piece by piece, or not by a function.
#[tokio::test]
async fn what_is_wrong_behind_a_request_is_told_after_its_answer() {
    let later = fake("later", |_, _| async {
        tokio::task::yield_now().await;
        Ok(http::Response::new(full_body("later")))
    });
    let pieces = fake("pieces", |_, _| async {
        let piece = |text: &'static str| async move {
            tokio::task::yield_now().await;
            Ok(http_body::Frame::data(bytes::Bytes::from(text)))
        };
        let pieces = futures::stream::iter(["one", "two"]).then(piece);
        Ok(http::Response::new(StreamBody::new(pieces).boxed_unsync()))
    });
    let routes = Routes::new().on("/now", says("now")).on("/later", later).on("/pieces", pieces);
    let front = Front::start(routes, Limits::default()).await;
    for (path, status) in [("now", 200), ("later", 200), ("pieces", 200), ("nothing", 404)] {
        let good = format!("GET /{path} HTTP/1.1\r\nhost: a\r\n\r\n");
        for (count, wrong) in [(1, "host: a\r\n"), (2, "GET / HTTP/1.1\r\nhost: a\nx\r\n\r\n"), (1, "\u{90}\r\n")] {
            let answer = front.exchange(good.repeat(count) + wrong).await;
            let mut expected = vec![status; count];
            expected.push(400);
            assert_eq!(statuses(&answer), expected, "/{path}, then {wrong:?}:\n{answer}");
        }
    }
}

#[tokio::test]
async fn a_pipeline_in_any_pieces() {
    let front = mirrored().await;
    let pipeline = "GET /1 HTTP/1.1\r\nhost: a\r\n\r\nPOST /2 HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n\
                    3\r\nabc\r\n0\r\n\r\nGET /3 HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    for size in [1, 2, 3, 7, 16, 50, 1000] {
        let mut stream = front.connect().await;
        stream.set_nodelay(true).expect("nodelay");
        for piece in pipeline.as_bytes().chunks(size) {
            stream.write_all(piece).await.expect("write");
            tokio::task::yield_now().await;
        }
        let answer = read_all(&mut stream).await;
        assert_eq!(statuses(&answer), [200, 200, 200], "in pieces of {size}");
        assert_has(&answer, &["GET http://a/1\n", "POST http://a/2\n", "\n\nabc", "GET http://a/3\n"]);
    }
}

/// Near misses of HTTP, which reach deeper than plain noise.
fn nearly_http() -> impl Strategy<Value = Vec<u8>> {
    const TOKENS: [&[u8]; 16] = [
        b"GET / HTTP/1.1\r\n",
        b"POST /x HTTP/1.1\r\n",
        b"host: a\r\n",
        b"content-length: 3\r\n",
        b"transfer-encoding: chunked\r\n",
        b"expect: 100-continue\r\n",
        b"connection: close\r\n",
        b"upgrade: websocket\r\n",
        b"\r\n",
        b"\n",
        b"3\r\nabc\r\n",
        b"0\r\n\r\n",
        b"abc",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x00\x00\x00\x04\x00\x00\x00\x00\x00",
        b"\xff\x00",
    ];
    let piece = prop_oneof![4 => proptest::sample::select(&TOKENS[..]).prop_map(<[u8]>::to_vec), 1 => proptest::collection::vec(any::<u8>(), 0..40)];
    proptest::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

#[test]
fn any_bytes_leave_the_front_standing() {
    let runtime = tokio::runtime::Runtime::new().expect("runtime");
    let front = runtime.block_on(mirrored());
    proptest!(ProptestConfig::with_cases(300), |(bytes in nearly_http())| {
        runtime.block_on(async {
            let mut stream = front.connect().await;
            let _ = stream.write_all(&bytes).await;
            let _ = stream.shutdown().await;
            read_all(&mut stream).await;
        });
    });
    let good = "GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    assert_eq!(statuses(&runtime.block_on(front.exchange(good))), [200]);
    // A task that panics would be missing from the count.
    runtime.block_on(front.until(|seen| {
        let load = |counter: &std::sync::atomic::AtomicU64| counter.load(std::sync::atomic::Ordering::Relaxed);
        load(&seen.opened) == 301 && load(&seen.closed) == 301
    }));
}
