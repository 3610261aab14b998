//! `kill -9` at any moment: what was acknowledged is there after a restart, and nothing is half there.
//!
//! The test starts itself again as a child process, which deploys and says on stdout what was acknowledged, and kills it.
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::{NOW, name, version};
use marram_store::{Store, StoreConfig};

const DIR: &str = "MARRAM_STORE_CRASH_DIR";
const FIRST: &str = "MARRAM_STORE_CRASH_FIRST";
const APPS: [&str; 3] = ["a", "b", "c"];

/// How often the child is killed. `make soak` sets more.
fn rounds() -> u64 {
    std::env::var("MARRAM_CRASH_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(40)
}

/// Not a test of its own: what the child does. Each app has a thread, so that commits are groups.
#[test]
fn child() {
    let Ok(dir) = std::env::var(DIR) else { return };
    let first: u64 = std::env::var(FIRST).unwrap().parse().unwrap();
    let store = Store::open(&StoreConfig::new(dir)).unwrap();
    std::thread::scope(|scope| {
        for app in APPS {
            let store = &store;
            scope.spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
                for n in first.. {
                    runtime.block_on(store.deploy(version(store, app, n))).unwrap();
                    let secret = format!("value {n}");
                    runtime.block_on(store.set_secret(&name(app), "secret", secret.into(), NOW + n)).unwrap();
                    // One write a line: a line is there whole or not at all.
                    std::io::stdout().write_all(format!("ack {app} {n}\n").as_bytes()).unwrap();
                    if n % 5 == 0 {
                        store.collect_blobs(Duration::ZERO).unwrap();
                    }
                }
            });
        }
    });
}

#[test]
fn what_was_acknowledged_survives_kill_9() {
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged = [None::<u64>; 3];
    let mut first = 0;
    let mut total = 0;
    for round in 0..rounds() {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["crash::child", "--exact", "--nocapture", "--test-threads=1"])
            .env(DIR, dir.path())
            .env(FIRST, first.to_string())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        // Some rounds die while starting or migrating, the others after a while of writing; the moment is never the same.
        let mut begin = Instant::now();
        let life = Duration::from_micros(1_500 * round % 7_000 + round * 7_919 % 50_000);
        if round % 4 != 0 {
            let ready = lines.by_ref().map_while(Result::ok).find_map(|line| ack(&line));
            let (app, n) = ready.expect("the child says something before it is killed");
            acknowledged[app] = acknowledged[app].max(Some(n));
            total += 1;
            begin = Instant::now();
        }
        while begin.elapsed() < life {
            std::hint::spin_loop();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        // What it had said before it died is still in the pipe.
        for (app, n) in lines.map_while(Result::ok).filter_map(|line| ack(&line)) {
            acknowledged[app] = acknowledged[app].max(Some(n));
            total += 1;
        }

        let store = Store::open(&StoreConfig::new(dir.path())).unwrap();
        assert_eq!(store.check().unwrap(), [], "round {round}");
        for (app, last) in APPS.iter().zip(acknowledged) {
            let Some(last) = last else { continue };
            let found = store.app(&name(app)).unwrap().current;
            let n = found.deployed_unix_ns - NOW;
            assert!(n >= last, "round {round}: {app} {last} was acknowledged, and {n} is current");
            assert!(found.manifest.starts_with(&format!("# version {n} of {app}\n")), "a revision is whole");
            let component = store.blobs().read(&found.components["own"]).unwrap();
            assert_eq!(component, format!("component {n} of {app}").as_bytes());
            let secret = store.secrets(&name(app)).unwrap()["secret"].expose().to_owned();
            let n: u64 = secret.strip_prefix("value ").unwrap().parse().unwrap();
            assert!(n >= last, "round {round}: secret {last} of {app} was acknowledged, and {n} is there");
        }
        first = acknowledged.iter().flatten().max().map_or(0, |last| last + 1);
    }
    println!("{total} acknowledgements over {} kills", rounds());
    assert!(total > 2 * rounds(), "the child was killed before it did anything: this test has shown nothing");
}

/// `ack <app> <n>`, anywhere in the line: the test harness writes to the same stream.
fn ack(line: &str) -> Option<(usize, u64)> {
    let (_, ack) = line.split_once("ack ")?;
    let (app, n) = ack.split_once(' ')?;
    Some((APPS.iter().position(|name| *name == app)?, n.parse().ok()?))
}
