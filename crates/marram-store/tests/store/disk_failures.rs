//! A disk that fails while events are published: whoever was told so has nothing stored, everybody else has, and once the disk
//! works again so does the store.
//!
//! The test starts itself again as a child process. Its disk fails for real: by a limit on the size of files, and by
//! `strace`, which makes calls of fsync fail.
use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use crate::support::{NoEntropy, RealClock, event, stream};
use marram_core::Digest;
use marram_core::port::Streams as _;
use marram_core::stream::Start;
use marram_store::{Store, StoreConfig, StoreStreams};

const DIR: &str = "MARRAM_DISK_FAILURES_DIR";
const EVENTS: &str = "MARRAM_DISK_FAILURES_EVENTS";
const BLOBS: &str = "MARRAM_DISK_FAILURES_BLOBS";
const BLOB: &[u8] = b"a component";

fn open(dir: &Path) -> (Store, Arc<StoreStreams>) {
    let store = Store::open(&StoreConfig::new(dir)).unwrap();
    let streams = store.streams(Arc::new(RealClock), Arc::new(NoEntropy));
    (store, streams)
}

/// Not a test of its own: what the child does. It publishes one event after the other, whatever comes of it.
#[tokio::test]
async fn child() {
    let Ok(dir) = std::env::var(DIR) else { return };
    let events: u64 = std::env::var(EVENTS).unwrap().parse().unwrap();
    let (_store, streams) = open(dir.as_ref());
    for id in 0..events {
        let published = streams.publish(&stream("s"), vec![event(&id.to_string(), "", &[7; 8_000])]).await;
        // Reading goes on, also while nothing can be written.
        let read = streams.read(&stream("s"), Start::First, 1).map_or(0, |read| read.len());
        let line = match published {
            Ok(published) => format!("stored {id} {} {read}\n", published[0].position),
            Err(failure) => format!("failed {id} {} {read}\n", failure.kind().label()),
        };
        std::io::stdout().write_all(line.as_bytes()).unwrap();
    }
}

/// Runs the child by `program` with `arguments` before it. What was stored, and what failed with which kind.
fn run(dir: &Path, events: u64, program: &str, arguments: &[&str]) -> (BTreeMap<u64, u64>, BTreeMap<u64, String>) {
    let child = Command::new(program)
        .args(arguments)
        .arg(std::env::current_exe().unwrap())
        .args(["disk_failures::child", "--exact", "--nocapture", "--test-threads=1"])
        .env(DIR, dir)
        .env(EVENTS, events.to_string())
        .stderr(Stdio::null())
        .output()
        .unwrap();
    let (mut stored, mut failed) = (BTreeMap::new(), BTreeMap::new());
    for line in String::from_utf8(child.stdout).unwrap().lines() {
        let words: Vec<_> = line.split_whitespace().collect();
        match words.iter().rposition(|word| *word == "stored" || *word == "failed").map(|at| &words[at..]) {
            Some(["stored", id, at, "1"]) => drop(stored.insert(id.parse().unwrap(), at.parse().unwrap())),
            Some(["failed", id, kind, "1"]) => drop(failed.insert(id.parse().unwrap(), (*kind).to_owned())),
            Some(other) => panic!("{other:?}: nothing could be read"),
            None => {}
        }
    }
    (stored, failed)
}

/// Exactly what was said to be stored is, in its place.
fn check(dir: &Path, stored: &BTreeMap<u64, u64>) {
    let (store, streams) = open(dir);
    assert_eq!(store.check().unwrap(), []);
    let mut found = BTreeMap::new();
    while let Some(at) = found.values().max().map_or(Some(1), |last| Some(last + 1)) {
        let read = streams.read(&stream("s"), Start::Position(at), 1_000).unwrap();
        if read.is_empty() {
            break;
        }
        found.extend(read.iter().map(|stored| (stored.event.id.parse::<u64>().unwrap(), stored.position)));
    }
    assert_eq!(found, *stored);
    let next = stored.len() as u64 + 1;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let published = runtime.block_on(streams.publish(&stream("s"), vec![event("next", "", b"")])).unwrap();
    assert_eq!(published[0].position, next, "it goes on where it was");
}

