//! HTTP/2 in clear text, with prior knowledge.

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use marram_core::Kind;
use marram_core::port::full_body;
use marram_gateway::{Drained, Limits};
use tokio::io::AsyncWriteExt as _;

use crate::support::*;

type Client = h2::client::SendRequest<Bytes>;

async fn client(front: &Front) -> (Client, tokio::task::JoinHandle<Result<(), h2::Error>>) {
    client_with(front, &h2::client::Builder::new()).await
}

async fn client_with(
    front: &Front,
    settings: &h2::client::Builder,
) -> (Client, tokio::task::JoinHandle<Result<(), h2::Error>>) {
    let (client, connection) = settings.handshake(front.connect().await).await.expect("handshake");
    (client, tokio::spawn(connection))
}

async fn ready(client: Client) -> Client {
    within(client.ready()).await.expect("ready")
}

async fn text(answer: Response<h2::RecvStream>) -> (StatusCode, HeaderMap, String, Option<HeaderMap>) {
    let (parts, mut body) = answer.into_parts();
    let mut got = Vec::new();
    while let Some(chunk) = within(body.data()).await {
        let chunk = chunk.expect("data");
        body.flow_control().release_capacity(chunk.len()).expect("capacity");
        got.extend_from_slice(&chunk);
    }
    let trailers = within(body.trailers()).await.expect("trailers");
    (parts.status, parts.headers, String::from_utf8_lossy(&got).into_owned(), trailers)
}

#[tokio::test]
async fn requests_answers_and_trailers() {
    let echo = fake("echo", |request, _| async move { Ok(Response::new(request.into_body())) });
    let front = Front::start(Routes::new().on("/echo", echo).on("shop.example/...", mirror()), Limits::default()).await;
    let (client, _driving) = client(&front).await;
    let mut client = ready(client).await;
    let get = Request::get("http://shop.example/x?y")
        .header("cookie", "a=1")
        .header("cookie", "b=2")
        .body(())
        .expect("request");
    let (answer, _) = client.send_request(get, true).expect("send");
    let (status, headers, body, _) = text(within(answer).await.expect("answer")).await;
    assert_eq!(status, 200);
    assert!(headers.contains_key("date") && headers.contains_key("marram-request-id"));
    assert_has(
        &body,
        &[
            "GET http://shop.example/x?y\n",
            "\nhost: shop.example\n",
            "\nx-forwarded-for: 127.0.0.1\n",
            "\ncookie: a=1; b=2\n",
        ],
    );

    let post = Request::post("http://a/echo").body(()).expect("request");
    let (answer, mut to) = client.send_request(post, false).expect("send");
    to.send_data("hello".into(), false).expect("data");
    let mut answer = within(answer).await.expect("answer");
    assert_eq!(within(answer.body_mut().data()).await.expect("data").expect("data"), "hello");
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", HeaderValue::from_static("1"));
    to.send_trailers(trailers.clone()).expect("trailers");
    assert_eq!(text(answer).await.3, Some(trailers));

    let missing = Request::get("http://a/missing").body(()).expect("request");
    let (answer, _) = client.send_request(missing, true).expect("send");
    let (status, _, body, _) = text(within(answer).await.expect("answer")).await;
    assert_eq!(status, 404);
    assert_has(&body, &["urn:marram:problem:not-found"]);
}

async fn status_of(front: &Front, request: Request<()>) -> StatusCode {
    let (client, _driving) = client(front).await;
    let (answer, _to) = ready(client).await.send_request(request, true).expect("send");
    within(answer).await.expect("answer").status()
}

