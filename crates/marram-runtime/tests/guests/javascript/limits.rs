//! Limits hold for JavaScript, and what one request does wrong is not the next one's trouble.

use std::time::{Duration, Instant};

use http::Request;
use http_body_util::BodyExt as _;
use marram_core::Kind;
use marram_core::port::empty_body;
use marram_core::record::Outcome;

use super::{script, try_script};
use crate::host::get;
use crate::limits::{STOPPED_AT_100_MS, check_unread};

/// Bad behaviour by path; `/ok` answers.
const BAD: &str = "const kept = []; export default { async fetch(request) {
    const never = new Promise(() => {});
    switch (new URL(request.url).pathname) {
        case '/loop': for (;;) {}
        case '/loop-async': for (;;) await null;
        case '/regex': return new Response(String(/^(a+)+$/.test('a'.repeat(64) + '!')));
        case '/alloc': for (;;) kept.push('x'.repeat(100_000) + kept.length);
        case '/alloc-buffers': for (;;) kept.push(new Uint8Array(1_000_000));
        case '/recurse': return (function deeper() { return 1 + deeper(); })();
        case '/throw': throw new TypeError('no such price');
        case '/never': return never;
        case '/slow': await new Promise((resolve) => setTimeout(resolve, 60_000)); return new Response('late');
        case '/endless-body': return new Response(new ReadableStream({ async pull(out) {
            out.enqueue(new TextEncoder().encode('more'));
            await new Promise((resolve) => setTimeout(resolve, 60_000));
        } }));
        case '/broken-body': { let sent = 0; return new Response(new ReadableStream({ async pull(out) {
            await new Promise((resolve) => setTimeout(resolve, 5));
            if (sent++ < 3) out.enqueue(new TextEncoder().encode('more')); else throw new Error('half way');
        } })); }
        case '/broken-by-nothing': return new Response(new ReadableStream({ async pull(out) {
            await new Promise((resolve) => setTimeout(resolve, 5));
            out.error(null);
        } }));
        case '/broken-at-once': return new Response(new ReadableStream({ start(out) {
            out.enqueue(new TextEncoder().encode('more'));
            out.error(new Error('before it began'));
        } }));
        case '/timers': for (;;) setTimeout(() => {}, 60_000);
        case '/log': for (let i = 0; i < 100_000; i++) console.log('line ' + i); return new Response('logged');
        case '/no-response': return 'text';
        case '/loop-promises': (function again() { Promise.resolve().then(again); })(); return never;
        case '/loop-after-timer': await new Promise((resolve) => setTimeout(resolve, 1)); for (;;) {}
    }
    return new Response('ok');
} }";

/// Asks for `path` under `limits`, and expects this failure, with a part of its message or of its log line.
async fn check(limits: &str, path: &str, kind: Kind, part: &str) -> Duration {
    let host = script(BAD, &format!("limits = {{ {limits} }}\ninstances = {{ concurrent = 2 }}")).await;
    let begun = Instant::now();
    let failure = match host.send(get(path)).await {
        Err(failure) => failure,
        Ok(response) => response.into_body().collect().await.err().unwrap_or_else(|| panic!("{path} was answered")),
    };
    let took = begun.elapsed();
    assert_eq!(failure.kind(), kind, "{path}: {failure:?}");
    let record = host.observed.record().await;
    assert_eq!(record.outcome, Outcome::Failed(kind), "{path}");
    assert!(record.memory_peak_bytes > 0, "{path}: its memory is not in {record:?}");
    let said = host.observed.texts().join("\n");
    assert!(said.contains(part), "{path}: {part:?} is not in {said:?}");
    for _ in 0..3 {
        assert_eq!(host.get("/ok").await.unwrap(), (200, "ok".to_owned()), "after {path}");
    }
    took
}

#[tokio::test]
async fn a_loop_ends_at_its_cpu_limit() {
    for path in ["/loop", "/loop-async", "/regex"] {
        check("cpu = \"100ms\", deadline = \"10s\"", path, Kind::CpuLimit, "raise `cpu`").await;
    }
}

