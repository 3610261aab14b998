//! An app's life on a node: deployed, asked, changed, rolled back, restarted, removed; and what is refused on the way.

use http::Method;
use marram_core::Kind;
use marram_testkit::{Ask, TestNode, check, eventually, expect, get, guest, manifest};
use serde_json::json;

fn bytes(name: &str) -> Vec<u8> {
    std::fs::read(guest(name)).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_app_answers_on_its_routes() {
    let text = manifest("shop", &[("price", "price.wasm", "/price/..."), ("probe", "probe.wasm", "/probe/...")]);
    let components = [("price", guest("hello-p2")), ("probe", guest("hello-p3"))];
    let cases = [
        (get("/price/7"), expect(200, "Hello from Marram")),
        (get("/probe/x?y=1"), expect(200, "Hello from Marram")),
        (get("/elsewhere"), expect(404, "urn:marram:problem:not-found")),
    ];
    check(&text, &components, &cases).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deploy_change_roll_back_remove() {
    let node = TestNode::start().await;
    let first = manifest("shop", &[("price", "price.wasm", "/price")]);
    let reply = node.deploy_over_http("shop", &first, &[("price", bytes("hello-p2"))]).await.expect(200);
    let one = reply.json()["revision"].as_str().unwrap().to_owned();
    assert_eq!(reply.json()["previous"], json!(null));
    assert_eq!(reply.json()["functions"][0]["kind"], "component-0.2");
    assert_eq!(reply.json()["functions"][0]["instances"], "fresh");
    assert_eq!(node.http().get("/price").await.expect(200).text(), "Hello from Marram");

    let again = node.deploy_over_http("shop", &first, &[("price", bytes("hello-p2"))]).await.expect(200);
    assert_eq!(again.json()["unchanged"], true);

    let second = manifest("shop", &[("price", "price.wasm", "/cost")]);
    let reply = node.deploy_over_http("shop", &second, &[("price", bytes("hello-p2"))]).await.expect(200);
    assert_eq!(reply.json()["previous"], one.as_str());
    let _ = node.http().get("/price").await.expect(404);
    let _ = node.http().get("/cost").await.expect(200);

    let revisions = node.admin().get("/v1/apps/shop/revisions").await.expect(200).json();
    let current: Vec<_> = revisions["revisions"].as_array().unwrap().iter().map(|r| r["current"] == true).collect();
    assert_eq!(current, [true, false]);

    let back = node.admin().send(Ask::new(Method::POST, "/v1/apps/shop/rollback")).await.expect(200);
    assert_eq!(back.json()["revision"], one.as_str());
    let _ = node.http().get("/price").await.expect(200);
    let again = node.admin().send(Ask::new(Method::POST, "/v1/apps/shop/rollback")).await.expect(409);
    assert!(again.text().contains("no earlier revision"), "{again:?}");
    let prefix = &reply.json()["revision"].as_str().unwrap()[7..19].to_owned();
    let forth = Ask::new(Method::POST, "/v1/apps/shop/rollback").json(&json!({ "revision": prefix }));
    let _ = node.admin().send(forth).await.expect(200);
    let _ = node.http().get("/cost").await.expect(200);

    let _ = node.admin().send(Ask::new(Method::DELETE, "/v1/apps/shop")).await.expect(204);
    let _ = node.http().get("/cost").await.expect(404);
    let _ = node.admin().get("/v1/apps/shop").await.expect(404);
    let _ = node.admin().send(Ask::new(Method::DELETE, "/v1/apps/shop")).await.expect(404);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn apps_survive_a_restart() {
    let node = TestNode::start().await;
    let text = manifest("shop", &[("price", "price.wasm", "/price")]);
    let deployed = node.deploy(&text, &[("price", guest("hello-p2"))]).await.unwrap();
    let node = node.restart().await;
    assert_eq!(node.http().get("/price").await.expect(200).text(), "Hello from Marram");
    let app = node.admin().get("/v1/apps/shop").await.expect(200).json();
    assert_eq!((&app["state"], &app["revision"]), (&json!("ready"), &json!(deployed.revision.to_string())));
    assert_eq!(app["manifest"], text.as_str());
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_that_cannot_be_started_does_not_take_the_node_down() {
    let node = TestNode::start().await;
    let shop = manifest("shop", &[("price", "price.wasm", "/price/...")]);
    let other = manifest("other", &[("all", "all.wasm", "/...")]);
    node.deploy(&shop, &[("price", guest("hello-p2"))]).await.unwrap();
    node.deploy(&other, &[("all", guest("hello-p3"))]).await.unwrap();
    let hex = marram_core::Digest::of(&bytes("hello-p2")).hex();
    std::fs::remove_file(node.state_dir().join("blobs/sha256").join(&hex[..2]).join(&hex)).unwrap();
    std::fs::remove_dir_all(node.state_dir().join("cache")).unwrap();
    let node = node.restart().await;
    let _ = node.http().get("/x").await.expect(200);
    // Its routes are still its own: no other app takes its requests.
    let reply = node.http().get("/price/1").await.expect(500);
    assert_eq!(reply.json()["type"], "urn:marram:problem:internal", "{reply:?}");
    assert!(reply.text().contains("deploy the app again"), "{reply:?}");
    assert!(!reply.text().contains(node.state_dir().to_str().unwrap()), "{reply:?}");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_has_one_owner() {
    let node = TestNode::start().await;
    let shop = manifest("shop", &[("price", "price.wasm", "/api/:id")]);
    node.deploy(&shop, &[("price", guest("hello-p2"))]).await.unwrap();
    let rival = manifest("rival", &[("cost", "cost.wasm", "/api/:number")]);
    let reply = node.deploy_over_http("rival", &rival, &[("cost", bytes("hello-p2"))]).await.expect(409);
    for part in ["shop", "price", "rival", "cost", "/api/:number"] {
        assert!(reply.text().contains(part), "{part} is not in {reply:?}");
    }
    let _ = node.admin().get("/v1/apps/rival").await.expect(404);
    let _ = node.http().get("/api/1").await.expect(200);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_changes_nothing() {
    let node = TestNode::start().await;
    let text = manifest("shop", &[("price", "price.wasm", "/price")]);
    let digest = marram_core::Digest::of(&bytes("hello-p2")).to_string();
    let _ = node
        .admin()
        .send(Ask::new(Method::PUT, &format!("/v1/blobs/{digest}")).body(bytes("hello-p2")))
        .await
        .expect(201);
    let _ = node.admin().send(Ask::new(Method::HEAD, &format!("/v1/blobs/{digest}"))).await.expect(200);
    let request = json!({ "manifest": text, "components": { "price": digest } });
    let reply = node.admin().send(Ask::new(Method::PUT, "/v1/apps/shop?dry_run=true").json(&request)).await.expect(200);
    assert_eq!(reply.json()["functions"][0]["kind"], "component-0.2");
    let _ = node.http().get("/price").await.expect(404);
    assert_eq!(node.admin().get("/v1/apps").await.expect(200).json(), json!({ "apps": [] }));

    // What a deployment would be refused for, it is refused for.
    let streams = |app: &str, age: &str| {
        let text = format!(
            "manifest_version = 1\n[app]\nname = \"{app}\"\n[stream.readings]\nretain = {{ age = \"{age}\" }}\n"
        );
        json!({ "manifest": text, "components": {} })
    };
    let put = |path: &str, request: &serde_json::Value| Ask::new(Method::PUT, path).json(request);
    let _ = node.admin().send(put("/v1/apps/plant", &streams("plant", "1d"))).await.expect(200);
    let reply = node.admin().send(put("/v1/apps/other?dry_run=true", &streams("other", "2d"))).await.expect(409);
    assert!(reply.text().contains("readings") && reply.text().contains("plant"), "{reply:?}");
    let _ = node.admin().send(put("/v1/apps/other?dry_run=true", &streams("other", "1d"))).await.expect(200);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_deployed_is_said_and_changes_nothing() {
    let node = TestNode::start().await;
    let good = manifest("shop", &[("price", "price.wasm", "/price")]);
    node.deploy(&good, &[("price", guest("hello-p2"))]).await.unwrap();
    let component = bytes("hello-p2");
    let misspelt = good.replace("component =", "compnent =");
    type Case<'a> = (&'a str, Vec<(&'a str, Vec<u8>)>, &'a [&'a str]);
    let cases: [Case<'_>; 7] = [
        (&misspelt, vec![("price", component.clone())], &["line 7", "did you mean `component`?"]),
        (&good, vec![], &["price.wasm", "without its component"]),
        (&good, vec![("price", component.clone()), ("prize", component.clone())], &["\\\"prize\\\""]),
        (&good, vec![("price", b"".to_vec())], &["price", "empty"]),
        (&good, vec![("price", b"\0asm\x01\0\0\0".to_vec())], &["price", "core WebAssembly module"]),
        (&good, vec![("price", component[..component.len() / 2].to_vec())], &["price"]),
        (&good.replace("\"shop\"", "\"shoe\""), vec![("price", component.clone())], &["shop", "shoe"]),
    ];
    for (text, parts, expected) in cases {
        let reply = node.deploy_over_http("shop", text, &parts).await.expect(422);
        assert_eq!(reply.header("content-type"), Some("application/problem+json"));
        for part in expected {
            assert!(reply.text().contains(part), "{part} is not in {reply:?}");
        }
    }
    let unknown =
        json!({ "manifest": good, "components": { "price": marram_core::Digest::of(b"nowhere").to_string() } });
    let reply = node.admin().send(Ask::new(Method::PUT, "/v1/apps/shop").json(&unknown)).await.expect(422);
    assert!(reply.text().contains("upload it first"), "{reply:?}");
    for body in [
        "",
        "{",
        "[]",
        "{\"manifest\":\"\",\"components\":{},\"x\":1}",
        "{\"manifest\":\"\",\"components\":{\"price\":\"md5:1\"}}",
    ] {
        let _ = node.admin().send(Ask::new(Method::PUT, "/v1/apps/shop").body(body)).await.expect(400);
    }
    let _ = node.http().get("/price").await.expect(200);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn blobs_are_what_they_say() {
    let node = TestNode::start().await;
    let right = marram_core::Digest::of(b"right").to_string();
    let path = format!("/v1/blobs/{right}");
    let reply = node.admin().send(Ask::new(Method::PUT, &path).body("wrong")).await.expect(422);
    assert!(reply.text().contains("damaged or altered"), "{reply:?}");
    let _ = node.admin().send(Ask::new(Method::HEAD, &path)).await.expect(404);
    assert_eq!(node.admin().send(Ask::new(Method::PUT, &path).body("right")).await.expect(201).json()["bytes"], 5);
    let _ = node.admin().send(Ask::new(Method::PUT, &path).body("right")).await.expect(200);
    let _ = node.admin().send(Ask::new(Method::PUT, "/v1/blobs/sha256:xyz").body("right")).await.expect(400);
    let huge =
        Ask::new(Method::PUT, &format!("/v1/blobs/{}", marram_core::Digest::of(b"huge")))
            .body(vec![0; (256 << 20) + 1]);
    // The answer may come before everything was sent; then the connection is cut while the client still sends.
    if let Ok(reply) = node.admin().try_send(huge).await {
        let _ = reply.expect(413);
    }
    let uploads = node.state_dir().join("blobs/uploads");
    eventually("half-done uploads are removed", || async {
        (std::fs::read_dir(&uploads).unwrap().count() == 0).then_some(())
    })
    .await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_damaged_is_mended_by_deploying_it_again() {
    let node = TestNode::start().await;
    let text = manifest("shop", &[("price", "price.wasm", "/price"), ("script", "index.js", "/script")]);
    let script = b"export default { fetch: () => new Response('Hello from a script') };\n".to_vec();
    let parts = [("price", bytes("hello-p2")), ("script", script)];
    let _ = node.deploy_over_http("shop", &text, &parts).await.expect(200);
    let digests: Vec<_> = parts.iter().map(|(_, content)| marram_core::Digest::of(content)).collect();
    let damage = |state: &std::path::Path| {
        for digest in &digests {
            let blob = state.join("blobs/sha256").join(&digest.hex()[..2]).join(digest.hex());
            let mut content = std::fs::read(&blob).unwrap();
            *content.last_mut().unwrap() ^= 1;
            std::fs::write(&blob, content).unwrap();
        }
        // With its compiled code a component would not be read.
        for file in std::fs::read_dir(state.join("cache")).unwrap() {
            let file = file.unwrap();
            if file.file_name().to_string_lossy().starts_with(&digests[0].hex()) {
                std::fs::remove_file(file.path()).unwrap();
            }
        }
    };
    let node = node.restart_with(damage).await;
    for (path, digest) in ["/price", "/script"].into_iter().zip(&digests) {
        let _ = node.http().get(path).await.expect(500);
        let _ = node.admin().send(Ask::new(Method::HEAD, &format!("/v1/blobs/{digest}"))).await.expect(404);
    }
    let again = node.deploy_over_http("shop", &text, &parts).await.expect(200);
    assert_eq!(again.json()["unchanged"], true);
    for (path, digest) in ["/price", "/script"].into_iter().zip(&digests) {
        assert!(node.http().get(path).await.expect(200).text().starts_with("Hello from"), "{path}");
        let _ = node.admin().send(Ask::new(Method::HEAD, &format!("/v1/blobs/{digest}"))).await.expect(200);
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_draining_node_finishes_what_runs_and_changes_nothing() {
    let node = TestNode::start().await;
    let text = manifest("shop", &[("probe", "probe.wasm", "/...")]);
    node.deploy(&text, &[("probe", guest("probe-p2"))]).await.unwrap();
    // Ten chunks, 30 ms apart: it runs when the drain begins.
    let response = node.http().open(get("/slow-stream/10/30")).await.unwrap();
    let (body, ()) = tokio::join!(http_body_util::BodyExt::collect(response.into_body()), node.node().drain());
    assert!(!body.unwrap().to_bytes().is_empty());
    assert!(node.http().try_send(get("/slow-stream/1/1")).await.is_err());
    let refused = node.deploy(&text.replace("/...", "/x"), &[("probe", guest("probe-p2"))]).await.unwrap_err();
    assert_eq!(refused.kind(), Kind::Draining);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nothing_needs_any_more_is_removed() {
    let node = TestNode::start().await;
    let text = manifest("shop", &[("price", "price.wasm", "/price")]);
    node.deploy(&text, &[("price", guest("hello-p2"))]).await.unwrap();
    let unused = bytes("hello-p3");
    let digest = marram_core::Digest::of(&unused);
    let upload = Ask::new(Method::PUT, &format!("/v1/blobs/{digest}")).body(unused);
    let _ = node.admin().send(upload).await.expect(201);
    let blob = node.state_dir().join("blobs/sha256").join(&digest.hex()[..2]).join(digest.hex());
    let file = std::fs::File::options().write(true).open(&blob).unwrap();
    file.set_modified(std::time::SystemTime::now() - std::time::Duration::from_secs(7_200)).unwrap();
    let code = node.state_dir().join("cache").join(format!("{}-0123456789abcdef.component", digest.hex()));
    std::fs::write(&code, "compiled once").unwrap();
    let node = node.restart().await;
    eventually("component and code are gone", || async { (!blob.exists() && !code.exists()).then_some(()) }).await;
    let _ = node.http().get("/price").await.expect(200);
    node.stop().await;
}
