//! Other people's clients: mosquitto, paho (3.1.1 and 5.0) and gmqtt (5.0). `scripts/mqtt-clients.sh` installs them; a client
//! that is missing is a failure.

#![allow(clippy::unwrap_used, missing_docs)]

#[path = "../broker/fixture.rs"]
#[allow(dead_code)]
mod fixture;
#[path = "../broker/journal.rs"]
#[allow(dead_code)]
mod journal;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use marram_core::port::mqtt::MqttJournal;
use marram_mqtt::{AccessConfig, Broker, Limits, Origins, Permissions, Transport};
use tokio::process::Command;

const HINT: &str = "run scripts/mqtt-clients.sh, which installs the clients that these tests need";
const DEADLINE: Duration = Duration::from_secs(60);

struct Node {
    broker: Broker,
    journal: journal::Memory,
    tcp: SocketAddr,
    websocket: SocketAddr,
}

async fn start(journal: journal::Memory) -> Node {
    let access = AccessConfig { anonymous: Some(Permissions::all()), ..AccessConfig::default() };
    let port: Arc<dyn MqttJournal> = Arc::new(journal.clone());
    let (time, dice) = (Arc::new(fixture::Time::default()), Arc::new(fixture::Dice::default()));
    let broker = Broker::start(Limits::default(), access, port, time, dice).await.unwrap();
    let listen = async |websocket: bool| {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        broker.listen(listener, Transport { tls: None, websocket: websocket.then(Origins::default) });
        address
    };
    Node { tcp: listen(false).await, websocket: listen(true).await, broker: broker.clone(), journal }
}

/// The python that has the clients.
fn python() -> PathBuf {
    let folder = std::env::var_os("MARRAM_MQTT_CLIENTS").map_or_else(
        || {
            let test = std::env::current_exe().unwrap();
            // target/release/deps/clients-…
            test.ancestors().nth(3).unwrap().join("mqtt-clients")
        },
        PathBuf::from,
    );
    let python = folder.join("bin/python");
    assert!(python.exists(), "{} is missing: {HINT}", python.display());
    python
}

/// Runs a script of this folder; its last word has to be `ok`.
async fn script(name: &str, arguments: &[String]) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/clients").join(name);
    let running = Command::new(python()).arg("-B").arg(path).args(arguments).kill_on_drop(true).output();
    let output = tokio::time::timeout(DEADLINE, running).await.expect("the script ends").unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && out.trim_end().ends_with("ok"), "{name} {arguments:?} failed:\n{out}\n{err}");
}

fn port(address: SocketAddr) -> String {
    address.port().to_string()
}

#[tokio::test]
async fn paho_of_both_versions() {
    for version in ["3.1.1", "5.0"] {
        let node = start(journal::Memory::default()).await;
        node.journal.capture("captured/#");
        for transport in ["tcp", "websockets"] {
            let address = if transport == "tcp" { node.tcp } else { node.websocket };
            script("paho_client.py", &[port(address), version.into(), transport.into()]).await;
        }
        // Each run sends 100 messages of QoS 1 and 100 of QoS 2 there.
        assert_eq!(node.journal.state().events.len(), 400);
        assert_eq!(node.broker.stop().await, 0);
    }
}

#[tokio::test]
async fn gmqtt() {
    let node = start(journal::Memory::default()).await;
    script("gmqtt_client.py", &[port(node.tcp)]).await;
}

/// A publisher that resends what was not acknowledged, over three crashes: nothing is lost, and QoS 2 arrives once.
#[tokio::test]
async fn paho_over_crashes() {
    let mut node = start(journal::Memory::default()).await;
    node.journal.capture("#");
    // The client knows one address; behind it is the node that is alive.
    let front = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = front.local_addr().unwrap();
    let (alive, behind) = tokio::sync::watch::channel(node.tcp);
    let proxy = tokio::spawn(async move {
        loop {
            let (mut client, _) = front.accept().await.unwrap();
            let mut behind = behind.clone();
            let to = *behind.borrow_and_update();
            tokio::spawn(async move {
                let Ok(mut server) = tokio::net::TcpStream::connect(to).await else { return };
                tokio::select! {
                    _ = tokio::io::copy_bidirectional(&mut client, &mut server) => {}
                    _ = behind.changed() => {} // The node is gone: so is the connection.
                }
            });
        }
    });
    let running = tokio::spawn(async move { script("paho_resend.py", &[port(address)]).await });
    for n in 1..=3 {
        let enough = async {
            while node.journal.state().events.len() < n * 400 && !running.is_finished() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(DEADLINE, enough).await.expect("the client goes on");
        // What is not committed now is lost with the node.
        node.journal.hold();
        tokio::time::sleep(Duration::from_millis(5)).await;
        let next = start(node.journal.crash()).await;
        next.journal.capture("#");
        alive.send_replace(next.tcp);
        node = next;
    }
    running.await.unwrap();
    proxy.abort();
    let mut seen = std::collections::BTreeMap::<(i32, String), usize>::new();
    for event in node.journal.state().events {
        let Some(marram_core::event::Attribute::Integer(qos)) = event.extensions.get("mqttqos") else { panic!() };
        *seen.entry((*qos, String::from_utf8(event.data.unwrap().to_vec()).unwrap())).or_default() += 1;
    }
    assert_eq!(seen.len(), 2_000, "every message is there");
    let twice: Vec<_> = seen.iter().filter(|((qos, _), count)| *qos == 2 && **count > 1).collect();
    assert!(twice.is_empty(), "QoS 2 twice: {twice:?}");
}

#[tokio::test]
async fn mosquitto_of_both_versions() {
    let node = start(journal::Memory::default()).await;
    for version in ["mqttv311", "mqttv5"] {
        for level in ["0", "1", "2"] {
            let topic = format!("m/{version}/{level}");
            let common = ["-p".to_owned(), port(node.tcp), "-V".into(), version.into(), "-t".into(), topic.clone()];
            let listening = Command::new("mosquitto_sub")
                .args(&common)
                .args(["-q", level, "-C", "3", "-W", "30"])
                .stdout(Stdio::piped())
                .kill_on_drop(true)
                .spawn()
                .unwrap_or_else(|error| panic!("mosquitto_sub does not start ({error}): {HINT}"));
            let subscribed = async {
                while !node
                    .broker
                    .clients()
                    .await
                    .unwrap()
                    .iter()
                    .any(|c| c.subscriptions.iter().any(|f| **f == *topic))
                {
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
            };
            tokio::time::timeout(DEADLINE, subscribed).await.expect("mosquitto_sub subscribes");
            for n in 1..=3 {
                let message = format!("message {n}");
                let sent = Command::new("mosquitto_pub").args(&common).args(["-q", level, "-m", &message]).status();
                assert!(sent.await.unwrap().success());
            }
            let heard = tokio::time::timeout(DEADLINE, listening.wait_with_output()).await.unwrap().unwrap();
            assert!(heard.status.success());
            assert_eq!(heard.stdout, b"message 1\nmessage 2\nmessage 3\n", "{version} QoS {level}");
        }
    }
    let retained = ["-p", &port(node.tcp), "-t", "r", "-r", "-m", "kept", "-q", "1"].map(str::to_owned);
    assert!(Command::new("mosquitto_pub").args(retained).status().await.unwrap().success());
    let got = ["-p", &port(node.tcp), "-t", "r", "-C", "1", "-W", "10"].map(str::to_owned);
    assert_eq!(Command::new("mosquitto_sub").args(got).output().await.unwrap().stdout, b"kept\n");
}
