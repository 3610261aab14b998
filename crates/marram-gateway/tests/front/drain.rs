//! The end: nothing new, and nothing lost.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, Response};
use http_body_util::BodyExt as _;
use marram_core::port::full_body;
use marram_gateway::{Drained, Limits};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use crate::support::*;

const GET: &[u8] = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";

/// A front whose function waits for a permit of `gate`, after it has added one to `begun`.
async fn gated(drain: Duration) -> (Front, Arc<Semaphore>, Arc<Semaphore>) {
    let (begun, gate) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let (signal, wait) = (begun.clone(), gate.clone());
    let function = fake("gated", move |_, _| {
        let (signal, wait) = (signal.clone(), wait.clone());
        async move {
            signal.add_permits(1);
            wait.acquire().await.expect("open").forget();
            Ok(Response::new(full_body("done")))
        }
    });
    (Front::start(Routes::new().on("/", function), Limits { drain, ..Limits::default() }).await, begun, gate)
}

#[tokio::test]
async fn what_is_in_flight_finishes_and_nothing_new_begins() {
    let (front, begun, gate) = gated(DEADLINE).await;
    let mut busy = front.connect().await;
    let mut idle = front.connect().await;
    let mut used = front.connect().await;
    gate.add_permits(1);
    used.write_all(GET).await.expect("write");
    read_until(&mut used, "done").await;
    busy.write_all(GET).await.expect("write");
    within(begun.acquire_many(2)).await.expect("open").forget();
    let (address, stop) = (front.address, front.stop.clone());
    let drained = tokio::spawn(front.drained());
    within(stop.cancelled()).await;
    assert_eq!(read_all(&mut idle).await, "", "an idle connection is closed at once");
    assert_eq!(read_all(&mut used).await, "", "also one that was used");
    assert!(TcpStream::connect(address).await.is_err(), "nothing listens any more");
    gate.add_permits(1);
    let answer = read_all(&mut busy).await;
    assert_has(&answer, &["200 OK", "connection: close", "\r\n\r\ndone"]);
    assert_eq!(within(drained).await.expect("drained"), Drained { cut: 0 });
}

/// A front whose function adds a permit to `begun`, and answers with the body that it reads and the number of its trailers.
async fn reading() -> (Front, Arc<Semaphore>) {
    let begun = Arc::new(Semaphore::new(0));
    let signal = begun.clone();
    let function = fake("reading", move |request, _| {
        signal.add_permits(1);
        async move {
            let gathered = request.into_body().collect().await?;
            let trailers = gathered.trailers().map_or(0, HeaderMap::len);
            Ok(Response::new(full_body(format!("{:?} {trailers}", gathered.to_bytes()))))
        }
    });
    (Front::start(Routes::new().on("/", function), Limits { drain: DEADLINE, ..Limits::default() }).await, begun)
}

/// Sends `start`, waits until its function has begun, and begins the drain: an idle connection shows that all were told.
async fn drained_within_a_body(start: &str) -> (TcpStream, tokio::task::JoinHandle<Drained>) {
    let (front, begun) = reading().await;
    let mut idle = front.connect().await;
    let mut busy = front.connect().await;
    busy.write_all(start.as_bytes()).await.expect("write");
    within(begun.acquire()).await.expect("open").forget();
    let drained = tokio::spawn(front.drained());
    assert_eq!(read_all(&mut idle).await, "");
    (busy, drained)
}

#[tokio::test]
async fn bodies_that_are_on_their_way_still_arrive() {
    let chunked = "transfer-encoding: chunked";
    for (fields, sent, rest, read) in [
        ("content-length: 5", "", "abcde", "b\"abcde\" 0"),
        ("content-length: 5", "ab", "cde", "b\"abcde\" 0"),
        ("content-length: 5", "ab", "cdeGET / HTTP/1.1\r\nhost: a\r\n\r\n", "b\"abcde\" 0"),
        ("content-length: 5\r\nexpect: 100-continue", "", "abcde", "b\"abcde\" 0"),
        (chunked, "", "5\r\nabcde\r\n0\r\n\r\n", "b\"abcde\" 0"),
        (chunked, "2\r\nab\r\n", "3\r\ncde\r\n0\r\nx-sum: 1\r\n\r\n", "b\"abcde\" 1"),
        (chunked, "5\r\nabcde\r\n0\r\nx-s", "um: 1\r\n\r\n", "b\"abcde\" 1"),
    ] {
        let start = format!("POST / HTTP/1.1\r\nhost: a\r\n{fields}\r\n\r\n{sent}");
        let (mut busy, drained) = drained_within_a_body(&start).await;
        busy.write_all(rest.as_bytes()).await.expect("write");
        let answer = read_all(&mut busy).await;
        assert_has(&answer, &["connection: close", &format!("\r\n\r\n{read}")]);
        assert_eq!(answer.matches("200 OK").count(), 1, "what is behind the body does not begin:\n{answer}");
        assert_eq!(within(drained).await.expect("drained"), Drained { cut: 0 });
    }
}

#[tokio::test]
async fn a_client_that_leaves_within_its_body_holds_up_no_drain() {
    let start = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nab";
    let (busy, drained) = drained_within_a_body(start).await;
    drop(busy);
    assert_eq!(within(drained).await.expect("drained"), Drained { cut: 0 });
}

#[tokio::test]
async fn what_does_not_finish_is_cut() {
    let (front, begun, _gate) = gated(Duration::from_millis(50)).await;
    let mut busy = front.connect().await;
    busy.write_all(GET).await.expect("write");
    within(begun.acquire()).await.expect("open").forget();
    let recorder = front.recorder.clone();
    assert_eq!(front.drained().await, Drained { cut: 1 });
    assert_eq!(recorder.ends.lock().expect("lock").len(), 1);
    assert_eq!(read_all(&mut busy).await, "");
}

#[tokio::test]
async fn a_swap_leaves_requests_in_flight_alone() {
    let (front, begun, gate) = gated(DEADLINE).await;
    let mut old = front.connect().await;
    old.write_all(GET).await.expect("write");
    within(begun.acquire()).await.expect("open").forget();
    front.gateway.routes().swap(marram_gateway::Table::build(Routes::new().on("/", says("new")).0).expect("table"));
    let mut new = front.connect().await;
    new.write_all(GET).await.expect("write");
    read_until(&mut new, "new").await;
    gate.add_permits(1);
    read_until(&mut old, "done").await;
    old.write_all(GET).await.expect("write");
    read_until(&mut old, "new").await;
}
