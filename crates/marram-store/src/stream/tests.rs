//! Appending within operations of others. What [`crate::Streams`] does is tested in `tests/`.

use marram_core::event::Event;
use marram_core::port::streams::Published;
use marram_core::stream::StreamName;

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
