//! Rates of durable streams beside bare commits that are synced, in one run on one disk:
//! `cargo run --release -p marram-store --example stream_bench [directory]`.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

#[path = "../tests/support/mod.rs"]
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

/// `rows` of 256 bytes in each transaction, on a connection of its own, as often as it goes.
fn bare(dir: &Path, rows: usize) -> (f64, Duration) {
    let db = rusqlite::Connection::open(dir.join(format!("bare-{rows}.db"))).unwrap();
    db.pragma_update(None, "journal_mode", "WAL").unwrap();
    db.pragma_update(None, "synchronous", "FULL").unwrap();
    db.execute_batch("CREATE TABLE IF NOT EXISTS t (x INTEGER PRIMARY KEY, data BLOB)").unwrap();
    let (begin, mut commits) = (Instant::now(), 0_u32);
    while begin.elapsed() < RUN {
        db.prepare_cached("BEGIN IMMEDIATE").unwrap().execute([]).unwrap();
        for _ in 0..rows {
            db.prepare_cached("INSERT INTO t (data) VALUES (?)").unwrap().execute([&DATA[..]]).unwrap();
        }
        db.prepare_cached("COMMIT").unwrap().execute([]).unwrap();
        commits += 1;
    }
    let each = begin.elapsed() / commits;
    (rows as f64 / each.as_secs_f64(), each)
}

async fn publishers(streams: &Arc<StoreStreams>, name: &str, tasks: usize, batch: usize) -> (f64, Duration) {
    let begin = Instant::now();
    let tasks: Vec<_> = (0..tasks)
        .map(|_| {
            let (streams, name) = (Arc::clone(streams), stream(name));
            tokio::spawn(async move {
                let mut publishes = 0_u32;
                while begin.elapsed() < RUN {
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

async fn consume(
    streams: &Arc<StoreStreams>,
    name: &str,
    id: &str,
    policy: ConsumerPolicy,
    batch: usize,
) -> (f64, u64) {
    let consumer = streams.consumer(&stream(name), &consumer_id(id), policy).await.unwrap();
    let (begin, mut events) = (Instant::now(), 0_u64);
    while begin.elapsed() < RUN {
        let Ok(pulled) = tokio::time::timeout(Duration::from_secs(1), consumer.pull(batch)).await else { break };
        let pulled = pulled.unwrap();
        events += pulled.len() as u64;
        let ack = |delivery: &marram_core::port::streams::Delivery| Settle {
            position: delivery.stored.position,
            attempt: delivery.attempt,
            settlement: Settlement::Ack,
            outputs: Vec::new(),
        };
        consumer.settle(pulled.iter().map(ack).collect()).await.unwrap();
    }
    (events as f64 / begin.elapsed().as_secs_f64(), consumer.state().cursor)
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
    println!("idle: {} KiB resident", resident_kib());
    let (bare_one, bare_each) = bare(dir.path(), 1);
    println!("bare SQLite, 1 row a commit:    {bare_one:>9.0}/s, {bare_each:?} each");
    let (bare_many, _) = bare(dir.path(), 256);
    println!("bare SQLite, 256 rows a commit: {bare_many:>9.0}/s");

    let (rate, each) = publishers(&streams, "one", 1, 1).await;
    let ratio = each.as_secs_f64() / bare_each.as_secs_f64();
    println!("1 publisher of 1 event:         {rate:>9.0}/s, {each:?} each: {ratio:.2} x one bare commit");
    for (tasks, batch) in [(64, 1), (256, 1), (1, 64), (1, 256), (2, 256)] {
        let (rate, _) = publishers(&streams, "many", tasks, batch).await;
        println!("{tasks} publishers of {batch}: {rate:>24.0}/s");
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
        let (rate, _) = consume(&streams, "backlog", &format!("batches of {batch}"), policy, batch).await;
        println!("1 consumer, batches of {batch}: {rate:>17.0}/s");
    }
    let begin = Instant::now();
    let filter = SubjectFilter::Exact("plant/77/vibration".into());
    let (rate, cursor) =
        consume(&streams, "backlog", "filter", ConsumerPolicy { filter, ..Default::default() }, 64).await;
    let scanned = cursor as f64 / begin.elapsed().min(RUN).as_secs_f64();
    println!("a filter that takes 1 in 1,000: {rate:>9.0}/s taken, {scanned:.0}/s looked at");

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
