//! The example `examples/maintenance`: machines send what their accelerometers say, and one whose bearing begins to fail is
//! told to stop within 50 ms of the reading that shows it. Which machines have a fault is known.

mod signal;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::io::AsyncWriteExt as _;
use tokio::sync::Mutex;

use crate::mqtt::{self, PUBACK, PUBLISH};
use crate::support::{Node, client, home};
use crate::templates;
use marram_testkit::eventually;
use signal::{Machine, reading};

/// Machines of each kind that has a fault, and of each that has none.
const FAULTY: usize = 60;
const SOUND: usize = 8;
/// Machines that run at the same time.
const AT_ONCE: usize = 2;
/// What the example asks for before it stops a machine.
const CONFIRM: usize = 2;
/// Readings of a machine before its fault begins, or at all if it has none.
const SOUND_READINGS: usize = 3;
/// From the reading to the command.
const LATENCY_P99_MAX: Duration = Duration::from_millis(50);

fn example() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/maintenance")
}

/// A machine with its connection.
struct Device {
    name: String,
    read: mqtt::Reader,
    write: mqtt::Writer,
    readings: u16,
    seed: u64,
}

impl Device {
    async fn connect(address: &str, name: String, seed: u64) -> Self {
        let (mut read, mut write) = mqtt::connect(address, &name).await.unwrap();
        mqtt::subscribe(&mut read, &mut write, &format!("plant/{name}/command")).await.unwrap();
        Self { name, read, write, readings: 0, seed }
    }

    async fn send(&mut self, machine: Machine) {
        self.readings += 1;
        let samples = reading(machine, &mut self.seed);
        let topic = format!("plant/{}/vibration", self.name);
        self.write.write_all(&mqtt::publish(&topic, &samples, 1, self.readings, false)).await.unwrap();
    }

    /// Waits until the broker has the reading.
    async fn acknowledged(&mut self) {
        let (kind, _) = mqtt::next(&mut self.read).await.unwrap();
        assert_eq!(kind >> 4, PUBACK, "{} gets a command that it should not get", self.name);
    }

    /// Waits for a command.
    async fn command(&mut self) -> String {
        loop {
            let (kind, body) = mqtt::next(&mut self.read).await.unwrap();
            if kind >> 4 == PUBLISH {
                let (topic, id, payload) = mqtt::message(&body);
                assert_eq!(topic, format!("plant/{}/command", self.name));
                let command = String::from_utf8(payload.to_vec()).unwrap();
                self.write.write_all(&mqtt::about(PUBACK, id)).await.unwrap();
                return command;
            }
        }
    }
}

/// Runs a machine to its end. Gives how long the command took, if there has to be one.
async fn run(address: &str, name: String, machine: Machine, seed: u64) -> Option<Duration> {
    let mut device = Device::connect(address, name, seed).await;
    let before = if machine.has_fault() { Machine::Healthy } else { machine };
    for _ in 0..SOUND_READINGS {
        device.send(before).await;
        device.acknowledged().await;
    }
    if !machine.has_fault() {
        return None;
    }
    for _ in 1..CONFIRM {
        device.send(machine).await;
        device.acknowledged().await;
    }
    let sent = Instant::now();
    device.send(machine).await;
    let command = tokio::time::timeout(Duration::from_secs(20), device.command()).await;
    let took = sent.elapsed();
    let command = command.unwrap_or_else(|_| panic!("{}, {machine:?}, was never stopped", device.name));
    let part = if machine == Machine::OuterRace { "outer race" } else { "inner race" };
    assert!(command.starts_with(&format!("stop: {part}, ")), "{}, {machine:?}: {command}", device.name);
    Some(took)
}

async fn trends(node: &Node) -> BTreeMap<String, Vec<Value>> {
    let text = client(&node.admin_url).get("/v1/streams/trends/events").await.expect(200).text();
    let mut trends = BTreeMap::<_, Vec<_>>::new();
    for line in text.lines() {
        let event: Value = serde_json::from_str(line).unwrap();
        trends.entry(event["subject"].as_str().unwrap().to_owned()).or_default().push(event["data"].clone());
    }
    trends
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_whose_bearing_begins_to_fail_is_stopped_at_once() {
    templates::build(&example()).await;
    let mut node = Node::start_in(home("[mqtt]\nlisten = \"127.0.0.1:0\"\n").await).await;
    let printed = node.running.prints("mqtt=mqtt://").await;
    let address = printed.lines().find_map(|line| line.strip_prefix("mqtt=mqtt://")).unwrap().to_owned();
    node.deploy(&example()).await;

    let kinds = [Machine::OuterRace, Machine::InnerRace, Machine::Healthy, Machine::Noisy, Machine::Misaligned];
    let machines: Vec<(String, Machine)> = kinds
        .into_iter()
        .flat_map(|kind| {
            (0..if kind.has_fault() { FAULTY } else { SOUND }).map(move |n| (format!("{kind:?}-{n}"), kind))
        })
        .collect();
    let owed = Arc::new(Mutex::new(machines.clone()));
    let mut workers = tokio::task::JoinSet::new();
    for _ in 0..AT_ONCE {
        let (owed, address) = (Arc::clone(&owed), address.clone());
        workers.spawn(async move {
            let mut took = Vec::new();
            loop {
                let Some((name, machine)) = owed.lock().await.pop() else { return took };
                let seed = name.bytes().fold(17, |seed, byte| seed * 31 + u64::from(byte));
                took.extend(run(&address, name, machine, seed).await);
            }
        });
    }
    let mut took: Vec<Duration> = workers.join_all().await.into_iter().flatten().collect();
    took.sort_unstable();
    assert_eq!(took.len(), 2 * FAULTY);
    let (median, p99) = (took[took.len() / 2], took[took.len() * 99 / 100]);
    println!("from the reading to the command: median {median:?}, p99 {p99:?}");
    assert!(p99 <= LATENCY_P99_MAX, "from the reading to the command: median {median:?}, p99 {p99:?}");

    let readings = |machine: Machine| SOUND_READINGS + if machine.has_fault() { CONFIRM } else { 0 };
    let trends = eventually("every reading has its trend", || async {
        let trends = trends(&node).await;
        let all =
            machines.iter().all(|(name, machine)| trends.get(name).is_some_and(|t| t.len() == readings(*machine)));
        all.then_some(trends)
    });
    for (name, trends) in trends.await {
        let machine = machines.iter().find(|(other, _)| *other == name).unwrap().1;
        let faults = trends.iter().filter(|trend| !trend["fault"].is_null()).count();
        assert_eq!(faults, if machine.has_fault() { CONFIRM } else { 0 }, "{name}: {trends:?}");
        assert!(trends.iter().all(|trend| trend["rms"].as_f64().unwrap() > 0.1), "{name}: {trends:?}");
    }
    node.drain().await.expect(0);
}
