//! How fast keys are, beside SQLite alone in the same run: `cargo run --release -p marram-store --example kv_bench`.
//!
//! Prints for each row: operations a second, and where there is a physical limit, the ratio to it.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use marram_core::Name;
use marram_core::port::crdt::CrdtChange;
use marram_core::port::kv::{Change, Expect};
use marram_core::port::{Clock, Crdt as _, Kv as _};
use marram_store::{Keys, Store, StoreConfig};

const RUN: Duration = Duration::from_secs(2);
const KEYS: u64 = 100_000;
const VALUE_BYTES: usize = 100;

struct SystemClock;

impl Clock for SystemClock {
    fn unix_ns(&self) -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64
    }
    fn instant(&self) -> Instant {
        Instant::now()
    }
}

fn main() {
    let dir = tempfile::tempdir_in(std::env::var("MARRAM_BENCH_DIR").unwrap_or_else(|_| ".".into())).unwrap();
    let cached = StoreConfig { kv_cache_bytes: 64 << 20, ..StoreConfig::new(dir.path().join("state")) };
    let bucket = Name::new("bench").unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();

    let store = Store::open(&cached).unwrap();
    let keys = store.kv(Arc::new(SystemClock));
    fill(&runtime, &keys, &bucket);
    println!("{KEYS} keys of {VALUE_BYTES} bytes");
    (0..KEYS).for_each(|n| assert!(keys.get(&bucket, &key(n)).unwrap().is_some()));
    for threads in [1, 2] {
        row(
            &format!("get, cached, {threads} threads"),
            gets(threads, |n| _ = keys.get(&bucket, &key(n)).unwrap().unwrap()),
        );
    }
    drop((keys, store));

    let store = Store::open(&StoreConfig { kv_cache_bytes: 0, ..cached.clone() }).unwrap();
    let keys = store.kv(Arc::new(SystemClock));
    let mut uncached = 0.0;
    for threads in [1, 2] {
        let rate = gets(threads, |n| _ = keys.get(&bucket, &key(n)).unwrap().unwrap());
        uncached = if threads == 1 { rate } else { uncached };
        row(&format!("get, not cached, {threads} threads"), rate);
    }
    let bare = bare_gets(&dir.path().join("state/node.db"));
    ratio("bare SQLite get, prepared, 1 thread", bare, "not cached / bare", uncached / bare);
    drop((keys, store));

    let fsyncs = bare_commits(&dir.path().join("bare.db"));
    row("bare SQLite commit of one row, fsynced", fsyncs);
    let store = Store::open(&StoreConfig::new(dir.path().join("state"))).unwrap();
    let keys = store.kv(Arc::new(SystemClock));
    for callers in [1, 16, 256] {
        let rate = writes(&runtime, callers, {
            let (keys, bucket) = (keys.clone(), bucket.clone());
            move |n| {
                let (keys, bucket) = (keys.clone(), bucket.clone());
                async move { _ = keys.apply(&bucket, vec![put(n % KEYS)]).await.unwrap() }
            }
        });
        ratio(&format!("set, durable, {callers} callers"), rate, "/ bare commit", rate / fsyncs);
    }
    let rate = writes(&runtime, 16, {
        let (keys, bucket) = (keys.clone(), bucket.clone());
        move |n| {
            let (keys, bucket) = (keys.clone(), bucket.clone());
            async move { _ = keys.increment(&bucket, &format!("counter {}", n % 8), 1).await.unwrap() }
        }
    });
    row("increment, durable, 16 callers on 8 counters", rate);
    let rate = writes(&runtime, 16, {
        let (keys, bucket) = (keys.clone(), bucket.clone());
        move |n| {
            let (keys, bucket) = (keys.clone(), bucket.clone());
            let add = CrdtChange::SetAdd(format!("member {}", n % 100).into());
            async move { _ = keys.crdt_update(&bucket, &format!("set {}", n % 8), vec![add]).await.unwrap() }
        }
    });
    row("add to a set of 100 members, durable, 16 callers", rate);
}

