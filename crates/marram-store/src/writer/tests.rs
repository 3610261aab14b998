use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::FutureExt as _;
use rusqlite::Connection;

use super::*;
use crate::limits::RESERVE_BYTES;
use crate::read::Readers;
use crate::schema;

fn writer() -> (tempfile::TempDir, Writer, Connection) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("node.db");
    let mut connection = schema::open_writer(&path).unwrap();
    schema::migrate(&mut connection).unwrap();
    connection.execute_batch("CREATE TABLE t (x INTEGER PRIMARY KEY, pad BLOB)").unwrap();
    let ledger = crate::stream::Ledger::load(&connection, crate::stream::Hub::new()).unwrap();
    let writer = Writer::start(Tx::new(connection, ledger, Arc::new(Readers::new(path.clone())))).unwrap();
    let reader = schema::open_reader(&path).unwrap();
    (dir, writer, reader)
}

fn insert(connection: &Connection, x: i64) -> Result<(), StoreError> {
    connection.prepare_cached("INSERT INTO t (x) VALUES (?)")?.execute([x])?;
    Ok(())
}

fn rows(reader: &Connection) -> i64 {
    reader.query_row("SELECT count(*) FROM t", [], |row| row.get(0)).unwrap()
}

/// Holds the writer up, so that what is submitted meanwhile becomes one group.
fn hold(writer: &Writer) -> (std::sync::mpsc::Sender<()>, Ticket<()>) {
    hold_as(writer, Effect::Adds)
}

fn hold_as(writer: &Writer, effect: Effect) -> (std::sync::mpsc::Sender<()>, Ticket<()>) {
    let (go, wait) = std::sync::mpsc::channel();
    let (started, has_started) = std::sync::mpsc::channel();
    let operation = move |_: &Tx| {
        let _ = started.send(());
        let _ = wait.recv();
        Ok(())
    };
    let ticket = writer.try_send(job(Undo::Savepoint, effect, operation)).unwrap();
    has_started.recv().unwrap();
    (go, ticket)
}

#[test]
fn a_group_is_one_commit_and_a_failure_is_only_its_own() {
    let (_dir, writer, reader) = writer();
    let (go, _ticket) = hold(&writer);
    let commits = Arc::new(AtomicUsize::new(0));
    let good: Vec<_> = (0..100).map(|x| writer.submit(move |db| insert(db, x)).unwrap()).collect();
    let bad = writer
        .submit(|db| {
            insert(db, 1_000)?;
            insert(db, 5)
        })
        .unwrap();
    let refused = writer
        .submit(|db| {
            insert(db, 1_001)?;
            Err::<(), _>(StoreError::Invalid("no".into()))
        })
        .unwrap();
    let panics = writer
        .submit(|db| -> Result<(), StoreError> {
            insert(db, 1_002)?;
            panic!("on purpose")
        })
        .unwrap();
    let counted = Arc::clone(&commits);
    let last = writer
        .submit(move |db| {
            counted.store(usize::try_from(db.total_changes()).unwrap_or(0), Ordering::SeqCst);
            insert(db, 200)
        })
        .unwrap();
    assert_eq!(rows(&reader), 0, "nothing is seen before the commit");
    go.send(()).unwrap();
    for ticket in good {
        ticket.wait().unwrap();
    }
    assert!(matches!(bad.wait(), Err(StoreError::Database(_))));
    assert!(matches!(refused.wait(), Err(StoreError::Invalid(_))));
    assert!(matches!(panics.wait(), Err(StoreError::Panicked(text)) if text == "on purpose"));
    last.wait().unwrap();
    assert_eq!(rows(&reader), 101);
    assert!(commits.load(Ordering::SeqCst) >= 100, "all in one group");
}

