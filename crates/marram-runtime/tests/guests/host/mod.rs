//! A runtime for tests: deploys one app from guests that `make guests` built, sends requests, keeps what was observed.

#![allow(dead_code, reason = "each test file uses a part of it")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::BodyExt as _;
use marram_core::manifest::Manifest;
use marram_core::port::{Body, Call, Clock, Entropy, Invoke as _, Observe, empty_body};
use marram_core::record::{LogLine, MeterRecord};
use marram_core::{Digest, Failure, FunctionId, Kind, Name};
use marram_runtime::{App, AppSpec, ComponentFile, Function, Ports, Runtime, RuntimeConfig, Verify};
use tokio::sync::Notify;

/// A guest of `make guests`, or the reason and the command if it is not there.
pub fn guest(name: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    let guests = std::env::var_os("MARRAM_GUESTS").map_or_else(|| target.join("guests"), PathBuf::from);
    let file = guests.join(name);
    assert!(file.exists(), "{} is not built: run `make guests`", file.display());
    file
}

#[derive(Default)]
pub struct Observed {
    pub logs: Mutex<Vec<LogLine>>,
    pub records: Mutex<Vec<MeterRecord>>,
    pub refused: Mutex<Vec<(String, Kind)>>,
    pub initialized: Mutex<Vec<String>>,
    changed: Notify,
}

impl Observe for Observed {
    fn log(&self, line: LogLine) {
        self.logs.lock().unwrap().push(line);
        self.changed.notify_waiters();
    }

    fn meter(&self, record: MeterRecord) {
        self.records.lock().unwrap().push(record);
        self.changed.notify_waiters();
    }

    fn refused(&self, id: &Arc<FunctionId>, kind: Kind) {
        self.refused.lock().unwrap().push((id.function.to_string(), kind));
    }

    fn initialized(&self, id: &Arc<FunctionId>, _: Duration) {
        self.initialized.lock().unwrap().push(id.function.to_string());
    }
}

impl Observed {
    /// Waits until what was observed is as `wanted` says, and gives what that found.
    pub async fn until<T>(&self, what: &str, mut wanted: impl FnMut(&Self) -> Option<T>) -> T {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if let Some(found) = wanted(self) {
                return found;
            }
            let waited = tokio::time::timeout_at(deadline, changed).await;
            assert!(waited.is_ok(), "not observed in time: {what}; logs: {:?}", self.texts());
        }
    }

    /// The first meter record.
    pub async fn record(&self) -> MeterRecord {
        self.until("a meter record", |observed| observed.records.lock().unwrap().first().cloned()).await
    }

    pub fn texts(&self) -> Vec<String> {
        self.logs.lock().unwrap().iter().map(|line| line.text.clone()).collect()
    }
}

struct System;

impl Clock for System {
    fn unix_ns(&self) -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64
    }

    fn instant(&self) -> Instant {
        Instant::now()
    }
}

#[derive(Default)]
struct Counting(AtomicU64);

impl Entropy for Counting {
    fn u64(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed) + 1
    }
}

/// One deployed app.
pub struct Host {
    pub runtime: Arc<Runtime>,
    pub observed: Arc<Observed>,
    pub app: App,
    requests: AtomicU64,
    state: tempfile::TempDir,
    sources: Option<tempfile::TempDir>,
}

/// What an app has; a function gets those that it names.
const SECRETS: [(&str, &str); 4] = [
    ("api_key", "s3cret"),
    ("token", TOKEN),
    // What the probes write, so that they write secrets.
    ("phrase", "a line on stdout"),
    ("lines", "two lines on stdout,\nin one write"),
];

/// The secret `token`.
pub const TOKEN: &str = "correct-horse-battery";

/// The settings of a test's runtime: few instances, because each test has a pool of its own.
pub fn config(state: &Path) -> RuntimeConfig {
    RuntimeConfig { instances_max: 64, ..RuntimeConfig::new(cache(), key(state)) }
}

/// One code cache for all tests of a build: each guest is compiled once.
fn cache() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("code-cache")
}

fn key(_: &Path) -> [u8; 32] {
    [7; 32]
}

impl Host {
    /// Deploys the functions of `functions` (the part of a manifest after `[app]`), whose `component` names a guest.
    pub async fn deploy(functions: &str) -> Self {
        Self::try_deploy(functions, |_| {}).await.unwrap_or_else(|failure| panic!("{failure:?}"))
    }

    pub async fn try_deploy(functions: &str, adjust: impl FnOnce(&mut RuntimeConfig)) -> Result<Self, Failure> {
        let manifest = format!("manifest_version = 1\n[app]\nname = \"test\"\n{functions}");
        let manifest = Manifest::parse(&manifest).unwrap_or_else(|error| panic!("{error}"));
        let components =
            manifest.functions.iter().map(|function| (function.name.clone(), file(&guest(&function.component))));
        let components = components.collect();
        Self::start(manifest, components, adjust).await
    }

    /// Deploys one function whose file has these bytes, under a name that decides what it is.
    pub async fn try_bytes(name: &str, bytes: &[u8]) -> Result<Self, Failure> {
        Self::try_altered(name, bytes, bytes).await
    }

