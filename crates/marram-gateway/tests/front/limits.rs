//! Clients that send too much, too slowly, or do not read.

use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use http::Response;
use http_body_util::BodyExt as _;
use marram_core::Kind;
use marram_core::port::full_body;
use marram_gateway::Limits;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::support::*;

const SHORT: Duration = Duration::from_millis(60);

fn short() -> Limits {
    Limits { header_time: SHORT, body_idle: SHORT, idle: SHORT, write_stall: SHORT, ..Limits::default() }
}

/// These bytes are refused as `kind`, with a problem, and the connection closes.
async fn check(limits: Limits, bytes: String, kind: Kind) {
    let routes = Routes::new().with("/...", &[], 10, mirror());
    let front = Front::start(routes, limits).await;
    let answer = front.exchange(bytes).await;
    assert_eq!(statuses(&answer), [kind.status()], "{answer}");
    let about = format!("urn:marram:problem:{}", kind.label());
    assert_has(&answer, &[&about, "connection: close", "marram-request-id: "]);
    front.until(|seen| seen.closed.load(std::sync::atomic::Ordering::Relaxed) == 1).await;
    let refused = seen_refusals(&front);
    assert_eq!(refused, [kind], "counted once");
}

fn seen_refusals(front: &Front) -> Vec<Kind> {
    let mut kinds = front.recorder.refused.lock().expect("lock").clone();
    kinds.extend(front.recorder.ends.lock().expect("lock").iter().filter_map(|(_, kind)| *kind));
    kinds
}

#[tokio::test]
async fn large_heads() {
    let many = "x: y\r\n".repeat(10_000);
    check(Limits::default(), format!("GET / HTTP/1.1\r\nhost: a\r\n{many}\r\n"), Kind::HeadersTooLarge).await;
    let few = "x: y\r\n".repeat(100);
    check(Limits::default(), format!("GET / HTTP/1.1\r\nhost: a\r\n{few}\r\n"), Kind::HeadersTooLarge).await;
    let long = "y".repeat(40_000);
    check(Limits::default(), format!("GET / HTTP/1.1\r\nhost: a\r\nx: {long}\r\n\r\n"), Kind::HeadersTooLarge).await;
    check(Limits::default(), format!("GET / HTTP/1.1\r\nhost: a\r\nx: {long}"), Kind::HeadersTooLarge).await;
    check(Limits::default(), format!("GET /{} HTTP/1.1\r\nhost: a\r\n\r\n", "y".repeat(8_000)), Kind::UriTooLong).await;
    check(Limits::default(), format!("GET /{long} HTTP/1.1\r\nhost: a\r\n\r\n"), Kind::UriTooLong).await;
    check(Limits::default(), format!("GET /{long}{long}"), Kind::UriTooLong).await;
    check(Limits::default(), format!("{long} / HTTP/1.1\r\nhost: a\r\n\r\n"), Kind::UriTooLong).await;
}

#[tokio::test]
async fn heads_just_within_the_limits() {
    let front = Front::start(Routes::new().on("/...", says("ok")), Limits::default()).await;
    let fields: String = (0..98).map(|n| format!("x{n}: y\r\n")).collect();
    let path = "y".repeat(7_999);
    let answer = front.exchange(format!("GET /{path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n{fields}\r\n")).await;
    assert_eq!(statuses(&answer), [200]);
}

#[tokio::test]
async fn large_bodies() {
    let post = "POST / HTTP/1.1\r\nhost: a\r\n";
    check(Limits::default(), format!("{post}content-length: 11\r\n\r\n"), Kind::BodyTooLarge).await;
    check(Limits::default(), format!("{post}content-length: 11\r\nexpect: 100-continue\r\n\r\n"), Kind::BodyTooLarge)
        .await;
    check(
        Limits::default(),
        format!("{post}content-length: 999999999999999999\r\n\r\n{}", "x".repeat(3 << 20)),
        Kind::BodyTooLarge,
    )
    .await;
    let endless = "3\r\nabc\r\n".repeat(100_000);
    check(Limits::default(), format!("{post}transfer-encoding: chunked\r\n\r\n{endless}"), Kind::BodyTooLarge).await;
    check(
        Limits::default(),
        format!("{post}transfer-encoding: chunked\r\n\r\n5;{}", "x".repeat(40_000)),
        Kind::BadRequest,
    )
    .await;
}

