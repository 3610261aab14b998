//! Rates of durable streams beside bare commits that are synced, in one run on one disk:
//! `cargo run --release -p marram-store --example stream_bench [directory]`.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

#[path = "../tests/store/support/mod.rs"]
mod support;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use marram_core::event::{Event, SubjectFilter};
use marram_core::port::Streams;
use marram_core::port::streams::{Settle, Settlement};
use marram_core::stream::{ConsumerPolicy, Start, StreamPolicy};
use marram_store::{Store, StoreConfig, StoreStreams};
use support::{NoEntropy, RealClock, consumer_id, stream};

const RUN: Duration = Duration::from_secs(2);
/// Each rate is taken in slices, with bare commits between them: a disk that others use is another one every second.
const SLICES: u32 = 8;
const DATA: [u8; 256] = [7; 256];

static IDS: AtomicU64 = AtomicU64::new(0);

fn events(count: usize) -> Vec<Event> {
    let first = IDS.fetch_add(count as u64, Ordering::Relaxed);
    let event = |n: u64| Event {
        id: format!("{n}"),
        source: "/plant/7".into(),
        kind: "reading".into(),
        subject: format!("plant/{}/vibration", n % 1_000),
        data: Some(bytes::Bytes::from_static(&DATA)),
        ..Event::default()
    };
    (first..first + count as u64).map(event).collect()
}

/// Bare SQLite on the same disk: so many rows of 256 bytes in each synced transaction, for a slice of time.
struct Bare {
    db: rusqlite::Connection,
    commits: u32,
    time: Duration,
}

impl Bare {
    fn new(dir: &Path) -> Self {
        let db = rusqlite::Connection::open(dir.join("bare.db")).unwrap();
        db.pragma_update(None, "journal_mode", "WAL").unwrap();
        db.pragma_update(None, "synchronous", "FULL").unwrap();
        db.execute_batch("CREATE TABLE t (x INTEGER PRIMARY KEY, data BLOB)").unwrap();
        Self { db, commits: 0, time: Duration::ZERO }
    }

    fn slice(&mut self, rows: usize) {
        let begin = Instant::now();
        while begin.elapsed() < RUN / SLICES / 2 {
            self.db.prepare_cached("BEGIN IMMEDIATE").unwrap().execute([]).unwrap();
            for _ in 0..rows {
                self.db.prepare_cached("INSERT INTO t (data) VALUES (?)").unwrap().execute([&DATA[..]]).unwrap();
            }
            self.db.prepare_cached("COMMIT").unwrap().execute([]).unwrap();
            self.commits += 1;
        }
        self.time += begin.elapsed();
    }

    /// Time of a commit since this was last asked.
    fn each(&mut self) -> Duration {
        let each = self.time / self.commits.max(1);
        (self.commits, self.time) = (0, Duration::ZERO);
        each
    }
}

/// Events a second, and the time of one publish.
async fn publishers(
    streams: &Arc<StoreStreams>,
    bare: &mut Bare,
    rows: usize,
    tasks: usize,
    batch: usize,
) -> (f64, Duration) {
    let (mut rate, mut each) = (0.0, Duration::ZERO);
    for _ in 0..SLICES {
        bare.slice(rows);
        let slice = publish_slice(streams, tasks, batch).await;
        rate += slice.0 / f64::from(SLICES);
        each += slice.1 / SLICES;
    }
    (rate, each)
}

async fn publish_slice(streams: &Arc<StoreStreams>, tasks: usize, batch: usize) -> (f64, Duration) {
    let begin = Instant::now();
    let tasks: Vec<_> = (0..tasks)
        .map(|_| {
            let (streams, name) = (Arc::clone(streams), stream("many"));
            tokio::spawn(async move {
                let mut publishes = 0_u32;
                while begin.elapsed() < RUN / SLICES {
                    streams.publish(&name, events(batch)).await.unwrap();
                    publishes += 1;
                }
                publishes
            })
        })
        .collect();
    let mut publishes = 0;
    let parallel = u32::try_from(tasks.len()).unwrap();
    for task in tasks {
        publishes += task.await.unwrap();
    }
    let took = begin.elapsed();
    (f64::from(publishes) * batch as f64 / took.as_secs_f64(), took * parallel / publishes)
}

