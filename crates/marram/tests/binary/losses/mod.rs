//! Nothing acknowledged is ever lost: devices publish at QoS 1 and 2, others post events and set keys, store objects over S3 and
//! the admin API, a function consumes what comes, and the node is killed at any moment, over and over. At the end the books
//! balance to the last event.

mod books;
mod deployment;
mod device;
mod disk;
mod small_disk;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use http::Method;
use marram_testkit::{Ask, Client, S3Key, eventually};
use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::Mutex;

use crate::kill::random;
use crate::support::{Node, client, folder, home};
use books::{Read, stream};
use device::{Device, Listener};

/// What the node listens to besides HTTP.
const LISTENERS: &str = "[mqtt]\nlisten = \"127.0.0.1:0\"\n[s3]\nlisten = \"127.0.0.1:0\"\n";
/// Differs in each round and is the same in each run.
const SEED: u64 = 0x6c6f_7373_6573;
/// How many of each there are.
const WRITERS: usize = 3;

/// How often the node is killed. `make soak` sets more.
fn rounds() -> u64 {
    std::env::var("MARRAM_KILLS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(200)
}

/// What ends with a 3 is never taken, and of the rest a tenth only later. Each answer is another event, so that one that is
/// published twice is seen twice.
const FUNCTION: &str = r#"
export default { async fetch(request) {
    const data = await request.text();
    if (data.endsWith("3")) return new Response("never", { status: 400 });
    if (Math.random() < 0.1) return new Response("later", { status: 503 });
    return new Response(data, { headers: { "content-type": "text/plain", "ce-specversion": "1.0",
        "ce-id": crypto.randomUUID(), "ce-source": "/seen", "ce-type": "seen" } });
} }
"#;

const MANIFEST: &str = r#"
manifest_version = 1
[app]
name = "site"
[[function]]
name = "take"
component = "index.js"
on = [{ stream = "readings", retry = { max = 100, backoff = "1ms..10ms" } }]
output = "seen"
[stream.readings]
mqtt = ["plant/#"]
[stream.seen]
[bucket.uploads]
"#;

/// Somebody who posts events or sets a key, one after the other, and what of it was acknowledged.
#[derive(Default)]
struct Writer {
    name: String,
    asked: u64,
    acknowledged: Vec<u64>,
    progress: Arc<Progress>,
}

impl Writer {
    /// Posts events until the node is gone.
    async fn post(&mut self, admin: &Client) {
        loop {
            self.asked += 1;
            let event = Ask::new(Method::POST, "/v1/streams/readings/events")
                .header("ce-specversion", "1.0")
                .header("ce-id", &format!("{}-{}", self.name, self.asked))
                .header("ce-source", "/writer")
                .header("ce-type", "reading")
                .header("content-type", "text/plain")
                .body(format!("{}-{}", self.name, self.asked));
            let Ok(reply) = admin.try_send(event).await else { return };
            self.note(reply.status);
        }
    }

    fn note(&mut self, status: u16) {
        match status {
            200..300 => {
                self.acknowledged.push(self.asked);
                self.progress.went_on();
            }
            _ => self.progress.failed(status),
        }
    }

    /// Sets its key to ever greater numbers until the node is gone.
    async fn set(&mut self, admin: &Client) {
        loop {
            self.asked += 1;
            let put = Ask::new(Method::PUT, &format!("/v1/kv/state/keys/{}", self.name)).body(self.asked.to_string());
            let Ok(reply) = admin.try_send(put).await else { return };
            self.note(reply.status);
        }
    }

    /// Stores one object after the other until the node is gone, in turns over S3 and over the admin API; each says its number
    /// over and over.
    async fn store(&mut self, admin: &Client, doors: &Doors) {
        let s3 = Client::new(doors.s3);
        loop {
            self.asked += 1;
            let path = format!("/uploads/{}/{}", self.name, self.asked);
            let stored = if Self::is_by_s3(self.asked) {
                let put = Ask::new(Method::PUT, &path).body(content(self.asked));
                s3.try_send(doors.key.sign(put, doors.s3)).await
            } else {
                let put = Ask::new(Method::PUT, &format!("/v1/objects{path}")).body(content(self.asked));
                admin.try_send(put).await
            };
            let Ok(reply) = stored else { return };
            self.note(reply.status);
        }
    }

    /// Whether the object of this number comes over S3.
    const fn is_by_s3(n: u64) -> bool {
        n.is_multiple_of(2)
    }

    /// Objects from this place of what was acknowledged on are there, and whole.
    async fn check_objects(&self, admin: &Client, from: usize) {
        for n in &self.acknowledged[from..] {
            let reply = admin.get(&format!("/v1/objects/uploads/{}/{n}", self.name)).await;
            assert_eq!(reply.status, 200, "object {}/{n} was acknowledged, and is lost", self.name);
            assert!(reply.body == content(*n), "object {}/{n} has another content", self.name);
        }
    }

    async fn check_key(&self, admin: &Client) {
        let last = self.acknowledged.last().copied().unwrap_or(0);
        let reply = admin.get(&format!("/v1/kv/state/keys/{}", self.name)).await;
        let found = if reply.status == 404 { 0 } else { reply.expect(200).text().parse().unwrap() };
        assert!((last..=self.asked).contains(&found), "{} is {found}, not {last} to {}", self.name, self.asked);
    }
}

/// What an object says: more than a chunk, and all of it its own.
fn content(n: u64) -> Vec<u8> {
    n.to_le_bytes().repeat(1 + (n as usize * 997) % 40_000)
}

/// How somebody gets on, for those who watch.
#[derive(Default)]
struct Progress {
    /// One more than what was acknowledged since the last failure; 0 before the first.
    since: AtomicUsize,
    /// Of refusals over HTTP.
    statuses: std::sync::Mutex<BTreeSet<u16>>,
}

impl Progress {
    fn went_on(&self) {
        let _ = self.since.fetch_update(SeqCst, SeqCst, |since| (since > 0).then_some(since + 1));
    }

    fn failed(&self, status: u16) {
        self.since.store(1, SeqCst);
        self.statuses.lock().unwrap().insert(status);
    }

    fn cut(&self) {
        self.since.store(1, SeqCst);
    }

    fn since_failure(&self) -> Option<usize> {
        self.since.load(SeqCst).checked_sub(1)
    }
}

/// Everybody, and what they know.
struct Site {
    devices: Vec<Arc<Mutex<Device>>>,
    posters: Vec<Arc<Mutex<Writer>>>,
    setters: Vec<Arc<Mutex<Writer>>>,
    storer: Arc<Mutex<Writer>>,
    listener: Arc<Mutex<Listener>>,
    readings: Read,
    seen: Read,
    dead: Read,
    progress: Vec<Arc<Progress>>,
    /// How many acknowledgements of each were compared with what is there.
    compared: Vec<usize>,
}

impl Site {
    fn new() -> Self {
        let progress: Vec<Arc<Progress>> = (0..=3 * WRITERS).map(|_| Arc::default()).collect();
        let writer = |name: String, n: usize| {
            Arc::new(Mutex::new(Writer { name, progress: Arc::clone(&progress[n]), ..Writer::default() }))
        };
        let device = |n: usize| {
            let qos = if n == 0 { 1 } else { 2 };
            Arc::new(Mutex::new(Device::new(&format!("d{n}"), qos, Arc::clone(&progress[n]))))
        };
        Self {
            devices: (0..WRITERS).map(device).collect(),
            posters: (0..WRITERS).map(|n| writer(format!("p{n}"), WRITERS + n)).collect(),
            setters: (0..WRITERS).map(|n| writer(format!("k{n}"), 2 * WRITERS + n)).collect(),
            storer: writer("o".into(), 3 * WRITERS),
            progress,
            listener: Arc::new(Mutex::new(Listener::new())),
            readings: Read::default(),
            seen: Read::default(),
            dead: Read::default(),
            compared: vec![0; 2 * WRITERS + 1],
        }
    }

    /// Puts everybody to work until the node is gone.
    fn work(&self, node: &Node, doors: &Doors) -> tokio::task::JoinSet<()> {
        let mqtt = &*doors.mqtt;
        let mut tasks = tokio::task::JoinSet::new();
        for device in &self.devices {
            let (device, mqtt) = (Arc::clone(device), mqtt.to_owned());
            tasks.spawn(async move { device.lock().await.publish(&mqtt).await });
        }
        for poster in &self.posters {
            let (poster, admin) = (Arc::clone(poster), client(&node.admin_url));
            tasks.spawn(async move { poster.lock().await.post(&admin).await });
        }
        for setter in &self.setters {
            let (setter, admin) = (Arc::clone(setter), client(&node.admin_url));
            tasks.spawn(async move { setter.lock().await.set(&admin).await });
        }
        let (storer, admin, all) = (Arc::clone(&self.storer), client(&node.admin_url), doors.clone());
        tasks.spawn(async move { storer.lock().await.store(&admin, &all).await });
        let (listener, mqtt) = (Arc::clone(&self.listener), mqtt.to_owned());
        tasks.spawn(async move { listener.lock().await.listen(&mqtt, |_| false).await });
        tasks
    }

    /// Waits until every writer was refused something and had this many acknowledged after that. Gives the refusals' statuses.
    async fn fail_and_go_on(&self, acknowledged: usize) -> BTreeSet<u16> {
        let everybody = eventually("everybody failed and went on", || async {
            let gone_on = self.progress.iter().all(|progress| progress.since_failure() >= Some(acknowledged));
            gone_on.then_some(())
        });
        everybody.await;
        self.progress.iter().flat_map(|progress| progress.statuses.lock().unwrap().clone()).collect()
    }

    /// What was acknowledged since the last time is there.
    async fn check(&mut self, node: &Node) {
        let admin = client(&node.admin_url);
        self.readings.on(&admin, "readings").await;
        self.seen.on(&admin, "seen").await;
        self.dead.on(&admin, "readings.dead").await;
        for (n, device) in self.devices.iter().enumerate() {
            let device = device.lock().await;
            for n in &device.acknowledged[self.compared[n]..] {
                let payload = device.payload(*n);
                assert!(self.readings.counts.contains_key(&payload), "{payload} was acknowledged, and is lost");
            }
            self.compared[n] = device.acknowledged.len();
        }
        for (n, poster) in self.posters.iter().enumerate() {
            let (poster, compared) = (poster.lock().await, &mut self.compared[WRITERS + n]);
            for n in &poster.acknowledged[*compared..] {
                let data = format!("{}-{n}", poster.name);
                assert!(self.readings.counts.contains_key(&data), "{data} was acknowledged, and is lost");
            }
            *compared = poster.acknowledged.len();
        }
        for setter in &self.setters {
            setter.lock().await.check_key(&admin).await;
        }
        let storer = self.storer.lock().await;
        let compared = self.compared.last_mut().expect("it is the last");
        storer.check_objects(&admin, *compared).await;
        *compared = storer.acknowledged.len();
    }

    /// The books: every event is done or dead, once for each time that it is there, and what may be there only once is.
    async fn balance(&mut self, node: &Node, doors: &Doors) {
        let admin = client(&node.admin_url);
        let settled = eventually("every event is settled", || async {
            let readings = stream(&admin, "readings").await;
            let consumer = &readings["consumers"][0];
            (consumer["cursor"] == readings["last"]).then(|| consumer.clone())
        });
        let consumer = settled.await;
        self.check(node).await;
        let total: u64 = self.readings.counts.values().map(|count| u64::from(*count)).sum();
        let number = |name: &str| consumer[name].as_u64().unwrap();
        assert_eq!(number("acked") + number("dead_lettered"), total, "{consumer}");
        assert_eq!((number("dropped"), number("in_flight"), number("retrying")), (0, 0, 0), "{consumer}");
        for (data, count) in &self.readings.counts {
            let of = |read: &Read| read.counts.get(data).copied().unwrap_or(0);
            let (done, dead) = (of(&self.seen), of(&self.dead));
            assert_eq!(done + dead, *count, "{data}: {done} done, {dead} dead");
            assert_eq!(dead > 0, data.ends_with('3'), "{data}: {done} done, {dead} dead");
        }
        assert_eq!(self.seen.names().union(&self.dead.names()).count(), self.readings.counts.len());
        // Devices at QoS 2, and events that say who they are, are there once.
        let once = |data: &str| !data.starts_with("d0-");
        let repeated: Vec<_> = self.readings.repeated().into_iter().filter(|(data, _)| once(data)).collect();
        assert!(repeated.is_empty(), "stored twice: {repeated:?}");
        self.hear(&doors.mqtt).await;
    }

    /// The subscriber that was away at times has heard everything that was acknowledged to devices.
    async fn hear(&self, mqtt: &str) {
        let mut owed = BTreeSet::new();
        for device in &self.devices {
            let device = device.lock().await;
            owed.extend(device.acknowledged.iter().map(|n| device.payload(*n)));
        }
        let mut listener = self.listener.lock().await;
        let all = listener.listen(mqtt, |listener| owed.is_subset(&listener.heard));
        let heard = tokio::time::timeout(Duration::from_secs(60), all).await.is_ok();
        let missing: Vec<_> = owed.difference(&listener.heard).take(5).collect();
        assert!(heard && missing.is_empty(), "the subscriber was never told {missing:?} and others");
    }
}

/// Where others come in besides HTTP.
#[derive(Clone)]
struct Doors {
    mqtt: String,
    s3: SocketAddr,
    key: S3Key,
}

async fn start(home: TempDir) -> (Node, Doors) {
    listening(Node::start_in(home).await).await
}

/// The same as a child of another program.
async fn start_under(home: TempDir, program: &str, arguments: &[&str]) -> (Node, Doors) {
    listening(Node::start_under(home, program, arguments).await).await
}

async fn listening(mut node: Node) -> (Node, Doors) {
    let printed = node.running.prints("s3=http://").await;
    let of = |name: &str| printed.lines().find_map(|line| line.strip_prefix(name)).unwrap().to_owned();
    let own = marram_node::own_s3_key(&node.home.path().join("state")).unwrap();
    let (mqtt, s3) = (of("mqtt=mqtt://"), of("s3=http://").parse().unwrap());
    (node, Doors { mqtt, s3, key: S3Key::new(&own.id, &own.secret) })
}

async fn deploy(node: &Node) {
    let app = folder();
    std::fs::write(app.path().join("marram.toml"), MANIFEST).unwrap();
    std::fs::write(app.path().join("index.js"), FUNCTION).unwrap();
    let deployed: Value = node.deploy(app.path()).await;
    assert_eq!(deployed["app"], "site", "{deployed}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_kill_9_and_the_books_balance() {
    let mut site = Site::new();
    let mut seed = SEED;
    let (mut node, mut doors) = start(home(LISTENERS).await).await;
    deploy(&node).await;
    site.listener.lock().await.subscribe(&doors.mqtt).await;
    for _ in 0..rounds() {
        let mut tasks = site.work(&node, &doors);
        // Not a wait for something, but the moment at which the power fails.
        tokio::time::sleep(Duration::from_micros(random(&mut seed) % 150_000)).await;
        let Node { running, home, .. } = node;
        running.kill().await;
        while let Some(task) = tasks.join_next().await {
            task.unwrap();
        }
        (node, doors) = start(home).await;
        site.check(&node).await;
    }
    site.balance(&node, &doors).await;
    let devices: usize = site.compared[..WRITERS].iter().sum();
    let posted: usize = site.compared[WRITERS..2 * WRITERS].iter().sum();
    let stored = *site.compared.last().unwrap();
    assert!(
        devices as u64 > rounds() && posted as u64 > rounds() && stored as u64 > rounds() / 2,
        "this has shown nothing: {:?}",
        site.compared
    );
    assert!(!site.dead.counts.is_empty(), "this has shown nothing of dead letters");
    let storer = site.storer.lock().await;
    let by_s3 = storer.acknowledged.iter().filter(|n| Writer::is_by_s3(**n)).count();
    assert!(by_s3 as u64 > rounds() / 5, "this has shown nothing of S3: {by_s3} of {stored}");
    drop(storer);
    node.drain().await.expect(0);
}