/// Only then is the failure nobody else's to count.
#[tokio::test]
async fn a_body_that_is_announced_as_too_large_is_refused_before_its_function_is_asked() {
    let front = Front::start(Routes::new().with("/a", &[], 3, mirror()), Limits::default()).await;
    for (path, rest, status) in [
        ("/a", "transfer-encoding: chunked\r\n\r\n4\r\nabcd\r\n0\r\n\r\n", 413),
        ("/missing", "content-length: 4\r\n\r\nabcd", 404),
        ("/a", "content-length: 4\r\n\r\nabcd", 413),
    ] {
        let request = format!("POST {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n{rest}");
        assert_eq!(statuses(&front.exchange(request).await), [status], "{path} {rest}");
    }
    front.until(|seen| seen.ends.lock().expect("lock").len() == 3).await;
    let mirror = marram_core::Name::new("mirror").expect("a name");
    assert_eq!(*front.recorder.unasked.lock().expect("lock"), [(mirror, Kind::BodyTooLarge)]);
}

#[tokio::test]
async fn slow_heads_and_bodies() {
    check(short(), "GET / HTTP/1.1\r\nhos".into(), Kind::ClientTimeout).await;
    check(short(), "GET / HTTP/1.1\r\nhost: a\r\nx: 1\r\n".into(), Kind::ClientTimeout).await;
    let post = "POST / HTTP/1.1\r\nhost: a\r\n";
    check(short(), format!("{post}content-length: 5\r\n\r\nab"), Kind::ClientTimeout).await;
    check(short(), format!("{post}transfer-encoding: chunked\r\n\r\n2\r\nab\r\n"), Kind::ClientTimeout).await;
}

/// A byte now and then does not buy more time for a header section.
#[tokio::test]
async fn a_slowloris_is_cut_off() {
    let front = Front::start(Routes::new().on("/...", mirror()), Limits { idle: DEADLINE, ..short() }).await;
    let (mut from, mut to) = front.connect().await.into_split();
    let dripping = tokio::spawn(async move {
        to.write_all(b"GET / HTTP/1.1\r\nhost: a\r\nx: ").await.expect("write");
        let mut beat = tokio::time::interval(Duration::from_millis(5));
        while to.write_all(b"y").await.is_ok() {
            beat.tick().await;
        }
    });
    let mut got = Vec::new();
    let _ = within(from.read_to_end(&mut got)).await;
    assert_eq!(statuses(&String::from_utf8_lossy(&got)), [408]);
    drop(from);
    within(dripping).await.expect("it ends");
}

