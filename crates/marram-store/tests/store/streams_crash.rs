//! `kill -9` while events are published, delivered, settled and answered: nothing acknowledged is missing, and the books of the
//! stream, its consumer, its dead letters and its output balance to the last event.
//!
//! The test starts itself again as a child process, and kills it.
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::support::{NoEntropy, RealClock, consumer_id, event, stream};
use marram_core::event::Event;
use marram_core::port::streams::{ConsumerState, Delivery, Settle, Settlement};
use marram_core::port::{Consumer, Streams as _};
use marram_core::stream::{ConsumerPolicy, Start};
use marram_store::{Store, StoreConfig, StoreStreams};

const DIR: &str = "MARRAM_STREAMS_CRASH_DIR";
const ROUND: &str = "MARRAM_STREAMS_CRASH_ROUND";
const PUBLISHERS: usize = 4;

/// How often the child is killed. `make soak` sets more.
fn rounds() -> u64 {
    std::env::var("MARRAM_CRASH_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(30)
}

fn open(dir: &std::path::Path) -> (Store, Arc<StoreStreams>) {
    let store = Store::open(&StoreConfig::new(dir)).unwrap();
    let streams = store.streams(Arc::new(RealClock), Arc::new(NoEntropy));
    (store, streams)
}

async fn consumer(streams: &StoreStreams) -> Arc<dyn Consumer> {
    let policy = ConsumerPolicy {
        order_by_subject: true,
        backoff_min: Duration::from_millis(1),
        backoff_max: Duration::from_millis(3),
        deliveries_max: 3,
        ..ConsumerPolicy::default()
    };
    streams.consumer(&stream("in"), &consumer_id("c"), policy).await.unwrap()
}

/// What becomes of an event: most are answered, some are tried again, some are given up.
fn settlement(delivery: &Delivery, tag: &str) -> Settle {
    let Delivery { stored, attempt } = delivery;
    let at = stored.position;
    let settlement = match at % 7 {
        0 => Settlement::DeadLetter { reason: "a seventh".into() },
        1 | 2 if *attempt == 1 => Settlement::Retry { after: None, reason: "once more".into() },
        3 if at % 2 == 0 => Settlement::Retry { after: None, reason: "for ever".into() },
        _ => Settlement::Ack,
    };
    let answers = settlement == Settlement::Ack;
    // Under an id of its own, so that a second answer to the same event would not be taken for the first.
    let output = answers.then(|| (stream("out"), event(&format!("{tag}.{at}.{attempt}"), &at.to_string(), b"")));
    let outputs = output.into_iter().collect();
    Settle { position: at, attempt: *attempt, others: Vec::new(), settlement, outputs }
}

/// One write a line: a line is there whole or not at all.
fn say(line: &str) {
    std::io::stdout().write_all(format!("{line}\n").as_bytes()).unwrap();
}

/// Not a test of its own: what the child does.
#[test]
fn child() {
    let Ok(dir) = std::env::var(DIR) else { return };
    let round = std::env::var(ROUND).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let (_store, streams) = open(dir.as_ref());
        let consumer = consumer(&streams).await;
        for publisher in 0..PUBLISHERS {
            let (streams, round) = (Arc::clone(&streams), round.clone());
            tokio::spawn(async move {
                for n in 0_usize.. {
                    let ids: Vec<_> = (0..=n % 3).map(|m| format!("{round}.{publisher}.{n}.{m}")).collect();
                    let events = ids.iter().map(|id| event(id, &format!("subject {}", n % 5), b"data")).collect();
                    let published = streams.publish(&stream("in"), events).await.unwrap();
                    for (published, id) in published.iter().zip(ids) {
                        say(&format!("published {} {id}", published.position));
                    }
                }
            });
        }
        loop {
            let pulled = consumer.pull(16).await.unwrap();
            let settled: Vec<_> = pulled.iter().map(|delivery| settlement(delivery, &round)).collect();
            let acked = settled.iter().filter(|settle| settle.settlement == Settlement::Ack);
            let acked: Vec<_> = acked.map(|settle| settle.position).collect();
            consumer.settle(settled).await.unwrap();
            for at in acked {
                say(&format!("acked {at}"));
            }
        }
    });
}

/// Everything a stream has.
fn all(streams: &StoreStreams, name: &str) -> Vec<(u64, Arc<Event>)> {
    let mut events: Vec<(u64, Arc<Event>)> = Vec::new();
    loop {
        let from = events.last().map_or(Start::First, |(at, _)| Start::Position(at + 1));
        // A stream that nobody has written to yet is not there.
        let read = streams.read(&stream(name), from, 10_000).unwrap_or_default();
        if read.is_empty() {
            return events;
        }
        events.extend(read.into_iter().map(|stored| (stored.position, stored.event)));
    }
}

