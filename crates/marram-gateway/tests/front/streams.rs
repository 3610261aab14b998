//! Bodies pass as they come, both ways.

use bytes::Bytes;
use futures::StreamExt as _;
use futures::channel::mpsc;
use http::{HeaderMap, HeaderValue, Response};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use marram_core::port::{Body, full_body};
use marram_core::{Failure, Kind};
use marram_gateway::Limits;
use tokio::io::AsyncWriteExt as _;

use crate::support::*;

type Frames = mpsc::UnboundedReceiver<Result<Frame<Bytes>, Failure>>;

fn channel() -> (mpsc::UnboundedSender<Result<Frame<Bytes>, Failure>>, Body) {
    let (to, from): (_, Frames) = mpsc::unbounded();
    (to, Body::new(StreamBody::new(from)))
}

fn data(text: &'static str) -> Result<Frame<Bytes>, Failure> {
    Ok(Frame::data(Bytes::from_static(text.as_bytes())))
}

/// A function that answers each request with the next of these bodies.
async fn answering(bodies: Vec<Response<Body>>) -> Front {
    let bodies = std::sync::Mutex::new(bodies.into_iter());
    let function = fake("f", move |_, _| {
        let next = bodies.lock().expect("lock").next().expect("a body");
        async move { Ok(next) }
    });
    Front::start(Routes::new().on("/...", function), Limits::default()).await
}

const GET: &[u8] = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";

#[tokio::test]
async fn an_answer_is_not_gathered() {
    let (to, body) = channel();
    let front = answering(vec![Response::new(body)]).await;
    let mut stream = front.connect().await;
    stream.write_all(GET).await.expect("write");
    read_until(&mut stream, "transfer-encoding: chunked\r\n").await;
    for chunk in ["one", "two"] {
        to.unbounded_send(data(chunk)).expect("open");
        read_until(&mut stream, &format!("3\r\n{chunk}\r\n")).await;
    }
    drop(to);
    read_until(&mut stream, "0\r\n\r\n").await;
    front.until(|seen| *seen.ends.lock().expect("lock") == [(200, None)]).await;
}

