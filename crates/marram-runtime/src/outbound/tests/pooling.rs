//! Connections that are kept, bounded, and let go.

use futures::SinkExt as _;
use marram_core::port::full_body;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::Notify;

use super::super::target::Origin;
use super::protocols::{tls, trusting};
use super::*;

/// Answers with the connection's number.
async fn numbering(tls: Option<TlsAcceptor>) -> Server {
    Server::http(tls, |request, number| async move {
        request.into_body().collect().await.unwrap();
        Response::new(full_body(number.to_string()))
    })
    .await
}

/// Answers with a body that never ends, after it has seen the request's head.
async fn endless(tls: Option<TlsAcceptor>) -> Server {
    Server::http(tls, |_, _| async {
        let (mut sender, body) = channel_body();
        tokio::spawn(async move {
            drop(sender.send(data("first")).await);
            std::future::pending::<()>().await;
        });
        Response::new(body)
    })
    .await
}

#[tokio::test]
async fn a_connection_is_used_again_by_its_function_only() {
    let server = numbering(None).await;
    let (out, grant) = (outbound(), open_grant(&server));
    for request in [get(&server.url("/")), post(&server.url("/"), full_body("abc")), get(&server.url("/b"))] {
        assert_eq!(text(send(&out, &grant, request).await.unwrap()).await, "1");
    }
    assert_eq!(text(send(&out, &open_grant(&server), get(&server.url("/"))).await.unwrap()).await, "2");
    assert_eq!(text(send(&out, &grant, get(&server.url("/"))).await.unwrap()).await, "1");
}

#[tokio::test]
async fn http2_carries_many_at_once() {
    let (root, acceptor) = tls(&["a.example"], &["h2"]);
    let server = numbering(Some(acceptor)).await;
    let (out, grant) = (trusting(root), open_grant(&server));
    let url = server.named("https", "a.example");
    text(send(&out, &grant, get(&url)).await.unwrap()).await;
    let answers =
        futures::future::join_all((0..20).map(|_| async { text(send(&out, &grant, get(&url)).await.unwrap()).await }))
            .await;
    assert!(answers.iter().all(|number| number == "1"), "{answers:?}");
}

#[tokio::test]
async fn surplus_http2_connections_go() {
    let (root, acceptor) = tls(&["a.example"], &["h2"]);
    let mut server = numbering(Some(acceptor)).await;
    let (out, grant) = (trusting(root), open_grant(&server));
    let url = server.named("https", "a.example");
    // None is open yet, so each opens its own.
    futures::future::join_all((0..8).map(|_| async { text(send(&out, &grant, get(&url)).await.unwrap()).await })).await;
    server.until_open(1).await;
    assert_eq!(grant.pool.count(), (1, 1));
}

#[tokio::test]
async fn what_is_idle_is_bounded_and_goes_after_its_time() {
    let mut server = numbering(None).await;
    let out = outbound();
    let grant = limited_grant(&server, |limits| {
        limits.idle_per_origin = 3;
        limits.idle = Duration::from_millis(50);
    });
    let url = server.url("/");
    // All are answered before the first body is read, so that each has its own connection.
    let answers = futures::future::join_all((0..8).map(|_| send(&out, &grant, get(&url)))).await;
    assert_eq!(grant.pool.count(), (8, 0));
    for answer in answers {
        text(answer.unwrap()).await;
    }
    assert!(grant.pool.count().0 <= 3);
    server.until_open(0).await;
    assert_eq!(grant.pool.count(), (0, 0));
    assert_eq!(out.connections.available_permits(), out.connections_max);
    assert_eq!(out.idle.available_permits(), OutboundConfig::default().idle_max);
}

#[tokio::test]
async fn a_dropped_grant_leaves_nothing_open() {
    let mut server = numbering(None).await;
    let out = outbound();
    let grant = open_grant(&server);
    text(send(&out, &grant, get(&server.url("/"))).await.unwrap()).await;
    let mut kept = send(&out, &grant, get(&server.url("/"))).await.unwrap().into_body();
    drop((out, grant));
    // What is still read is read to its end.
    assert_eq!(kept.frame().await.unwrap().unwrap().into_data().unwrap(), "1");
    server.until_open(0).await;
}

#[tokio::test]
async fn a_connection_that_was_closed_meanwhile_is_replaced() {
    // The server closes each connection after one answer without saying so.
    let server = Server::raw(|mut socket, _| async move {
        let mut request = [0; 1024];
        if socket.read(&mut request).await.is_ok_and(|bytes| bytes > 0) {
            socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
        }
    })
    .await;
    let (out, grant) = (outbound(), open_grant(&server));
    for _ in 0..50 {
        assert_eq!(text(send(&out, &grant, post(&server.url("/"), full_body("abc"))).await.unwrap()).await, "ok");
        // The close is on its way, seen or not.
        server.connections.clone().wait_for(|(_, open)| *open == 0).await.unwrap();
    }
    assert_eq!(server.total(), 50);
}

