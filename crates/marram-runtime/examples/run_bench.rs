//! What a run costs without a network: `cargo run --release -p marram-runtime --example run_bench`, after `make guests`.
//!
//! One thread sends requests to hello components, one after the other, and reads its own CPU clock: what else the machine
//! does matters little, so that a change of a few percent is seen. Microseconds a request, the least and the median of
//! the rounds.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use http::Request;
use http_body_util::BodyExt as _;
use marram_core::manifest::Manifest;
use marram_core::port::{Call, Clock, Entropy, Invoke as _, Observe, empty_body};
use marram_core::record::{LogLine, MeterRecord};
use marram_core::{Digest, FunctionId, Kind, Name};
use marram_runtime::{AppSpec, ComponentFile, Function, Runtime, RuntimeConfig, Verify};
use rustix::time::{ClockId, clock_gettime};

const MANIFEST: &str = r#"
manifest_version = 1
[app]
name = "bench"
[[function]]
name = "fresh-02"
component = "hello-p2.wasm"
[[function]]
name = "reused-02"
component = "hello-p2.wasm"
instances = { reuse = 128 }
[[function]]
name = "reused-03"
component = "hello-p3.wasm"
[[function]]
name = "fresh-03"
component = "hello-p3.wasm"
instances = "fresh"
"#;
const ROUNDS: usize = 15;
const REQUESTS: u32 = 4_000;

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let only = std::env::args().nth(1);
    let state = tempfile::tempdir()?;
    let config = RuntimeConfig::new(state.path().to_owned(), [7; 32]);
    let ports = Arc::new(Ports::default());
    let (observe, clock, entropy) = (ports.clone(), ports.clone(), ports.clone());
    let runtime = Runtime::new(config, marram_runtime::Ports { observe, clock, entropy, state: None })?;
    let manifest = Manifest::parse(MANIFEST).map_err(|error| anyhow::anyhow!("{error}"))?;
    let components = manifest.functions.iter().map(|function| Ok((function.name.clone(), guest(&function.component)?)));
    let components = components.collect::<anyhow::Result<BTreeMap<Name, ComponentFile>>>()?;
    let spec =
        AppSpec { manifest: Arc::new(manifest), revision: Digest::of(b"bench"), components, secrets: BTreeMap::new() };
    let app = runtime.prepare(spec, Verify::Now).await?;
    for (name, function) in &app.functions {
        if only.as_ref().is_none_or(|only| *only == name.to_string()) {
            measure(name, function, &ports).await?;
        }
    }
    Ok(())
}

#[expect(clippy::print_stdout, reason = "the result of a benchmark")]
async fn measure(name: &Name, function: &Arc<Function>, ports: &Ports) -> anyhow::Result<()> {
    let mut spans = Vec::with_capacity(ROUNDS);
    for _ in 0..ROUNDS {
        let begun = thread_us();
        for _ in 0..REQUESTS {
            let call = Call {
                request: ports.request_id(),
                trace: ports.trace(),
                arrived: ports.instant(),
                remote: None,
                depth: 0,
                crowd: false,
            };
            let request = Request::get("http://shop.example/").body(empty_body())?;
            let answer = function.request(request, call).await?;
            anyhow::ensure!(!answer.into_body().collect().await?.to_bytes().is_empty(), "an empty answer");
        }
        spans.push((thread_us() - begun) / f64::from(REQUESTS));
    }
    spans.sort_by(f64::total_cmp);
    println!("{name:12} least {:6.2} µs   median {:6.2} µs", spans[0], spans[ROUNDS / 2]);
    Ok(())
}

fn thread_us() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 * 1e6 + time.tv_nsec as f64 / 1e3
}

fn guest(name: &str) -> anyhow::Result<ComponentFile> {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| PathBuf::from("target"), PathBuf::from);
    let path = std::env::var_os("MARRAM_GUESTS").map_or_else(|| target.join("guests"), PathBuf::from).join(name);
    let bytes = std::fs::read(&path).with_context(|| format!("{}: run `make guests` first", path.display()))?;
    Ok(ComponentFile { path, digest: Digest::of(&bytes), kind: None })
}

/// The machine's clocks, numbers for identifiers, and nobody who observes.
#[derive(Default)]
struct Ports(AtomicU64);

impl Observe for Ports {
    fn log(&self, _: LogLine) {}
    fn meter(&self, _: MeterRecord) {}
    fn refused(&self, _: &Arc<FunctionId>, _: Kind) {}
    fn initialized(&self, _: &Arc<FunctionId>, _: Duration) {}
}

impl Clock for Ports {
    fn unix_ns(&self) -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
    }

    fn instant(&self) -> Instant {
        Instant::now()
    }
}

impl Entropy for Ports {
    fn u64(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed) + 1
    }
}
