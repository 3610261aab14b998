//! A disk that fails while contents are written: what could not be written or synced is refused and leaves nothing, what was
//! there stays, and the next upload works.
//!
//! The test starts itself again as a child process under `strace`, which makes calls fail on the files of some uploads, and on
//! nothing else.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use marram_core::port::Blobs as _;
use marram_core::port::blobs::{Expect, Finish, ListQuery, Multipart as _};

use crate::multipart::{begin, try_part};
use crate::support::name;
use crate::{bytes, opened, put_if, read, under_way};

const DIR: &str = "MARRAM_OBJECTS_DISK_DIR";
/// More than is written at once.
const BYTES: usize = 700_000;
/// Which uploads fail, counted from 0: the order of those in the child.
const FAILING: [usize; 3] = [1, 2, 3];

/// Not a test of its own: what the child does, and says on a line each.
#[tokio::test]
async fn child() {
    let Ok(dir) = std::env::var(DIR) else { return };
    let (_store, objects) = opened(dir.as_ref());
    objects.create_bucket(&name("b")).await.unwrap();
    let id = begin(&objects, "parts").await;
    let content = |n| bytes(BYTES, n);
    let mut etag = String::new();
    for (upload, key, number) in [(0, "a", 0), (1, "b", 0), (2, "a", 0), (3, "parts", 1), (4, "b", 0), (5, "parts", 1)]
    {
        let done = if number > 0 {
            let part = try_part(&objects, key, &id, number, &content(upload)).await;
            part.map(|part| etag = part.etag)
        } else {
            put_if(&objects, key, &content(upload), Expect::Any).await.map(|_| ())
        };
        let done = done.map_or_else(|failure| failure.kind().label(), |()| "stored");
        // What was there is read all the while.
        assert_eq!(read(&objects, "a").await.unwrap(), content(0));
        assert_eq!(under_way(dir.as_ref()), 0);
        std::io::stdout().write_all(format!("upload {upload} {done}\n").as_bytes()).unwrap();
    }
    let parts = vec![(1, etag)];
    objects.complete_upload(&name("b"), "parts", &id, parts, Finish::default()).await.unwrap().unwrap();
    std::io::stdout().write_all(b"upload 6 completed\n").unwrap();
}

/// Runs the child while calls fail as `inject` says, and looks at what it left.
async fn check(inject: &str, kind: &str) {
    let there = Command::new("strace").arg("-V").output().is_ok();
    assert!(there, "strace is missing, without which nothing is shown: run scripts/setup.sh, which installs it");
    let dir = tempfile::tempdir().unwrap();
    let said = run(&dir.path().canonicalize().unwrap(), inject);
    let words = ["stored", kind, kind, kind, "stored", "stored", "completed"];
    let expected: Vec<_> = words.iter().enumerate().map(|(upload, word)| format!("{upload} {word}")).collect();
    assert_eq!(said, expected);

    let (store, objects) = opened(dir.path());
    let listed = objects.list(&name("b"), ListQuery { max: 10, ..ListQuery::default() }).await.unwrap();
    assert_eq!(listed.entries.iter().map(|entry| entry.name()).collect::<Vec<_>>(), ["a", "b", "parts"]);
    for (key, upload) in [("a", 0), ("b", 4), ("parts", 5)] {
        assert_eq!(read(&objects, key).await.unwrap(), bytes(BYTES, upload), "{key}");
    }
    assert_eq!(store.check().unwrap(), []);
    // What failed has left nothing, not even garbage.
    assert_eq!(store.collect_blobs(Duration::ZERO).unwrap().blobs, 0);
    assert_eq!(store.blobs().list().unwrap().len(), 3);
}

/// What the child said of each upload.
fn run(dir: &Path, inject: &str) -> Vec<String> {
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-o", "/dev/null", "-e", inject]);
    for upload in FAILING {
        command.arg("-P").arg(dir.join(format!("blobs/uploads/{upload}")));
    }
    command.arg(std::env::current_exe().unwrap());
    command.args(["disk_failures::child", "--exact", "--nocapture", "--test-threads=1"]);
    let output = command.env(DIR, dir).stderr(Stdio::inherit()).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    // Anywhere in the line: the test harness writes to the same stream.
    let said = text.lines().filter_map(|line| line.split_once("upload ")).map(|(_, said)| said.to_owned());
    said.collect()
}

#[tokio::test]
async fn contents_for_which_there_is_no_room_are_refused_and_leave_nothing() {
    check("inject=write:error=ENOSPC", "storage-full").await;
}

#[tokio::test]
async fn contents_that_cannot_be_written_are_refused_and_leave_nothing() {
    check("inject=write:error=EIO", "internal").await;
}

#[tokio::test]
async fn contents_that_cannot_be_synced_are_refused_and_leave_nothing() {
    check("inject=fsync:error=EIO", "internal").await;
}
