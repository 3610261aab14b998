//! The collector beside everything else: what is referred to, written or read stays, and the rest goes.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::TryStreamExt as _;
use marram_core::port::Blobs as _;
use marram_core::port::blobs::{Expect, Finish, Multipart as _};
use rusqlite::Connection;

use crate::multipart::{begin, part};
use crate::support::name;
use crate::{bytes, delete, fresh, opened, put, read};

#[tokio::test]
async fn what_is_deleted_or_replaced_goes_and_what_is_read_stays_until_then() {
    let (_dir, store, objects, _) = fresh().await;
    let blobs = || store.blobs().list().unwrap().len();
    let content = bytes(600_000, 1);
    put(&objects, "k", &content).await;
    put(&objects, "same", &content).await;
    assert_eq!(blobs(), 1);
    let opened = objects.get(&name("b"), "k").await.unwrap().unwrap();
    delete(&objects, "k", Expect::Any).await.unwrap();
    put(&objects, "same", b"other").await;
    store.collect_blobs(Duration::ZERO).unwrap();
    let mut reading = opened.content.read(0..600_000);
    let first = reading.try_next().await.unwrap().unwrap();
    drop(opened);
    store.collect_blobs(Duration::ZERO).unwrap();
    let rest: Vec<_> = reading.try_collect().await.unwrap();
    assert_eq!([&first[..], &rest.concat()].concat(), content);
    assert_eq!(store.collect_blobs(Duration::ZERO).unwrap().bytes, 600_000);
    assert_eq!(blobs(), 1);
}

/// The same few contents are written, put together, copied, read and deleted while the collector runs without any grace.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_that_was_acknowledged_is_ever_collected() {
    const WRITERS: u64 = 4;
    const ROUNDS: u64 = 60;
    let (_dir, store, objects, _) = fresh().await;
    let store = std::sync::Arc::new(store);
    let done = std::sync::Arc::new(AtomicBool::new(false));
    let collector = std::thread::spawn({
        let (store, done) = (store.clone(), done.clone());
        move || {
            let mut collected = 0;
            while !done.load(Ordering::SeqCst) {
                collected += store.collect_blobs(Duration::ZERO).unwrap().blobs;
            }
            collected
        }
    });
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let objects = objects.clone();
            tokio::spawn(async move {
                let key = format!("k{writer}");
                for round in 0..ROUNDS {
                    let content = bytes(1_000, round % 5);
                    if round % 3 == 0 {
                        let id = begin(&objects, &key).await;
                        let mut parts = Vec::new();
                        for (number, half) in content.chunks(500).enumerate() {
                            let number = number as u32 + 1;
                            parts.push((number, part(&objects, &key, &id, number, half).await.etag));
                        }
                        let done = objects.complete_upload(&name("b"), &key, &id, parts, Finish::default()).await;
                        done.unwrap().unwrap();
                    } else {
                        put(&objects, &key, &content).await;
                    }
                    assert_eq!(read(&objects, &key).await.unwrap(), content, "{key} in round {round}");
                    if round % 7 == 0 {
                        delete(&objects, &key, Expect::Any).await.unwrap();
                    }
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    done.store(true, Ordering::SeqCst);
    let collected = collector.join().unwrap();
    assert!(collected > 0, "the collector had nothing to do: this test has shown nothing");
    assert_eq!(store.check().unwrap(), []);
}

/// A store with objects, closed: nothing of it is in the log. The first byte of the page that an index or a table begins with.
async fn closed(table: &str) -> (tempfile::TempDir, u64) {
    let (dir, store, objects, _) = fresh().await;
    for n in 0..20 {
        put(&objects, &format!("k{n}"), &bytes(100, n)).await;
    }
    drop((objects, store));
    let db = Connection::open(dir.path().join("node.db")).unwrap();
    db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
    let page = db.query_row("SELECT rootpage FROM sqlite_schema WHERE name = ?", [table], |row| row.get::<_, u64>(0));
    (dir, (page.unwrap() - 1) * 4_096)
}

/// Flips a bit of the database.
fn flip(dir: &Path, place: u64, bit: u8) {
    let path = dir.join("node.db");
    let mut content = std::fs::read(&path).unwrap();
    content[usize::try_from(place).unwrap()] ^= bit;
    std::fs::write(&path, content).unwrap();
}

/// The check of the start does not compare an index with its table: the collector does, and then it is known.
#[tokio::test]
async fn a_content_that_its_index_no_longer_knows_stays() {
    let (dir, page) = closed("object_by_digest").await;
    // Where its first row is (SQLite, "Database File Format" §1.6): behind the sizes comes the digest.
    let content = std::fs::read(dir.path().join("node.db")).unwrap();
    let at = usize::try_from(page).unwrap() + 8;
    let row = u64::from(u16::from_be_bytes([content[at], content[at + 1]]));
    flip(dir.path(), page + row + 10, 1);

    let (store, objects) = opened(dir.path());
    assert_eq!(store.damage(), None, "the index has as many rows, and in their order");
    let refused = store.collect_blobs(Duration::ZERO).unwrap_err();
    assert!(refused.to_string().contains("index"), "{refused}");
    assert!(store.damage().is_some_and(|why| why.contains("object")), "{:?}", store.damage());
    for n in 0..20 {
        assert_eq!(read(&objects, &format!("k{n}")).await.unwrap(), bytes(100, n));
    }
    assert!(objects.create_bucket(&name("other")).await.is_err(), "nothing is written to it");
}

#[tokio::test]
async fn nothing_is_collected_by_a_database_that_is_damaged() {
    // With a bit less of the number of rows in its page, the last rows are not there: of the index, of the table.
    for table in ["object_by_digest", "object"] {
        let (dir, page) = closed(table).await;
        flip(dir.path(), page + 4, 16);
        let (store, _objects) = opened(dir.path());
        assert!(store.damage().is_some());
        store.collect_blobs(Duration::ZERO).unwrap_err();
        assert_eq!(store.blobs().list().unwrap().len(), 20);
    }
}
