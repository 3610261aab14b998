//! Secrets are sealed, bound to their place, and never shown.
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use crate::support::{NOW, name, open, version};
use marram_store::{SecretValue, Store, StoreConfig, StoreError};

const VALUE: &str = "correct-horse-battery-staple";

fn files(dir: &Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

fn assert_not_in_clear(dir: &Path) {
    let files = files(dir);
    assert!(files.len() > 5, "{files:?}");
    for file in files {
        let bytes = std::fs::read(&file).unwrap();
        assert!(!bytes.windows(VALUE.len()).any(|part| part == VALUE.as_bytes()), "in clear in {}", file.display());
    }
}

#[tokio::test]
async fn values_are_kept_and_never_in_clear() {
    let dir = tempfile::tempdir().unwrap();
    let shop = name("shop");
    let store = open(&dir);
    store.deploy(version(&store, "shop", 1)).await.unwrap();
    store.set_secret(&shop, "api_key", VALUE.into(), NOW).await.unwrap();
    store.set_secret(&shop, "empty", "".into(), NOW).await.unwrap();
    store.set_secret(&shop, "api_key", format!("{VALUE}2").into(), NOW + 1).await.unwrap();
    assert_not_in_clear(dir.path());
    drop(store);
    assert_not_in_clear(dir.path());

    let store = open(&dir);
    let names = store.secret_names(&shop).unwrap();
    assert_eq!(
        names.iter().map(|secret| (secret.name.as_str(), secret.set_unix_ns)).collect::<Vec<_>>(),
        [("api_key", NOW + 1), ("empty", NOW)]
    );
    let values = store.secrets(&shop).unwrap();
    assert_eq!(values["api_key"].expose(), format!("{VALUE}2"));
    assert_eq!(values["empty"].expose(), "");
    let shown = format!("{values:?} {:?} {} {store:?}", values["api_key"], values["api_key"]);
    assert!(!shown.contains("horse"), "{shown}");
    assert!(store.secrets(&name("other")).unwrap().is_empty());
    assert!(store.remove_secret(&shop, "api_key").await.unwrap());
    assert!(!store.remove_secret(&shop, "api_key").await.unwrap());
    assert_eq!(store.secrets(&shop).unwrap().len(), 1);
}

#[tokio::test]
async fn a_row_that_was_moved_or_altered_does_not_open() {
    for tamper in [
        "UPDATE secret SET sealed = (SELECT sealed FROM secret WHERE name = 'b'), nonce = (SELECT nonce FROM secret WHERE name = 'b') WHERE app = 'shop' AND name = 'a'",
        "UPDATE secret SET name = 'c' WHERE app = 'shop' AND name = 'a'",
        "UPDATE secret SET app = 'shop', name = 'd' WHERE app = 'other'",
        "UPDATE secret SET sealed = zeroblob(length(sealed)) WHERE app = 'shop' AND name = 'a'",
        "UPDATE secret SET nonce = zeroblob(24) WHERE app = 'shop' AND name = 'a'",
    ] {
        let dir = tempfile::tempdir().unwrap();
        let store = open(&dir);
        for (app, secret) in [("shop", "a"), ("shop", "b"), ("other", "a")] {
            store.set_secret(&name(app), secret, VALUE.into(), NOW).await.unwrap();
        }
        drop(store);
        rusqlite::Connection::open(dir.path().join("node.db")).unwrap().execute(tamper, []).unwrap();
        let store = open(&dir);
        let error = store.secrets(&name("shop")).unwrap_err();
        assert!(matches!(&error, StoreError::Unsealable { app, .. } if app.as_str() == "shop"), "{tamper}: {error}");
        assert_eq!(store.check().unwrap().len(), 1, "{tamper}");
    }
}

#[tokio::test]
async fn another_key_is_told_by_the_secret_it_does_not_open() {
    let dir = tempfile::tempdir().unwrap();
    let shop = name("shop");
    let store = open(&dir);
    store.set_secret(&shop, "api_key", VALUE.into(), NOW).await.unwrap();
    let cache_key = store.cache_key();
    drop(store);
    std::fs::remove_file(dir.path().join("secret.key")).unwrap();
    let store = open(&dir);
    let error = store.secrets(&shop).unwrap_err().to_string();
    assert!(error.contains("\"api_key\"") && error.contains("marram secret set shop api_key"), "{error}");
    store.set_secret(&shop, "api_key", VALUE.into(), NOW).await.unwrap();
    assert_eq!(store.secrets(&shop).unwrap()["api_key"].expose(), VALUE);
    assert_eq!(store.cache_key(), cache_key, "the other key is as it was");
}

#[test]
fn keys_are_private_and_checked() {
    let dir = tempfile::tempdir().unwrap();
    let first = open(&dir).cache_key();
    assert_eq!(open(&dir).cache_key(), first);
    for file in ["secret.key", "cache.key", "node.db"] {
        let mode = std::fs::metadata(dir.path().join(file)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
    assert_ne!(open(&tempfile::tempdir().unwrap()).cache_key(), first, "every node has its own");

    let key = dir.path().join("cache.key");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    let error = Store::open(&StoreConfig::new(dir.path())).unwrap_err().to_string();
    assert!(error.contains("chmod 600"), "{error}");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    std::fs::write(&key, b"short").unwrap();
    let error = Store::open(&StoreConfig::new(dir.path())).unwrap_err().to_string();
    assert!(error.contains("5 bytes"), "{error}");
}

#[tokio::test]
async fn what_is_too_much_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    let shop = name("shop");
    for bad in ["", "a b", "é", &"x".repeat(129)] {
        assert!(
            matches!(store.set_secret(&shop, bad, VALUE.into(), NOW).await, Err(StoreError::Invalid(_))),
            "{bad:?}"
        );
    }
    let long: SecretValue = "x".repeat(marram_core::limits::VALUE_BYTES_MAX + 1).into();
    assert!(store.set_secret(&shop, "long", long, NOW).await.is_err());
    for n in 0..marram_core::limits::ENTRIES_MAX {
        store.set_secret(&shop, &format!("s{n}"), VALUE.into(), NOW).await.unwrap();
    }
    assert!(store.set_secret(&shop, "one_more", VALUE.into(), NOW).await.is_err());
    store.set_secret(&shop, "s0", "again".into(), NOW).await.unwrap();
}
