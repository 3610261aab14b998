//! `kill -9` at any moment: what was acknowledged is there and whole, parts and completed uploads too, and what was not leaves
//! nothing but blobs that are collected.
//!
//! The test starts itself again as a child process, which writes and says on stdout what was acknowledged, and kills it.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use marram_core::port::Blobs as _;
use marram_core::port::blobs::{Expect, Finish, Multipart as _, UploadId};

use crate::multipart::{begin, part};
use crate::support::name;
use crate::{bytes, delete, opened, put, read, runtime, under_way};

const DIR: &str = "MARRAM_STORE_CRASH_DIR";
const FIRST: &str = "MARRAM_STORE_CRASH_FIRST";
const THREADS: u64 = 3;

/// How often the child is killed. `make soak` sets more.
fn rounds() -> u64 {
    std::env::var("MARRAM_CRASH_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(40)
}

/// The content of a name: it says which write it is from, and tears show.
fn content(thread: u64, n: u64) -> Vec<u8> {
    let length = [7, 70_000, 300_000][usize::try_from(n % 3).unwrap()];
    [format!("{n} ").into_bytes(), bytes(length, thread * 1_000_000 + n)].concat()
}

fn said(thread: u64, content: &[u8]) -> u64 {
    let n = content.split(|byte| *byte == b' ').next().unwrap();
    let n = std::str::from_utf8(n).unwrap().parse().unwrap();
    assert_eq!(content, self::content(thread, n), "a content is torn");
    n
}

/// Not a test of its own: what the child does. Each thread has names of its own; the collector runs beside them.
#[test]
fn child() {
    let Ok(dir) = std::env::var(DIR) else { return };
    let first: u64 = std::env::var(FIRST).unwrap().parse().unwrap();
    let (store, objects) = opened(dir.as_ref());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            loop {
                store.collect_blobs(Duration::ZERO).unwrap();
            }
        });
        for thread in 0..THREADS {
            let objects = &objects;
            scope.spawn(move || {
                runtime().block_on(async {
                    objects.create_bucket(&name("b")).await.unwrap();
                    let say = |what: &str, n: &str| {
                        // One write a line: a line is there whole or not at all.
                        std::io::stdout().write_all(format!("ack {what} {thread} {n}\n").as_bytes()).unwrap();
                    };
                    for n in first.. {
                        let content = content(thread, n);
                        put(objects, &format!("put{thread}"), &content).await;
                        say("put", &n.to_string());
                        put(objects, &format!("gone{thread}-{n}"), &content).await;
                        delete(objects, &format!("gone{thread}-{n}"), Expect::Any).await.unwrap();
                        say("gone", &n.to_string());
                        let key = format!("parts{thread}");
                        let id = begin(objects, &key).await;
                        let mut parts = Vec::new();
                        for (number, chunk) in (1..).zip(content.chunks(100_000)) {
                            parts.push((number, part(objects, &key, &id, number, chunk).await.etag));
                        }
                        say("upload", &format!("{n}:{}", id.0));
                        if n % 4 > 0 {
                            let done = objects.complete_upload(&name("b"), &key, &id, parts, Finish::default()).await;
                            done.unwrap().unwrap();
                            say("parts", &n.to_string());
                        }
                    }
                });
            });
        }
    });
}

/// What was said: for each thread the last number of each, and uploads that were begun and not said to be completed.
#[derive(Default)]
struct Said {
    put: [Option<u64>; THREADS as usize],
    parts: [Option<u64>; THREADS as usize],
    gone: Vec<String>,
    uploads: Vec<(u64, u64, UploadId)>,
    total: u64,
}

impl Said {
    /// `ack <what> <thread> <n>`, anywhere in the line: the test harness writes to the same stream.
    fn hear(&mut self, line: &str) -> bool {
        let Some((_, ack)) = line.split_once("ack ") else { return false };
        let [what, thread, n] = ack.split(' ').collect::<Vec<_>>()[..] else { return false };
        let thread: u64 = thread.parse().unwrap();
        let at = usize::try_from(thread).unwrap();
        match what {
            "put" => self.put[at] = self.put[at].max(n.parse().ok()),
            "gone" => self.gone.push(format!("gone{thread}-{n}")),
            "upload" => {
                let (n, id) = n.split_once(':').unwrap();
                self.uploads.push((thread, n.parse().unwrap(), UploadId(id.into())));
            }
            "parts" => self.parts[at] = self.parts[at].max(n.parse().ok()),
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
    let mut first = 0;
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
        let life = Duration::from_micros(1_500 * round % 7_000 + round * 7_919 % 60_000);
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
        runtime().block_on(check(dir.path(), &mut said, round));
        first = said.put.iter().flatten().max().map_or(0, |last| last + 1);
    }
    println!("{} acknowledgements over {} kills", said.total, rounds());
    assert!(said.total > 2 * rounds(), "the child was killed before it did anything: this test has shown nothing");
}

async fn check(dir: &std::path::Path, said: &mut Said, round: u64) {
    let (store, objects) = opened(dir);
    assert_eq!(under_way(dir), 0, "round {round}: an upload that was cut off is still there");
    store.collect_blobs(Duration::ZERO).unwrap();
    assert_eq!(store.check().unwrap(), [], "round {round}");
    objects.create_bucket(&name("b")).await.unwrap();
    for thread in 0..THREADS {
        for (key, acknowledged) in [("put", &said.put), ("parts", &said.parts)] {
            let Some(last) = acknowledged[usize::try_from(thread).unwrap()] else { continue };
            let content = read(&objects, &format!("{key}{thread}")).await.expect("it was acknowledged");
            let found = self::said(thread, &content);
            assert!(found >= last, "round {round}: {key} {last} was acknowledged, and {found} is there");
        }
    }
    for key in said.gone.drain(..) {
        assert_eq!(read(&objects, &key).await, None, "round {round}: {key} was deleted");
    }
    // An upload that was not completed has its parts, and can be.
    for (thread, n, id) in said.uploads.drain(..) {
        let key = format!("parts{thread}");
        let Some(page) = objects.parts(&name("b"), &key, &id, 0, 1_000).await.unwrap() else {
            // Completed, whether that was said or not.
            assert_ne!(n % 4, 0, "round {round}: an upload that nobody has completed is gone");
            continue;
        };
        let parts = page.parts.into_iter().map(|part| (part.number, part.etag)).collect();
        let done = objects.complete_upload(&name("b"), &key, &id, parts, Finish::default()).await.unwrap().unwrap();
        assert_eq!(done.size, content(thread, n).len() as u64);
        assert_eq!(self::said(thread, &read(&objects, &key).await.unwrap()), n);
        let last = &mut said.parts[usize::try_from(thread).unwrap()];
        *last = Some(n);
    }
}
