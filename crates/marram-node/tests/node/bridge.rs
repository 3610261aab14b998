//! A broker that the site already has: that of another node, and mosquitto.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use marram_node::{BridgeRoute, BridgeVersion, MqttBridge};
use marram_testkit::{TestNode, eventually, guest};
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::TcpStream;

use crate::mqtt::client::Client;

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

/// Waits until the bridge has subscribed on this node.
async fn bridged(node: &TestNode) {
    eventually("the bridge has subscribed", || async {
        let clients = node.admin().get("/v1/mqtt/clients").await.expect(200).json();
        let bridge = clients["clients"].as_array().unwrap().iter().find(|one| one["client"] == "bridge-site").cloned();
        bridge.is_some_and(|one| !one["subscriptions"].as_array().unwrap().is_empty()).then_some(())
    })
    .await;
}

/// Waits for a message of another broker.
async fn came(node: &TestNode) -> (String, String) {
    eventually("the reading comes", || async {
        heard(node).await.into_iter().find(|(topic, _)| topic.starts_with("site/"))
    })
    .await
}

/// mosquitto on a free port, with nothing kept on the disk. It ends with this.
struct Mosquitto {
    child: Child,
    folder: TempDir,
    address: String,
}

impl Mosquitto {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        // Free until a moment ago.
        let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let config = format!(
            "listener {} 127.0.0.1\nallow_anonymous true\npersistence false\nlog_dest stderr\nlog_type all\n",
            address.port()
        );
        let file = folder.path().join("mosquitto.conf");
        std::fs::write(&file, config).unwrap();
        let log = std::fs::File::create(folder.path().join("log")).unwrap();
        let mut command = Command::new(mosquitto());
        command.arg("-c").arg(file).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let this = Self { child: command.spawn().unwrap(), folder, address: address.to_string() };
        eventually("mosquitto listens", || async { TcpStream::connect(address).await.ok() }).await;
        this
    }

    /// Waits until its log has a line with both of these.
    async fn logs(&self, one: &str, other: &str) {
        let log = self.folder.path().join("log");
        eventually(&format!("mosquitto logs {one:?} and {other:?}"), || async {
            let text = std::fs::read_to_string(&log).unwrap();
            text.lines().any(|line| line.contains(one) && line.contains(other)).then_some(())
        })
        .await;
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Where mosquitto is; Debian has it where only root looks.
fn mosquitto() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]);
    let found = folders.map(|folder| folder.join("mosquitto")).find(|file| file.is_file());
    found.expect("mosquitto is missing: run scripts/mqtt-clients.sh, which installs it")
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_come_from_the_site_s_broker_and_commands_go_there() {
    let site = TestNode::start_with(|config| config.mqtt.listen = Some("127.0.0.1:0".parse().unwrap())).await;
    let address = site.node().urls().iter().find(|(name, _)| *name == "mqtt").unwrap().1.clone();
    let here = TestNode::start_with(|config| config.mqtt.bridges = vec![bridge(&address)]).await;
    deploy(&site).await;
    deploy(&here).await;
    bridged(&site).await;
    bridged(&here).await;
    assert_eq!(site.http().get("/mqtt/plant/7/vibration/high").await.text(), "published");
    assert_eq!(here.http().get("/mqtt/commands/7/stop").await.text(), "published");
    assert_eq!(came(&here).await, ("site/plant/7/vibration".to_owned(), "aGlnaA==".to_owned()));
    let went = eventually("the command goes", || async { heard(&site).await.into_iter().next() });
    assert_eq!(went.await, ("commands/7".to_owned(), "c3RvcA==".to_owned()));
    here.stop().await;
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_go_both_ways_over_a_bridge_to_mosquitto() {
    for version in [BridgeVersion::V3_1_1, BridgeVersion::V5] {
        let site = Mosquitto::start().await;
        let to_site = MqttBridge { version, ..bridge(&format!("mqtt://{}", site.address)) };
        let here = TestNode::start_with(|config| config.mqtt.bridges = vec![to_site]).await;
        deploy(&here).await;
        site.logs("bridge-site", "plant/#").await;
        bridged(&here).await;
        let mut pump = Client::tcp(&site.address).await;
        assert_eq!(pump.hello("pump-7", None).await, Some(0));
        assert_eq!(pump.subscribe("commands/#").await, 0);
        assert!(pump.publish("plant/7/vibration", "high").await < 0x80);
        assert_eq!(came(&here).await, ("site/plant/7/vibration".to_owned(), "aGlnaA==".to_owned()), "{version:?}");
        assert_eq!(here.http().get("/mqtt/commands/7/stop").await.text(), "published");
        assert_eq!(pump.message().await, ("commands/7".to_owned(), "stop".to_owned()), "{version:?}");
        here.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_a_bridge_is_said_when_the_node_starts() {
    for (address, wanted) in [
        ("site:1883", "mqtt://host:1883"),
        ("mqtt://site", "has no port"),
        ("mqtt://:1883", "has no host"),
        ("mqtt://site:99999", "from 1 to 65535"),
        ("mqtt://site:0", "from 1 to 65535"),
        ("mqtt://site:+1883", "from 1 to 65535"),
        ("mqtt://site:1883/x", "has a path"),
        ("mqtt://user:secret@site:1883", "`password_file`"),
        ("mqtts://site:8883", "needs `ca`"),
    ] {
        let told = refused(vec![bridge(address)]).await;
        assert!(told.contains("the MQTT bridge \"site\"") && told.contains(wanted), "{address}: {told}");
        assert!(!told.contains("secret"), "{told}");
    }
    let one = bridge("mqtt://127.0.0.1:9");
    let told = refused(vec![one.clone(), one.clone()]).await;
    assert!(told.contains("two MQTT bridges have the `name` \"site\""), "{told}");
    let route = |filter: &str| vec![BridgeRoute { filter: filter.into(), prefix: String::new() }];
    let back = MqttBridge { name: "back".into(), inward: route("commands/#"), outward: vec![], ..one.clone() };
    let told = refused(vec![one.clone(), back]).await;
    assert!(told.contains("\"site\" and \"back\" to the same broker"), "{told}");
    let told = refused(vec![MqttBridge { name: "n".repeat(250), ..one }]).await;
    assert!(told.contains("the `name` of an MQTT bridge has at most 249 bytes"), "{told}");
}

/// Why a node with these bridges does not start.
async fn refused(bridges: Vec<MqttBridge>) -> String {
    let state = tempfile::tempdir().unwrap();
    let free = "127.0.0.1:0".parse().unwrap();
    let mut config = marram_node::NodeConfig { listen: free, admin: free, instances: 4, ..Default::default() };
    config.state = state.path().join("state");
    config.mqtt.bridges = bridges;
    let refused = Box::pin(marram_node::Node::start(config)).await.err();
    format!("{:#}", refused.expect("the node does not start"))
}
