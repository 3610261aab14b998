//! Components of both standards run, stream, and see what they were given and nothing else.

use bytes::Bytes;
use futures::StreamExt as _;
use http::{HeaderMap, HeaderValue, Request};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use marram_core::port::Body;
use marram_core::record::{Outcome, Source, Start};
use marram_core::{Failure, Kind};

use crate::host::{Host, TOKEN, eventually, get, post};

const PROBES: [&str; 2] = ["probe-p2.wasm", "probe-p3.wasm"];

fn function(component: &str, more: &str) -> String {
    format!("[[function]]\nname = \"f\"\ncomponent = \"{component}\"\n{more}\n")
}

#[tokio::test]
async fn hello() {
    for component in ["hello-p2.wasm", "hello-p3.wasm", "composed.wasm"] {
        let host = Host::deploy(&function(component, "")).await;
        let (status, body) = host.get("/").await.unwrap_or_else(|failure| panic!("{component}: {failure:?}"));
        assert_eq!(status, 200, "{component}");
        assert!(body.contains("Hello"), "{component} says {body:?}");
        let record = host.observed.record().await;
        assert_eq!(
            (record.outcome, record.status, record.bytes_out),
            (Outcome::Answered, 200, body.len() as u64),
            "{component}"
        );
        assert!(record.cpu_ns > 0 && record.wall_ns >= record.cpu_ns / 2, "{component}: {record:?}");
        // A memory of its own is not required of a component; these have one.
        assert!(record.memory_peak_bytes > 0, "{component}: {record:?}");
    }
}

#[tokio::test]
async fn bodies_and_trailers_stream_both_ways() {
    for component in PROBES {
        let host = Host::deploy(&function(component, "")).await;
        let (send, receive) = futures::channel::mpsc::channel::<Result<Frame<Bytes>, Failure>>(1);
        let mut send = send;
        let body: Body = StreamBody::new(receive).boxed_unsync();
        let request = Request::post("http://shop.example/echo").header("te", "trailers").body(body).unwrap();
        let response = tokio::spawn({
            let function = host.function("f").clone();
            let host = std::sync::Arc::new(host);
            async move {
                let response = host.send_to(&function, request).await;
                (response, host)
            }
        });
        use futures::SinkExt as _;
        send.send(Ok(Frame::data(Bytes::from_static(b"first")))).await.unwrap();
        let (response, _host) = response.await.unwrap();
        let mut body =
            response.unwrap_or_else(|failure| panic!("{component}: {failure:?}")).into_body().into_data_stream();
        // The first chunk comes back although the request has not ended.
        let first = body.next().await.expect("a chunk").expect("no failure");
        assert_eq!(&first[..], b"first", "{component}");
        send.send(Ok(Frame::data(Bytes::from_static(b"second")))).await.unwrap();
        let second = body.next().await.expect("a chunk").expect("no failure");
        assert_eq!(&second[..], b"second", "{component}");
        drop(send);
        assert!(body.next().await.is_none(), "{component}");
    }
}

#[tokio::test]
async fn trailers_come_back() {
    for component in PROBES {
        let host = Host::deploy(&function(component, "")).await;
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", HeaderValue::from_static("42"));
        let frames: Vec<Result<Frame<Bytes>, Failure>> =
            vec![Ok(Frame::data(Bytes::from_static(b"data"))), Ok(Frame::trailers(trailers))];
        let body: Body = StreamBody::new(futures::stream::iter(frames)).boxed_unsync();
        let response = host.send(Request::post("http://shop.example/echo").body(body).unwrap()).await.unwrap();
        let collected =
            response.into_body().collect().await.unwrap_or_else(|failure| panic!("{component}: {failure:?}"));
        assert_eq!(
            collected.trailers().and_then(|trailers| trailers.get("x-sum")).map(HeaderValue::as_bytes),
            Some(&b"42"[..]),
            "{component}"
        );
        assert_eq!(&collected.to_bytes()[..], b"data", "{component}");
    }
}

#[tokio::test]
async fn large_bodies_are_not_gathered() {
    for component in PROBES {
        let host = Host::deploy(&function(component, "limits = { memory = \"64MiB\" }")).await;
        let response = host.send(get("/big/50000000")).await.unwrap();
        let mut total = 0;
        let mut body = response.into_body().into_data_stream();
        while let Some(chunk) = body.next().await {
            total += chunk.unwrap_or_else(|failure| panic!("{component}: {failure:?}")).len();
        }
        assert_eq!(total, 50_000_000, "{component}");
        drop(body);
        let record = host.observed.record().await;
        assert_eq!(record.bytes_out, 50_000_000);
        assert!(record.memory_peak_bytes < 64 << 20);
    }
}

