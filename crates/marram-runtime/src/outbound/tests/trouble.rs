//! Servers, networks and functions that do not do their part.

use futures::SinkExt as _;
use marram_core::port::full_body;
use marram_core::{Failure, Kind};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::protocols::{tls, trusting};
use super::*;

/// Reads some of the request, writes this, and closes, or stays if `stay`.
async fn scripted(answer: impl Into<Vec<u8>>, stay: bool) -> Server {
    let answer = answer.into();
    Server::raw(move |mut socket, _| {
        let answer = answer.clone();
        async move {
            let mut request = [0; 4096];
            if socket.read(&mut request).await.is_ok_and(|bytes| bytes > 0) {
                drop(socket.write_all(&answer).await);
                while stay && socket.read(&mut request).await.is_ok_and(|bytes| bytes > 0) {}
            }
        }
    })
    .await
}

/// Only what is awaited is short: a busy machine may take its time for the rest.
const SHORT: Duration = Duration::from_millis(60);

fn short_first_byte() -> Timeouts {
    Timeouts { first_byte: SHORT, ..Timeouts::default() }
}

fn short_between_bytes() -> Timeouts {
    Timeouts { between_bytes: SHORT, ..Timeouts::default() }
}

/// The error of the answer's head, or of its body.
async fn error_of(server: &Server, request: Request<Body>, timeouts: Timeouts) -> OutboundError {
    let (out, grant) = (outbound(), open_grant(server));
    match out.exchange(&grant, request, timeouts).await {
        Err(error) => error,
        Ok(response) => response.into_body().collect().await.map(|_| ()).expect_err("it went well"),
    }
}

#[tokio::test]
async fn answers_that_are_none() {
    let long = format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "a".repeat(200 << 10));
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "x: y\r\n".repeat(1000));
    let cases: [(&str, &str); 10] = [
        ("", "connection-terminated"),
        ("HTTP/1.1 200 OK\r\nx: ", "connection-terminated"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nabc", "connection-terminated"),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n", "connection-terminated"),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n", "HTTP-protocol-error"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab", "HTTP-protocol-error"),
        ("HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n", "HTTP-protocol-error"),
        ("SSH-2.0-OpenSSH_9.9\r\n\r\n", "HTTP-protocol-error"),
        (&long, "HTTP-response-header-section-size"),
        (&many, "HTTP-response-header-section-size"),
    ];
    for (answer, class) in cases {
        let server = scripted(answer, false).await;
        let error = error_of(&server, get(&server.url("/")), Timeouts::default()).await;
        assert_eq!(wasi_name(&error), class, "{:?}: {error}", &answer[..answer.len().min(80)]);
        assert!(error.to_string().contains(&server.at.to_string()), "{error}");
    }
}

#[tokio::test]
async fn nobody_listens() {
    let server = scripted("", false).await;
    let (at, grant) = (server.at, open_grant(&server));
    server.accepting.abort();
    let mut server = server;
    assert!((&mut server.accepting).await.is_err());
    let error = send(&outbound(), &grant, get(&format!("http://{at}/"))).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("http://{at} refused the connection: is the server running, and is the port right?")
    );
}

#[tokio::test]
async fn each_part_has_its_time() {
    let silent = scripted("", true).await;
    let error = error_of(&silent, get(&silent.url("/")), short_first_byte()).await;
    assert!(matches!(error, OutboundError::FirstByteTimeout { .. }), "{error}");
    // A TLS handshake that is never answered belongs to the connection.
    let error =
        error_of(&silent, get(&silent.named("https", "127.0.0.1")), Timeouts { connect: SHORT, ..Timeouts::default() })
            .await;
    assert!(matches!(error, OutboundError::ConnectTimeout { .. }), "{error}");
    let stops = scripted("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc", true).await;
    let error = error_of(&stops, get(&stops.url("/")), short_between_bytes()).await;
    assert!(matches!(error, OutboundError::ReadTimeout { .. }), "{error}");
    // Informational answers are no answer.
    let hints = scripted("HTTP/1.1 103 Early Hints\r\n\r\n", true).await;
    let error = error_of(&hints, get(&hints.url("/")), short_first_byte()).await;
    assert!(matches!(error, OutboundError::FirstByteTimeout { .. }), "{error}");
}

#[tokio::test]
async fn a_function_that_reads_slowly_is_not_a_server_that_sends_slowly() {
    let server = Server::http(None, |_, _| async { Response::new(full_body(vec![1; 1 << 20])) }).await;
    let (out, grant) = (outbound(), open_grant(&server));
    let timeouts = Timeouts { between_bytes: SHORT * 5, ..Timeouts::default() };
    let mut body = out.exchange(&grant, get(&server.url("/")), timeouts).await.unwrap().into_body();
    let first = body.frame().await.unwrap().unwrap().into_data().unwrap().len();
    // Time passes only because the function takes it, twice as long as the server may.
    tokio::time::sleep(SHORT * 10).await;
    let rest = body.collect().await.unwrap().to_bytes().len();
    assert_eq!(first + rest, 1 << 20);
}