/// 24 MiB for each file, of which the log uses 16: then the database cannot grow.
#[test]
fn what_cannot_be_written_is_refused_and_the_rest_stays() {
    let dir = tempfile::tempdir().unwrap();
    let limited = ["-c", "trap '' XFSZ; ulimit -f 24576; exec \"$@\"", "bash"];
    let (stored, failed) = run(dir.path(), 6_000, "bash", &limited);
    println!("{} stored and {} failed", stored.len(), failed.len());
    assert!(stored.len() > 1_000 && failed.len() > 100, "{} stored and {} failed", stored.len(), failed.len());
    assert!(failed.values().all(|kind| kind == "internal" || kind == "storage-full"), "{failed:?}");
    check(dir.path(), &stored);
}

#[test]
fn what_could_not_be_synced_is_refused_and_does_not_come_back() {
    let there = Command::new("strace").arg("-V").output().is_ok();
    assert!(there, "strace is missing, without which nothing is shown: run scripts/setup.sh, which installs it");
    let dir = tempfile::tempdir().unwrap();
    // Every 17th sync fails, that of commits and that of copying the log.
    let inject = ["-f", "-qq", "-o", "/dev/null", "-e", "inject=fsync,fdatasync:error=EIO:when=40+17"];
    let (stored, failed) = run(dir.path(), 400, "strace", &inject);
    println!("{} stored and {} failed", stored.len(), failed.len());
    assert_eq!(stored.len() + failed.len(), 400);
    assert!(failed.len() >= 10 && stored.len() >= 200, "{} stored and {} failed", stored.len(), failed.len());
    assert!(failed.values().all(|kind| kind == "internal"), "{failed:?}");
    let last_failure = failed.keys().max().unwrap();
    assert!(stored.keys().any(|id| id > failed.keys().next().unwrap()), "it goes on after a failure");
    assert!(stored.len() > 1 && *last_failure > 100, "failures went on to the end");
    check(dir.path(), &stored);
}

/// Not a test of its own either: it stores the same blob again and again.
#[test]
fn child_with_blobs() {
    let Ok(dir) = std::env::var(BLOBS) else { return };
    let store = Store::open(&StoreConfig::new(Path::new(&dir))).unwrap();
    for _ in 0..3 {
        let word = if store.blobs().put(BLOB, 100, None).is_ok() { "named\n" } else { "unnamed\n" };
        std::io::stdout().write_all(word.as_bytes()).unwrap();
    }
}

/// The folder is there already: another upload has made it a moment ago, or a process that ended before it synced its name.
#[test]
fn a_blob_is_not_stored_before_the_name_of_its_folder_is_durable() {
    let dir = tempfile::tempdir().unwrap();
    let digests = dir.path().canonicalize().unwrap().join("blobs/sha256");
    std::fs::create_dir_all(digests.join(&Digest::of(BLOB).hex()[..2])).unwrap();
    let child = Command::new("strace")
        .args(["-f", "-qq", "-o", "/dev/null", "-e", "inject=fsync:error=EIO:when=1", "-P"])
        .args([&digests, &std::env::current_exe().unwrap()])
        .args(["disk_failures::child_with_blobs", "--exact", "--nocapture", "--test-threads=1"])
        .env(BLOBS, dir.path())
        .stderr(Stdio::null())
        .output()
        .expect("strace is there: scripts/setup.sh installs it");
    let said = String::from_utf8(child.stdout).unwrap();
    let words: Vec<_> = said.split_whitespace().filter(|word| word.ends_with("named")).collect();
    // Once it has succeeded it is not needed again.
    assert_eq!(words, ["unnamed", "named", "named"], "{said}");
}