/// The positions that `name` has an event about, each of which it has once.
fn about(streams: &StoreStreams, name: &str, position: impl Fn(&Event) -> String) -> BTreeSet<u64> {
    let events = all(streams, name);
    let positions: BTreeSet<u64> = events.iter().map(|(_, event)| position(event).parse().unwrap()).collect();
    assert_eq!(positions.len(), events.len(), "\"{name}\" has two events about one");
    positions
}

fn of_dead(event: &Event) -> String {
    match &event.extensions["marramposition"] {
        marram_core::event::Attribute::Text(text) => text.clone(),
        other => panic!("{other:?}"),
    }
}

struct Said {
    published: BTreeMap<u64, String>,
    acked: BTreeSet<u64>,
}

/// What holds after every crash. Returns what is settled.
fn check(streams: &StoreStreams, said: &Said, round: u64) -> BTreeSet<u64> {
    let events = all(streams, "in");
    let (acked, dead) = (about(streams, "out", |event| event.subject.clone()), about(streams, "in.dead", of_dead));
    for (at, id) in &said.published {
        let found = events.get(usize::try_from(at - 1).unwrap());
        assert_eq!(found.map(|(at, event)| (*at, &event.id)), Some((*at, id)), "round {round}: {at} was acknowledged");
    }
    assert!(said.acked.is_subset(&acked), "round {round}: an acknowledgement is missing");
    assert!(acked.is_disjoint(&dead), "round {round}: something is acked and dead");
    let states = streams.list().unwrap();
    let Some(state) = states.iter().find(|state| state.name == stream("in")) else { return acked };
    let last = events.len() as u64;
    assert_eq!((state.first, state.last, state.events), (1, last, last), "round {round}");
    assert_eq!(state.bytes, events.iter().map(|(_, event)| event.size()).sum::<u64>(), "round {round}");
    if let Some(consumer) = state.consumers.first() {
        let ConsumerState { handed, in_flight, retrying, held, acked: a, dead_lettered: d, dropped, .. } = consumer;
        assert_eq!((*a, *d, *dropped), (acked.len() as u64, dead.len() as u64, 0), "round {round}: {consumer:?}");
        let total = a + d + in_flight + retrying + held + (last - handed);
        assert_eq!(total, last, "round {round}: the books do not balance: {consumer:?}");
    }
    acked.union(&dead).copied().collect()
}

#[test]
fn the_books_balance_after_every_kill_9() {
    let dir = tempfile::tempdir().unwrap();
    let mut said = Said { published: BTreeMap::new(), acked: BTreeSet::new() };
    for round in 0..rounds() {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["streams_crash::child", "--exact", "--nocapture", "--test-threads=1"])
            .env(DIR, dir.path())
            .env(ROUND, round.to_string())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let hear = |line: String, said: &mut Said| {
            let words: Vec<_> = line.split_whitespace().collect();
            match words.iter().rposition(|word| *word == "published" || *word == "acked").map(|at| &words[at..]) {
                Some(["published", at, id]) => drop(said.published.insert(at.parse().unwrap(), (*id).to_owned())),
                Some(["acked", at]) => drop(said.acked.insert(at.parse().unwrap())),
                _ => return false,
            }
            true
        };
        // A quarter dies while it starts; the others after a while of work. The moment is never the same.
        let mut begin = Instant::now();
        if round % 4 != 0 {
            let first = lines.by_ref().map_while(Result::ok).find(|line| hear(line.clone(), &mut said));
            assert!(first.is_some(), "the child says something before it is killed");
            begin = Instant::now();
        }
        let life = Duration::from_micros(round * 7_919 % 60_000 + round * 1_500 % 7_000);
        while begin.elapsed() < life {
            std::hint::spin_loop();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        // What it had said before it died is still in the pipe.
        for line in lines.map_while(Result::ok) {
            hear(line, &mut said);
        }
        let (store, streams) = open(dir.path());
        check(&streams, &said, round);
        if round % 10 == 0 {
            assert_eq!(store.check().unwrap(), [], "round {round}");
        }
    }
    println!("{} published and {} acked over {} kills", said.published.len(), said.acked.len(), rounds());
    assert!(said.acked.len() as u64 > 3 * rounds(), "the child did too little: this test has shown nothing");

    // The rest is settled in this process: every event ends exactly once.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (_store, streams) = open(dir.path());
    runtime.block_on(async {
        let consumer = consumer(&streams).await;
        let last = all(&streams, "in").len() as u64;
        while consumer.state().cursor < last {
            let pulled = tokio::time::timeout(Duration::from_secs(20), consumer.pull(64)).await.unwrap().unwrap();
            let settled = pulled.iter().map(|delivery| settlement(delivery, "end")).collect();
            consumer.settle(settled).await.unwrap();
        }
        assert_eq!(check(&streams, &said, rounds()), (1..=last).collect());
    });
}