#[tokio::test]
async fn bad_heads() {
    let front = mirrored().await;
    let get = |uri: &str| Request::get(uri.to_owned());
    let contradiction = get("http://a/").header("host", "b").body(()).expect("request");
    assert_eq!(status_of(&front, contradiction).await, 400);
    for wrong in [
        get("http://a/").header("content-length", "0").header("content-length", "0"),
        get("http://a/").header("x", " a"),
        get("http://a/").header("x", "a\t"),
        get("http://a/\u{e9}"),
        get("http://a/\""),
    ] {
        let wrong = wrong.body(()).expect("request");
        assert_eq!(status_of(&front, wrong.clone()).await, 400, "{wrong:?}");
    }
    let long = get(&format!("http://a/{}", "x".repeat(9_000))).body(()).expect("request");
    assert_eq!(status_of(&front, long).await, 414);
    let many = (0..101).fold(get("http://a/"), |r, n| r.header(format!("x{n}"), "y")).body(()).expect("request");
    assert_eq!(status_of(&front, many).await, 431);
    let large = (0..20).fold(get("http://a/"), |r, n| r.header(format!("x{n}"), "y".repeat(2_000)));
    assert_eq!(status_of(&front, large.body(()).expect("request")).await, 431);
    let declared = Request::post("http://a/").header("content-length", "2000000").body(()).expect("request");
    let (client, _driving) = client(&front).await;
    let (answer, _to) = ready(client).await.send_request(declared, false).expect("send");
    assert_eq!(within(answer).await.expect("answer").status(), 413);
}

#[tokio::test]
async fn large_and_slow_bodies() {
    let limits = Limits { body_idle: Duration::from_millis(60), ..Limits::default() };
    let front = Front::start(Routes::new().with("/", &[], 10, mirror()), limits).await;
    let (client, _driving) = client(&front).await;
    for (bytes, status) in [("0123456789a", 413), ("01", 408)] {
        let post = Request::post("http://a/").body(()).expect("request");
        let (answer, mut to) = ready(client.clone()).await.send_request(post, false).expect("send");
        to.send_data(bytes.into(), false).expect("data");
        assert_eq!(within(answer).await.expect("answer").status(), status);
    }
}

/// CVE-2023-44487: streams that are opened and reset without end. The connection goes, and nothing else.
#[tokio::test]
async fn rapid_resets_close_the_connection() {
    let slow = fake("slow", |_, _| async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        Ok(Response::new(full_body("slow")))
    });
    let front = Front::start(Routes::new().on("/slow", slow).on("/", says("ok")), Limits::default()).await;
    let (client, driving) = client(&front).await;
    let mut client = ready(client).await;
    let mut sent = 0;
    within(async {
        while sent < 100_000 {
            let get = Request::get("http://a/slow").body(()).expect("request");
            let Ok((_, mut stream)) = client.send_request(get, true) else { break };
            stream.send_reset(h2::Reason::CANCEL);
            sent += 1;
            let Ok(again) = client.ready().await else { return };
            client = again;
            if sent % 50 == 0 {
                tokio::task::yield_now().await;
            }
        }
    })
    .await;
    let error = within(driving).await.expect("driving").expect_err("the connection was closed");
    assert_eq!(error.reason(), Some(h2::Reason::ENHANCE_YOUR_CALM), "{error} after {sent}");
    assert_eq!(status_of(&front, Request::get("http://a/").body(()).expect("request")).await, 200);
}

#[tokio::test]
async fn no_more_streams_than_the_limit() {
    let never = fake("never", |_, _| std::future::pending());
    let front = Front::start(Routes::new().on("/", never), Limits { h2_streams: 3, ..Limits::default() }).await;
    let (client, _driving) = client(&front).await;
    let mut answers = Vec::new();
    for _ in 0..3 {
        let get = Request::get("http://a/").body(()).expect("request");
        answers.push(ready(client.clone()).await.send_request(get, true).expect("send"));
    }
    // The client knows the limit from the front's settings, and has to wait.
    let fourth = tokio::time::timeout(Duration::from_millis(50), client.ready()).await;
    assert!(fourth.is_err() || answers.len() == 3);
}

#[tokio::test]
async fn a_reset_ends_the_run() {
    let never = fake("never", |_, _| std::future::pending());
    let front = Front::start(Routes::new().on("/", never), Limits::default()).await;
    let (client, _driving) = client(&front).await;
    let get = Request::get("http://a/").body(()).expect("request");
    let (_answer, mut stream) = ready(client).await.send_request(get, true).expect("send");
    front.until(|seen| seen.opened.load(Ordering::Relaxed) == 1).await;
    tokio::task::yield_now().await;
    stream.send_reset(h2::Reason::CANCEL);
    // It may have been reset before it was a request.
    drop(stream);
    let seen = tokio::time::timeout(
        Duration::from_millis(500),
        front.until(|seen| !seen.ends.lock().expect("lock").is_empty()),
    );
    if seen.await.is_ok() {
        assert_eq!(*front.recorder.ends.lock().expect("lock"), [(0, Some(Kind::ClientGone))]);
    }
}

