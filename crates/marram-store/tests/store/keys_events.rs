//! The events of keys, in the streams that ask for them.
use std::sync::Arc;
use std::time::Duration;

use crate::support::{NOW, NoEntropy, TestClock, delete, name, open, set, set_for, stream};
use marram_core::Kind;
use marram_core::capture::{Capture, Source};
use marram_core::event::{Attribute, Event, SubjectFilter};
use marram_core::port::crdt::CrdtChange;
use marram_core::port::{Crdt as _, Kv as _, Streams as _};
use marram_core::stream::{Start, StreamPolicy};
use marram_store::{Store, StoreStreams};

fn capture(store: &Store, glob: &str) {
    let filter = SubjectFilter::glob(glob).unwrap();
    let stream = stream("keys");
    store.set_captures(vec![Capture { source: Source::Key, filter, stream }]);
}

fn events(streams: &StoreStreams) -> Vec<Event> {
    let stored = streams.read(&stream("keys"), Start::First, 1_000).unwrap();
    stored.into_iter().map(|stored| (*stored.event).clone()).collect()
}

#[tokio::test]
async fn changes_are_events_of_the_streams_that_ask() {
    let dir = tempfile::tempdir().unwrap();
    let (store, clock) = (open(&dir), TestClock::new());
    let keys = store.kv(Arc::clone(&clock) as _);
    let streams = store.streams(Arc::clone(&clock) as _, Arc::new(NoEntropy));
    let (limits, state) = (name("limits"), name("state"));
    // Before anybody asks, and what nobody asks for.
    keys.apply(&limits, vec![set("a/b", "0")]).await.unwrap();
    capture(&store, "limits/**");
    keys.apply(&state, vec![set("a", "1")]).await.unwrap();

    let second = Duration::from_secs(1);
    let written = keys.apply(&limits, vec![set_for("a/b", "1", second), set("c", "2")]).await.unwrap();
    keys.increment(&limits, "c", 3).await.unwrap();
    keys.apply(&limits, vec![delete("c"), delete("nothing")]).await.unwrap();
    keys.crdt_update(&limits, "set", vec![CrdtChange::SetAdd("m".into())]).await.unwrap();
    clock.pass(second);
    // The write ends the time of what was there, and says so first.
    keys.apply(&limits, vec![set_for("a/b", "3", second)]).await.unwrap();
    clock.pass(second);
    assert_eq!(keys.maintain().await.unwrap().expired, 1);

    let events = events(&streams);
    let short = |event: &Event| {
        let kind = event.kind.strip_prefix("marram.key.").unwrap();
        let data = event.data.as_ref().map(|data| String::from_utf8(data.to_vec()).unwrap());
        format!("{kind} {} {}", event.subject, data.unwrap_or_default())
    };
    assert_eq!(
        events.iter().map(short).collect::<Vec<_>>(),
        [
            "updated limits/a/b 1",
            "created limits/c 2",
            "updated limits/c 5",
            "deleted limits/c ",
            "created limits/set ",
            "expired limits/a/b ",
            "created limits/a/b 3",
            "expired limits/a/b ",
        ]
    );
    let mut ids: Vec<_> = events.iter().map(|event| &event.id).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), events.len());
    let version = format!("{:032x}", u128::from_be_bytes(written[0].unwrap().0));
    let first = &events[0];
    assert_eq!((first.source.as_str(), &first.id), ("/kv/limits", &version));
    assert_eq!(first.data_content_type, "application/octet-stream");
    assert_eq!(first.time, "2023-11-14T22:13:20.000000000Z");
    assert_eq!(first.extensions["marramversion"], Attribute::Text(version.clone()));
    assert_eq!((events[5].id.as_str(), events[5].data_content_type.as_str()), (&*format!("{version}-expired"), ""));
}

/// The stream does not take the event: then the key does not change either, and the cache does not say so.
#[tokio::test]
async fn a_write_whose_event_is_refused_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (store, clock) = (open(&dir), TestClock::new());
    let keys = store.kv(Arc::clone(&clock) as _);
    let streams = store.streams(Arc::clone(&clock) as _, Arc::new(NoEntropy));
    let bucket = name("b");
    capture(&store, "b/**");
    let second = Duration::from_secs(1);
    keys.apply(&bucket, vec![set("k", "before"), set_for("t", "short", second)]).await.unwrap();
    keys.get(&bucket, "k").unwrap();
    let policy = StreamPolicy { bytes_max: streams.list().unwrap()[0].bytes, ..StreamPolicy::default() };
    streams.declare(&stream("keys"), policy).await.unwrap();

    assert_eq!(keys.get(&bucket, "k").unwrap().unwrap().value, "before");
    let refused = keys.apply(&bucket, vec![set("k", "after")]).await.unwrap_err();
    assert_eq!(refused.kind(), Kind::StreamFull, "{refused}");
    assert_eq!(keys.increment(&bucket, "n", 1).await.unwrap_err().kind(), Kind::StreamFull);
    assert_eq!(keys.get(&bucket, "k").unwrap().unwrap().value, "before");
    assert_eq!(keys.get(&bucket, "n").unwrap(), None);
    // What expires reads as absent, and waits with its event.
    clock.pass(second);
    let done = keys.maintain().await.unwrap();
    assert_eq!((done.expired, done.refused, done.more), (0, 1, false));
    assert_eq!(keys.get(&bucket, "t").unwrap(), None);
    assert_eq!(keys.next_due_unix_ns().unwrap(), Some(NOW + 1_000_000_000));
    assert_eq!(events(&streams).len(), 2);
    store.set_captures(Vec::new());
    assert_eq!(keys.maintain().await.unwrap().expired, 1);
}

/// A stream that is full holds up what it wants to know of, and nothing else.
#[tokio::test]
async fn keys_expire_beside_many_whose_stream_is_full() {
    let dir = tempfile::tempdir().unwrap();
    let (store, clock) = (open(&dir), TestClock::new());
    let keys = store.kv(Arc::clone(&clock) as _);
    let streams = store.streams(Arc::clone(&clock) as _, Arc::new(NoEntropy));
    capture(&store, "watched/**");
    let second = Duration::from_secs(1);
    let (watched, free) = (name("watched"), name("free"));
    keys.apply(&watched, vec![set("first", "x")]).await.unwrap();
    let policy = StreamPolicy { bytes_max: streams.list().unwrap()[0].bytes, ..StreamPolicy::default() };
    // More than one step looks at, and all of them before those of the other bucket.
    store.set_captures(Vec::new());
    for at in 0..6 {
        keys.apply(&watched, (0..100).map(|n| set_for(&format!("{at}-{n}"), "x", second)).collect()).await.unwrap();
    }
    keys.apply(&free, (0..300).map(|n| set_for(&format!("{n}"), "x", second * 2)).collect()).await.unwrap();
    streams.declare(&stream("keys"), policy).await.unwrap();
    capture(&store, "watched/**");
    clock.pass(second * 2);

    // The second round finds the same ones again.
    for beside in [300, 0] {
        let mut expired = 0;
        let refused = loop {
            let done = keys.maintain().await.unwrap();
            expired += done.expired;
            if !done.more {
                break done.refused;
            }
        };
        assert_eq!((expired, refused), (beside, 600));
    }
    store.set_captures(Vec::new());
    let mut expired = 0;
    while keys.next_due_unix_ns().unwrap().is_some_and(|due| due <= NOW + 2_000_000_000) {
        expired += keys.maintain().await.unwrap().expired;
    }
    assert_eq!(expired, 600);
}
