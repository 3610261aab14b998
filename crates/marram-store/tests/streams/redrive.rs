//! Dead letters go back in steps, each whole or not at all: whatever happens in between, every one of them is in its stream
//! again or still among the dead, and never in both.
//!
//! One test starts itself again as a child process, and kills it.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use marram_core::Kind;
use marram_core::event::Event;
use marram_core::port::Streams as _;
use marram_core::port::streams::Settlement;
use marram_core::stream::{ConsumerPolicy, Overflow, Start, StreamPolicy};
use marram_store::{Store, StoreConfig, StoreStreams};

use super::support::{NoEntropy, RealClock, consumer_id, event, stream};
use super::{Node, pull, settle};

const DIR: &str = "MARRAM_REDRIVE_DIR";
/// Several steps of 256, and a part of one.
const DEAD: u64 = 2_700;

fn open(dir: &std::path::Path) -> (Store, Arc<StoreStreams>) {
    let store = Store::open(&StoreConfig::new(dir)).unwrap();
    let streams = store.streams(Arc::new(RealClock), Arc::new(NoEntropy));
    (store, streams)
}

/// Everything a stream has, oldest first.
fn all(streams: &StoreStreams, name: &str) -> Vec<(u64, Arc<Event>)> {
    let mut events: Vec<(u64, Arc<Event>)> = Vec::new();
    loop {
        let from = events.last().map_or(Start::First, |(at, _)| Start::Position(at + 1));
        let read = streams.read(&stream(name), from, 10_000).unwrap();
        if read.is_empty() {
            return events;
        }
        events.extend(read.into_iter().map(|stored| (stored.position, stored.event)));
    }
}

/// Publishes events and gives up on every one of them.
async fn bury(streams: &StoreStreams, count: u64) {
    let consumer = streams.consumer(&stream("s"), &consumer_id("c"), ConsumerPolicy::default()).await.unwrap();
    let mut published = 0;
    while published < count {
        let ids: Vec<_> = (published..count.min(published + 200)).map(|n| format!("{n:05}")).collect();
        published += ids.len() as u64;
        streams.publish(&stream("s"), ids.iter().map(|id| event(id, "a", id.as_bytes())).collect()).await.unwrap();
        let mut buried = 0;
        while buried < ids.len() {
            let pulled = pull(&consumer, 200).await;
            buried += pulled.len();
            let dead = |delivery| settle(delivery, Settlement::DeadLetter { reason: "no".into() });
            consumer.settle(pulled.iter().map(dead).collect()).await.unwrap();
        }
    }
}

/// The ids of the events of `s` that came after the first `published`: those that are back, as they were.
fn back(streams: &StoreStreams, published: u64) -> Vec<String> {
    let events = all(streams, "s").into_iter().filter(|(at, _)| *at > published);
    let is_as_it_was = |event: &Event| {
        event.extensions.is_empty() && event.data.as_deref() == Some(event.id.as_bytes()) && event.subject == "a"
    };
    events
        .map(|(_, event)| event)
        .inspect(|event| assert!(is_as_it_was(event), "{event:?}"))
        .map(|e| e.id.clone())
        .collect()
}

/// Every event is back or dead, once, in its order; gives how many are back.
fn check(streams: &StoreStreams, published: u64) -> u64 {
    let mut ids = back(streams, published);
    let count = ids.len() as u64;
    ids.extend(all(streams, "s.dead").into_iter().map(|(_, event)| event.id.clone()));
    assert!(ids.is_sorted(), "the order is not kept: {ids:?}");
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len() as u64, published, "something is there twice, or gone");
    assert_eq!(ids.len() as u64, published);
    count
}

#[tokio::test]
async fn all_that_are_there_go_back_in_their_order() {
    let node = Node::new();
    bury(&node.streams, 700).await;
    assert_eq!(node.streams.redrive(&stream("s")).await.unwrap(), 700);
    assert_eq!(check(&node.streams, 700), 700);
    assert_eq!(node.streams.redrive(&stream("s")).await.unwrap(), 0);
    // They are delivered again, and their deliveries are counted anew.
    let consumer = node.consumer("c", ConsumerPolicy::default()).await;
    assert!(pull(&consumer, 256).await.iter().all(|delivery| delivery.attempt == 1));
    let refused = node.streams.redrive(&stream("s.dead")).await.unwrap_err();
    assert_eq!(refused.kind(), Kind::Invalid);
    assert_eq!(node.streams.redrive(&stream("none")).await.unwrap(), 0);
}

#[tokio::test]
async fn a_stream_that_is_full_takes_as_many_steps_as_fit_and_the_rest_stays_dead() {
    let node = Node::new();
    bury(&node.streams, 700).await;
    // Room for one step and a half; what was published first is settled, and makes the room of half a step.
    let size = event("00000", "a", b"00000").size();
    let policy = StreamPolicy { bytes_max: (700 + 380) * size, overflow: Overflow::Reject, ..StreamPolicy::default() };
    node.streams.declare(&stream("s"), policy).await.unwrap();
    let owed = ConsumerPolicy { start: Start::First, ..ConsumerPolicy::default() };
    node.streams.consumer(&stream("s"), &consumer_id("owed"), owed).await.unwrap();
    let refused = node.streams.redrive(&stream("s")).await.unwrap_err();
    assert_eq!(refused.kind(), Kind::StreamFull);
    assert_eq!(check(&node.streams, 700), 256);
    node.streams.declare(&stream("s"), StreamPolicy::default()).await.unwrap();
    assert_eq!(node.streams.redrive(&stream("s")).await.unwrap(), 444);
    assert_eq!(check(&node.streams, 700), 700);
}

/// Not a test of its own: what the child does.
#[test]
fn child() {
    let Ok(dir) = std::env::var(DIR) else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (_store, streams) = open(dir.as_ref());
        std::io::stdout().write_all(b"begun\n").unwrap();
        streams.redrive(&stream("s")).await.unwrap();
        std::io::stdout().write_all(b"done\n").unwrap();
    });
}

#[test]
fn a_kill_in_between_loses_and_doubles_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (store, streams) = open(dir.path());
    runtime.block_on(bury(&streams, DEAD));
    drop((store, streams));
    let (mut in_between, mut redriven) = (0, 0);
    for round in 0_u64.. {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["redrive::child", "--exact", "--nocapture", "--test-threads=1"])
            .env(DIR, dir.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        assert!(lines.any(|line| line.ends_with("begun")), "the child begins");
        // Not a wait for something, but the moment at which the power fails; later in each round, so that it ends.
        let (begun, life) = (Instant::now(), Duration::from_micros(500 + round * 300));
        while begun.elapsed() < life {
            std::hint::spin_loop();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let (store, streams) = open(dir.path());
        let now = check(&streams, DEAD);
        assert!(now >= redriven, "what was back is gone");
        in_between += u64::from(now > redriven && now < DEAD);
        redriven = now;
        if redriven == DEAD {
            assert_eq!(store.check().unwrap(), []);
            break;
        }
    }
    assert!(in_between > 0, "no kill came in between: this has shown nothing");
}