#[test]
fn who_takes_long_is_committed_before_the_next_begins() {
    let (_dir, writer, reader) = writer();
    let (go, _ticket) = hold(&writer);
    let slow = writer.submit(|db| {
        let begun = Instant::now();
        while begun.elapsed() < WRITE_GROUP_TIME {
            std::thread::yield_now();
        }
        insert(db, 1)
    });
    let next = writer.submit(move |db| {
        insert(db, 2)?;
        Ok((rows(&reader), reader))
    });
    let last = writer.submit(|db| insert(db, 3));
    go.send(()).unwrap();
    let (seen, reader) = next.unwrap().wait().unwrap();
    assert_eq!(seen, 1, "the slow one is kept already, and this one is not");
    slow.unwrap().wait().unwrap();
    last.unwrap().wait().unwrap();
    assert_eq!(rows(&reader), 3);
    // All of them are off the writer's desk.
    rest(&writer);
}

#[test]
fn a_full_queue_is_said_at_once() {
    let (_dir, writer, _reader) = writer();
    let (go, _ticket) = hold(&writer);
    let mut tickets = Vec::new();
    let refused = loop {
        match writer.submit(|_| Ok(())) {
            Ok(ticket) => tickets.push(ticket),
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, StoreError::Busy));
    assert_eq!(tickets.len(), WRITE_QUEUE_MAX);
    go.send(()).unwrap();
    for ticket in tickets {
        ticket.wait().unwrap();
    }
}

/// One is committed while the other lines up: who is answered and writes again is in time for the next commit.
#[test]
fn who_was_answered_and_writes_again_is_committed_with_those_who_waited() {
    let (_dir, writer, reader) = writer();
    writer.desk.patient.store(true, Ordering::Relaxed);
    let (go, first) = hold(&writer);
    let second = writer.submit(|db| insert(db, 1)).unwrap();
    go.send(()).unwrap();
    first.wait().unwrap();
    let committed = writer.submit(move |_| Ok(rows(&reader))).unwrap();
    assert_eq!(committed.wait().unwrap(), 0, "the second was committed before the first came back");
    second.wait().unwrap();
}

/// Inserts a row, and says on which thread.
fn here(writer: &Writer, x: i64) -> Ticket<std::thread::ThreadId> {
    let operation = move |db: &Tx| insert(db, x).map(|()| std::thread::current().id());
    writer.write_here(operation).unwrap()
}

/// Waits until the writer, which has answered, has nothing more to do.
fn rest(writer: &Writer) {
    while writer.desk.waiting.load(Ordering::Acquire) > 0 {
        std::thread::yield_now();
    }
    // It looks at the log, still holding this.
    drop(writer.desk.tx());
}

#[test]
fn who_is_alone_commits_by_itself_where_the_disk_is_quick() {
    let (_dir, writer, reader) = writer();
    let me = std::thread::current().id();
    let quick = || writer.desk.quick.believe();
    assert_ne!(here(&writer, 0).wait().unwrap(), me, "nobody knows the disk yet");
    rest(&writer);
    quick();
    let ticket = here(&writer, 1);
    assert_eq!(rows(&reader), 2, "it is committed when the call returns");
    assert_eq!(ticket.wait().unwrap(), me);
    // What was handed in before comes first, and both are one group.
    let (go, _ticket) = hold(&writer);
    quick();
    let before = writer.submit(|db| insert(db, 2)).unwrap();
    let after = here(&writer, 3);
    assert_eq!(rows(&reader), 2);
    go.send(()).unwrap();
    before.wait().unwrap();
    assert_ne!(after.wait().unwrap(), me);
    rest(&writer);
    // A failure is the caller's own, and a failed commit ends it.
    quick();
    assert!(matches!(here(&writer, 3).wait(), Err(StoreError::Database(_))));
    let failing = writer.write_here(|tx: &Tx| {
        tx.faults.borrow_mut().push(sync_failure());
        insert(tx, 4)
    });
    assert!(matches!(failing.unwrap().wait(), Err(StoreError::Database(_))));
    assert!(!writer.desk.quick.is_likely());
    assert_eq!(rows(&reader), 4);
    writer.stop();
    quick();
    assert!(matches!(writer.write_here(|db| insert(db, 5)), Err(StoreError::Closed)));
}

