//! One MQTT client that sends as much as it can, in each way that there is: other devices, publishers over HTTP and keys are
//! served meanwhile.

use std::io::Result;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use http::Method;
use marram_testkit::{Ask, Client, eventually};
use tokio::io::AsyncWriteExt as _;

use crate::mqtt::{self, PUBACK};
use crate::support::{Node, client, folder, home};

/// What the others may have to wait, on a machine that is busy with other tests as well. Without a share of their own they
/// would wait for all that the flood has in its sockets, and for ever where it never ends.
const SLOWEST: Duration = Duration::from_secs(2);
/// What half of them may.
const USUAL: Duration = Duration::from_millis(150);
/// Messages, publishes and keys that are measured in each flood.
const ASKED: usize = 60;

const MANIFEST: &str = r#"
manifest_version = 1
[app]
name = "site"
[stream.readings]
mqtt = ["plant/#"]
overflow = "drop-oldest"
retain = { bytes = "32MiB" }
[stream.posted]
"#;

/// How a client floods.
#[derive(Clone, Copy, Debug)]
enum Flood {
    /// Small messages at QoS 0, which a stream keeps.
    Small,
    /// Messages at QoS 1 of which it never reads the acknowledgement.
    Deaf,
    /// Messages that are nearly as large as may be.
    Large,
    /// It connects, and goes, and connects.
    Comings,
    /// It subscribes to one filter after the other.
    Subscriptions,
}

/// Floods until the connection ends; counts what was sent.
async fn flood(how: Flood, address: &str, sent: &AtomicU64) -> Result<()> {
    let (mut read, mut write) = mqtt::connect(address, "flood").await?;
    let count = || sent.fetch_add(1, Ordering::Relaxed);
    match how {
        // Nobody looks at the packet identifier of QoS 0: it is the first two bytes of the payload then.
        Flood::Small => loop {
            write.write_all(&mqtt::publish("plant/flood", &[7; 100], 0, 1, false).repeat(50)).await?;
            count();
        },
        Flood::Deaf => loop {
            for id in 1..=u16::MAX {
                write.write_all(&mqtt::publish("plant/flood", &[7; 100], 1, id, false)).await?;
                count();
            }
        },
        Flood::Large => loop {
            write.write_all(&mqtt::publish("plant/flood", &vec![7; 1_000_000], 0, 1, false)).await?;
            count();
        },
        Flood::Comings => count(),
        Flood::Subscriptions => loop {
            for n in 0..250 {
                mqtt::subscribe(&mut read, &mut write, &format!("flood/+/{n}/#")).await?;
                count();
            }
        },
    };
    Ok(())
}

/// How long each of some requests took, in order of that.
#[derive(Default)]
struct Times(Vec<Duration>);

impl Times {
    fn took(&mut self, since: Instant) {
        self.0.push(since.elapsed());
    }

    fn usual(&self) -> Duration {
        let mut times = self.0.clone();
        times.sort_unstable();
        times[times.len() / 2]
    }

    fn slowest(&self) -> Duration {
        self.0.iter().max().copied().unwrap_or_default()
    }
}

/// A device that publishes one message at a time, somebody who posts events, and somebody who sets a key.
async fn others(address: &str, admin: &Client, tag: &str) -> [(&'static str, Times); 3] {
    let (mut read, mut write) = mqtt::connect(address, &format!("other-{tag}")).await.unwrap();
    let mut times = [("device", Times::default()), ("event", Times::default()), ("key", Times::default())];
    for n in 1..=ASKED {
        let since = Instant::now();
        write.write_all(&mqtt::publish("plant/other", b"x", 1, n as u16, false)).await.unwrap();
        assert_eq!(mqtt::next(&mut read).await.unwrap().0 >> 4, PUBACK);
        times[0].1.took(since);
        let since = Instant::now();
        let event = Ask::new(Method::POST, "/v1/streams/posted/events")
            .header("ce-specversion", "1.0")
            .header("ce-id", &format!("{tag}-{n}"))
            .header("ce-source", "/s")
            .header("ce-type", "t");
        let _ = admin.send(event).await.expect(200);
        times[1].1.took(since);
        let since = Instant::now();
        let _ = admin.send(Ask::new(Method::PUT, "/v1/kv/state/keys/k").body("x")).await.expect(200);
        times[2].1.took(since);
    }
    times
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_client_that_floods_the_broker_slows_nobody() {
    let mut node = Node::start_in(home("[mqtt]\nlisten = \"127.0.0.1:0\"\n").await).await;
    let printed = node.running.prints("mqtt=mqtt://").await;
    let address = printed.lines().find_map(|line| line.strip_prefix("mqtt=mqtt://")).unwrap().to_owned();
    let app = folder();
    std::fs::write(app.path().join("marram.toml"), MANIFEST).unwrap();
    node.deploy(app.path()).await;
    let admin = client(&node.admin_url);
    for (who, times) in others(&address, &admin, "quiet").await {
        println!("quiet: {who} {:?}, at most {:?}", times.usual(), times.slowest());
    }
    for how in [Flood::Small, Flood::Deaf, Flood::Large, Flood::Comings, Flood::Subscriptions] {
        let sent = Arc::new(AtomicU64::new(0));
        let (counted, to) = (Arc::clone(&sent), address.clone());
        let flooding = tokio::spawn(async move {
            loop {
                // It is cut off at times, which is the broker's right.
                let _ = flood(how, &to, &counted).await;
            }
        });
        eventually("the flood rises", || async { (sent.load(Ordering::Relaxed) > 20).then_some(()) }).await;
        let before = sent.load(Ordering::Relaxed);
        let measured = others(&address, &admin, &format!("{how:?}")).await;
        let during = sent.load(Ordering::Relaxed) - before;
        flooding.abort();
        for (who, times) in measured {
            let (usual, slowest) = (times.usual(), times.slowest());
            println!("{how:?}, {during} times: {who} {usual:?}, at most {slowest:?}");
            assert!(usual < USUAL && slowest < SLOWEST, "{how:?}: {who} took {usual:?}, and {slowest:?} at most");
        }
        // A deaf client stops being read from once its answers have no room: that is how it is held.
        assert!(during > 0 || matches!(how, Flood::Deaf), "{how:?} had ended: this has shown nothing");
    }
    node.drain().await.expect(0);
}
