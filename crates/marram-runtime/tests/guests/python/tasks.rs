//! Tasks of asyncio: what one gives up, what others do meanwhile, and bodies that come and go piece by piece.

use futures::{SinkExt as _, StreamExt as _};
use http_body_util::BodyExt as _;
use marram_core::record::Outcome;

use super::{piece, python, upload};
use crate::host::Host;

/// Never answers, never ends its answer, or ends it when it is told to.
const SERVER: &str = "const never = () => new Promise((resolve) => setTimeout(resolve, 600_000));
let release;
const released = new Promise((resolve) => { release = resolve; });
const half = new TextEncoder().encode('half');
const body = (end) => new Response(new ReadableStream({ async start(out) {
    out.enqueue(half);
    await end();
    out.close();
} }));
export default { async fetch(request) {
    switch (new URL(request.url).pathname) {
        case '/head': await never(); break;
        case '/body': return body(never);
        case '/held': return body(() => released);
        case '/large': return new Response('x'.repeat(4 << 20));
        case '/release': release();
    }
    return new Response('ok');
} }";

/// A function `f` of this source, which may ask `SERVER`.
async fn with_server(source: &str) -> Host {
    let functions = "[[function]]\nname = \"f\"\ncomponent = \"app.py\"\nallow = { http = [\"internal:server\"] }
        limits = { concurrency = 1, memory = \"64MiB\" }\ninstances = { idle = \"5m\" }\n\
        [[function]]\nname = \"server\"\ncomponent = \"server.js\"\ninstances = { concurrent = 16 }\n";
    Host::try_sources(functions, &[("app.py", source), ("server.js", SERVER)]).await.unwrap()
}

#[tokio::test]
async fn an_instance_lives_on_after_what_it_gave_up() {
    let source = r#"
import asyncio
import marram

seen = 0


def ask(path, **more):
    return marram.fetch("http://server.internal" + path, **more)


async def timed_out(**asked):
    try:
        await asyncio.wait_for(ask(**asked), 0.05)
    except TimeoutError:
        return "given up"


async def cancelled():
    task = asyncio.create_task(ask("/head"))
    await asyncio.sleep(0.05)
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        return "given up"


async def left_behind():
    asyncio.create_task(ask("/head"))
    await asyncio.sleep(0.05)
    return "given up"


async def in_a_group():
    async def fail():
        await asyncio.sleep(0.05)
        raise KeyError("in a group")

    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(ask("/body"))
            group.create_task(fail())
    except* KeyError:
        told = "given up"
    return told


async def raised():
    await left_behind()
    raise KeyError("raised")


async def fetch(request):
    global seen
    seen += 1
    match request.path:
        case "/head" | "/body":
            told = await timed_out(path=request.path)
        case "/upload":
            told = await timed_out(path="/head", method="POST", body=b"x" * 4_000_000)
        case path:
            told = await globals()[path[1:]]()
    return f"{told} {seen}"
"#;
    let host = with_server(source).await;
    let ways = ["/head", "/body", "/upload", "/cancelled", "/left_behind", "/in_a_group"];
    for (number, path) in (1..).zip(ways) {
        let answer = host.get(path).await.unwrap_or_else(|failure| panic!("{path}: {failure:?}"));
        assert_eq!(answer, (200, format!("given up {number}")), "{path}");
    }
    host.get("/raised").await.expect_err("it raises");
    assert_eq!(host.get("/head").await.unwrap(), (200, "given up 8".to_owned()));
}

#[tokio::test]
async fn other_tasks_run_while_a_response_is_read() {
    let source = r#"
import asyncio
import marram


async def fetch(request):
    held = asyncio.create_task(marram.fetch("http://server.internal/held"))
    # Until its head is there.
    await asyncio.sleep(0.2)
    await marram.fetch("http://server.internal/release")
    return (await held).text()
"#;
    assert_eq!(with_server(source).await.get("/").await.unwrap(), (200, "half".to_owned()));
}

#[tokio::test]
async fn bodies_that_were_read_do_not_stay() {
    let source = r#"
import marram


async def fetch(request):
    total = 0
    for _ in range(16):
        total += len((await marram.fetch("http://server.internal/large")).body)
        total += len(marram.fetch_sync("http://server.internal/large").body)
    return str(total)
"#;
    // Far more than an instance has.
    assert_eq!(with_server(source).await.get("/").await.unwrap(), (200, (32 << 22).to_string()));
}

#[tokio::test]
async fn other_tasks_run_while_a_request_is_read() {
    for read in ["request.read()", "one_by_one(request)"] {
        let source = format!(
            "
import asyncio


async def one_by_one(request):
    return b\"\".join([piece async for piece in request.stream()])


async def meanwhile():
    print(\"meanwhile\")


async def fetch(request):
    reading = asyncio.create_task({read})
    await asyncio.sleep(0)
    await asyncio.create_task(meanwhile())
    return await reading
"
        );
        let host = python(&source, "").await;
        let (mut send, request) = upload();
        let (response, ()) = tokio::join!(host.send(request), async {
            let seen = |texts: &[String]| texts.iter().any(|text| text == "meanwhile").then_some(());
            host.observed.until("the other task", |observed| seen(&observed.texts())).await;
            send.send(piece("all of it")).await.unwrap();
            drop(send);
        });
        let answer = response.unwrap().into_body().collect().await.unwrap().to_bytes();
        assert_eq!(answer, "all of it", "{read}");
    }
}

#[tokio::test]
async fn an_async_body_goes_out_as_it_comes_about() {
    for handler in ["def", "async def"] {
        let source = format!(
            "
from marram import Response


async def upper(request):
    async for piece in request.stream():
        yield piece.decode().upper()


{handler} fetch(request):
    return Response(upper(request))
"
        );
        let host = python(&source, "").await;
        let (mut send, request) = upload();
        send.send(piece("first")).await.unwrap();
        let response = host.send(request).await.unwrap();
        let mut body = response.into_body().into_data_stream();
        assert_eq!(body.next().await.unwrap().unwrap(), "FIRST", "{handler}: before the second piece is sent");
        send.send(piece(" second")).await.unwrap();
        drop(send);
        let mut rest = Vec::new();
        while let Some(piece) = body.next().await {
            rest.extend_from_slice(&piece.unwrap());
        }
        assert_eq!(rest, b" SECOND", "{handler}");
        drop(body);
        assert_eq!(host.observed.record().await.outcome, Outcome::Answered);
    }
}

#[tokio::test]
async fn an_upload_that_cannot_be_written_raises_why() {
    // The server would wait for the rest.
    let source = r#"
import marram
from marram_engine import transport


def broken(stream, data):
    raise MemoryError("no room")
    yield


async def fetch(request):
    write, transport.write = transport.write, broken
    try:
        await marram.fetch("http://server.internal/head", "POST", body=b"x")
    except MemoryError as error:
        return str(error)
    finally:
        transport.write = write
"#;
    assert_eq!(with_server(source).await.get("/").await.unwrap(), (200, "no room".to_owned()));
}

#[tokio::test]
async fn asyncio_runs_where_the_handler_is_not_async() {
    let source = r#"
import asyncio
import marram


async def ask():
    await asyncio.sleep(0.01)
    return (await marram.fetch("http://server.internal/")).text()


def fetch(request):
    loop = asyncio.new_event_loop()
    by_loop = loop.run_until_complete(ask())
    loop.close()
    return asyncio.run(ask()) + by_loop + asyncio.run(asyncio.to_thread(str.upper, "thread"))
"#;
    assert_eq!(with_server(source).await.get("/").await.unwrap(), (200, "okokTHREAD".to_owned()));
}
