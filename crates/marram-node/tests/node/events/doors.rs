//! How events come in over HTTP: at the admin API and at the public listener, whose they are, and as what they are kept.

use http::Method;
use marram_testkit::{Ask, TestNode};
use serde_json::{Value, json};

use super::{App, SCRIPT};

#[tokio::test(flavor = "multi_thread")]
async fn the_public_front_takes_events_with_the_stream_s_token_only() {
    let app = App::start("{ stream = \"readings\" }", "[stream.readings]\ningest = true\n[stream.closed]\n").await;
    let event = |token: Option<&str>, stream: &str| {
        let ask = Ask::new(Method::POST, &format!("/v1/streams/{stream}/events"))
            .header("content-type", "application/cloudevents+json")
            .body(json!({ "specversion": "1.0", "id": "1", "source": "/t", "type": "reading" }).to_string());
        let ask = match token {
            Some(token) => ask.header("authorization", &format!("Bearer {token}")),
            None => ask,
        };
        app.node.http().send(ask)
    };
    let refused = event(None, "readings").await.expect(401);
    assert_eq!(refused.header("www-authenticate"), Some("Bearer realm=\"marram\""));
    let refused = refused.json();
    assert!(refused["detail"].as_str().unwrap().contains("Authorization: Bearer"), "{refused}");
    let _ = event(Some("a-token-of-nobody"), "readings").await.expect(401);
    let secret = Ask::new(Method::PUT, "/v1/apps/site/secrets/ingest_token").body("a-token-of-devices");
    let _ = app.node.admin().send(secret).await.expect(204);
    let _ = event(Some("a-token-of-nobody"), "readings").await.expect(401);
    let _ = event(Some("a-token-of-devices"), "closed").await.expect(404);
    assert_eq!(event(Some("a-token-of-devices"), "readings").await.expect(200).json()["published"][0]["position"], 1);
    app.seen(1).await;
    let rubbish = Ask::new(Method::POST, "/v1/streams/readings/events")
        .header("authorization", "Bearer a-token-of-devices")
        .body("{}");
    let refused = app.node.http().send(rubbish).await.expect(400).json();
    assert!(refused["detail"].as_str().unwrap().contains("ce-specversion"), "{refused}");
    // What nobody could use is refused, and what was removed lets nobody in.
    let short = Ask::new(Method::PUT, "/v1/apps/site/secrets/ingest_token").body("short");
    let refused = app.node.admin().send(short).await.expect(422).json();
    assert!(refused["detail"].as_str().unwrap().contains("shorter than 16 characters"), "{refused}");
    let _ = event(Some("a-token-of-devices"), "readings").await.expect(200);
    let removed = Ask::new(Method::DELETE, "/v1/apps/site/secrets/ingest_token");
    let _ = app.node.admin().send(removed).await.expect(204);
    let _ = event(Some("a-token-of-devices"), "readings").await.expect(401);
    app.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_token_lets_nobody_in_though_the_functions_cannot_have_the_new_one() {
    let app = App { node: TestNode::start().await, _script: tempfile::tempdir().unwrap() };
    let set = |token: &'static str| {
        app.node.admin().send(Ask::new(Method::PUT, "/v1/apps/site/secrets/ingest_token").body(token))
    };
    let event = |token: &str| {
        let ask = Ask::new(Method::POST, "/v1/streams/readings/events")
            .header("authorization", &format!("Bearer {token}"))
            .header("content-type", "application/cloudevents+json")
            .body(json!({ "specversion": "1.0", "id": "1", "source": "/t", "type": "reading" }).to_string());
        app.node.http().send(ask)
    };
    let (old, new) = ("the-token-that-is-known", "the-token-of-from-now-on");
    let _ = set(old).await.expect(204);
    let more = "secrets = [\"ingest_token\"]\n[stream.readings]\ningest = true\n";
    app.deploy("{ http = \"/x\" }", more).await;
    let _ = event(old).await.expect(200);
    // Its source is damaged, so that it cannot be made ready with the new value.
    let digest = marram_core::Digest::of(SCRIPT.as_bytes()).hex();
    std::fs::write(app.node.state_dir().join("blobs/sha256").join(&digest[..2]).join(&digest), "x").unwrap();
    let _ = set(new).await.expect(500);
    let _ = event(old).await.expect(401);
    let _ = event(new).await.expect(200);
    app.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_two_apps_open_takes_the_token_of_each() {
    let mut node = TestNode::start().await;
    let app =
        |name: &str| format!("manifest_version = 1\n[app]\nname = \"{name}\"\n[stream.readings]\ningest = true\n");
    for name in ["one", "two"] {
        let _ = node.deploy_over_http(name, &app(name), &[]).await.expect(200);
        let token = format!("a-token-of-app-{name}");
        let secret = Ask::new(Method::PUT, &format!("/v1/apps/{name}/secrets/ingest_token")).body(token);
        let _ = node.admin().send(secret).await.expect(204);
    }
    let event = |token: &str| {
        Ask::new(Method::POST, "/v1/streams/readings/events")
            .header("authorization", &format!("Bearer {token}"))
            .header("content-type", "application/cloudevents+json")
            .body(json!({ "specversion": "1.0", "id": token, "source": "/t", "type": "reading" }).to_string())
    };
    for _ in 0..2 {
        for token in ["a-token-of-app-one", "a-token-of-app-two"] {
            let _ = node.http().send(event(token)).await.expect(200);
        }
        let _ = node.http().send(event("a-token-of-nobody")).await.expect(401);
        node = node.restart().await;
    }
    // Each of them lets in for itself.
    let _ = node.admin().send(Ask::new(Method::DELETE, "/v1/apps/one")).await.expect(204);
    let _ = node.http().send(event("a-token-of-app-one")).await.expect(401);
    let _ = node.http().send(event("a-token-of-app-two")).await.expect(200);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_function_stands_where_a_stream_takes_its_events() {
    let node = TestNode::start().await;
    let function = |app: &str, on: &str, more: &str| {
        format!(
            "manifest_version = 1\n[app]\nname = \"{app}\"\n[[function]]\nname = \"f\"\ncomponent = \"f.wasm\"\non = [{on}]\n{more}"
        )
    };
    let open = "[stream.readings]\ningest = true\n";
    let wasm = [("f", std::fs::read(marram_testkit::guest("hello-p2")).unwrap())];
    let claims = r#"{ http = "/v1/streams/readings/events", methods = ["POST"] }"#;
    let own = node.deploy_over_http("a", &function("a", claims, open), &wasm).await.expect(422).json();
    let detail = own["detail"].as_str().unwrap();
    assert!(detail.contains("function \"f\"") && detail.contains("stream \"readings\""), "{detail}");
    // Whoever comes second is refused, and nothing of it stays.
    let stream = format!("manifest_version = 1\n[app]\nname = \"a\"\n{open}");
    let _ = node.deploy_over_http("a", &stream, &[]).await.expect(200);
    let refused = node.deploy_over_http("b", &function("b", claims, ""), &wasm).await.expect(409).json();
    let detail = refused["detail"].as_str().unwrap();
    assert!(detail.contains("of app \"b\"") && detail.contains("of app \"a\""), "{detail}");
    let _ = node.admin().get("/v1/apps/b").await.expect(404);
    let _ = node.admin().send(Ask::new(Method::DELETE, "/v1/apps/a")).await.expect(204);
    let _ = node.deploy_over_http("b", &function("b", claims, ""), &wasm).await.expect(200);
    let _ = node.deploy_over_http("a", &stream, &[]).await.expect(409);
    // One that takes any method gives way.
    let any = r#"{ http = "/v1/streams/readings/events" }"#;
    let _ = node.deploy_over_http("b", &function("b", any, ""), &wasm).await.expect(200);
    let _ = node.deploy_over_http("a", &stream, &[]).await.expect(200);
    let _ = node.http().get("/v1/streams/readings/events").await.expect(200);
    let _ = node.http().send(Ask::new(Method::POST, "/v1/streams/readings/events").body("{}")).await.expect(401);
    node.stop().await;
}

/// Extensions that the node adds: where an event is kept, and the trace of the request that brought one without.
fn as_it_was_sent(stored: &[Value]) -> Vec<Value> {
    let without = |event: &Value| {
        let mut event = event.clone();
        for added in ["marramposition", "traceparent"] {
            event.as_object_mut().unwrap().remove(added);
        }
        event
    };
    stored.iter().map(without).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_stored_as_they_were_sent_in_all_three_modes_at_both_doors() {
    let app = App::start("{ http = \"/x\" }", "[stream.inside]\n[stream.outside]\ningest = true\n").await;
    let token = "a-token-of-devices";
    let secret = Ask::new(Method::PUT, "/v1/apps/site/secrets/ingest_token").body(token);
    let _ = app.node.admin().send(secret).await.expect(204);

    let binary = json!({
        "specversion": "1.0", "id": "b", "source": "/pump/7", "type": "reading", "subject": "plant/7 größer",
        "time": "2026-11-27T12:00:00.5Z", "datacontenttype": "text/plain", "dataschema": "https://schema.example/rms",
        "line": "north", "data": "1.4 mm/s",
    });
    let structured = json!({
        "specversion": "1.0", "id": "s", "source": "/pump/7", "type": "reading", "datacontenttype": "application/json",
        "count": 3, "calibrated": true, "data": { "rms": 1.5, "tags": ["a", "ü"] },
    });
    let batch = json!([
        { "specversion": "1.0", "id": "1", "source": "/pump/7", "type": "frame",
          "datacontenttype": "application/octet-stream", "data_base64": "AAECAw==" },
        { "specversion": "1.0", "id": "2", "source": "/pump/8", "type": "nothing", "subject": "no data" },
    ]);
    for (door, stream) in [(app.node.admin(), "inside"), (app.node.http(), "outside")] {
        // Only the public listener looks at the token.
        let post = || {
            let ask = Ask::new(Method::POST, &format!("/v1/streams/{stream}/events"));
            ask.header("authorization", &format!("Bearer {token}"))
        };
        let in_headers = post()
            .header("ce-specversion", "1.0")
            .header("ce-id", "b")
            .header("ce-source", "/pump/7")
            .header("ce-type", "reading")
            .header("ce-subject", "plant/7%20gr%C3%B6%C3%9Fer")
            .header("ce-time", "2026-11-27T12:00:00.5Z")
            .header("ce-dataschema", "https://schema.example/rms")
            .header("ce-line", "north")
            .header("content-type", "text/plain")
            .body("1.4 mm/s");
        let of_type = |media_type: &str, body: &Value| post().header("content-type", media_type).body(body.to_string());
        let asks = [
            (in_headers, vec![1]),
            (of_type("application/cloudevents+json", &structured), vec![2]),
            (of_type("application/cloudevents-batch+json; charset=utf-8", &batch), vec![3, 4]),
        ];
        for (ask, positions) in asks {
            let published = door.send(ask).await.expect(200).json();
            let wanted: Vec<_> =
                positions.iter().map(|position| json!({ "position": position, "duplicate": false })).collect();
            assert_eq!(published["published"], json!(wanted), "{stream}");
        }
        let sent = [&binary, &structured, &batch[0], &batch[1]].map(Clone::clone);
        assert_eq!(as_it_was_sent(&app.events(stream).await), sent, "{stream}");
    }
    app.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_node_publishes_what_its_sources_say() {
    let app = App::start("{ http = \"/x\" }", "").await;
    for stream in ["mqtt", "keys", "objects", "schedule"] {
        let ask = Ask::new(Method::POST, &format!("/v1/streams/{stream}/events"))
            .header("content-type", "application/cloudevents+json")
            .body(json!({ "specversion": "1.0", "id": "1", "source": "/t", "type": "t" }).to_string());
        let _ = app.node.admin().send(ask).await.expect(409);
    }
    for (name, status) in [("Readings", 400), ("a.b", 400), ("nothing", 404)] {
        let _ = app.node.admin().get(&format!("/v1/streams/{name}/events")).await.expect(status);
    }
    app.node.stop().await;
}
