//! The end: nothing new, and nothing lost.

use std::sync::Arc;
use std::time::Duration;

use http::Response;
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
