//! The examples, as they lie in their folders: deployed to a real node, and used as their pages say.

mod media;
mod patients;
mod report;

use std::path::{Path, PathBuf};
use std::process::Stdio;

use marram_testkit::Client;
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use crate::support::{Node, client};

const HINT: &str = "run scripts/mqtt-clients.sh, which installs the clients that these tests need";

/// The folder of an example.
fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples").join(name)
}

/// A node that an app is on, and the port where devices connect.
struct Site {
    node: Node,
    mqtt_port: String,
}

impl Site {
    async fn start_in(home: TempDir) -> Self {
        let mut node = Node::start_in(home).await;
        let printed = node.running.prints("mqtt=mqtt://127.0.0.1:").await;
        let mqtt_port =
            printed.lines().find_map(|line| line.strip_prefix("mqtt=mqtt://127.0.0.1:")).unwrap().to_owned();
        Self { node, mqtt_port }
    }

    fn admin(&self) -> Client {
        client(&self.node.admin_url)
    }

    /// Everything that a stream keeps; nothing if it is not there.
    async fn events(&self, stream: &str) -> Vec<Value> {
        events(&self.admin(), stream).await
    }

    /// Publishes messages to a topic at QoS 1, in this order, until the last is acknowledged.
    async fn publish(&self, topic: &str, messages: &[Value]) {
        let lines: String = messages.iter().map(|message| format!("{message}\n")).collect();
        self.publish_lines(topic, &lines).await;
    }

    async fn publish_lines(&self, topic: &str, lines: &str) {
        let mut device = Command::new("mosquitto_pub")
            .args(["-p", &self.mqtt_port, "-q", "1", "-t", topic, "-l"])
            .stdin(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|error| panic!("mosquitto_pub does not start ({error}): {HINT}"));
        device.stdin.take().unwrap().write_all(lines.as_bytes()).await.unwrap();
        assert!(device.wait().await.unwrap().success(), "{topic}");
    }

    /// What a display gets that subscribes now: the retained message.
    async fn retained(&self, topic: &str) -> Value {
        let display = Command::new("mosquitto_sub")
            .args(["-p", &self.mqtt_port, "-q", "1", "-t", topic, "-C", "1", "-W", "30"])
            .kill_on_drop(true)
            .output();
        let heard = display.await.unwrap_or_else(|error| panic!("mosquitto_sub does not start ({error}): {HINT}"));
        serde_json::from_slice(&heard.stdout).unwrap_or_else(|error| panic!("{topic}: {heard:?}: {error}"))
    }
}

async fn events(admin: &Client, stream: &str) -> Vec<Value> {
    let reply = admin.get(&format!("/v1/streams/{stream}/events")).await;
    if reply.status == 404 {
        return Vec::new();
    }
    reply.expect(200).text().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}
