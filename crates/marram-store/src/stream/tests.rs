//! Appending within operations of others. What [`crate::Streams`] does is tested in `tests/`.

use marram_core::event::Event;
use marram_core::port::streams::Published;
use marram_core::stream::{Overflow, StreamName, StreamPolicy};

use super::*;
use crate::{Store, StoreConfig, StoreError, Tx};

const NOW: u64 = 1_700_000_000_000_000_000;

fn open() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&StoreConfig::new(dir.path())).unwrap();
    (dir, store)
}

fn name(text: &str) -> StreamName {
    StreamName::new(text).unwrap()
}

fn event(id: &str) -> Encoded {
    let (source, kind) = ("/test".to_owned(), "test".to_owned());
    Encoded::new(Event { id: id.into(), source, kind, ..Event::default() }).unwrap()
}

fn last(store: &Store, stream: &str) -> Option<u64> {
    store.hub.stream(&name(stream)).map(|stream| *stream.last.borrow())
}

/// Holds the writer up, so that what is submitted meanwhile becomes one group.
fn hold(store: &Store) -> (std::sync::mpsc::Sender<()>, crate::Ticket<bool>) {
    let (go, wait) = std::sync::mpsc::channel();
    let (started, has_started) = std::sync::mpsc::channel();
    let operation = move |_: &Tx| {
        let _ = started.send(());
        Ok(wait.recv().is_ok())
    };
    let held = store.writer().submit(operation).unwrap();
    has_started.recv().unwrap();
    (go, held)
}

/// A thing and its event, in one operation.
fn capture(tx: &Tx, id: &str) -> Result<Published, StoreError> {
    tx.prepare_cached("UPDATE node SET generation = generation + 1")?.execute([])?;
    append(tx, &name("keys"), &event(id), NOW)
}

#[tokio::test]
async fn a_captured_event_is_stored_with_the_thing_or_not_at_all() {
    let (dir, store) = open();
    let first = store.writer().write(|tx| capture(tx, "1")).await.unwrap();
    assert_eq!((first.position, first.duplicate), (1, false));
    // The first operation that names a stream makes it; undone, it leaves nothing, in memory neither.
    let refused = store.writer().write(|tx| {
        capture(tx, "2")?;
        append(tx, &name("other"), &event("2"), NOW)?;
        Err::<(), _>(StoreError::Invalid("no".into()))
    });
    assert!(matches!(refused.await, Err(StoreError::Invalid(_))));
    assert_eq!((last(&store, "keys"), last(&store, "other")), (Some(1), None));
    // Positions and identities are as if it had never been.
    let second = store.writer().write(|tx| capture(tx, "2")).await.unwrap();
    assert_eq!((second.position, second.duplicate), (2, false));
    let other = store.writer().write(|tx| append(tx, &name("other"), &event("2"), NOW)).await.unwrap();
    assert_eq!((other.position, other.duplicate), (1, false));
    drop(store);
    let store = Store::open(&StoreConfig::new(dir.path())).unwrap();
    assert_eq!((last(&store, "keys"), last(&store, "other")), (Some(2), Some(1)));
}

#[tokio::test]
async fn a_bare_operation_that_fails_before_it_writes_fails_alone() {
    let (_dir, store) = open();
    let (go, held) = hold(&store);
    let one = store.writer().write_here(|tx| capture(tx, "1")).unwrap();
    let none = store.writer().write_here(|_| Err::<(), _>(StoreError::Busy)).unwrap();
    let two = store.writer().write_here(|tx| capture(tx, "2")).unwrap();
    go.send(()).unwrap();
    assert!(held.await.unwrap());
    assert_eq!(one.await.unwrap().position, 1);
    assert!(matches!(none.await, Err(StoreError::Busy)));
    assert_eq!(two.await.unwrap().position, 2);
}

