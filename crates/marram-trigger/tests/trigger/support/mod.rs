//! Ports in memory, by tokio's clock: streams with consumers as the contract has them, keys, functions that are closures.
#![allow(dead_code, reason = "each test file and the benchmark use a part of it")]

pub mod rig;
pub mod streams;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use marram_core::event::Event;
use marram_core::port::kv::{Change, Entry, KeyPage, Version, Versions, Watched};
use marram_core::port::{Body, Call, Clock, Entropy, Invoke, Kv, full_body};
use marram_core::{Digest, Failure, FunctionId, Name};

pub use streams::MemoryStreams;

/// Longer than anything takes here, on tokio's clock.
pub const DEADLINE: Duration = Duration::from_secs(36_000);

/// tokio's clock, as time of day; it can be set.
pub struct TestClock {
    began: tokio::time::Instant,
    unix_ns: AtomicI64,
}

impl TestClock {
    /// Now is `time`, RFC 3339.
    pub fn at(time: &str) -> Arc<Self> {
        Arc::new(Self { began: tokio::time::Instant::now(), unix_ns: AtomicI64::new(unix_ns(time) as i64) })
    }

    pub fn jump(&self, seconds: i64) {
        self.unix_ns.fetch_add(seconds * 1_000_000_000, Ordering::SeqCst);
    }
}

impl Clock for TestClock {
    fn unix_ns(&self) -> u64 {
        let passed = self.began.elapsed().as_nanos() as i64;
        (self.unix_ns.load(Ordering::SeqCst) + passed) as u64
    }

    fn instant(&self) -> Instant {
        tokio::time::Instant::now().into_std()
    }
}

pub fn unix_ns(time: &str) -> u64 {
    time.parse::<jiff::Timestamp>().expect(time).as_nanosecond() as u64
}

/// 1, 2, 3, …
#[derive(Default)]
pub struct Counting(AtomicU64);

impl Entropy for Counting {
    fn u64(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed) + 1
    }
}

pub type Answer = Result<Response<Body>, Failure>;

/// What a function got.
#[derive(Clone, Debug)]
pub struct Got {
    pub headers: HeaderMap,
    pub uri: http::Uri,
    pub events: Vec<Event>,
    pub call: Call,
}

impl Got {
    pub fn ids(&self) -> Vec<String> {
        self.events.iter().map(|event| event.id.clone()).collect()
    }
}

type Run = Box<dyn Fn(Got) -> BoxFuture<'static, Answer> + Send + Sync>;

/// A function that is a closure, which gets the events decoded.
pub struct Fake {
    id: Arc<FunctionId>,
    run: Run,
}

impl Invoke for Fake {
    fn id(&self) -> &Arc<FunctionId> {
        &self.id
    }

    fn request(&self, request: Request<Body>, call: Call) -> BoxFuture<'_, Answer> {
        async move {
            let (head, body) = request.into_parts();
            assert_eq!(head.method, http::Method::POST);
            let body = body.collect().await?.to_bytes();
            assert_eq!(head.headers["content-length"], body.len().to_string());
            let events = marram_core::event::http::decode(&head.headers, body).expect("an event").expect("an event");
            (self.run)(Got { headers: head.headers, uri: head.uri, events, call }).await
        }
        .boxed()
    }
}

pub fn fake<F>(run: impl Fn(Got) -> F + Send + Sync + 'static) -> Arc<dyn Invoke>
where
    F: Future<Output = Answer> + Send + 'static,
{
    let name = |text| Name::new(text).expect(text);
    let id = Arc::new(FunctionId { app: name("plant"), function: name("spectrum"), revision: Digest::of(b"") });
    Arc::new(Fake { id, run: Box::new(move |got| run(got).boxed()) })
}

pub fn answer(status: u16, headers: &[(&'static str, &str)], body: &'static str) -> Answer {
    let mut response = Response::new(full_body(body));
    *response.status_mut() = StatusCode::from_u16(status).expect("a status");
    for (name, value) in headers {
        response.headers_mut().insert(*name, value.parse().expect("a value"));
    }
    Ok(response)
}

pub fn event(id: &str, subject: &str) -> Event {
    Event {
        id: id.into(),
        source: "/machine".into(),
        kind: "reading".into(),
        subject: subject.into(),
        data: Some(id.to_owned().into()),
        ..Event::default()
    }
}

/// Waits for `condition`, on a clock that may be paused.
pub async fn until(what: &str, condition: impl Fn() -> bool) {
    let wait = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    assert!(tokio::time::timeout(DEADLINE, wait).await.is_ok(), "waited in vain for {what}");
}

/// Keys in memory, without expiry.
#[derive(Default)]
pub struct MemoryKv {
    entries: Mutex<BTreeMap<(Name, String), Entry>>,
    failures: Mutex<Vec<Failure>>,
    writes: AtomicU64,
}

impl MemoryKv {
    /// The next writes fail.
    pub fn fail(&self, failures: Vec<Failure>) {
        self.failures.lock().expect("lock").extend(failures);
    }

    pub fn keys(&self) -> Vec<String> {
        self.entries.lock().expect("lock").keys().map(|(_, key)| key.clone()).collect()
    }

    pub fn writes(&self) -> u64 {
        self.writes.load(Ordering::SeqCst)
    }
}

impl Kv for MemoryKv {
    fn get(&self, bucket: &Name, key: &str) -> Result<Option<Entry>, Failure> {
        Ok(self.entries.lock().expect("lock").get(&(bucket.clone(), key.to_owned())).cloned())
    }

    fn apply(&self, bucket: &Name, changes: Vec<Change>) -> BoxFuture<'_, Result<Versions, Failure>> {
        let bucket = bucket.clone();
        async move {
            tokio::task::yield_now().await;
            if let Some(failure) = self.failures.lock().expect("lock").pop() {
                return Err(failure);
            }
            self.writes.fetch_add(1, Ordering::SeqCst);
            let mut entries = self.entries.lock().expect("lock");
            for change in changes {
                match change {
                    Change::Put { key, value, .. } => {
                        let entry = Entry { value, version: Version([0; 16]), expires_unix_ns: None };
                        entries.insert((bucket.clone(), key), entry);
                    }
                    Change::Delete { key, .. } => drop(entries.remove(&(bucket.clone(), key))),
                }
            }
            Ok(Vec::new())
        }
        .boxed()
    }

    fn increment_to(&self, _: &Name, _: &str, _: i64, _: i64) -> BoxFuture<'_, Result<Option<i64>, Failure>> {
        unreachable!("no trigger counts")
    }

    fn list(&self, _: &Name, _: &str, _: Option<&str>, _: usize) -> Result<KeyPage, Failure> {
        unreachable!("no trigger lists")
    }

    fn buckets(&self) -> Result<Vec<Name>, Failure> {
        unreachable!("no trigger lists")
    }

    fn watch(&self, _: &Name, _: &str) -> Result<BoxStream<'static, Watched>, Failure> {
        unreachable!("no trigger watches")
    }
}
