//! The events of keys, in streams. What the ports do is tested in `tests/`.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use marram_core::capture::Capture;
use marram_core::event::{Attribute, Event, SubjectFilter};
use marram_core::port::kv::{Change, Expect};
use marram_core::stream::StreamName;

use marram_core::capture::Source;

use super::*;
use crate::{Store, StoreConfig};

const NOW: u64 = 1_700_000_000_000_000_000;

#[derive(Default)]
struct At(AtomicU64);

impl Clock for At {
    fn unix_ns(&self) -> u64 {
        NOW + self.0.load(Ordering::SeqCst)
    }
    fn instant(&self) -> Instant {
        Instant::now()
    }
}

fn put(key: &str, value: &'static str, ttl: Option<Duration>) -> Change {
    Change::Put { key: key.into(), value: value.into(), ttl, expect: Expect::Any }
}

fn delete(key: &str) -> Change {
    Change::Delete { key: key.into(), expect: Expect::Any }
}

fn capture(store: &Store, glob: &str, stream: &str) {
    let filter = SubjectFilter::glob(glob).unwrap();
    let stream = StreamName::new(stream).unwrap();
    store.set_captures(vec![Capture { source: Source::Key, filter, stream }]);
}

/// Every event of every stream, in order.
fn events(store: &Store) -> Vec<Event> {
    let read = store.readers.read(|db| {
        let mut query = db.prepare("SELECT event FROM event ORDER BY key")?;
        let rows = query.query_map([], |row| row.get::<_, Vec<u8>>(0))?;
        Ok(rows.map(|row| crate::stream::decode(&row.unwrap()).unwrap()).collect())
    });
    read.unwrap()
}

#[tokio::test]
async fn changes_are_events_of_the_streams_that_ask() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&StoreConfig::new(dir.path())).unwrap();
    let clock = Arc::new(At::default());
    let keys = store.kv(Arc::clone(&clock) as _);
    let (limits, state) = (Name::new("limits").unwrap(), Name::new("state").unwrap());
    // Before anybody asks, and what nobody asks for.
    keys.apply(&limits, vec![put("a/b", "0", None)]).await.unwrap();
    capture(&store, "limits/**", "keys");
    keys.apply(&state, vec![put("a", "1", None)]).await.unwrap();

    let ttl = Some(Duration::from_secs(1));
    let written = keys.apply(&limits, vec![put("a/b", "1", ttl), put("c", "2", None)]).await.unwrap();
    keys.increment(&limits, "c", 3).await.unwrap();
    keys.apply(&limits, vec![delete("c"), delete("nothing")]).await.unwrap();
    keys.crdt_update(&limits, "set", vec![CrdtChange::SetAdd("m".into())]).await.unwrap();
    clock.0.store(1_000_000_000, Ordering::SeqCst);
    // The write ends the time of what was there, and says so first.
    keys.apply(&limits, vec![put("a/b", "3", ttl)]).await.unwrap();
    clock.0.store(2_000_000_000, Ordering::SeqCst);
    assert_eq!(keys.maintain().await.unwrap().expired, 1);

    let events = events(&store);
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
    let store = Store::open(&StoreConfig::new(dir.path())).unwrap();
    let clock = Arc::new(At::default());
    let keys = store.kv(Arc::clone(&clock) as _);
    let bucket = Name::new("b").unwrap();
    capture(&store, "b/**", "keys");
    let ttl = Some(Duration::from_secs(1));
    keys.apply(&bucket, vec![put("k", "before", None), put("t", "short", ttl)]).await.unwrap();
    keys.get(&bucket, "k").unwrap();
    let sql = "UPDATE stream SET bytes_max = 1";
    store.writer().write(move |tx| Ok(tx.execute(sql, [])?)).await.unwrap();
    drop((keys, store));

    let store = Store::open(&StoreConfig::new(dir.path())).unwrap();
    let keys = store.kv(Arc::clone(&clock) as _);
    capture(&store, "b/**", "keys");
    assert_eq!(keys.get(&bucket, "k").unwrap().unwrap().value, "before");
    let refused = keys.apply(&bucket, vec![put("k", "after", None)]).await.unwrap_err();
    assert_eq!(refused.kind(), marram_core::Kind::StreamFull, "{refused}");
    assert_eq!(keys.increment(&bucket, "n", 1).await.unwrap_err().kind(), marram_core::Kind::StreamFull);
    assert_eq!(keys.get(&bucket, "k").unwrap().unwrap().value, "before");
    assert_eq!(keys.get(&bucket, "n").unwrap(), None);
    // What expires reads as absent, and waits with its event.
    clock.0.store(1_000_000_000, Ordering::SeqCst);
    assert!(matches!(keys.maintain().await, Err(StoreError::StreamFull(_))));
    assert_eq!(keys.get(&bucket, "t").unwrap(), None);
    assert_eq!(keys.next_due_unix_ns().unwrap(), Some(NOW + 1_000_000_000));
    assert_eq!(events(&store).len(), 2);
    store.set_captures(Vec::new());
    assert_eq!(keys.maintain().await.unwrap().expired, 1);
}