#[tokio::test]
async fn a_bare_operation_that_fails_after_it_has_written_fails_its_group_and_memory_follows() {
    let (_dir, store) = open();
    store.writer().write(|tx| capture(tx, "0")).await.unwrap();
    let (go, held) = hold(&store);
    let effects = std::sync::Arc::new(std::sync::atomic::AtomicU32::new(0));
    let counted = std::sync::Arc::clone(&effects);
    let one = store
        .writer()
        .write_here(move |tx| {
            tx.after_commit(move || counted.store(1, std::sync::atomic::Ordering::SeqCst));
            append(tx, &name("other"), &event("1"), NOW)?;
            capture(tx, "1")
        })
        .unwrap();
    let bad = store.writer().write_here(|tx| capture(tx, "2").and(Err::<(), _>(StoreError::Busy))).unwrap();
    go.send(()).unwrap();
    assert!(held.await.unwrap());
    assert!(one.await.is_err() && bad.await.is_err());
    assert_eq!((last(&store, "keys"), last(&store, "other")), (Some(1), None));
    assert_eq!(effects.load(std::sync::atomic::Ordering::SeqCst), 0, "the effect of what was not committed");
    let again = store.writer().write(|tx| capture(tx, "1")).await.unwrap();
    assert_eq!((again.position, again.duplicate), (2, false));
}

/// What the row of the stream says: `last`, `events`, `bytes`.
fn row(store: &Store) -> (u64, u64, u64) {
    let sql = "SELECT last, events, bytes FROM stream";
    let read =
        |db: &rusqlite::Connection| Ok(db.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?);
    store.readers.read(read).unwrap()
}

#[tokio::test]
async fn the_row_of_a_stream_is_seldom_written_and_what_it_lacks_is_counted() {
    let (dir, mut store) = open();
    let size = event("1000").size;
    let bytes_max = 600 * size;
    let policy = StreamPolicy { bytes_max, overflow: Overflow::DropOldest, ..StreamPolicy::default() };
    let declare = move |tx: &Tx| tx.ledger().find_or_make(tx, &name("s"), policy).map(|_| ());
    store.writer().write(declare).await.unwrap();
    // As many as it may be behind; one more; a group that is too many at once; what drops the oldest.
    let steps = [(256, 0), (1, 257), (1, 257), (300, 558), (1, 558), (42, 601), (255, 856), (1, 857)];
    let mut last = 0;
    for (count, row_last) in steps {
        let events: Vec<_> = (last..last + count).map(|n| event(&(1000 + n).to_string())).collect();
        store.writer().write(move |tx| append_all(tx, &name("s"), &events, NOW)).await.unwrap();
        last += count;
        assert_eq!(row(&store).0, row_last, "after {last}");
        let before = store.hub.stream(&name("s")).unwrap().committed();
        assert_eq!(before.0.events, last.min(600));
        drop(store);
        store = Store::open(&StoreConfig::new(dir.path())).unwrap();
        assert_eq!(store.hub.stream(&name("s")).unwrap().committed(), before, "after {last}");
        let (row_last, events, bytes) = row(&store);
        assert_eq!((events, bytes), (row_last.min(600), row_last.min(600) * size), "the row is a whole");
    }
}

#[tokio::test]
async fn a_row_that_was_not_committed_is_written_again() {
    let (_dir, store) = open();
    let append_some = |tx: &Tx, from: u64, count: u64| {
        let events: Vec<_> = (from..from + count).map(|n| event(&n.to_string())).collect();
        append_all(tx, &name("keys"), &events, NOW).map(|_| ())
    };
    store.writer().write(move |tx| append_some(tx, 0, 1)).await.unwrap();
    let failing = move |tx: &Tx| {
        tx.faults.borrow_mut().push(StoreError::Busy);
        append_some(tx, 1, 300)
    };
    assert!(matches!(store.writer().write(failing).await, Err(StoreError::Busy)));
    assert_eq!(row(&store).0, 0);
    store.writer().write(move |tx| append_some(tx, 1, 300)).await.unwrap();
    assert_eq!(row(&store).0, 301);
}