/// The same promise as for components, by the CPU clock.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_cpu_limit_holds_within_20_ms() {
    for path in ["/loop", "/loop-async", "/loop-promises", "/loop-after-timer", "/regex"] {
        let host = script(BAD, "limits = { cpu = \"100ms\", deadline = \"20s\" }").await;
        let failure = host.get(path).await.expect_err("it loops for ever");
        assert_eq!(failure.kind(), Kind::CpuLimit, "{path}: {failure:?}");
        assert!(failure.message().contains("used more than its 100ms"), "{path}: {failure:?}");
        let used = Duration::from_nanos(host.observed.record().await.cpu_ns);
        assert!(STOPPED_AT_100_MS.contains(&used), "{path}: stopped after {used:?}");
    }
}

#[tokio::test]
async fn memory_ends_at_its_limit() {
    for path in ["/alloc", "/alloc-buffers"] {
        check("memory = \"16MiB\"", path, Kind::ResourceLimit, "of memory").await;
    }
}

#[tokio::test]
async fn endless_recursion_throws() {
    check("", "/recurse", Kind::Trap, "Maximum call stack").await;
}

#[tokio::test]
async fn what_is_thrown_is_in_the_log_with_its_place() {
    check("", "/throw", Kind::Trap, "TypeError: no such price").await;
    check("", "/throw", Kind::Trap, "src/index.js:10:").await;
    let host = script(BAD, "").await;
    host.get("/throw").await.expect_err("it throws");
    // The engine's own frames say nothing to a developer, and the line is where it would point to.
    let said = host.observed.texts().join("\n");
    assert!(
        said.contains("src/index.js:10:") && !said.contains("prelude.js") && !said.contains("says which"),
        "{said}"
    );
    check("", "/no-response", Kind::Trap, "fetch has to return a Response").await;
}

#[tokio::test]
async fn who_never_answers_is_told_at_once_or_at_the_deadline() {
    let took = check("deadline = \"20s\"", "/never", Kind::Trap, "waits for a promise that nothing can settle").await;
    assert!(took < Duration::from_secs(10), "{took:?}");
    check("deadline = \"200ms\"", "/slow", Kind::Deadline, "raise `deadline`").await;
}

#[tokio::test]
async fn a_body_that_does_not_end_well_breaks_off() {
    check("deadline = \"200ms\"", "/endless-body", Kind::Deadline, "raise `deadline`").await;
    check("", "/broken-body", Kind::NoResponse, "half way").await;
    check("", "/broken-by-nothing", Kind::NoResponse, "response body: null").await;
}

#[tokio::test]
async fn what_was_closed_behind_its_answer_is_given_no_request() {
    // With so many open, a request shares one of them.
    let many = std::thread::available_parallelism().unwrap().get();
    let host = script(BAD, "limits = { deadline = \"300ms\" }\ninstances = { concurrent = 1 }").await;
    let ended = (0..many).map(|_| async { host.send(get("/endless-body")).await?.into_body().collect().await });
    for ended in futures::future::join_all(ended).await {
        assert_eq!(ended.map(drop).unwrap_err().kind(), Kind::Deadline);
    }
    for _ in 0..3 {
        assert_eq!(host.get("/ok").await.unwrap(), (200, "ok".to_owned()));
    }
}

/// Nothing of it was sent yet, so its client can be told what happened.
#[tokio::test]
async fn a_body_that_breaks_off_before_anything_was_sent_is_no_answer() {
    let host = script(BAD, "").await;
    let failure = host.send(get("/broken-at-once")).await.map(drop).expect_err("its body is broken");
    assert_eq!((failure.kind(), failure.status().as_u16()), (Kind::NoResponse, 502), "{failure:?}");
    let record = host.observed.record().await;
    assert_eq!((record.outcome, record.status), (Outcome::Failed(Kind::NoResponse), 0));
    assert!(host.observed.texts().join("\n").contains("before it began"), "{:?}", host.observed.texts());
}

/// Streams twelve bytes under the length that the path declares, at once or piece by piece.
const DECLARING: &str = "export default { async fetch(request) {
    const [, how, declared] = new URL(request.url).pathname.split('/');
    const four = new TextEncoder().encode('four');
    let sent = 0;
    const at_once = { start(out) { for (let n = 0; n < 3; n++) out.enqueue(four); out.close(); } };
    const later = { async pull(out) {
        await new Promise((resolve) => setTimeout(resolve, 20));
        if (sent++ < 3) out.enqueue(four); else out.close();
    } };
    const body = new ReadableStream(how === 'later' ? later : at_once);
    return new Response(body, { headers: { 'content-length': declared } });
} }";

