//! `kill -9` at any moment: no acknowledged key is older than it was said to be, batches are whole, and counters have
//! every increment once.
//!
//! The test starts itself again as a child process, which writes and says on stdout what was acknowledged, and kills it.
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::{TestClock, name, set};
use marram_core::port::crdt::{Collection, CrdtChange};
use marram_core::port::{Crdt as _, Kv as _};
use marram_store::{Keys, Store, StoreConfig};

const DIR: &str = "MARRAM_STORE_CRASH_DIR";
const FIRST: &str = "MARRAM_STORE_CRASH_FIRST";
const THREADS: usize = 3;

/// How often the child is killed. `make soak` sets more.
fn rounds() -> u64 {
    std::env::var("MARRAM_CRASH_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(40)
}

fn opened(dir: &std::path::Path) -> (Store, Keys) {
    let store = Store::open(&StoreConfig::new(dir)).unwrap();
    let keys = store.kv(TestClock::new());
    (store, keys)
}

/// Not a test of its own: what the child does. Each thread has keys of its own and a counter with the others.
#[test]
fn child() {
    let Ok(dir) = std::env::var(DIR) else { return };
    let first: u64 = std::env::var(FIRST).unwrap().parse().unwrap();
    let (_store, keys) = opened(dir.as_ref());
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let keys = &keys;
            scope.spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
                let bucket = name("b");
                let say = |what: &str, n: u64| {
                    // One write a line: a line is there whole or not at all.
                    std::io::stdout().write_all(format!("ack {what} {thread} {n}\n").as_bytes()).unwrap();
                };
                for n in first.. {
                    let pair = ["left", "right"].map(|side| set(&format!("{side}{thread}"), &n.to_string()));
                    runtime.block_on(keys.apply(&bucket, pair.into())).unwrap();
                    say("set", n);
                    runtime.block_on(keys.increment(&bucket, &format!("own{thread}"), 1)).unwrap();
                    say("own", n);
                    runtime.block_on(keys.increment(&bucket, "all", 1)).unwrap();
                    say("all", n);
                    let member = CrdtChange::SetAdd(format!("{thread}-{}", n % 50).into());
                    runtime.block_on(keys.crdt_update(&bucket, "members", vec![member])).unwrap();
                    say("add", n);
                }
            });
        }
    });
}

/// What was said, over all rounds; `own` and `all` count the increments of one round.
#[derive(Default)]
struct Said {
    set: [Option<u64>; THREADS],
    own: [i64; THREADS],
    all: i64,
    members: std::collections::BTreeSet<String>,
    total: u64,
}

impl Said {
    /// `ack <what> <thread> <n>`, anywhere in the line: the test harness writes to the same stream.
    fn hear(&mut self, line: &str) -> bool {
        let Some((_, ack)) = line.split_once("ack ") else { return false };
        let [what, thread, n] = ack.split(' ').collect::<Vec<_>>()[..] else { return false };
        let (thread, n): (usize, u64) = (thread.parse().unwrap(), n.parse().unwrap());
        match what {
            "set" => self.set[thread] = self.set[thread].max(Some(n)),
            "own" => self.own[thread] += 1,
            "all" => self.all += 1,
            "add" => _ = self.members.insert(format!("{thread}-{}", n % 50)),
            other => panic!("{other}"),
        }
        self.total += 1;
        true
    }
}

#[test]
fn what_was_acknowledged_survives_kill_9() {
    let dir = tempfile::tempdir().unwrap();
    let mut said = Said::default();
    let (mut own, mut all, mut first) = ([0; THREADS], 0, 0);
    for round in 0..rounds() {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["keys_crash::child", "--exact", "--nocapture", "--test-threads=1"])
            .env(DIR, dir.path())
            .env(FIRST, first.to_string())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        (said.own, said.all) = ([0; THREADS], 0);
        // Some rounds die while starting or migrating, the others after a while of writing; the moment is never the same.
        let mut begin = Instant::now();
        let life = Duration::from_micros(1_500 * round % 7_000 + round * 7_919 % 50_000);
        if round % 4 != 0 {
            assert!(lines.by_ref().map_while(Result::ok).any(|line| said.hear(&line)), "the child says something");
            begin = Instant::now();
        }
        while begin.elapsed() < life {
            std::hint::spin_loop();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        // What it had said before it died is still in the pipe.
        for line in lines.map_while(Result::ok) {
            said.hear(&line);
        }

        let (store, keys) = opened(dir.path());
        assert_eq!(store.check().unwrap(), [], "round {round}");
        let bucket = name("b");
        let number = |key: &str| {
            let entry = keys.get(&bucket, key).unwrap();
            entry.map_or(0, |entry| std::str::from_utf8(&entry.value).unwrap().parse::<i64>().unwrap())
        };
        for (thread, own) in own.iter_mut().enumerate() {
            let (left, right) = (number(&format!("left{thread}")), number(&format!("right{thread}")));
            assert_eq!(left, right, "round {round}: a batch is whole");
            let last = said.set[thread].map_or(0, |last| last as i64);
            assert!(left >= last, "round {round}: {last} was acknowledged, and {left} is there");
            // One more may be there that was not acknowledged any more.
            let new = number(&format!("own{thread}"));
            let counted = new - *own - said.own[thread];
            assert!((0..=1).contains(&counted), "round {round}: {counted} more than acknowledged");
            *own = new;
        }
        let new = number("all");
        let counted = new - all - said.all;
        assert!((0..=THREADS as i64).contains(&counted), "round {round}: {counted} more than acknowledged");
        all = new;
        if let Some(read) = keys.crdt_read(&bucket, "members").unwrap() {
            let Collection::Set(set) = &*read else { panic!("it is a map") };
            assert!(
                said.members.iter().all(|member| set.contains(member.as_bytes())),
                "round {round}: a member is missing"
            );
        } else {
            assert!(said.members.is_empty());
        }
        first = said.set.iter().flatten().max().map_or(0, |last| last + 1);
    }
    println!("{} acknowledgements over {} kills", said.total, rounds());
    assert!(said.total > 2 * rounds(), "the child was killed before it did anything: this test has shown nothing");
}