#[test]
fn who_awaits_commits_by_itself_too_and_is_undone_alone() {
    let (_dir, writer, reader) = writer();
    let me = std::thread::current().id();
    let near = |x, fails| {
        writer.desk.quick.believe();
        let operation = move |db: &Tx| {
            insert(db, x)?;
            if fails { Err(StoreError::Busy) } else { Ok(std::thread::current().id()) }
        };
        futures::executor::block_on(writer.write_near(Effect::Adds, operation))
    };
    assert_eq!(near(1, false).unwrap(), me);
    assert!(matches!(near(2, true), Err(StoreError::Busy)));
    assert_eq!(near(3, false).unwrap(), me);
    assert_eq!(rows(&reader), 2, "what failed has written nothing");
}

/// It is no use to be first in line if somebody commits beside the line.
#[test]
fn who_waits_for_a_place_in_the_queue_is_not_overtaken() {
    let (_dir, writer, reader) = writer();
    let (go, _ticket) = hold(&writer);
    let mut tickets = Vec::new();
    while let Ok(ticket) = writer.submit(|_| Ok(())) {
        tickets.push(ticket);
    }
    let mut first = Box::pin(writer.write(|db| insert(db, 1)));
    assert!(first.as_mut().now_or_never().is_none());
    go.send(()).unwrap();
    tickets.into_iter().for_each(|ticket| ticket.wait().unwrap());
    // The place is there, and has not been taken.
    while writer.desk.waiting.load(Ordering::Acquire) > 1 {
        std::thread::yield_now();
    }
    writer.desk.quick.believe();
    let second = here(&writer, 2);
    assert_eq!(rows(&reader), 0);
    drop(first);
    assert_ne!(second.wait().unwrap(), std::thread::current().id());
    assert_eq!(rows(&reader), 1, "who gave up has written nothing");
    // And holds nobody up.
    rest(&writer);
    writer.desk.quick.believe();
    assert_eq!(here(&writer, 3).wait().unwrap(), std::thread::current().id());
}

#[test]
fn the_log_is_emptied_though_the_writer_has_nothing_to_write() {
    let (dir, writer, _reader) = writer();
    for x in 0..1_000 {
        writer.desk.quick.believe();
        let write = move |db: &Tx| {
            db.execute("INSERT INTO t (x, pad) VALUES (?, zeroblob(200000))", [x])?;
            Ok::<_, StoreError>(())
        };
        writer.write_here(write).unwrap().wait().unwrap();
    }
    let log = std::fs::metadata(dir.path().join("node.db-wal")).unwrap().len();
    assert!(log < 64 << 20, "the log has {log} bytes after 200 MB");
}

#[test]
fn stopping_commits_what_was_queued() {
    let (_dir, writer, reader) = writer();
    let (go, _ticket) = hold(&writer);
    let tickets: Vec<_> = (0..5_000).map(|x| writer.submit(move |db| insert(db, x)).unwrap()).collect();
    go.send(()).unwrap();
    writer.stop();
    assert!(matches!(writer.submit(|_| Ok(())), Err(StoreError::Closed)));
    for ticket in tickets {
        ticket.wait().unwrap();
    }
    assert_eq!(rows(&reader), 5_000);
}

