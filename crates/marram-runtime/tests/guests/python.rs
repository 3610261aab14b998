//! Python as source: what it answers with, and what is found before its first request.

use bytes::Bytes;
use futures::channel::mpsc;
use http::Request;
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use marram_core::port::Body;
use marram_core::record::{Outcome, Start};
use marram_core::{Failure, Kind};

use crate::host::{Host, TOKEN, get};

mod bodies;
mod library;
mod tasks;
mod web;

/// One function from this source, with more of its manifest.
async fn try_python(source: &str, more: &str) -> Result<Host, Failure> {
    let functions = format!("[[function]]\nname = \"f\"\ncomponent = \"src/app.py\"\n{more}\n");
    Host::try_sources(&functions, &[("src/app.py", source)]).await
}

async fn python(source: &str, more: &str) -> Host {
    try_python(source, more).await.unwrap_or_else(|failure| panic!("{failure:?}"))
}

/// A piece of a body.
type Piece = Result<Frame<Bytes>, Failure>;

fn piece(text: &'static str) -> Piece {
    Ok(Frame::data(Bytes::from_static(text.as_bytes())))
}

/// A request with a body that is still to come.
fn upload() -> (mpsc::Sender<Piece>, Request<Body>) {
    let (send, receive) = mpsc::channel(1);
    let body = StreamBody::new(receive).boxed_unsync();
    (send, Request::post("http://shop.example/").body(body).unwrap())
}

#[tokio::test]
async fn what_does_not_load_is_refused_with_its_place() {
    let cases = [
        ("def fetch(request):\n    return (\n", "src/app.py:2:", "SyntaxError"),
        ("def fetch(request):\nreturn 1\n", "src/app.py:2:", "IndentationError"),
        ("import marram\n\nx = 1 / 0\n\ndef fetch(request):\n    pass\n", "src/app.py:3:", "ZeroDivisionError"),
        ("import numpy\n\ndef fetch(request):\n    pass\n", "src/app.py:1", "numpy"),
        ("def handler(request):\n    pass\n", "src/app.py: ", "nothing to call"),
        ("from marram import fetch\n", "src/app.py: ", "nothing to call"),
        ("raise SystemExit(3)\n", "src/app.py:1", "SystemExit"),
    ];
    for (source, place, part) in cases {
        let failure = try_python(source, "").await.err().unwrap_or_else(|| panic!("{source} was taken"));
        assert_eq!(failure.kind(), Kind::Invalid, "{failure:?}");
        assert!(failure.message().contains("function \"f\""), "{failure:?}");
        assert!(failure.message().contains(place), "{place:?} is not in {failure:?}");
        assert!(failure.message().contains(part), "{part:?} is not in {failure:?}");
    }
    // The whole account is for the log.
    let source = "def broken():\n    return {}[\"key\"]\n\nbroken()\n";
    let failure = try_python(source, "").await.err().unwrap();
    assert!(failure.message().contains("src/app.py:2:"), "{failure:?}");
    let trace = failure.detail().unwrap();
    assert!(trace.contains("Traceback") && trace.contains("in broken") && !trace.contains("marram_engine"), "{trace}");
}

#[tokio::test]
async fn a_module_that_never_loads_is_refused_too() {
    let limits = "limits = { cpu = \"300ms\", deadline = \"10s\" }";
    let failure = try_python("while True:\n    pass\n", limits).await.err().expect("it never loads");
    assert_eq!(failure.kind(), Kind::CpuLimit, "{failure:?}");
    let limits = "limits = { deadline = \"300ms\" }";
    let failure = try_python("import time\ntime.sleep(3600)\n", limits).await.err().expect("it never loads");
    assert_eq!(failure.kind(), Kind::Deadline, "{failure:?}");
}

#[tokio::test]
async fn an_imported_fetch_asks_and_does_not_answer() {
    let source =
        "from marram import Response, fetch\n\n\nasync def on_fetch(request):\n    return Response(fetch.__module__)\n";
    let host = python(source, "").await;
    assert_eq!(host.get("/").await.unwrap(), (200, "marram".to_owned()));
    // Its own comes before the other name.
    let both = "def fetch(request):\n    return \"fetch\"\n\n\ndef on_fetch(request):\n    return \"on_fetch\"\n";
    assert_eq!(python(both, "").await.get("/").await.unwrap().1, "fetch");
    let wsgi = "from marram import fetch\n\n\ndef application(environ, start_response):\n    start_response(\"200 OK\", [])\n    return [b\"wsgi\"]\n";
    assert_eq!(python(wsgi, "").await.get("/").await.unwrap().1, "wsgi");
}