#[tokio::test]
async fn an_upload_that_goes_on_is_not_a_late_answer() {
    let server = Server::http(None, |request, _| async move {
        Response::new(full_body(request.into_body().collect().await.unwrap().to_bytes()))
    })
    .await;
    // Five parts and the end, each well within the limit of the last one, and all of them beyond it.
    let parts = futures::stream::unfold(0, |at| async move {
        tokio::time::sleep(Duration::from_millis(200)).await;
        (at < 5).then(|| (data("x"), at + 1))
    });
    let body = http_body_util::StreamBody::new(parts).boxed_unsync();
    let timeouts = Timeouts { first_byte: Duration::from_millis(900), ..Timeouts::default() };
    let response = outbound().send(&open_grant(&server), post(&server.url("/"), body), timeouts).await.unwrap();
    assert_eq!(text(response).await, "xxxxx");
}

#[tokio::test]
async fn a_body_that_fails_or_lies_is_the_functions_fault() {
    let (root, acceptor) = tls(&["a.example"], &["h2"]);
    for acceptor in [None, Some(acceptor)] {
        let scheme = if acceptor.is_some() { "https" } else { "http" };
        let server = Server::http(acceptor, |request, _| async move {
            drop(request.into_body().collect().await);
            Response::new(empty_body())
        })
        .await;
        let (out, grant, url) = (trusting(root.clone()), open_grant(&server), server.named(scheme, "a.example"));
        let cases = [
            (None, vec![data("abc"), Err(Failure::new(Kind::Trap, "the function crashed"))], "the function crashed"),
            (Some("2"), vec![data("abc")], "longer"),
            (Some("4"), vec![data("abc")], "shorter"),
        ];
        for (length, frames, why) in cases {
            let body = http_body_util::StreamBody::new(futures::stream::iter(frames)).boxed_unsync();
            let mut request = post(&url, body);
            if let Some(length) = length {
                request.headers_mut().insert("content-length", length.parse().unwrap());
            }
            let error = send(&out, &grant, request).await.unwrap_err();
            assert!(matches!(&error, OutboundError::BodyError(_)), "{scheme} {why}: {error}");
            assert!(error.to_string().contains(why), "{error}");
        }
    }
}

#[tokio::test]
async fn an_answer_before_the_end_of_the_request_ends_the_exchange() {
    let mut server = Server::raw(|mut socket, _| async move {
        let mut request = [0; 4096];
        assert!(socket.read(&mut request).await.unwrap() > 0);
        socket.write_all(b"HTTP/1.1 413 Content Too Large\r\ncontent-length: 2\r\n\r\nno").await.unwrap();
        while socket.read(&mut request).await.is_ok_and(|bytes| bytes > 0) {}
    })
    .await;
    let (mut sender, body) = channel_body();
    let (out, grant) = (outbound(), open_grant(&server));
    let (response, sent) = tokio::join!(send(&out, &grant, post(&server.url("/"), body)), sender.send(data("abc")));
    sent.unwrap();
    assert_eq!(text(response.unwrap()).await, "no");
    server.until_open(0).await;
    assert_eq!(grant.pool.count(), (0, 0));
}

#[tokio::test]
async fn a_lost_http2_connection_is_said_to_be_lost() {
    let (root, acceptor) = tls(&["a.example"], &["h2"]);
    let server = Server::raw(move |socket, _| {
        let acceptor = acceptor.clone();
        async move {
            // The preface is read, and that is all.
            let mut stream = acceptor.accept(socket).await.unwrap();
            drop(stream.read(&mut [0; 4096]).await);
        }
    })
    .await;
    let error =
        send(&trusting(root), &open_grant(&server), get(&server.named("https", "a.example"))).await.unwrap_err();
    assert!(matches!(error, OutboundError::ConnectionTerminated { .. }), "{error}");
}

#[tokio::test]
async fn in_a_body_the_class_is_in_the_log_and_the_text_is_safe() {
    let server = scripted("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc", true).await;
    let response = outbound().send(&open_grant(&server), get(&server.url("/")), short_between_bytes()).await.unwrap();
    let failure = response.into_body().collect().await.unwrap_err();
    assert_eq!(failure.kind(), Kind::UpstreamTimeout);
    assert!(!failure.to_string().contains("127.0.0.1"), "{failure}");
    assert!(failure.detail().unwrap().contains("between-bytes"));
}