/// `max_page_count` makes SQLite report a full disk, as it would for the real one.
#[test]
fn a_full_disk_is_told_to_the_whole_group_and_is_recovered_from() {
    let (_dir, writer, reader) = writer();
    let set_pages = |pages: i64| {
        let set = writer.submit(move |db| Ok(db.pragma_update_and_check(None, "max_page_count", pages, |_| Ok(()))?));
        set.unwrap().wait().unwrap();
    };
    set_pages(64);
    let fill = |x: i64| {
        move |db: &Tx| {
            db.execute("INSERT INTO t (x, pad) VALUES (?, zeroblob(3000))", [x])?;
            Ok::<_, StoreError>(())
        }
    };
    let mut kept = 0;
    let error = loop {
        match writer.submit(fill(kept)).unwrap().wait() {
            Ok(()) => kept += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, StoreError::Full), "{error}");
    assert!(error.to_string().contains("disk is full"));
    assert_eq!(rows(&reader), kept, "everything acknowledged is there, and nothing else");
    set_pages(1 << 20);
    writer.submit(fill(kept)).unwrap().wait().unwrap();
    assert_eq!(rows(&reader), kept + 1);
}

/// From now on the disk is taken to be full, until something finds room.
fn fill_up(writer: &Writer) {
    writer.desk.tx().as_mut().unwrap().room.missed(Instant::now());
}

#[test]
fn on_a_full_disk_what_takes_away_has_the_room_that_is_held_for_it() {
    let (dir, writer, reader) = writer();
    let reserve = dir.path().join("node.reserve");
    let held = || std::fs::metadata(&reserve).is_ok_and(|file| file.len() == RESERVE_BYTES);
    assert!(held());
    writer.submit(|db| insert(db, 1).and(insert(db, 2))).unwrap().wait().unwrap();
    fill_up(&writer);
    let delete = |x: i64, and: fn(&std::path::Path)| {
        let reserve = reserve.clone();
        writer.free(move |db: &Tx| {
            assert!(!reserve.exists(), "its room is free");
            and(&reserve);
            db.execute("DELETE FROM t WHERE x = ?", [x])?;
            Ok::<_, StoreError>(())
        })
    };
    futures::executor::block_on(delete(1, |_| {})).unwrap();
    assert!(held(), "it is held again");
    let log = std::fs::metadata(dir.path().join("node.db-wal")).unwrap().len();
    assert_eq!(log, 0, "what was written for it is free again");

    // Where it cannot be held again, nothing else is taken; what takes away still is.
    fill_up(&writer);
    futures::executor::block_on(delete(2, |reserve| std::fs::create_dir(reserve).unwrap())).unwrap();
    assert_eq!(rows(&reader), 0);
    let refused = writer.submit(|_| -> Result<(), StoreError> { panic!("it is not tried") }).unwrap().wait();
    assert!(matches!(refused, Err(StoreError::Full)), "{refused:?}");
    std::fs::remove_dir(&reserve).unwrap();
    writer.submit(|db| insert(db, 3)).unwrap().wait().unwrap();
    assert!(held());
}

#[test]
fn on_a_full_disk_the_order_stays() {
    let (_dir, writer, reader) = writer();
    fill_up(&writer);
    let (go, _ticket) = hold(&writer);
    let put = || writer.submit(|db| insert(db, 1)).unwrap();
    let one = put();
    let delete = |db: &Tx| Ok(db.execute("DELETE FROM t WHERE x = 1", [])?);
    let two = writer.try_send(job(Undo::Savepoint, Effect::Frees, delete)).unwrap();
    let three = put();
    go.send(()).unwrap();
    one.wait().unwrap();
    assert_eq!(two.wait().unwrap(), 1, "the first was there");
    three.wait().unwrap();
    assert_eq!(rows(&reader), 1);
}

