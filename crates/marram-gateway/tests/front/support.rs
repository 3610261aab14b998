//! A front on port 0, functions that are closures, and a client that sends bytes.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use http::{HeaderMap, Method, Request, Response};
use http_body_util::BodyExt as _;
use marram_core::port::{Body, Call, Clock, Entropy, Invoke, full_body};
use marram_core::route::RoutePattern;
use marram_core::{Digest, Failure, FunctionId, Kind, Name};
use marram_gateway::{Drained, Gateway, GatewayConfig, GatewayObserver, Limits, RequestEnd, Route, Table, Target};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

/// Longer than anything takes here; a test that waits this long has failed.
pub const DEADLINE: Duration = Duration::from_secs(20);

pub type Answer = Result<Response<Body>, Failure>;
type Run = Box<dyn Fn(Request<Body>, Call) -> BoxFuture<'static, Answer> + Send + Sync>;

/// A function that is a closure.
pub struct Fake {
    id: Arc<FunctionId>,
    run: Run,
}

impl Invoke for Fake {
    fn id(&self) -> &Arc<FunctionId> {
        &self.id
    }

    fn request(&self, request: Request<Body>, call: Call) -> BoxFuture<'_, Answer> {
        (self.run)(request, call)
    }
}

pub fn fake<F>(name: &str, run: impl Fn(Request<Body>, Call) -> F + Send + Sync + 'static) -> Arc<dyn Invoke>
where
    F: Future<Output = Answer> + Send + 'static,
{
    let name = Name::new(name).expect(name);
    let id = Arc::new(FunctionId { app: name.clone(), function: name, revision: Digest::of(b"") });
    Arc::new(Fake { id, run: Box::new(move |request, call| run(request, call).boxed()) })
}

/// A function that answers `text`.
pub fn says(text: &'static str) -> Arc<dyn Invoke> {
    fake("says", move |_, _| async move { Ok(Response::new(full_body(text))) })
}

/// A function that answers with what it got: request line, headers, an empty line, body, trailers.
pub fn mirror() -> Arc<dyn Invoke> {
    fake("mirror", |request, call| async move {
        let (parts, body) = request.into_parts();
        let gathered = body.collect().await?;
        let trailers = gathered.trailers().cloned().unwrap_or_default();
        let mut text = format!("{} {}\n", parts.method, parts.uri).into_bytes();
        list(&mut text, "", &parts.headers);
        text.extend(format!("call: {:?} {}\n\n", call.remote.expect("a client"), call.request).bytes());
        text.extend(gathered.to_bytes());
        list(&mut text, "\ntrailer ", &trailers);
        Ok(Response::new(full_body(text)))
    })
}

fn list(text: &mut Vec<u8>, before: &str, headers: &HeaderMap) {
    for (name, value) in headers {
        text.extend(format!("{before}{name}: ").bytes().chain(value.as_bytes().iter().copied()).chain([b'\n']));
    }
}

pub struct TestClock;

impl Clock for TestClock {
    fn unix_ns(&self) -> u64 {
        0
    }
    fn instant(&self) -> Instant {
        Instant::now()
    }
}

/// 1, 2, 3, …
#[derive(Default)]
pub struct Counting(AtomicU64);

impl Entropy for Counting {
    fn u64(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed) + 1
    }
}

/// What the front told.
#[derive(Default)]
pub struct Recorder {
    pub ends: Mutex<Vec<(u16, Option<Kind>)>>,
    pub refused: Mutex<Vec<Kind>>,
    /// Requests that were refused before their function was asked.
    pub unasked: Mutex<Vec<(Name, Kind)>>,
    pub opened: AtomicU64,
    pub closed: AtomicU64,
}

impl GatewayObserver for Recorder {
    fn opened(&self) {
        self.opened.fetch_add(1, Ordering::Relaxed);
    }
    fn closed(&self) {
        self.closed.fetch_add(1, Ordering::Relaxed);
    }
    fn request(&self, end: &RequestEnd<'_>) {
        if let (Some(id), Some(kind), true) = (end.id, end.failure, end.refused) {
            self.unasked.lock().expect("lock").push((id.function.clone(), kind));
        }
        self.ends.lock().expect("lock").push((end.status, end.failure));
    }
    fn refused(&self, kind: Kind) {
        self.refused.lock().expect("lock").push(kind);
    }
}