/// Expects a head, or none, and then a body of so many bytes, or a failure that the log and the record tell too.
async fn check_length(method: &str, path: &str, head: bool, expected: Result<usize, Kind>) {
    let host = script(DECLARING, "").await;
    let request = Request::builder().method(method).uri(format!("http://shop.example{path}"));
    let answer = host.send(request.body(empty_body()).unwrap()).await;
    assert_eq!(answer.is_ok(), head, "{method} {path}: {answer:?}");
    let body = match answer {
        Ok(answer) => answer.into_body().collect().await.map(|body| body.to_bytes().len()),
        Err(failure) => Err(failure),
    };
    assert_eq!(body.map_err(|failure| failure.kind()), expected, "{method} {path}");
    let outcome = host.observed.record().await.outcome;
    assert_eq!(outcome, expected.map_or_else(Outcome::Failed, |_| Outcome::Answered), "{method} {path}");
    let said = host.observed.texts().join("\n");
    assert_eq!(said.contains("not as long as its content-length says"), expected.is_err(), "{method} {path}: {said}");
}

#[tokio::test]
async fn a_streamed_answer_is_as_long_as_it_declares() {
    for path in ["/at-once/0", "/at-once/4", "/at-once/100"] {
        check_length("GET", path, false, Err(Kind::NoResponse)).await;
    }
    for path in ["/later/0", "/later/4", "/later/100"] {
        check_length("GET", path, true, Err(Kind::NoResponse)).await;
    }
    check_length("GET", "/at-once/12", true, Ok(12)).await;
    check_length("GET", "/later/12", true, Ok(12)).await;
    // The length of what a GET would have got, whatever comes with it to nobody.
    check_length("HEAD", "/at-once/100", true, Ok(12)).await;
}

#[tokio::test]
async fn an_answer_that_nobody_reads_ends_at_the_deadline() {
    let source = "export default { fetch(request) {
        if (!new URL(request.url).pathname.startsWith('/big/')) return new Response('ok');
        return new Response(new ReadableStream({ pull(out) { out.enqueue(new Uint8Array(65536)); } }));
    } }";
    let host = script(source, "limits = { concurrency = 1, queue = 1, deadline = \"2s\" }").await;
    check_unread(&host, "JavaScript").await;
}

#[tokio::test]
async fn timers_without_end_stop_the_instance() {
    check("cpu = \"5s\", memory = \"128MiB\"", "/timers", Kind::ResourceLimit, "timers and fetches").await;
}

#[tokio::test]
async fn a_log_flood_is_cut() {
    let host = script(BAD, "limits = { log = \"10KiB\" }").await;
    assert_eq!(host.get("/log").await.unwrap().1, "logged");
    let lines = host.observed.texts();
    assert!(lines.len() < 2_000, "{} lines", lines.len());
    assert!(lines.last().unwrap().contains("log limit of 10KiB reached"), "{:?}", lines.last());
}

#[tokio::test]
async fn a_request_past_its_deadline_leaves_its_neighbour_in_peace() {
    let source = "export default { async fetch(request) {
        const wait = Number(new URL(request.url).pathname.slice(1));
        await new Promise((resolve) => setTimeout(resolve, wait));
        return new Response(String(wait));
    } }";
    let host = script(source, "limits = { deadline = \"300ms\" }\ninstances = { concurrent = 2 }").await;
    let begun = Instant::now();
    let slow = host.get("/60000");
    let neighbour = async {
        // Begun later, so that its own deadline is later too.
        tokio::time::timeout(Duration::from_millis(200), std::future::pending::<()>()).await.unwrap_err();
        host.get("/200").await
    };
    let (slow, neighbour) = tokio::join!(slow, neighbour);
    assert_eq!(slow.unwrap_err().kind(), Kind::Deadline);
    assert_eq!(neighbour.unwrap().1, "200");
    assert!(begun.elapsed() < Duration::from_secs(10));
}

#[tokio::test]
async fn a_module_that_never_loads_is_refused() {
    let source = "while (true) {}\nexport default { fetch() {} }";
    let failure = try_script(source, "limits = { cpu = \"200ms\" }").await.err().expect("it never loads");
    assert!(failure.message().contains("src/index.js cannot be loaded"), "{failure:?}");
    assert!(failure.message().contains("200ms of CPU time"), "{failure:?}");
}