#[tokio::test]
async fn idle_connections_are_closed() {
    let limits = Limits { idle: Duration::from_millis(60), linger: Duration::from_millis(60), ..Limits::default() };
    let front = Front::start(Routes::new().on("/", says("ok")), limits).await;
    let (client, driving) = client(&front).await;
    let get = Request::get("http://a/").body(()).expect("request");
    let (answer, _) = ready(client.clone()).await.send_request(get, true).expect("send");
    assert_eq!(text(within(answer).await.expect("answer")).await.2, "ok");
    let _ = within(driving).await.expect("driving");
    front.until(|seen| seen.closed.load(Ordering::Relaxed) == 1).await;
}

/// A client that opens its window for nothing, or never opens it, keeps no connection, however small the answer is.
#[tokio::test]
async fn a_reader_that_does_not_read_is_cut_off() {
    let large = fake("large", |_, _| async { Ok(Response::new(full_body(vec![b'x'; 1 << 20]))) });
    let limits = Limits { write_stall: Duration::from_millis(100), ..Limits::default() };
    let routes = Routes::new().on("/large", large).on("/small", says("seventeen bytes.\n"));
    let front = Front::start(routes, limits).await;
    let cases = [("/large", 200, 65_535), ("/large", 200, 0), ("/small", 200, 0), ("/missing", 404, 0)];
    for (cut, (path, status, window)) in (1..).zip(cases) {
        let settings = h2::client::Builder::new().initial_window_size(window).to_owned();
        let (client, driving) = client_with(&front, &settings).await;
        let get = Request::get(format!("http://a{path}")).body(()).expect("request");
        let (answer, _) = ready(client.clone()).await.send_request(get, true).expect("send");
        let unread = within(answer).await.expect("answer");
        assert_eq!(unread.status(), status, "{path}");
        let _ = within(driving).await.expect("driving");
        front.until(|seen| seen.closed.load(Ordering::Relaxed) == cut).await;
    }
}

#[tokio::test]
async fn a_drain_says_goaway_and_finishes() {
    let (begin, mut begun) = tokio::sync::mpsc::unbounded_channel();
    let slow = fake("slow", move |request, _| {
        let _ = begin.send(());
        async move {
            let gathered = request.into_body().collect().await?.to_bytes();
            Ok(Response::new(full_body(gathered)))
        }
    });
    let front = Front::start(Routes::new().on("/", slow), Limits::default()).await;
    let (client, driving) = client(&front).await;
    let post = Request::post("http://a/").body(()).expect("request");
    let (answer, mut to) = ready(client.clone()).await.send_request(post, false).expect("send");
    to.send_data("a".into(), false).expect("data");
    within(begun.recv()).await.expect("the function has begun");
    let drained = tokio::spawn(front.drained());
    tokio::task::yield_now().await;
    to.send_data("b".into(), true).expect("data");
    assert_eq!(text(within(answer).await.expect("answer")).await.2, "ab");
    assert_eq!(within(drained).await.expect("drained"), Drained { cut: 0 });
    let _ = within(driving).await;
}

#[tokio::test]
async fn a_preface_in_pieces() {
    let front = mirrored().await;
    let mut stream = front.connect().await;
    stream.set_nodelay(true).expect("nodelay");
    for byte in b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" {
        stream.write_all(&[*byte]).await.expect("write");
        tokio::task::yield_now().await;
    }
    stream.write_all(b"\0\0\0\x04\0\0\0\0\0").await.expect("settings");
    let mut frame = [0; 9];
    within(tokio::io::AsyncReadExt::read_exact(&mut stream, &mut frame)).await.expect("a frame");
    assert_eq!(frame[3], 4, "settings");
}