/// Events a second, and how many positions were looked at for them.
async fn consume(
    streams: &Arc<StoreStreams>,
    bare: &mut Bare,
    id: &str,
    policy: ConsumerPolicy,
    batch: usize,
) -> (f64, f64) {
    let consumer = streams.consumer(&stream("backlog"), &consumer_id(id), policy).await.unwrap();
    let (mut time, mut events) = (Duration::ZERO, 0_u64);
    for _ in 0..SLICES {
        bare.slice(1);
        let begin = Instant::now();
        while begin.elapsed() < RUN / SLICES {
            let Ok(pulled) = tokio::time::timeout(Duration::from_secs(1), consumer.pull(batch)).await else { break };
            let pulled = pulled.unwrap();
            events += pulled.len() as u64;
            let ack = |delivery: &marram_core::port::streams::Delivery| Settle {
                position: delivery.stored.position,
                attempt: delivery.attempt,
                settlement: Settlement::Ack,
                others: Vec::new(),
                outputs: Vec::new(),
            };
            consumer.settle(pulled.iter().map(ack).collect()).await.unwrap();
        }
        time += begin.elapsed();
    }
    (events as f64 / time.as_secs_f64(), consumer.state().cursor as f64 / time.as_secs_f64())
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).unwrap_or(0)
}

#[tokio::main]
async fn main() {
    let dir = match std::env::args().nth(1) {
        Some(dir) => tempfile::tempdir_in(dir).unwrap(),
        None => tempfile::tempdir().unwrap(),
    };
    let backlog: u64 = std::env::var("BACKLOG").ok().and_then(|n| n.parse().ok()).unwrap_or(1_000_000);
    let store = Store::open(&StoreConfig::new(dir.path().join("state"))).unwrap();
    let streams = store.streams(Arc::new(RealClock), Arc::new(NoEntropy));
    let mut bare = Bare::new(dir.path());
    println!("idle: {} KiB resident; 256 bytes of data an event", resident_kib());
    for (rows, tasks, batch) in [(1, 1, 1), (1, 64, 1), (1, 256, 1), (64, 1, 64), (256, 1, 256), (256, 2, 256)] {
        let (rate, each) = publishers(&streams, &mut bare, rows, tasks, batch).await;
        let bare_each = bare.each();
        let bare_rate = rows as f64 / bare_each.as_secs_f64();
        println!(
            "{tasks:>3} publishers of {batch:>3}: {rate:>7.0} events/s, {each:>9.1?} each; \
             bare commits of {rows:>3}: {bare_rate:>7.0} rows/s, {bare_each:>9.1?} each; {:.2} x the time",
            each.as_secs_f64() / bare_each.as_secs_f64()
        );
    }

    let begin = Instant::now();
    let policy = StreamPolicy { bytes_max: u64::MAX >> 1, ..StreamPolicy::default() };
    streams.declare(&stream("backlog"), policy).await.unwrap();
    for _ in 0..backlog / 1_000 {
        streams.publish(&stream("backlog"), events(1_000)).await.unwrap();
    }
    println!("a backlog of {backlog} in {:.1?}; {} KiB resident", begin.elapsed(), resident_kib());
    for (batch, in_flight_max) in [(1, 64), (64, 256), (256, 1_024)] {
        let policy = ConsumerPolicy { in_flight_max, ..ConsumerPolicy::default() };
        let (rate, _) = consume(&streams, &mut bare, &format!("batches of {batch}"), policy, batch).await;
        println!(
            "a consumer of batches of {batch:>3}: {rate:>7.0} events/s, {:>9.1?} a batch; a bare commit: {:.1?}",
            Duration::from_secs_f64(batch as f64 / rate),
            bare.each()
        );
    }
    let filter = SubjectFilter::Exact("plant/77/vibration".into());
    let policy = ConsumerPolicy { filter, ..ConsumerPolicy::default() };
    let (rate, looked) = consume(&streams, &mut bare, "filter", policy, 64).await;
    println!("a filter that takes 1 of 1,000: {rate:.0} taken/s, {looked:.0} looked at/s");

    let consumer = streams.consumer(&stream("backlog"), &consumer_id("seek"), ConsumerPolicy::default()).await.unwrap();
    let middle = streams.read(&stream("backlog"), Start::Position(backlog / 2), 1).unwrap();
    let (mut worst, mut first) = (Duration::ZERO, Duration::ZERO);
    for n in 0..20 {
        let start = if n % 2 == 0 { Start::Time(middle[0].stored_unix_ns) } else { Start::Position(n * backlog / 20) };
        let begin = Instant::now();
        consumer.seek(start).await.unwrap();
        worst = worst.max(begin.elapsed());
        consumer.pull(1).await.unwrap();
        first = first.max(begin.elapsed());
    }
    println!("seek: at most {worst:?}, and {first:?} to the first event");
    println!("at the end: {} KiB resident", resident_kib());
}