#[test]
fn on_a_full_disk_what_writes_the_rest_anew_is_committed_by_twos() {
    let (_dir, writer, reader) = writer();
    writer.submit(|db| (0..5).try_for_each(|x| insert(db, x))).unwrap().wait().unwrap();
    fill_up(&writer);
    // What adds something would find that there is room after all.
    let (go, _ticket) = hold_as(&writer, Effect::Frees);
    let reader = Arc::new(Mutex::new(reader));
    // Each says how many rows everybody else sees while it runs.
    let shrink = |x: i64| {
        let reader = Arc::clone(&reader);
        let operation = move |db: &Tx| {
            db.execute("DELETE FROM t WHERE x = ?", [x])?;
            Ok::<_, StoreError>(rows(&reader.lock().unwrap()))
        };
        writer.try_send(job(Undo::Savepoint, Effect::Shrinks, operation)).unwrap()
    };
    let tickets: Vec<_> = (0..5).map(shrink).collect();
    go.send(()).unwrap();
    let seen: Vec<_> = tickets.into_iter().map(|ticket| ticket.wait().unwrap()).collect();
    // At most one of those before is in the same transaction.
    assert!((1..).zip(&seen).all(|(nth, seen)| *seen <= 7 - nth), "{seen:?}");
    assert_eq!(rows(&reader.lock().unwrap()), 0);
}

/// An injected failure of the sync of a commit.
fn sync_failure() -> StoreError {
    let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_IOERR_FSYNC);
    StoreError::from(rusqlite::Error::SqliteFailure(code, None))
}

#[test]
fn after_a_failed_sync_nothing_of_the_group_counts_and_the_disk_has_to_prove_itself() {
    let (_dir, writer, reader) = writer();
    writer.submit(|db| insert(db, 1)).unwrap().wait().unwrap();
    let failing = writer.submit(|tx| {
        tx.faults.borrow_mut().push(sync_failure());
        insert(tx, 2)
    });
    assert!(matches!(failing.unwrap().wait(), Err(StoreError::Database(_))));
    assert_eq!(rows(&reader), 1);
    // This reader keeps the database open, as another process might: there is no proof, and nothing is taken.
    reader.execute_batch("BEGIN; SELECT * FROM t").unwrap();
    let refused = writer.submit(|db| insert(db, 3)).unwrap().wait();
    assert!(matches!(refused, Err(StoreError::Database(_) | StoreError::Damaged(_))), "{refused:?}");
    reader.execute_batch("COMMIT").unwrap();
    writer.submit(|db| insert(db, 4)).unwrap().wait().unwrap();
    assert_eq!(rows(&reader), 2);
}

#[test]
fn the_log_is_emptied_as_it_grows() {
    let (dir, writer, _reader) = writer();
    for x in 0..200 {
        let write = move |db: &Tx| {
            db.execute("INSERT INTO t (x, pad) VALUES (?, zeroblob(1000000))", [x])?;
            Ok::<_, StoreError>(())
        };
        writer.submit(write).unwrap().wait().unwrap();
    }
    let log = std::fs::metadata(dir.path().join("node.db-wal")).unwrap().len();
    assert!(log < 64 << 20, "the log has {log} bytes after 200 MB");
}

/// Not a check but a measurement: `cargo test --release -p marram-store -- --ignored --nocapture writes_per_second`.
#[test]
#[ignore = "measures, takes seconds"]
#[allow(clippy::print_stdout)]
fn writes_per_second() {
    let (_dir, writer, _reader) = writer();
    let mut next = 0;
    for in_flight in [1, 16, 256, 1024, 4096] {
        let begin = std::time::Instant::now();
        let mut tickets = std::collections::VecDeque::new();
        let mut done = 0u32;
        while begin.elapsed().as_secs_f64() < 1.5 {
            while tickets.len() < in_flight {
                next += 1;
                let x = next;
                let pad = [7u8; 256];
                let write = move |db: &Tx| {
                    db.prepare_cached("INSERT INTO t (x, pad) VALUES (?, ?)")?.execute(rusqlite::params![x, pad])?;
                    Ok::<_, StoreError>(())
                };
                tickets.push_back(writer.submit(write).unwrap());
            }
            // Wait for the oldest, then take every other that came with it.
            for _ in 0..in_flight.div_ceil(2) {
                tickets.pop_front().unwrap().wait().unwrap();
                done += 1;
            }
        }
        println!("{in_flight} in flight: {:.0} durable writes/s", f64::from(done) / begin.elapsed().as_secs_f64());
    }
}
