//! A database of which a page is damaged, as a dying disk leaves one: the check finds it, and what is whole is still read.

use std::path::Path;

use marram_core::port::Kv as _;
use marram_store::{Finding, Store, StoreConfig, check_state_dir};

use crate::support::{TestClock, name, open, set, version};

const KEYS: usize = 2_000;
/// SQLite's default.
const PAGE_BYTES: usize = 4_096;

fn key(n: usize) -> String {
    format!("key-{n:04}")
}

/// Everything that is in the log goes to the database itself.
fn empty_the_log(database: &Path) {
    let db = rusqlite::Connection::open(database).unwrap();
    let busy = db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, i64>(0)).unwrap();
    assert_eq!(busy, 0, "somebody else has the database open");
}

#[tokio::test]
async fn a_damaged_page_is_found_and_the_rest_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    let deployed = version(&store, "shop", 1);
    let own = deployed.components["own"];
    store.deploy(deployed).await.unwrap();
    let keys = store.kv(TestClock::new());
    let value = "value".repeat(40);
    for first in (0..KEYS).step_by(100) {
        let changes = (first..first + 100).map(|n| set(&key(n), &value)).collect();
        keys.apply(&name("b"), changes).await.unwrap();
    }
    drop((keys, store));
    let database = dir.path().join("node.db");
    empty_the_log(&database);
    assert_eq!(check_state_dir(dir.path()).unwrap(), []);

    // The page that has the last key: the first bytes of a page say what it is.
    let whole = std::fs::read(&database).unwrap();
    let last = key(KEYS - 1);
    let places: Vec<_> = whole.windows(last.len()).enumerate().filter(|(_, bytes)| *bytes == last.as_bytes()).collect();
    let [(place, _)] = places[..] else { panic!("{last} is in {} places", places.len()) };
    let page = place / PAGE_BYTES * PAGE_BYTES;
    let mut damaged = whole.clone();
    damaged[page..page + 64].fill(0xff);
    std::fs::write(&database, &damaged).unwrap();

    let found = check_state_dir(dir.path()).unwrap();
    let number = page / PAGE_BYTES + 1;
    let names_it = |finding: &Finding| matches!(finding, Finding::Database(text) if text.contains(&number.to_string()));
    assert!(found.iter().any(names_it), "page {number} is damaged: {found:?}");
    assert!(found.iter().all(|finding| matches!(finding, Finding::Database(_))), "{found:?}");
    assert!(found[0].to_string().contains("damaged"), "{}", found[0]);

    // A store that is opened on it finds the same and whatever else is wrong, reads what is whole, and makes up nothing.
    let store = open(&dir);
    std::fs::remove_file(store.blobs().path(&own)).unwrap();
    let found = store.check().unwrap();
    assert!(found.iter().any(names_it) && found.contains(&Finding::BlobMissing(own)), "{found:?}");
    assert!(store.damage().is_some_and(|why| why.contains(&number.to_string())), "{:?}", store.damage());
    let keys = store.kv(TestClock::new());
    // What would be acknowledged might be lost.
    keys.apply(&name("b"), vec![set("a", "value")]).await.unwrap_err();
    assert!(keys.get(&name("b"), "a").unwrap().is_none());
    let mut unreadable = 0;
    for n in 0..KEYS {
        match keys.get(&name("b"), &key(n)) {
            Ok(entry) => assert_eq!(entry.unwrap().value, value, "{}", key(n)),
            Err(_) => unreadable += 1,
        }
    }
    assert!((1..KEYS / 10).contains(&unreadable), "{unreadable} of {KEYS} keys cannot be read");
    assert!(keys.get(&name("b"), &last).is_err());
    drop((keys, store));

    // It was that page and nothing else.
    empty_the_log(&database);
    let mut mended = std::fs::read(&database).unwrap();
    mended[page..page + 64].copy_from_slice(&whole[page..page + 64]);
    std::fs::write(&database, mended).unwrap();
    assert_eq!(check_state_dir(dir.path()).unwrap(), [Finding::BlobMissing(own)]);
}

/// A database that is too large to be looked through before the start is looked through beside it.
#[tokio::test]
async fn a_large_database_is_looked_through_after_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let database = dir.path().join("node.db");
    let store = open(&dir);
    let keys = store.kv(TestClock::new());
    let value = "x".repeat(512 << 10);
    for n in 0..70 {
        keys.apply(&name("b"), vec![set(&key(n), &value)]).await.unwrap();
    }
    drop((keys, store));
    empty_the_log(&database);
    let store = open(&dir);
    store.check_pages().unwrap();
    assert_eq!(store.damage(), None);
    drop(store);

    let file = std::fs::OpenOptions::new().write(true).open(&database).unwrap();
    let page = file.metadata().unwrap().len() / PAGE_BYTES as u64 - 1;
    std::os::unix::fs::FileExt::write_all_at(&file, &[0xff; 64], page * PAGE_BYTES as u64).unwrap();
    let store = open(&dir);
    let keys = store.kv(TestClock::new());
    assert_eq!(store.damage(), None);
    keys.apply(&name("b"), vec![set("new", "value")]).await.unwrap();
    store.check_pages().unwrap();
    assert!(store.damage().is_some());
    keys.apply(&name("b"), vec![set("newer", "value")]).await.unwrap_err();
    assert_eq!(keys.get(&name("b"), "new").unwrap().unwrap().value, "value");
}