/// Neither a connection that says nothing, nor one that is kept alive, stays for ever; and nothing is said to it.
#[tokio::test]
async fn idle_connections_are_closed() {
    let front = Front::start(Routes::new().on("/...", says("ok")), short()).await;
    assert_eq!(front.exchange("").await, "");
    assert_eq!(front.exchange("PRI * HT").await, "");
    assert_eq!(statuses(&front.exchange("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await), [200]);
    assert_eq!(statuses(&front.exchange("GET / HTTP/1.1\r\nhost: a\r\n\r\nGET").await), [200, 408]);
}

/// A slow function is not an idle connection.
#[tokio::test]
async fn slow_functions_are_waited_for() {
    let slow = fake("slow", |_, _| async {
        tokio::time::sleep(SHORT * 5).await;
        Ok(Response::new(full_body("slow")))
    });
    let front = Front::start(Routes::new().on("/", slow), short()).await;
    assert_has(&front.exchange("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await, &["\r\n\r\nslow"]);
}

#[tokio::test]
async fn a_reader_that_does_not_read_is_cut_off() {
    let large = fake("large", |_, _| async { Ok(Response::new(full_body(vec![b'x'; 64 << 20]))) });
    let front = Front::start(Routes::new().on("/", large), short()).await;
    let mut stream = front.connect().await;
    stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.expect("write");
    // The function has answered, all at once: what the client leaves unread is not its failure.
    front.until(|seen| *seen.ends.lock().expect("lock") == [(200, None)]).await;
    front.until(|seen| seen.closed.load(std::sync::atomic::Ordering::Relaxed) == 1).await;
}

#[tokio::test]
async fn a_function_that_ignores_its_body_keeps_the_connection_honest() {
    let limits = Limits { linger: DEADLINE, ..Limits::default() };
    let front = Front::start(Routes::new().with("/...", &[], 8 << 20, says("ok")), limits).await;
    let request = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabcGET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    assert_eq!(statuses(&front.exchange(request).await), [200, 200]);
    // These clients read nothing before they have sent everything.
    for bytes in [1 << 20, 7 << 20] {
        let large = "x".repeat(bytes);
        let request = format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {bytes}\r\n\r\n{large}");
        let mut stream = front.connect().await;
        within(stream.write_all(request.as_bytes())).await.expect("the front takes all of it");
        assert_eq!(statuses(&read_all(&mut stream).await), [200], "answered, and closed");
    }
}

#[tokio::test]
async fn more_connections_than_the_limit_wait() {
    let front =
        Front::start(Routes::new().on("/...", says("ok")), Limits { connections: 2, ..Limits::default() }).await;
    let get = "GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    let (first, second) = (front.connect().await, front.connect().await);
    front.until(|seen| seen.opened.load(std::sync::atomic::Ordering::Relaxed) == 2).await;
    let mut third = front.connect().await;
    third.write_all(get.as_bytes()).await.expect("write");
    let early = tokio::time::timeout(SHORT, third.read_u8()).await;
    assert!(early.is_err(), "it was served beyond the limit");
    drop((first, second));
    assert_eq!(statuses(&read_all(&mut third).await.to_string()), [200]);
}

/// The client's error is heard, whatever the function makes of it.
#[tokio::test]
async fn a_function_cannot_hide_that_a_body_was_too_large() {
    let calm = fake("calm", |request, _| async move {
        let _ = request.into_body().collect().await;
        Ok(Response::new(full_body("all is well")))
    });
    let front = Front::start(Routes::new().with("/", &[], 3, calm), Limits::default()).await;
    let post = "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n4\r\nabcd\r\n0\r\n\r\n";
    let mut stream = front.connect().await;
    stream.write_all(post.as_bytes()).await.expect("write");
    assert_has(&read_until(&mut stream, "}\n").await, &["413 Payload Too Large"]);
}

/// A function in a crowd wakes itself to let the requests of others come up to it first (`docs/adr/0012-turns.md`).
#[tokio::test]
async fn in_a_crowd_who_wakes_itself_lets_others_go_first() {
    for (crowd, expected) in [(0, ["/a", "/b", "/a", "/b"]), (2, ["/a", "/a", "/b", "/b"])] {
        let log = Arc::new(Mutex::new(Vec::new()));
        let lines = log.clone();
        let function = fake("polite", move |request, _| {
            let lines = lines.clone();
            let path = request.uri().path().to_owned();
            let mut has_yielded = false;
            std::future::poll_fn(move |cx| {
                lines.lock().expect("lock").push(path.clone());
                if std::mem::replace(&mut has_yielded, true) {
                    return Poll::Ready(Ok(Response::new(full_body("done"))));
                }
                cx.waker().wake_by_ref();
                Poll::Pending
            })
        });
        let front = Front::start(Routes::new().on("/...", function), Limits { crowd, ..Limits::default() }).await;
        let (mut one, mut other) = (front.connect().await, front.connect().await);
        for stream in [&mut one, &mut other] {
            stream.write_all(b"GET /warm HTTP/1.1\r\nhost: a\r\n\r\n").await.expect("write");
            read_until(stream, "done").await;
        }
        log.lock().expect("lock").clear();
        // This thread is the front's, too: it looks at its sockets when both requests are there.
        for (stream, path) in [(&one, "/a"), (&other, "/b")] {
            let request = format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n");
            assert_eq!(stream.try_write(request.as_bytes()).expect("room"), request.len());
        }
        read_until(&mut one, "done").await;
        read_until(&mut other, "done").await;
        let mut found = log.lock().expect("lock").clone();
        if found[0] == "/b" {
            // Which socket it looks at first is its own affair.
            found.iter_mut().for_each(|path| *path = if path == "/a" { "/b".into() } else { "/a".into() });
        }
        assert_eq!(found, expected);
    }
}