#[tokio::test]
async fn a_request_is_not_gathered() {
    let echo = fake("echo", |request, _| async move { Ok(Response::new(request.into_body())) });
    let front = Front::start(Routes::new().on("/", echo), Limits::default()).await;
    let mut stream = front.connect().await;
    stream.write_all(b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n").await.expect("write");
    for chunk in ["3\r\none\r\n", "3\r\ntwo\r\n"] {
        stream.write_all(chunk.as_bytes()).await.expect("write");
        read_until(&mut stream, chunk).await;
    }
    stream.write_all(b"0\r\n\r\n").await.expect("write");
    read_until(&mut stream, "0\r\n\r\n").await;
}

#[tokio::test]
async fn trailers_pass_both_ways() {
    let echo = fake("echo", |request, _| async move {
        let declares = request.uri().path() == "/declares";
        let mut answer = Response::new(request.into_body());
        if declares {
            answer.headers_mut().insert("trailer", HeaderValue::from_static("x-sum"));
        }
        Ok(answer)
    });
    let front = Front::start(Routes::new().on("/", echo.clone()).on("/declares", echo), Limits::default()).await;
    let te = "te: trailers\r\nconnection: close, te\r\n";
    // Over HTTP/1.1 the client has to want trailers, and the answer to declare them.
    for (path, headers, end) in [
        ("/declares", te, "3\r\none\r\n0\r\nx-sum: 1\r\n\r\n"),
        ("/declares", "connection: close\r\n", "3\r\none\r\n0\r\n\r\n"),
        ("/", te, "3\r\none\r\n0\r\n\r\n"),
    ] {
        let head = format!("POST {path} HTTP/1.1\r\nhost: a\r\n{headers}transfer-encoding: chunked\r\n\r\n");
        let trailers = "x-sum: 1\r\nmarram-x: 2\r\ncontent-length: 9\r\n";
        let answer = front.exchange(format!("{head}3\r\none\r\n0\r\n{trailers}\r\n")).await;
        assert_has(&answer, &[end]);
        assert_lacks(&answer, &["marram-x", "content-length"]);
    }
}

#[tokio::test]
async fn expectations_are_met_when_the_function_reads() {
    let front = mirrored().await;
    let mut stream = front.connect().await;
    let head = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\nexpect: 100-continue\r\nconnection: close\r\n\r\n";
    stream.write_all(head).await.expect("write");
    read_until(&mut stream, "HTTP/1.1 100 Continue\r\n\r\n").await;
    stream.write_all(b"abc").await.expect("write");
    let answer = read_all(&mut stream).await;
    assert_has(&answer, &["200 OK", "\n\nabc"]);
    assert_lacks(&answer, &["expect"]);
}

#[tokio::test]
async fn an_answer_that_fails_on_its_way_is_cut() {
    let (to, body) = channel();
    let front = answering(vec![Response::new(body)]).await;
    let mut stream = front.connect().await;
    stream.write_all(GET).await.expect("write");
    to.unbounded_send(data("one")).expect("open");
    read_until(&mut stream, "3\r\none\r\n").await;
    to.unbounded_send(Err(Failure::new(Kind::Trap, ""))).expect("open");
    assert_eq!(read_all(&mut stream).await, "", "without the last chunk, the client knows");
    front.until(|seen| *seen.ends.lock().expect("lock") == [(200, Some(Kind::Trap))]).await;
}

#[tokio::test]
async fn a_client_that_goes_away_ends_the_run() {
    let (to, body) = channel();
    let front = answering(vec![Response::new(body)]).await;
    let mut stream = front.connect().await;
    stream.write_all(GET).await.expect("write");
    to.unbounded_send(data("one")).expect("open");
    read_until(&mut stream, "3\r\none\r\n").await;
    drop(stream);
    front.until(|seen| *seen.ends.lock().expect("lock") == [(200, Some(Kind::ClientGone))]).await;
    assert!(to.is_closed());
}

#[tokio::test]
async fn a_client_that_goes_away_before_the_answer_ends_the_run() {
    let never = fake("never", |_, _| std::future::pending());
    let front = Front::start(Routes::new().on("/", never), Limits::default()).await;
    let mut stream = front.connect().await;
    stream.write_all(GET).await.expect("write");
    stream.shutdown().await.expect("shutdown");
    front.until(|seen| *seen.ends.lock().expect("lock") == [(0, Some(Kind::ClientGone))]).await;
}

/// hyper drops a body when its declared length has passed: the function has not lost its client by that.
#[tokio::test]
async fn a_function_may_go_on_after_its_declared_length() {
    let (to, body) = channel();
    let mut answer = Response::new(body);
    answer.headers_mut().insert("content-length", HeaderValue::from_static("3"));
    let front = answering(vec![answer, Response::new(full_body("next"))]).await;
    let mut stream = front.connect().await;
    stream.write_all(GET).await.expect("write");
    to.unbounded_send(data("one")).expect("open");
    read_until(&mut stream, "\r\n\r\none").await;
    stream.write_all(GET).await.expect("write");
    read_until(&mut stream, "next").await;
    assert!(!to.is_closed(), "the body is read to its end");
    to.unbounded_send(Ok(Frame::trailers(HeaderMap::new()))).expect("open");
    drop(to);
    front.until(|seen| *seen.ends.lock().expect("lock") == [(200, None), (200, None)]).await;
}

#[tokio::test]
async fn head_lets_the_function_finish() {
    let (to, body) = channel();
    let front = answering(vec![Response::new(body)]).await;
    let answer = front.exchange("HEAD / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await;
    assert_has(&answer, &["200 OK"]);
    assert!(!to.is_closed());
}

/// A body larger than all buffers, in both directions at once.
#[tokio::test]
async fn large_bodies() {
    let echo = fake("echo", |request, _| async move { Ok(Response::new(request.into_body())) });
    let front = Front::start(Routes::new().with("/", &[], 64 << 20, echo), Limits::default()).await;
    let stream = front.connect().await;
    let (mut from, mut to) = stream.into_split();
    let sending = tokio::spawn(async move {
        to.write_all(
            format!("POST / HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", 8 << 20)
                .as_bytes(),
        )
        .await
        .expect("head");
        for n in 0..128u8 {
            to.write_all(&vec![n; 64 << 10]).await.expect("body");
        }
        to
    });
    let mut got = Vec::new();
    within(tokio::io::AsyncReadExt::read_to_end(&mut from, &mut got)).await.expect("read");
    drop(sending.await);
    let start = got.windows(4).position(|w| w == b"\r\n\r\n").expect("a head") + 4;
    let body = &got[start..];
    assert_eq!(body.len(), 8 << 20);
    assert!(body.chunks(64 << 10).zip(0u8..).all(|(chunk, n)| chunk.iter().all(|b| *b == n)));
}

#[tokio::test]
async fn a_stream_of_frames_is_read_to_its_end() {
    let gather = fake("gather", |request, _| async move {
        let mut count = 0;
        let mut stream = request.into_body().into_data_stream();
        while let Some(chunk) = stream.next().await {
            count += chunk?.len();
        }
        Ok(Response::new(full_body(count.to_string())))
    });
    let front = Front::start(Routes::new().on("/", gather), Limits::default()).await;
    let body = "a\r\n0123456789\r\n".repeat(100);
    let head = "POST / HTTP/1.1\r\nhost: a\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n";
    assert_has(&front.exchange(format!("{head}{body}0\r\n\r\n")).await, &["\r\n\r\n1000"]);
}