fn key(n: u64) -> String {
    format!("key/{n:08}")
}

fn put(n: u64) -> Change {
    let value = vec![n as u8; VALUE_BYTES].into();
    Change::Put { key: key(n), value, ttl: None, expect: Expect::Any }
}

fn fill(runtime: &tokio::runtime::Runtime, keys: &Keys, bucket: &Name) {
    for from in (0..KEYS).step_by(1_000) {
        runtime.block_on(keys.apply(bucket, (from..from + 1_000).map(put).collect())).unwrap();
    }
}

/// Keys in an order that is not theirs.
fn scattered(n: u64) -> u64 {
    n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20
}

fn gets(threads: u64, get: impl Fn(u64) + Sync) -> f64 {
    let (count, end) = (AtomicU64::new(0), Instant::now() + RUN);
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let (get, count) = (&get, &count);
            scope.spawn(move || {
                let mut n = thread << 32;
                while Instant::now() < end {
                    for _ in 0..100 {
                        get(scattered(n) % KEYS);
                        n += 1;
                    }
                }
                count.fetch_add(n - (thread << 32), Ordering::Relaxed);
            });
        }
    });
    count.into_inner() as f64 / RUN.as_secs_f64()
}

fn writes<F: Future<Output = ()> + Send>(
    runtime: &tokio::runtime::Runtime,
    callers: u64,
    write: impl Fn(u64) -> F + Clone + Send + 'static,
) -> f64 {
    let (count, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    runtime.block_on(async {
        let callers: Vec<_> = (0..callers)
            .map(|_| {
                let (count, stop, write) = (Arc::clone(&count), Arc::clone(&stop), write.clone());
                tokio::spawn(async move {
                    while !stop.load(Ordering::Relaxed) {
                        let n = count.fetch_add(1, Ordering::Relaxed);
                        write(scattered(n)).await;
                    }
                })
            })
            .collect();
        tokio::time::sleep(RUN).await;
        stop.store(true, Ordering::Relaxed);
        for caller in callers {
            caller.await.unwrap();
        }
    });
    count.load(Ordering::Relaxed) as f64 / RUN.as_secs_f64()
}

fn bare_gets(path: &std::path::Path) -> f64 {
    let db = rusqlite::Connection::open(path).unwrap();
    let mut query = db.prepare("SELECT state FROM kv_entry WHERE bucket = 'bench' AND key = ?").unwrap();
    let (mut n, begin) = (0, Instant::now());
    while begin.elapsed() < RUN {
        for _ in 0..100 {
            let value: Vec<u8> = query.query_row([key(scattered(n) % KEYS)], |row| row.get(0)).unwrap();
            assert_eq!(value.len(), VALUE_BYTES + 1);
            n += 1;
        }
    }
    n as f64 / begin.elapsed().as_secs_f64()
}

fn bare_commits(path: &std::path::Path) -> f64 {
    let db = rusqlite::Connection::open(path).unwrap();
    db.pragma_update(None, "journal_mode", "WAL").unwrap();
    db.pragma_update(None, "synchronous", "FULL").unwrap();
    db.execute_batch("CREATE TABLE t (k TEXT PRIMARY KEY, v BLOB) WITHOUT ROWID").unwrap();
    let mut insert = db.prepare("INSERT OR REPLACE INTO t VALUES (?, ?)").unwrap();
    let (mut n, begin) = (0, Instant::now());
    while begin.elapsed() < RUN {
        insert.execute(rusqlite::params![key(scattered(n) % KEYS), vec![0u8; VALUE_BYTES]]).unwrap();
        n += 1;
    }
    n as f64 / begin.elapsed().as_secs_f64()
}

fn row(what: &str, rate: f64) {
    println!("{what:<52} {rate:>12.0}/s");
}

fn ratio(what: &str, rate: f64, of: &str, ratio: f64) {
    println!("{what:<52} {rate:>12.0}/s   {of} {ratio:.2}");
}