#[tokio::test]
async fn configuration_and_secrets_are_there_in_both_ways() {
    let given = "config = { currency = \"EUR\" }\nsecrets = [\"api_key\"]";
    for component in PROBES {
        let host = Host::deploy(&function(component, given)).await;
        let (_, environment) = host.get("/env").await.unwrap();
        assert!(environment.contains("EUR") && environment.contains("s3cret"), "{component}: {environment}");
    }
    for component in ["config-rc.wasm", "config-draft.wasm"] {
        let host = Host::deploy(&function(component, given)).await;
        let (status, value) = host.get("/config/currency").await.unwrap();
        assert_eq!((status, value.trim()), (200, "EUR"), "{component}");
        assert_eq!(host.get("/config/nothing").await.unwrap().0, 404, "{component}");
    }
}

#[tokio::test]
async fn nothing_of_the_host_is_open() {
    for component in PROBES {
        let host = Host::deploy(&function(component, "")).await;
        let (_, files) = host.get("/fs").await.unwrap();
        assert!(!files.contains("root:"), "{component} read a file: {files}");
        let (_, sockets) = host.get("/sockets").await.unwrap();
        assert!(sockets.contains("refused") && !sockets.contains("open"), "{component} connected: {sockets}");
        let (_, environment) = host.get("/env").await.unwrap();
        assert!(!environment.contains("PATH"), "{component} sees the host's environment: {environment}");
    }
}

#[tokio::test]
async fn clocks_and_randomness_are_real_and_arguments_are_not_the_hosts() {
    for component in PROBES {
        let host = Host::deploy(&function(component, "")).await;
        let (one, two) = (host.get("/random").await.unwrap().1, host.get("/random").await.unwrap().1);
        assert!(one.contains("random") && one != two, "{component}: {one} and {two}");
        let time: serde_json::Value = serde_json::from_str(&host.get("/time").await.unwrap().1).unwrap();
        let now_s = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        assert!(time["unix_s"].as_u64().unwrap().abs_diff(now_s) < 300, "{component}: {time} at {now_s}");
        assert!(time["waited_us"].as_u64().unwrap() >= 5_000, "{component} waited for 5 ms: {time}");
        // This test has at least one, its own program.
        assert_eq!(host.get("/args").await.unwrap(), (200, "[]".to_owned()), "{component}");
    }
}

#[tokio::test]
async fn secrets_do_not_come_into_the_log() {
    for component in PROBES {
        let host = Host::deploy(&function(component, "secrets = [\"phrase\", \"lines\"]")).await;
        host.get("/log").await.unwrap();
        let texts = host.observed.until("five lines", |observed| {
            let mut texts = observed.texts();
            texts.sort();
            (texts.len() == 5).then_some(texts)
        });
        let expected =
            ["(secret lines)", "(secret lines)", "(secret phrase)", "a line on stderr", "a line without its end"];
        assert_eq!(texts.await, expected, "{component}");
    }
    let host = Host::deploy(&function("logging.wasm", "secrets = [\"token\", \"api_key\"]")).await;
    host.get(&format!("/log/info/{TOKEN}-and-s3cret")).await.unwrap();
    // A short one could be a part of any word.
    assert_eq!(host.observed.texts(), ["(secret token)-and-s3cret"]);
    // Those of others are nothing to it.
    let host = Host::deploy(&function("logging.wasm", "")).await;
    host.get(&format!("/log/info/{TOKEN}")).await.unwrap();
    assert_eq!(host.observed.texts(), [TOKEN]);
}

#[tokio::test]
async fn output_becomes_log_lines_of_the_request() {
    for component in PROBES {
        let host = Host::deploy(&function(component, "")).await;
        host.get("/log").await.unwrap();
        let record = host.observed.record().await;
        let logs = host.observed.logs.lock().unwrap();
        for source in [Source::Stdout, Source::Stderr] {
            let line = logs
                .iter()
                .find(|line| line.source == source)
                .unwrap_or_else(|| panic!("{component}: no {source:?} in {logs:?}"));
            assert_eq!((line.request, line.trace), (Some(record.request), Some(record.trace)), "{component}");
        }
    }
    let host = Host::deploy(&function("logging.wasm", "")).await;
    host.get("/log").await.unwrap();
    assert!(host.observed.logs.lock().unwrap().iter().any(|line| line.source == Source::Logging));
}

#[tokio::test]
async fn instances_are_fresh_or_used_again_as_the_manifest_says() {
    let starts =
        |host: &Host| host.observed.records.lock().unwrap().iter().map(|record| record.start).collect::<Vec<_>>();
    let (fresh, reused) = (Start::Fresh, Start::Reused);
    for (component, policy, expected) in [
        ("hello-p2.wasm", "", [(fresh, 0), (fresh, 0), (fresh, 0)]),
        ("hello-p2.wasm", "instances = { reuse = 2, idle = \"5m\" }", [(fresh, 1), (reused, 0), (fresh, 1)]),
        ("hello-p3.wasm", "instances = { idle = \"5m\" }", [(fresh, 1), (reused, 1), (reused, 1)]),
        ("hello-p3.wasm", "instances = \"fresh\"", [(fresh, 0), (fresh, 0), (fresh, 0)]),
        ("hello-p3.wasm", "instances = { reuse = 2, idle = \"5m\" }", [(fresh, 1), (reused, 0), (fresh, 1)]),
    ] {
        let host = Host::deploy(&function(component, policy)).await;
        for (_, idle) in expected {
            host.get_alone("/", idle).await;
        }
        assert_eq!(starts(&host), expected.map(|(start, _)| start), "{component} with {policy:?}");
    }
}