fn refused(dir: &Path) -> String {
    Store::open(&StoreConfig::new(dir)).unwrap_err().to_string()
}

#[test]
fn a_node_that_has_lost_its_database_does_not_begin_anew_over_what_is_left() {
    let ways: [fn(&Path) -> std::io::Result<()>; 2] =
        [|path| std::fs::remove_file(path), |path| std::fs::write(path, [])];
    for lose in ways {
        let dir = tempfile::tempdir().unwrap();
        let store = open(&dir);
        let pin = store.blobs().put(&b"content"[..], 100, None).unwrap();
        let content = store.blobs().path(&pin.digest());
        drop((pin, store));
        let database = dir.path().join("node.db");
        empty_the_log(&database);
        let kept = std::fs::read(&database).unwrap();
        lose(&database).unwrap();
        let why = refused(dir.path());
        assert!(why.contains("node.db") && why.contains("restore"), "{why}");
        assert!(content.exists());
        // With the backup it goes on. A node without contents has state as well.
        std::fs::write(&database, kept).unwrap();
        drop(open(&dir));
        lose(&database).unwrap();
        std::fs::remove_file(&content).unwrap();
        assert!(refused(dir.path()).contains("restore"));
        // Who brings along nothing but the key to the secrets begins.
        std::fs::remove_file(dir.path().join("cache.key")).unwrap();
        drop(open(&dir));
    }
}

/// What a node leaves that is killed: a database, a copy of it from before, and a log that is not in either.
async fn killed(dir: &tempfile::TempDir) -> (std::path::PathBuf, Vec<u8>) {
    let (database, log) = (dir.path().join("node.db"), dir.path().join("node.db-wal"));
    let set_some = async |from: usize| {
        let store = open(dir);
        let changes = (from..from + 200).map(|n| set(&key(n), "value")).collect();
        store.kv(TestClock::new()).apply(&name("b"), changes).await.unwrap();
        (std::fs::read(&database).unwrap(), std::fs::read(&log).unwrap())
    };
    set_some(0).await;
    empty_the_log(&database);
    let (backup, in_log) = set_some(200).await;
    assert!(!in_log.is_empty());
    std::fs::write(&database, &backup).unwrap();
    std::fs::write(&log, in_log).unwrap();
    (database, backup)
}

/// SQLite would replay it into the backup, or remove it from beside an empty database.
#[tokio::test]
async fn the_log_of_a_lost_database_is_put_aside() {
    let ways: [fn(&Path) -> std::io::Result<()>; 3] = [
        |path| std::fs::remove_file(path),
        |path| std::fs::write(path, []),
        |path| std::fs::write(path, [0xff; 8_192]),
    ];
    for lose in ways {
        let dir = tempfile::tempdir().unwrap();
        let (database, backup) = killed(&dir).await;
        let log = dir.path().join("node.db-wal");
        let in_log = std::fs::read(&log).unwrap();
        lose(&database).unwrap();
        // The log alone says that there was one.
        if std::fs::metadata(&database).map_or(0, |file| file.len()) == 0 {
            std::fs::remove_file(dir.path().join("cache.key")).unwrap();
        }
        let why = refused(dir.path());
        let aside = dir.path().join("node.db-wal.lost");
        assert!(why.contains("node.db-shm, then restore") && why.contains("node.db-wal.lost"), "{why}");
        assert!(!log.exists() && std::fs::read(&aside).unwrap() == in_log);
        // What was put aside before stays.
        std::fs::write(&log, &in_log).unwrap();
        let why = refused(dir.path());
        assert!(why.contains("node.db-wal.lost-2"), "{why}");
        assert!(std::fs::read(&aside).unwrap() == in_log);

        std::fs::write(&database, backup).unwrap();
        let store = open(&dir);
        assert_eq!((store.damage(), store.check().unwrap()), (None, vec![]));
        let keys = store.kv(TestClock::new());
        assert!(
            keys.get(&name("b"), &key(199)).unwrap().is_some() && keys.get(&name("b"), &key(200)).unwrap().is_none()
        );
    }
}

#[test]
fn a_database_with_a_damaged_beginning_is_not_taken_for_a_foreign_one() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(&dir));
    let database = dir.path().join("node.db");
    empty_the_log(&database);
    let file = std::fs::OpenOptions::new().write(true).open(&database).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &[0xff; 100], 0).unwrap();
    let refused = Store::open(&StoreConfig::new(dir.path())).unwrap_err().to_string();
    assert!(refused.contains("restore node.db from a backup"), "{refused}");
}