    /// The same, where the stored file has other bytes than what was deployed.
    pub async fn try_altered(name: &str, deployed: &[u8], stored: &[u8]) -> Result<Self, Failure> {
        let text = format!(
            "manifest_version = 1\n[app]\nname = \"test\"\n[[function]]\nname = \"f\"\ncomponent = \"{name}\"\n"
        );
        let manifest = Manifest::parse(&text).unwrap_or_else(|error| panic!("{error}"));
        let state = tempfile::tempdir().unwrap();
        let path = state.path().join("blob");
        std::fs::write(&path, stored).unwrap();
        let component = ComponentFile { path, digest: Digest::of(deployed), kind: None };
        let components = BTreeMap::from([(Name::new("f").unwrap(), component)]);
        Self::start(manifest, components, |_| {}).await
    }

    /// Deploys functions of source text: the part of a manifest after `[app]`, and the text of each `component`.
    pub async fn try_sources(functions: &str, sources: &[(&str, &str)]) -> Result<Self, Failure> {
        Self::try_sources_with(functions, sources, |_| {}).await
    }

    pub async fn try_sources_with(
        functions: &str,
        sources: &[(&str, &str)],
        adjust: impl FnOnce(&mut RuntimeConfig),
    ) -> Result<Self, Failure> {
        let manifest = format!("manifest_version = 1\n[app]\nname = \"test\"\n{functions}");
        let manifest = Manifest::parse(&manifest).unwrap_or_else(|error| panic!("{error}"));
        let folder = tempfile::tempdir().unwrap();
        let components = manifest.functions.iter().enumerate().map(|(number, function)| {
            let text = sources.iter().find(|(name, _)| *name == function.component).expect("its source is given").1;
            let path = folder.path().join(number.to_string());
            std::fs::write(&path, text).unwrap();
            (function.name.clone(), file(&path))
        });
        let components = components.collect();
        let mut host = Self::start(manifest, components, adjust).await?;
        host.sources = Some(folder);
        Ok(host)
    }

    async fn start(
        manifest: Manifest,
        components: BTreeMap<Name, ComponentFile>,
        adjust: impl FnOnce(&mut RuntimeConfig),
    ) -> Result<Self, Failure> {
        let state = tempfile::tempdir().unwrap();
        let observed = Arc::new(Observed::default());
        let mut config = config(state.path());
        adjust(&mut config);
        let ports = Ports {
            observe: observed.clone(),
            clock: Arc::new(System),
            entropy: Arc::new(Counting::default()),
            state: None,
        };
        let runtime = Runtime::new(config, ports).unwrap();
        let spec = AppSpec {
            manifest: Arc::new(manifest),
            revision: Digest::of(b"test"),
            components,
            secrets: SECRETS.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
        };
        let app = runtime.prepare(spec, Verify::Now).await?;
        Ok(Self { runtime, observed, app, requests: AtomicU64::new(1), state, sources: None })
    }

    pub fn function(&self, name: &str) -> &Arc<Function> {
        self.app.functions.get(name).expect("the function is there")
    }

    /// Sends a request to the app's first function.
    pub async fn send(&self, request: Request<Body>) -> Result<Response<Body>, Failure> {
        let function = self.app.functions.values().next().expect("there is one").clone();
        self.send_to(&function, request).await
    }

    pub async fn send_to(&self, function: &Arc<Function>, request: Request<Body>) -> Result<Response<Body>, Failure> {
        let number = self.requests.fetch_add(1, Ordering::Relaxed);
        let call = Call {
            request: marram_core::trace::RequestId(number),
            trace: Counting(AtomicU64::new(number * 1000)).trace(),
            arrived: Instant::now(),
            remote: None,
            depth: 0,
            crowd: false,
        };
        function.request(request, call).await
    }

    /// `GET` of a path by a client that is alone: the body, once the run has ended and `idle` instances wait for the next. A run
    /// that was interrupted goes on after its answer, and the next request would not find its instance.
    pub async fn get_alone(&self, path: &str, idle: usize) -> String {
        let (_, body) = self.get(path).await.unwrap();
        let function = self.app.functions.values().next().expect("there is one");
        eventually("the run has ended", || {
            let status = function.status();
            (status.running, status.idle) == (0, idle)
        })
        .await;
        body
    }

    /// `GET` of a path: status and body.
    pub async fn get(&self, path: &str) -> Result<(u16, String), Failure> {
        let response = self.send(get(path)).await?;
        let status = response.status().as_u16();
        let body = response.into_body().collect().await?.to_bytes();
        Ok((status, String::from_utf8_lossy(&body).into_owned()))
    }
}

/// Waits until `is` holds.
pub async fn eventually(what: &str, mut is: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !is() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        tokio::task::yield_now().await;
    }
}

pub fn file(path: &Path) -> ComponentFile {
    let bytes = std::fs::read(path).unwrap();
    ComponentFile { path: path.to_owned(), digest: Digest::of(&bytes), kind: None }
}

pub fn get(path: &str) -> Request<Body> {
    Request::get(format!("http://shop.example{path}")).body(empty_body()).unwrap()
}

pub fn post(path: &str, body: impl Into<Bytes>) -> Request<Body> {
    Request::post(format!("http://shop.example{path}")).body(marram_core::port::full_body(body)).unwrap()
}