#[tokio::test]
async fn an_exception_is_a_failure_with_its_traceback_in_the_log() {
    let source = "from marram import Response, fetch


async def on_fetch(request):
    print(\"asked for\", request.path)
    if request.path == \"/raise\":
        raise ValueError(\"no such price\")
    if request.path == \"/status\":
        return Response(\"x\", 99)
    if request.path == \"/body\":
        return Response(5)
    if request.path == \"/sent\":
        await fetch(\"http://api.example/\", method=\"POST\", body=5)
    if request.path == \"/half\":
        raise ValueError(\"half of a surrogate: \" + chr(0xd800))
    if request.path == \"/long\":
        raise ValueError(\"x\" * 100_000 + \" behind it\")
    if request.path == \"/none\":
        return None
    return Response(bytearray(b\"ok\"))
";
    let host = python(source, "").await;
    for (path, part) in [
        ("/raise", "ValueError: no such price"),
        ("/status", "ValueError: status 99"),
        ("/body", "TypeError: a response's body is text, bytes, or an iterable of either, not int"),
        ("/sent", "TypeError: a request's body is text, bytes, or a dict or list to be sent as JSON, not int"),
        ("/half", "half of a surrogate: \\ud800"),
        ("/long", "x behind it"),
        ("/none", "TypeError: on_fetch returned NoneType"),
    ] {
        let failure = host.get(path).await.expect_err(path);
        assert_eq!((failure.kind(), failure.status().as_u16()), (Kind::Trap, 500), "{path}: {failure:?}");
        let texts = host.observed.texts();
        assert_eq!(texts.iter().filter(|text| text.contains(part)).count(), 1, "{path}: {texts:?}");
        assert!(!texts.iter().any(|text| text.contains("panicked") || text.contains("wasm")), "{path}: {texts:?}");
        // What it printed comes first.
        let (printed, failed) = (&texts[texts.len() - 2], &texts[texts.len() - 1]);
        assert!(*printed == format!("asked for {path}") && failed.contains(part), "{path}: {texts:?}");
    }
    let raised = host.observed.texts().into_iter().find(|text| text.contains("no such price")).unwrap();
    assert!(raised.contains("Traceback") && raised.contains("line 7, in on_fetch"), "{raised}");
    assert!(!raised.contains("in handle") && !raised.contains("says which"), "{raised}");
    // Where it was raised in the engine's own code says nothing to a developer.
    let inner = host.observed.texts().into_iter().find(|text| text.contains("a request's body")).unwrap();
    assert!(inner.contains(", in on_fetch") && !inner.contains("File \"/"), "{inner}");
    assert_eq!(host.get("/").await.unwrap(), (200, "ok".to_owned()));
    let outcomes: Vec<_> = host.observed.records.lock().unwrap().iter().map(|record| record.outcome).collect();
    assert_eq!(outcomes[..7], [Outcome::Failed(Kind::Trap); 7]);
}

#[tokio::test]
async fn an_answer_that_an_exception_ends_does_not_look_complete() {
    let source = "import time
from marram import Response


def pieces():
    yield \"begun\"
    # Meanwhile, what was begun is sent.
    time.sleep(0.05)
    raise KeyError(\"half way\")


def fetch(request):
    return Response(pieces())
";
    let host = python(source, "").await;
    let ended = match host.send(get("/")).await {
        Err(failure) => Err(failure),
        Ok(response) => response.into_body().collect().await.map(|_| ()),
    };
    let failure = ended.expect_err("it looks complete");
    assert_eq!(failure.kind(), Kind::Trap, "{failure:?}");
    assert_eq!(host.observed.record().await.outcome, Outcome::Failed(Kind::Trap));
    let texts = host.observed.texts();
    assert_eq!(texts.iter().filter(|text| text.contains("KeyError: 'half way'")).count(), 1, "{texts:?}");
}

#[tokio::test]
async fn a_warm_instance_has_its_program() {
    let source = "print(\"loaded\")\n\n\ndef fetch(request):\n    return \"ok\"\n";
    let host = python(source, "instances = { reuse = 10, warm = 2 }").await;
    let loaded = || host.observed.texts().iter().filter(|text| *text == "loaded").count();
    // Once to check it, and once in each of the two.
    assert_eq!((host.function("f").status().idle, loaded()), (2, 3));
    assert_eq!(host.get("/").await.unwrap().1, "ok");
    assert_eq!(host.observed.record().await.start, Start::Fresh);
}

#[tokio::test]
async fn what_is_written_before_any_request_is_bounded_and_counted() {
    let source = "for n in range(200):\n    print(\"x\" * 1000)\n\n\ndef fetch(request):\n    return \"ok\"\n";
    let host = python(source, "instances = { reuse = 10, warm = 1 }\nlimits = { log = \"16KiB\" }").await;
    let bytes: usize = host.observed.texts().iter().map(String::len).sum();
    // Two instances have loaded it: one to check it, one to be warm.
    assert!((16 << 10..40 << 10).contains(&bytes), "{bytes} bytes were logged");
    assert_eq!(host.observed.texts().iter().filter(|text| text.contains("log limit of 16KiB")).count(), 2);
    // Whoever uses the instance first has it in the books.
    assert_eq!(host.get("/").await.unwrap().1, "ok");
    assert!(host.observed.record().await.log_bytes_dropped > 150_000);
}

#[tokio::test]
async fn an_instance_is_used_again_as_often_as_the_manifest_says() {
    let source = "seen = 0\n\n\ndef fetch(request):\n    global seen\n    seen += 1\n    return str(seen)\n";
    let host = python(source, "instances = { reuse = 3, idle = \"5m\" }").await;
    for (expected, idle) in [("1", 1), ("2", 1), ("3", 0), ("1", 1)] {
        assert_eq!(host.get_alone("/", idle).await, expected);
    }
}

#[tokio::test]
async fn secrets_do_not_come_into_the_log() {
    let source = "import sys\n\n\nasync def fetch(request, env):
    print(\"with\", env.token)
    print(\"x\" * (16 * 1024 - 9) + env.token)
    # Written in two, where a line is so long that it is cut.
    sys.stdout.write(\"y\" * 20_000 + env.token[:9])
    sys.stdout.flush()
    sys.stdout.write(env.token[9:] + \" behind it\\n\")
    sys.stdout.flush()
    return \"ok\"\n";
    let host = python(source, "secrets = [\"token\"]").await;
    assert_eq!(host.get("/").await.unwrap().1, "ok");
    let texts = host.observed.texts();
    assert_eq!(texts[0], "with (secret token)");
    assert!(texts[1].contains("x(secret") && texts[1].contains("line cut"), "{texts:?}");
    assert!(texts.last().unwrap().ends_with("(secret token) behind it"), "{texts:?}");
    let parts = [&TOKEN[..4], &TOKEN[TOKEN.len() - 4..]];
    assert!(!texts.iter().any(|text| parts.iter().any(|part| text.contains(part))), "{texts:?}");
}

#[tokio::test]
async fn secrets_are_not_told_by_a_module_that_does_not_load() {
    let raises = "import os\n\n\ndef connect(address):\n    raise OSError(\"no answer from \" + address)\n\n\nconnect(\"db://\" + os.environ[\"token\"])\n";
    let failure = try_python(raises, "secrets = [\"token\"]").await.err().expect("it does not load");
    assert!(failure.message().contains("no answer from db://(secret token)"), "{failure:?}");
    assert!(failure.detail().expect("its traceback").contains("db://(secret token)"), "{failure:?}");
    assert!(!format!("{failure:?}").contains(TOKEN), "{failure:?}");
    // One that is no secret of this function is text like any other.
    let own = raises.replace("os.environ[\"token\"]", &format!("\"{TOKEN}\""));
    let failure = try_python(&own, "").await.err().expect("it does not load");
    assert!(failure.message().contains(TOKEN), "{failure:?}");
}
