//! A broker that the site already has: here, that of another node.

use marram_node::{BridgeRoute, MqttBridge};
use marram_testkit::{TestNode, eventually, guest};
use serde_json::Value;

const APP: &str = r#"
manifest_version = 1
[app]
name = "site"
[[function]]
name = "state"
component = "state.wasm"
on = [{ http = "/..." }]
allow = { kv = ["state"], publish = ["x"], mqtt = ["plant/#", "commands/#"] }
[stream.heard]
mqtt = ["site/#", "commands/#"]
"#;

async fn deploy(node: &TestNode) {
    node.deploy(APP, &[("state", guest("state.wasm"))]).await.unwrap();
}

async fn heard(node: &TestNode) -> Vec<(String, String)> {
    let text = node.admin().get("/v1/streams/heard/events").await.expect(200).text();
    let of = |line: &str| {
        let event: Value = serde_json::from_str(line).unwrap();
        // What 3.1.1 has brought has no media type, and its data is in base64; what a function has published here has one.
        let data = event["data_base64"].as_str().or(event["data"].as_str());
        (event["subject"].as_str().unwrap().to_owned(), data.unwrap().to_owned())
    };
    text.lines().map(of).collect()
}

fn bridge(address: &str) -> MqttBridge {
    let route = |filter: &str, prefix: &str| BridgeRoute { filter: filter.into(), prefix: prefix.into() };
    MqttBridge {
        name: "site".into(),
        address: address.into(),
        version: Default::default(),
        user: None,
        password_file: None,
        ca: None,
        inward: vec![route("plant/#", "site/")],
        outward: vec![route("commands/#", "")],
        keep_alive: None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_come_from_the_site_s_broker_and_commands_go_there() {
    let site = TestNode::start_with(|config| config.mqtt.listen = Some("127.0.0.1:0".parse().unwrap())).await;
    let address = site.node().urls().iter().find(|(name, _)| *name == "mqtt").unwrap().1.clone();
    let here = TestNode::start_with(|config| config.mqtt.bridges = vec![bridge(&address)]).await;
    deploy(&site).await;
    deploy(&here).await;
    eventually("the bridge has subscribed on both sides", || async {
        let mut ready = true;
        for node in [&site, &here] {
            let clients = node.admin().get("/v1/mqtt/clients").await.expect(200).json();
            let bridge =
                clients["clients"].as_array().unwrap().iter().find(|one| one["client"] == "bridge-site").cloned();
            ready &= bridge.is_some_and(|one| !one["subscriptions"].as_array().unwrap().is_empty());
        }
        ready.then_some(())
    })
    .await;
    assert_eq!(site.http().get("/mqtt/plant/7/vibration/high").await.text(), "published");
    assert_eq!(here.http().get("/mqtt/commands/7/stop").await.text(), "published");
    let came = eventually("the reading comes", || async {
        heard(&here).await.into_iter().find(|(topic, _)| topic.starts_with("site/"))
    });
    assert_eq!(came.await, ("site/plant/7/vibration".to_owned(), "aGlnaA==".to_owned()));
    let went = eventually("the command goes", || async { heard(&site).await.into_iter().next() });
    assert_eq!(went.await, ("commands/7".to_owned(), "c3RvcA==".to_owned()));
    here.stop().await;
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_a_bridge_is_said_when_the_node_starts() {
    for (address, wanted) in
        [("site:1883", "mqtt://host:1883"), ("mqtt://site", "has no port"), ("mqtts://site:8883", "needs `ca`")]
    {
        let state = tempfile::tempdir().unwrap();
        let free = "127.0.0.1:0".parse().unwrap();
        let mut config = marram_node::NodeConfig { listen: free, admin: free, instances: 4, ..Default::default() };
        config.state = state.path().join("state");
        config.mqtt.bridges = vec![bridge(address)];
        let refused = Box::pin(marram_node::Node::start(config)).await.err().unwrap();
        let told = format!("{refused:#}");
        assert!(told.contains("the MQTT bridge \"site\"") && told.contains(wanted), "{address}: {told}");
    }
}