#[tokio::test]
async fn what_was_not_sent_is_sent_on_a_new_connection() {
    let (root, acceptor) = tls(&["a.example"], &["h2"]);
    for acceptor in [None, Some(acceptor)] {
        let scheme = if acceptor.is_some() { "https" } else { "http" };
        let server = numbering(acceptor).await;
        let (out, grant, url) = (trusting(root.clone()), open_grant(&server), server.named(scheme, "a.example"));
        assert_eq!(text(send(&out, &grant, get(&url)).await.unwrap()).await, "1");
        // The kept connection ends; nobody has seen it yet.
        let origin = Origin::of(&url.parse().unwrap()).unwrap();
        let link = grant.pool.check_out(&origin).unwrap();
        link.abort();
        grant.pool.check_in(&origin, link.id, true, &out.idle);
        drop(link);
        assert_eq!(grant.pool.count(), (1, 1));
        assert_eq!(text(send(&out, &grant, post(&url, full_body("abc"))).await.unwrap()).await, "2", "{scheme}");
    }
}

#[tokio::test]
async fn dropping_the_answer_closes_http1() {
    let mut server = endless(None).await;
    let (out, grant) = (outbound(), open_grant(&server));
    let mut response = send(&out, &grant, get(&server.url("/"))).await.unwrap();
    response.body_mut().frame().await.unwrap().unwrap();
    drop(response);
    server.until_open(0).await;
    assert_eq!(grant.pool.count(), (0, 0));
}

#[tokio::test]
async fn dropping_before_the_answer_closes_http1() {
    let arrived = Arc::new(Notify::new());
    let signal = arrived.clone();
    let mut server = Server::http(None, move |request, _| {
        signal.notify_one();
        async move {
            assert!(request.into_body().collect().await.is_err());
            Response::new(empty_body())
        }
    })
    .await;
    let (out, grant) = (outbound(), open_grant(&server));
    let (_sender, body) = channel_body();
    tokio::select! {
        _ = send(&out, &grant, post(&server.url("/"), body)) => panic!("there is no answer"),
        () = arrived.notified() => {}
    }
    server.until_open(0).await;
}

#[tokio::test]
async fn dropping_the_answer_resets_http2_and_its_upload() {
    let (root, acceptor) = tls(&["a.example"], &["h2"]);
    let reset = Arc::new(Notify::new());
    let signal = reset.clone();
    let server = Server::http(Some(acceptor), move |request, _| {
        let signal = signal.clone();
        async move {
            tokio::spawn(async move {
                // Ends with an error when the stream is reset.
                assert!(request.into_body().collect().await.is_err());
                signal.notify_one();
            });
            Response::new(channel_body_kept())
        }
    })
    .await;
    let (out, grant) = (trusting(root), open_grant(&server));
    let (_sender, body) = channel_body();
    let response = send(&out, &grant, post(&server.named("https", "a.example"), body)).await.unwrap();
    drop(response);
    tokio::time::timeout(DEADLINE, reset.notified()).await.expect("the stream was not reset");
    // The connection stays, for others.
    assert_eq!(grant.pool.count(), (1, 1));
}

fn channel_body_kept() -> Body {
    http_body_util::StreamBody::new(futures::stream::pending::<Frame>()).boxed_unsync()
}

#[tokio::test]
async fn one_function_has_a_bounded_number_under_way() {
    let server = endless(None).await;
    let out = outbound();
    let grant = limited_grant(&server, |limits| (limits.exchanges, limits.waiting) = (4, 1));
    let url = server.url("/");
    let mut answers = futures::future::join_all((0..4).map(|_| send(&out, &grant, get(&url)))).await;
    // A fifth waits; for a sixth there is no place.
    let mut fifth = Box::pin(send(&out, &grant, get(&url)));
    assert!(futures::poll!(&mut fifth).is_pending());
    let error = send(&out, &grant, get(&url)).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "this function has 4 outbound connections already: read or drop earlier answers first"
    );
    assert_eq!(server.total(), 4);
    // Another function is not concerned, and the fifth has its turn when an answer is dropped.
    assert!(send(&out, &open_grant(&server), get(&url)).await.is_ok());
    drop(answers.pop());
    assert!(fifth.await.is_ok());
    let short = Timeouts { connect: Duration::from_millis(20), ..Timeouts::default() };
    let fifth = send(&out, &grant, get(&url)).await;
    assert!(fifth.is_ok(), "its predecessor's permit came back");
    assert!(matches!(out.send(&grant, get(&url), short).await, Err(OutboundError::TooManyConnections { .. })));
}

#[tokio::test]
async fn the_node_has_a_bounded_number_of_connections() {
    let server = endless(None).await;
    let out = Outbound::new(OutboundConfig { connections_max: 2, idle_max: 1, ..OutboundConfig::default() }).unwrap();
    let kept = [
        send(&out, &open_grant(&server), get(&server.url("/"))).await,
        send(&out, &open_grant(&server), get(&server.url("/"))).await,
    ];
    let error = send(&out, &open_grant(&server), get(&server.url("/"))).await.unwrap_err();
    assert!(matches!(error, OutboundError::TooManyConnections { who: "this node", max: 2 }), "{error}");
    drop(kept);
}
