//! What every test here needs.
#![allow(clippy::unwrap_used, dead_code)]

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use marram_core::event::Event;
use marram_core::port::kv::{Change, Expect};
use marram_core::port::{Clock, Entropy};
use marram_core::stream::{ConsumerId, StreamName};
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

/// A clock that goes on when a test says so.
#[derive(Debug)]
pub struct TestClock {
    begin: Instant,
    passed_ns: AtomicU64,
    /// How far the wall clock is off.
    skew_ns: AtomicI64,
}

impl TestClock {
    pub fn new() -> Arc<Self> {
        Arc::new(Self { begin: Instant::now(), passed_ns: AtomicU64::new(0), skew_ns: AtomicI64::new(0) })
    }

    pub fn pass(&self, time: Duration) {
        self.passed_ns.fetch_add(u64::try_from(time.as_nanos()).unwrap(), Ordering::SeqCst);
    }

    /// Sets the wall clock.
    pub fn set(&self, unix_ns: u64) {
        let now = i64::try_from(NOW + self.passed_ns.load(Ordering::SeqCst)).unwrap();
        self.skew_ns.store(i64::try_from(unix_ns).unwrap() - now, Ordering::SeqCst);
    }

    /// Sets the wall clock forward, or back.
    pub fn jump(&self, seconds: i64) {
        self.skew_ns.fetch_add(seconds * 1_000_000_000, Ordering::SeqCst);
    }
}

impl Clock for TestClock {
    fn unix_ns(&self) -> u64 {
        (NOW + self.passed_ns.load(Ordering::SeqCst)).saturating_add_signed(self.skew_ns.load(Ordering::SeqCst))
    }

    fn instant(&self) -> Instant {
        self.begin + Duration::from_nanos(self.passed_ns.load(Ordering::SeqCst))
    }
}

/// The clocks of the machine.
#[derive(Debug)]
pub struct RealClock;

impl Clock for RealClock {
    fn unix_ns(&self) -> u64 {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        u64::try_from(since.as_nanos()).unwrap()
    }

    fn instant(&self) -> Instant {
        Instant::now()
    }
}

/// Not random at all: no back-off is shortened.
#[derive(Debug)]
pub struct NoEntropy;

impl Entropy for NoEntropy {
    fn u64(&self) -> u64 {
        0
    }
}

pub fn event(id: &str, subject: &str, data: &[u8]) -> Event {
    Event {
        id: id.into(),
        source: "/test".into(),
        kind: "test".into(),
        subject: subject.into(),
        data: Some(data.to_vec().into()),
        ..Event::default()
    }
}

pub fn stream(text: &str) -> StreamName {
    StreamName::new(text).unwrap()
}

pub fn consumer_id(text: &str) -> ConsumerId {
    ConsumerId(text.into())
}

pub fn set(key: &str, value: &str) -> Change {
    Change::Put { key: key.into(), value: value.to_owned().into(), ttl: None, expect: Expect::Any }
}

pub fn set_for(key: &str, value: &str, ttl: Duration) -> Change {
    Change::Put { key: key.into(), value: value.to_owned().into(), ttl: Some(ttl), expect: Expect::Any }
}

pub fn set_if(key: &str, value: &str, expect: Expect) -> Change {
    Change::Put { key: key.into(), value: value.to_owned().into(), ttl: None, expect }
}

pub fn delete(key: &str) -> Change {
    Change::Delete { key: key.into(), expect: Expect::Any }
}
