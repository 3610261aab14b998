//! What a guest may reach, through both standards: nothing, unless the manifest says so.

use http_body_util::BodyExt as _;
use marram_core::Kind;
use marram_core::problem::{PROBLEM_JSON, Problem};
use marram_core::record::Outcome;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::host::{Host, get};

const PROBES: [&str; 2] = ["probe-p2.wasm", "probe-p3.wasm"];

/// An app whose first function probes, and whose second one answers hello.
async fn deploy(component: &str, allow: &str) -> Host {
    Host::deploy(&format!(
        "[[function]]\nname = \"a-probe\"\ncomponent = \"{component}\"\n{allow}\n\
         [[function]]\nname = \"hello\"\ncomponent = \"hello-p2.wasm\"\n"
    ))
    .await
}

/// Fetches `url` in the guest, and expects a line of its log that says all of this.
async fn check_refused(allow: &str, url: &str, parts: &[&str]) {
    for component in PROBES {
        let host = deploy(component, allow).await;
        let answer = host.get(&format!("/fetch?url={url}")).await;
        assert!(!answer.is_ok_and(|(_, body)| body.contains("Hello")), "{component} reached {url}");
        let said = |texts: &[String]| texts.iter().any(|text| parts.iter().all(|part| text.contains(part)));
        host.observed.until(&format!("{parts:?}"), |observed| said(&observed.texts()).then_some(())).await;
    }
}

#[tokio::test]
async fn what_is_not_granted_is_refused_with_the_line_to_add() {
    check_refused("", "http://api.example.com/", &["http://api.example.com", "allow.http"]).await;
    check_refused("", "http://hello.internal/", &["\"internal:hello\"", "allow.http"]).await;
    check_refused("", "http://HELLO.internal./", &["\"internal:hello\"", "allow.http"]).await;
}

#[tokio::test]
async fn an_inner_address_needs_a_grant_of_its_own() {
    for url in ["http://127.0.0.1:9/", "http://169.254.169.254/latest/"] {
        let origin = url.split('/').take(3).collect::<Vec<_>>().join("/");
        let allow = format!("allow = {{ http = [\"{origin}\"] }}");
        check_refused(&allow, url, &["allow.addresses"]).await;
    }
}

#[tokio::test]
async fn a_granted_function_of_the_app_answers() {
    for component in PROBES {
        let host = deploy(component, "allow = { http = [\"internal:hello\"] }").await;
        let (status, body) = host.get("/fetch?url=http://hello.internal/").await.unwrap();
        assert_eq!((status, body.trim()), (200, "Hello from Marram"), "{component}: {:?}", host.observed.texts());
        let records = host.observed.records.lock().unwrap();
        assert_eq!(records.len(), 2, "{component}");
        assert_eq!(records[0].trace, records[1].trace, "{component}: the call is in the same trace");
    }
}

#[tokio::test]
async fn a_function_that_fails_answers_another_one_as_it_would_a_network() {
    for component in PROBES {
        let host = Host::deploy(&format!(
            "[[function]]\nname = \"a-probe\"\ncomponent = \"{component}\"\nallow = {{ http = [\"internal:bad\"] }}\n\
             [[function]]\nname = \"bad\"\ncomponent = \"bad.wasm\"\n"
        ))
        .await;
        let response = host.send(get("/fetch?url=http://bad.internal/trap")).await.unwrap();
        assert_eq!(response.status().as_u16(), 500, "{component}");
        assert_eq!(response.headers()[http::header::CONTENT_TYPE], PROBLEM_JSON, "{component}");
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let problem: Problem = serde_json::from_slice(&body).unwrap();
        assert_eq!(problem.r#type, "urn:marram:problem:trap", "{component}: {problem:?}");
        // The whole of it is one request, in each answer and in the log.
        let record = host.observed.record().await;
        assert_eq!((problem.request_id, record.outcome), (record.request, Outcome::Failed(Kind::Trap)), "{component}");
    }
}

/// Handing on what a server sends makes a function a gateway: what that server does is not the function's fault.
#[tokio::test]
async fn a_server_that_breaks_off_is_told_from_the_function() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = format!("http://{}", listener.local_addr().unwrap());
    let serving = tokio::spawn(async move {
        loop {
            let (mut socket, _) = listener.accept().await.unwrap();
            let _ = socket.read(&mut [0; 4096]).await;
            let _ = socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc").await;
        }
    });
    let allow = format!("allow = {{ http = [\"{origin}\"], addresses = [\"127.0.0.0/8\"] }}");
    let host = deploy("probe-p3.wasm", &allow).await;
    let failure = match host.send(get(&format!("/fetch?url={origin}/"))).await {
        Err(failure) => failure,
        Ok(response) => response.into_body().collect().await.expect_err("it is complete"),
    };
    assert_eq!((failure.kind(), failure.status().as_u16()), (Kind::Upstream, 502), "{failure:?}");
    assert_eq!(host.observed.record().await.outcome, Outcome::Failed(Kind::Upstream));
    serving.abort();
}
