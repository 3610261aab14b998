//! Changing what runs while it runs: no request is dropped, and changes that come at once are made one by one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use marram_testkit::{TestNode, eventually, get, guest, manifest};

#[tokio::test(flavor = "multi_thread")]
async fn no_request_is_dropped_while_revisions_change() {
    let node = Arc::new(TestNode::start().await);
    let text = manifest("shop", &[("price", "price.wasm", "/price")]);
    let revisions = ["hello-p2", "hello-p3"].map(guest);
    node.deploy(&text, &[("price", revisions[0].clone())]).await.unwrap();

    let stop = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let (client, stop) = (node.http().clone(), Arc::clone(&stop));
            tokio::spawn(async move {
                let mut answered = 0u64;
                while !stop.load(Ordering::Relaxed) {
                    let reply = client.get("/price").await;
                    assert_eq!((reply.status, reply.text().as_str()), (200, "Hello from Marram"), "{reply:?}");
                    answered += 1;
                }
                answered
            })
        })
        .collect();
    for n in 1..=20 {
        let deployed = node.deploy(&text, &[("price", revisions[n % 2].clone())]).await.unwrap();
        assert!(!deployed.unchanged);
    }
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        assert!(client.await.unwrap() > 0, "a client got no answer at all");
    }
    Arc::into_inner(node).unwrap().stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_in_flight_finishes_on_its_revision_after_the_app_is_gone() {
    let node = TestNode::start().await;
    let text = manifest("shop", &[("probe", "probe.wasm", "/...")]);
    node.deploy(&text, &[("probe", guest("probe-p2"))]).await.unwrap();
    let slow = node.http().open(get("/slow-stream/10/30")).await.unwrap();
    let remove = marram_testkit::Ask::new(http::Method::DELETE, "/v1/apps/shop");
    let _ = node.admin().send(remove).await.expect(204);
    let _ = node.http().get("/slow-stream/1/1").await.expect(404);
    let body = http_body_util::BodyExt::collect(slow.into_body()).await.unwrap().to_bytes();
    assert!(!body.is_empty());
    // Its record is made when it has ended, although its app is gone.
    eventually("the last invocation is in the usage", || async {
        let usage = node.admin().get("/v1/usage?app=shop").await.expect(200).json();
        (usage["usage"][0]["outcomes"]["ok"] == 1).then_some(())
    })
    .await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_that_claim_a_route_at_once_one_gets_it() {
    let node = TestNode::start().await;
    let apps: Vec<_> = (0..16).map(|n| manifest(&format!("app{n}"), &[("price", "price.wasm", "/price")])).collect();
    let component = [("price", guest("hello-p2"))];
    let deployed = futures::future::join_all(apps.iter().map(|text| node.deploy(text, &component))).await;
    let refused: Vec<_> = deployed.iter().filter_map(|result| result.as_ref().err()).collect();
    assert_eq!(refused.len(), 15);
    assert!(refused.iter().all(|failure| failure.kind() == marram_core::Kind::Conflict), "{refused:?}");
    let _ = node.http().get("/price").await.expect(200);
    assert_eq!(node.admin().get("/v1/apps").await.expect(200).json()["apps"].as_array().unwrap().len(), 1);
    node.stop().await;
}
