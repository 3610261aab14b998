//! A database of which a page is damaged, as a dying disk leaves one: the check finds it, and what is whole is still read.

use std::path::Path;

use marram_core::port::Kv as _;
use marram_store::{Finding, check_state_dir};

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
    let keys = store.kv(TestClock::new());
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
