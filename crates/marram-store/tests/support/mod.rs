//! What every test here needs.
#![allow(clippy::unwrap_used, dead_code)]

use marram_core::{Digest, Name};
use marram_store::{BlobPin, Deployment, Store, StoreConfig};

pub const NOW: u64 = 1_700_000_000_000_000_000;

pub fn open(dir: &tempfile::TempDir) -> Store {
    Store::open(&StoreConfig::new(dir.path())).unwrap()
}

pub fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

pub fn put(store: &Store, content: &[u8]) -> BlobPin {
    store.blobs().put(content, 1 << 20, None).unwrap()
}

/// Version `n` of an app with two functions: one component is new in each version, one is shared by all.
pub fn version(store: &Store, app: &str, n: u64) -> Deployment {
    let own = put(store, format!("component {n} of {app}").as_bytes());
    let shared = put(store, b"a component that never changes");
    let manifest = format!("# version {n} of {app}\nmanifest_version = 1");
    Deployment {
        app: name(app),
        revision: Digest::of(manifest.as_bytes()),
        manifest,
        components: [(name("own"), own.digest()), (name("shared"), shared.digest())].into(),
        kinds: [(name("own"), format!("kind {n}"))].into(),
        at_unix_ns: NOW + n,
    }
}