#[tokio::test]
async fn warm_instances_are_ready_before_the_first_request() {
    for component in ["hello-p2.wasm", "hello-p3.wasm"] {
        let host = Host::deploy(&function(component, "instances = { reuse = 100, warm = 3 }")).await;
        assert_eq!(host.function("f").status().idle, 3, "{component}");
        host.get("/").await.unwrap();
    }
}

#[tokio::test]
async fn a_warm_instance_that_is_used_up_is_replaced() {
    for component in ["hello-p2.wasm", "hello-p3.wasm"] {
        // Nobody looks for idle instances before the test is over.
        let policy = "instances = { reuse = 1, warm = 2, idle = \"5m\" }";
        let host = Host::deploy(&function(component, policy)).await;
        let mut used = 0;
        for _ in 0..5 {
            assert_eq!(host.function("f").status().idle, 2, "{component}");
            host.get("/").await.unwrap();
            used += usize::from(host.function("f").status().idle < 2);
            eventually("two are ready again", || host.function("f").status().idle == 2).await;
        }
        // On this one thread none was made behind the test's back, but for a run that was interrupted.
        assert!(used > 0, "{component}: no request used what was ready");
    }
}

#[tokio::test]
async fn an_idle_function_is_unmapped_and_comes_back() {
    let functions = function("hello-p3.wasm", "instances = { idle = \"20ms\" }");
    let host =
        Host::try_deploy(&functions, |config| config.code_idle = std::time::Duration::from_millis(50)).await.unwrap();
    host.get("/").await.unwrap();
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(10);
    while host.function("f").status().mapped {
        assert!(tokio::time::Instant::now() < deadline, "the code stays mapped");
        tokio::task::yield_now().await;
    }
    host.get("/").await.unwrap();
    let records = host.observed.records.lock().unwrap();
    assert_eq!(records.last().map(|record| record.start), Some(Start::Cold));
    let cold = records.iter().filter(|record| record.start == Start::Cold).count();
    let initialized = host.observed.initialized.lock().unwrap().len();
    assert_eq!(initialized, cold, "each of them mapped the code, and nothing else did");
}

#[tokio::test]
async fn several_requests_are_in_flight_in_one_instance() {
    let host = Host::deploy(&function("probe-p3.wasm", "instances = { reuse = 128, concurrent = 16 }")).await;
    let asked = std::time::Instant::now();
    let answers = futures::future::join_all((0..16).map(|_| host.get("/slow-stream/2/200"))).await;
    for answer in answers {
        assert_eq!(answer.unwrap().0, 200);
    }
    assert!(asked.elapsed() < std::time::Duration::from_secs(3), "one after the other: {:?}", asked.elapsed());
    let fresh = host.observed.records.lock().unwrap().iter().filter(|record| record.start == Start::Fresh).count();
    assert!(fresh < 16, "every request had an instance of its own");
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused() {
    for component in PROBES {
        let host = Host::deploy(&function(component, "limits = { body = \"1KiB\" }")).await;
        let failure = host.send(post("/echo", vec![0; 2048])).await.expect_err("it is too large");
        assert_eq!(failure.kind(), Kind::BodyTooLarge, "{component}");
        assert!(host.send(post("/echo", vec![0; 1024])).await.is_ok(), "{component}");
    }
}

/// Python keeps what it was given until its garbage collector comes by; the run is over all the same.
#[tokio::test]
async fn a_run_ends_with_its_answer_whatever_the_guest_keeps() {
    let source = b"import marram\n\nkept = []\n\n\nasync def on_fetch(request, env):\n    kept.append(request)\n    return marram.Response('ok')\n";
    let host = Host::try_bytes("app.py", source).await.unwrap();
    for n in 1..=3 {
        host.get("/").await.unwrap();
        host.observed.until("a record", |observed| (observed.records.lock().unwrap().len() == n).then_some(())).await;
    }
    assert_eq!(host.function("f").status().running, 0);
    let records = host.observed.records.lock().unwrap();
    assert!(records.iter().skip(1).all(|record| record.wall_ns < 5_000_000_000), "{records:?}");
}

#[tokio::test]
async fn an_idle_instance_goes_although_it_came_back_after_the_last_look() {
    let host = Host::deploy(&function("hello-p3.wasm", "instances = { idle = \"20ms\" }")).await;
    host.get("/").await.unwrap();
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(5);
    while host.function("f").status().idle > 0 {
        assert!(tokio::time::Instant::now() < deadline, "the instance stays");
        tokio::task::yield_now().await;
    }
}
