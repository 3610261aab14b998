//! What the node's state says of itself at `/metrics`, after something of each kind has happened.

use std::collections::BTreeMap;

use http::Method;
use marram_node::S3Config;
use marram_testkit::{Ask, S3Key, TestNode, eventually};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::objects::{SECRET, address, key};

const SCRIPT: &str = r#"
export default { async fetch(request) {
    const bad = request.headers.get("ce-type") === "bad";
    if (bad) return new Response("", { status: 400 });
    // An event that goes nowhere: there is no output.
    return new Response("", { headers: { "ce-specversion": "1.0", "ce-id": "a", "ce-source": "/f", "ce-type": "t" } });
} }
"#;

/// The name of the consumer has a quote in it, as a schedule's or an object's pattern may.
const MANIFEST: &str = r#"
manifest_version = 1
[app]
name = "site"
[[function]]
name = "take"
component = "index.js"
on = [{ stream = "readings" }, { key = 'thresholds/"x\*' }, { http = "/take" }]
limits = { body = "1KiB" }
[stream.readings]
mqtt = ["plant/#"]
retain = { bytes = "2MiB" }
[stream.waits]
[bucket.uploads]
"#;

/// Every sample by its name and labels.
async fn samples(node: &TestNode) -> BTreeMap<String, f64> {
    let text = node.admin().get("/metrics").await.expect(200).text();
    assert!(text.ends_with("# EOF\n"), "{text}");
    let samples = text.lines().filter(|line| !line.starts_with('#')).map(|line| line.rsplit_once(' ').unwrap());
    samples.map(|(name, value)| (name.to_owned(), value.parse().unwrap())).collect()
}

async fn publish(node: &TestNode, stream: &str, kind: &str, id: &str) {
    let ask = Ask::new(Method::POST, &format!("/v1/streams/{stream}/events"))
        .header("ce-specversion", "1.0")
        .header("ce-id", id)
        .header("ce-source", "/s")
        .header("ce-type", kind);
    let _ = node.admin().send(ask).await.expect(200);
}

/// A device of MQTT 3.1.1 that publishes once at QoS 1, is acknowledged, and stays.
async fn device(node: &TestNode) -> TcpStream {
    let url = node.node().urls().iter().find(|(name, _)| *name == "mqtt").unwrap().1.clone();
    let mut device = TcpStream::connect(url.strip_prefix("mqtt://").unwrap()).await.unwrap();
    device.write_all(b"\x10\x0d\0\x04MQTT\x04\x02\0\x3c\0\x01a").await.unwrap();
    device.write_all(b"\x32\x0c\0\x07plant/1\0\x01x").await.unwrap();
    let mut answers = [0; 8];
    device.read_exact(&mut answers).await.unwrap();
    assert_eq!(answers, *b"\x20\x02\0\0\x40\x02\0\x01");
    device
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_consumers_keys_mqtt_and_objects_are_in_the_metrics() {
    let free = "127.0.0.1:0".parse().unwrap();
    let node = TestNode::start_with(|config| {
        config.mqtt.listen = Some(free);
        config.s3 =
            S3Config { listen: Some(free), keys: vec![key("everything", &["*"], &["*"])], ..S3Config::default() };
    })
    .await;
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("index.js");
    std::fs::write(&script, SCRIPT).unwrap();
    node.deploy(MANIFEST, &[("take", script)]).await.unwrap();
    for (stream, kind, id) in [
        ("readings", "good", "1"),
        ("readings", "good", "2"),
        ("readings", "good", "2"),
        ("readings", "bad", "3"),
        ("waits", "good", "1"),
    ] {
        publish(&node, stream, kind, id).await;
    }
    let _ = node.http().send(Ask::new(Method::POST, "/take").body(vec![0; 1_025])).await.expect(413);
    let _device = device(&node).await;
    let _ = node.admin().send(Ask::new(Method::PUT, "/v1/kv/state/keys/a").body("1")).await.expect(200);
    let _ = node.admin().get("/v1/kv/state/keys/none").await.expect(404);
    let host = address(&node);
    let s3 = marram_testkit::Client::new(host);
    let good = S3Key::new("everything", SECRET);
    let _ = s3.send(good.sign(Ask::new(Method::PUT, "/uploads/k").body("x"), host)).await.expect(200);
    let _ = s3.get("/uploads/k").await.expect(403);

    // The front refused it: no invocation of the function has it.
    let too_large = "faas_errors_total{app=\"site\",function=\"take\",outcome=\"body-too-large\"}";
    let consumer = "consumer=\"site/take/stream:readings\"";
    let settled = eventually("all four are settled, and the refusal is counted", || async {
        let samples = samples(&node).await;
        let lag = samples[&format!("marram_consumer_lag_events{{stream=\"readings\",{consumer}}}")];
        (lag == 0.0 && samples.contains_key(too_large)).then_some(samples)
    });
    let samples = settled.await;
    let of_consumer = |name: &str| format!("marram_consumer_{name}{{stream=\"readings\",{consumer}}}");
    let of_trigger = |name: &str| format!("marram_trigger_{name}{{stream=\"readings\",{consumer}}}");
    let of_stream = |name: &str, stream: &str| format!("marram_stream_{name}{{stream=\"{stream}\"}}");
    for (name, value) in [
        (too_large.into(), 1.0),
        (of_stream("events", "readings"), 4.0),
        (of_stream("published_total", "readings"), 4.0),
        (of_stream("duplicates_total", "readings"), 1.0),
        (of_stream("rejected_total", "readings"), 0.0),
        (of_stream("dropped_total", "readings"), 0.0),
        (of_stream("limit_bytes", "readings"), f64::from(2 << 20)),
        (of_stream("events", "readings.dead"), 1.0),
        (of_stream("events", "waits"), 1.0),
        (of_consumer("acked_total"), 3.0),
        (of_consumer("dead_lettered_total"), 1.0),
        (of_consumer("in_flight"), 0.0),
        (of_consumer("paused"), 0.0),
        ("marram_consumer_lag_events{stream=\"keys\",consumer=\"site/take/key:thresholds/\\\"x\\\\*\"}".into(), 0.0),
        ("marram_mqtt_connections_open".into(), 1.0),
        ("marram_mqtt_sessions".into(), 1.0),
        ("marram_mqtt_messages_received_total".into(), 1.0),
        ("marram_mqtt_messages_queued".into(), 0.0),
        ("marram_mqtt_bridge_left_out_total".into(), 0.0),
        ("marram_mqtt_bridge_unretained_total".into(), 0.0),
        ("marram_mqtt_messages_dropped_total{reason=\"full\"}".into(), 0.0),
        ("marram_kv_changes_total".into(), 1.0),
        ("marram_store_full".into(), 0.0),
        (of_trigger("delivered_total"), 4.0),
        (of_trigger("retried_total"), 0.0),
        (of_trigger("outputs_total"), 0.0),
        (of_trigger("outputs_unused_total"), 3.0),
        ("marram_s3_requests_total{status=\"2xx\"}".into(), 1.0),
        ("marram_s3_requests_total{status=\"4xx\"}".into(), 1.0),
    ] {
        assert_eq!(samples.get(&name), Some(&value), "{name} in {samples:#?}");
    }
    assert!(samples[&of_stream("bytes", "readings")] > 4.0);
    assert!(samples["marram_kv_cache_misses_total"] >= 1.0);
    assert!(samples["marram_kv_clock_ahead_seconds"] < 60.0);
    node.stop().await;
}
