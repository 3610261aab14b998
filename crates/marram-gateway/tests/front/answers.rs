//! What a client gets of an answer.

use std::time::Duration;

use http::{HeaderValue, Response, StatusCode};
use marram_core::port::{Body, empty_body, full_body};
use marram_core::{Failure, Kind, Retry};
use marram_gateway::Limits;
use tokio::io::AsyncWriteExt as _;

use crate::support::*;

fn answer(status: u16, headers: &[(&'static str, &'static str)], body: Body) -> Response<Body> {
    let mut answer = Response::new(body);
    *answer.status_mut() = StatusCode::from_u16(status).expect("status");
    for (name, value) in headers {
        answer.headers_mut().append(*name, HeaderValue::from_static(value));
    }
    answer
}

/// What the client hears of this answer to this method.
async fn check(
    method: &str,
    (status, headers, body): (u16, &'static [(&'static str, &'static str)], &'static str),
    has: &[&str],
    lacks: &[&str],
) {
    let function = fake("f", move |_, _| async move {
        Ok(answer(status, headers, if body.is_empty() { empty_body() } else { full_body(body) }))
    });
    let front = Front::start(Routes::new().on("/", function), Limits::default()).await;
    let heard = front.exchange(format!("{method} / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")).await;
    assert_has(&heard, has);
    assert_lacks(&heard, lacks);
}

#[tokio::test]
async fn heads() {
    let ok = "HTTP/1.1 200 OK\r\n";
    check(
        "GET",
        (200, &[], "hello"),
        &[ok, "\r\ncontent-length: 5\r\n", "\r\n\r\nhello", "\r\ndate: ", "\r\nmarram-request-id: 00"],
        &[],
    )
    .await;
    let hop = &[
        ("connection", "x-a"),
        ("x-a", "1"),
        ("keep-alive", "5"),
        ("transfer-encoding", "gzip"),
        ("upgrade", "x"),
        ("x-b", "2"),
    ];
    check("GET", (200, hop, "hello"), &[ok, "x-b: 2", "content-length: 5"], &["x-a", "keep-alive", "gzip", "upgrade"])
        .await;
    check("GET", (200, &[("marram-request-id", "mine")], ""), &[ok], &["mine"]).await;
    check(
        "GET",
        (299, &[("set-cookie", "a=1"), ("set-cookie", "b=2")], ""),
        &["HTTP/1.1 299", "a=1", "b=2", "content-length: 0"],
        &[],
    )
    .await;
}

#[tokio::test]
async fn bodies_that_must_not_be() {
    check("HEAD", (200, &[], "hello"), &["200 OK", "\r\ncontent-length: 5\r\n"], &["hello"]).await;
    check("HEAD", (200, &[("content-length", "7")], ""), &["200 OK", "\r\ncontent-length: 7\r\n"], &[]).await;
    check("GET", (204, &[("content-length", "5")], "hello"), &["204 No"], &["hello", "content-length", "chunked"])
        .await;
    check("HEAD", (204, &[("content-length", "5")], ""), &["204 No"], &["content-length"]).await;
    check("GET", (304, &[], "hello"), &["304 Not"], &["hello", "chunked"]).await;
    check("HEAD", (404, &[], "hello"), &["404 Not"], &["hello"]).await;
}

#[tokio::test]
async fn answers_that_are_not_http() {
    for status in [100, 101, 103] {
        check("GET", (status, &[], ""), &["502 Bad Gateway", "no-response"], &[]).await;
    }
    check("GET", (200, &[("content-length", "4")], "hello"), &["502 Bad Gateway", "content-length is not"], &["hello"])
        .await;
    check("GET", (200, &[("content-length", "5"), ("content-length", "5")], "hello"), &["502 Bad"], &["hello"]).await;
}

#[tokio::test]
async fn every_failure_is_a_problem() {
    for kind in Kind::ALL {
        let function = fake("f", move |_, _| async move {
            Err(Failure::new(*kind, "do this instead").because(std::io::Error::other("secret")))
        });
        let front = Front::start(Routes::new().on("/", function), Limits::default()).await;
        let heard = front.exchange("GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await;
        assert_eq!(statuses(&heard), [kind.status()]);
        let about = format!("\"type\":\"urn:marram:problem:{}\"", kind.label());
        assert_has(&heard, &[&about, "\"detail\":\"do this instead\"", kind.title(), "\r\nmarram-request-id: "]);
        assert_lacks(&heard, &["secret"]);
        front.until(|seen| *seen.ends.lock().expect("lock") == [(kind.status(), Some(*kind))]).await;
    }
}

#[tokio::test]
async fn patience_is_in_whole_seconds() {
    for (millis, seconds) in [(0, "1"), (1, "1"), (1000, "1"), (1001, "2")] {
        let function = fake("f", move |_, _| async move {
            Err(Failure::new(Kind::Overloaded, "").retry(Retry::After(Duration::from_millis(millis))))
        });
        let front = Front::start(Routes::new().on("/", function), Limits::default()).await;
        let heard = front.exchange("GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await;
        assert_has(&heard, &["503 Service Unavailable", &format!("\r\nretry-after: {seconds}\r\n")]);
    }
}

/// A refusal comes at once. Whoever does not wait is held for the rest of the time, for this function only.
#[tokio::test]
async fn those_who_do_not_wait_are_held() {
    let patience = Duration::from_millis(300);
    let full =
        fake(
            "full",
            move |_, _| async move { Err(Failure::new(Kind::Overloaded, "full").retry(Retry::After(patience))) },
        );
    let routes = Routes::new().on("/full", full).on("/free", says("free"));
    let front = Front::start(routes, Limits::default()).await;
    let mut stream = front.connect().await;
    let mut ask = async |path: &str, end: &str| {
        let began = std::time::Instant::now();
        stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n").as_bytes()).await.expect("write");
        read_until(&mut stream, end).await;
        began.elapsed()
    };
    let first = ask("/full", "}\n").await;
    let other = ask("/free", "\r\n\r\nfree").await;
    let second = ask("/full", "}\n").await;
    assert!(first + other + second >= patience, "{first:?} {other:?} {second:?}");
    assert!(first < patience / 2 && other < patience / 2, "{first:?} {other:?}");
}
