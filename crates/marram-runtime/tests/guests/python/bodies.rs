//! Bodies that do not go as planned: too long, failed before they began, given up half way, asked for too late.

use futures::SinkExt as _;
use http_body_util::BodyExt as _;
use marram_core::Kind;

use super::{piece, python, upload};
use crate::host::{Host, get, post};

/// A function whose requests come one after the other to one instance, as long as it lives.
async fn one_instance(source: &str) -> Host {
    python(source, "limits = { concurrency = 1 }\ninstances = { idle = \"5m\" }").await
}

#[tokio::test]
async fn an_instance_of_wsgi_lives_on_after_more_than_it_promised() {
    let source = r#"
seen = 0


def app(environ, start_response):
    global seen
    seen += 1
    if environ["PATH_INFO"] == "/seen":
        start_response("200 OK", [])
        return [str(seen).encode()]
    write = start_response("200 OK", [("Content-Length", "5")])
    if environ["PATH_INFO"] == "/written":
        write(b"x" * 1000)
        write(b"y" * 1000)
    return (b"x" * 1000 for _ in range(100))
"#;
    // A run that was interrupted before it was done has been stopped for its answer, and its instance with it: then again.
    for _ in 0..20 {
        let host = one_instance(source).await;
        for path in ["/iterated", "/written"] {
            let failure = host.get(path).await.expect_err(path);
            assert_eq!(failure.kind(), Kind::NoResponse, "{path}: {failure:?}");
        }
        let (status, seen) = host.get("/seen").await.unwrap();
        assert_eq!(status, 200);
        if seen == "3" {
            return;
        }
    }
    panic!("no instance lived on");
}

#[tokio::test]
async fn an_async_body_that_fails_before_its_first_piece_is_a_failure_that_an_instance_survives() {
    let source = r#"
from marram import Response

seen = 0


async def broken():
    raise KeyError("before the first piece")
    yield ""


async def late():
    return Response(broken())


def fetch(request):
    global seen
    seen += 1
    match request.path:
        case "/def":
            return Response(broken())
        case "/async":
            return late()
    return str(seen)
"#;
    let host = one_instance(source).await;
    for path in ["/def", "/async"] {
        let failure = host.send(get(path)).await.expect_err("its head was sent");
        assert_eq!(failure.kind(), Kind::Trap, "{path}: {failure:?}");
    }
    assert_eq!(host.get("/seen").await.unwrap(), (200, "3".to_owned()));
}

#[tokio::test]
async fn what_a_reader_had_when_it_gave_up_goes_to_the_next_one() {
    for read in ["await request.read()", "b''.join([piece async for piece in request.stream()])"] {
        let source = format!(
            "
import asyncio


async def fetch(request):
    for _ in range(2):
        try:
            await asyncio.wait_for(request.read(), 0.1)
        except TimeoutError:
            print(\"given up\")
    return {read}
"
        );
        let host = python(&source, "").await;
        let (mut send, request) = upload();
        send.send(piece("first")).await.unwrap();
        let (response, ()) = tokio::join!(host.send(request), async {
            let twice = |texts: &[String]| (texts.iter().filter(|text| *text == "given up").count() == 2).then_some(());
            host.observed.until("both readers", |observed| twice(&observed.texts())).await;
            send.send(piece(" second")).await.unwrap();
            drop(send);
        });
        let answer = response.unwrap().into_body().collect().await.unwrap().to_bytes();
        assert_eq!(answer, "first second", "{read}");
    }
}

#[tokio::test]
async fn the_body_of_a_request_that_is_over_is_refused() {
    let source = r#"
kept = None


def fetch(request):
    global kept
    kept, before = request, kept
    try:
        return "kept" if before is None else repr(before.body)
    except RuntimeError as error:
        return str(error)
"#;
    let host = one_instance(source).await;
    for expected in ["kept", "the request is over, and its body can no longer be read"] {
        let response = host.send(post("/", "not read")).await.unwrap();
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), expected);
    }
}
