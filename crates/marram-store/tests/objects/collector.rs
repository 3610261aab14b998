//! The collector beside everything else: what is referred to, written or read stays, and the rest goes.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::TryStreamExt as _;
use marram_core::port::Blobs as _;
use marram_core::port::blobs::{Expect, Finish, Multipart as _};

use crate::multipart::{begin, part};
use crate::support::name;
use crate::{bytes, delete, fresh, put, read};

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