/// A front that serves.
pub struct Front {
    pub gateway: Gateway,
    pub address: SocketAddr,
    pub recorder: Arc<Recorder>,
    pub stop: CancellationToken,
    serving: tokio::task::JoinHandle<Drained>,
}

pub struct Routes(pub Vec<Route>);

impl Routes {
    pub fn new() -> Self {
        Self(Vec::new())
    }

    pub fn on(self, pattern: &str, invoke: Arc<dyn Invoke>) -> Self {
        self.with(pattern, &[], 1 << 20, invoke)
    }

    pub fn with(mut self, pattern: &str, methods: &[Method], body_max: u64, invoke: Arc<dyn Invoke>) -> Self {
        let pattern = RoutePattern::parse(pattern).expect(pattern);
        self.0.push(Route { pattern, methods: methods.to_vec(), target: Target::new(invoke, body_max) });
        self
    }
}

impl Front {
    pub async fn start(routes: Routes, limits: Limits) -> Self {
        Self::configured(routes, GatewayConfig { limits, ..GatewayConfig::default() }).await
    }

    pub async fn configured(routes: Routes, config: GatewayConfig) -> Self {
        let recorder = Arc::new(Recorder::default());
        let entropy = Arc::new(Counting::default());
        let gateway = Gateway::new(config, Arc::new(TestClock), entropy, recorder.clone());
        gateway.routes().swap(Table::build(routes.0).expect("routes"));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let address = listener.local_addr().expect("address");
        let stop = CancellationToken::new();
        let serving = tokio::spawn(gateway.serve(listener, stop.clone()));
        Self { gateway, address, recorder, stop, serving }
    }

    pub async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.expect("connect")
    }

    /// Sends `bytes` and reads until the front closes.
    pub async fn exchange(&self, bytes: impl AsRef<[u8]>) -> String {
        let mut stream = self.connect().await;
        // The front may refuse before it has read everything.
        let _ = stream.write_all(bytes.as_ref()).await;
        read_all(&mut stream).await
    }

    pub async fn drained(self) -> Drained {
        self.stop.cancel();
        within(self.serving).await.expect("serving")
    }

    /// Waits until `seen` is true of what was recorded.
    pub async fn until(&self, seen: impl Fn(&Recorder) -> bool) {
        within(async {
            while !seen(&self.recorder) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        })
        .await;
    }
}

/// A front with the default limits, whose every path is [`mirror`].
pub async fn mirrored() -> Front {
    Front::start(Routes::new().on("/...", mirror()), Limits::default()).await
}

pub async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(DEADLINE, future).await.expect("it took too long")
}

pub async fn read_all(stream: &mut TcpStream) -> String {
    let mut got = Vec::new();
    // A reset after an answer is an end, too.
    let _ = within(stream.read_to_end(&mut got)).await;
    String::from_utf8_lossy(&got).into_owned()
}

/// Reads until `text` has arrived.
pub async fn read_until(stream: &mut TcpStream, text: &str) -> String {
    let mut got = Vec::new();
    within(async {
        let mut byte = [0; 1];
        while !String::from_utf8_lossy(&got).ends_with(text) {
            let read = stream.read(&mut byte).await.expect("read");
            assert_eq!(read, 1, "closed before {text:?}, after {:?}", String::from_utf8_lossy(&got));
            got.push(byte[0]);
        }
    })
    .await;
    String::from_utf8_lossy(&got).into_owned()
}

/// The status of each answer in `text`, in order.
pub fn statuses(text: &str) -> Vec<u16> {
    text.match_indices("HTTP/1.").filter_map(|(at, _)| text.get(at + 9..at + 12)?.parse().ok()).collect()
}

#[track_caller]
pub fn assert_has(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in:\n{text}");
    }
}

#[track_caller]
pub fn assert_lacks(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(!text.contains(part), "{part:?} is in:\n{text}");
    }
}
