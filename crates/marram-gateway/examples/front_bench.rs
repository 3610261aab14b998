//! What the front costs, beside bare hyper, in one run: `cargo run --release --example front_bench`, with `wrk` at hand.
//!
//! Three servers in one process on ports of their own, each with the same two threads: bare hyper, bare hyper behind
//! hyper-util's detection of the protocol, and the whole front before a function that answers at once. They are measured
//! in turns, so that what else the machine does hits all three; the medians are compared. Then the flood: 5,000
//! connections ask for a function at its limit, while the time of another function's answers is taken.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use marram_core::port::{Body, Call, Clock, Entropy, Invoke, full_body};
use marram_core::route::RoutePattern;
use marram_core::{Digest, Failure, FunctionId, Kind, Name};
use marram_gateway::{Gateway, GatewayConfig, Route, Table, Target, Unobserved};
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio_util::sync::CancellationToken;

/// Says hello, or that it is full.
struct Fake {
    id: Arc<FunctionId>,
    full: bool,
}

impl Invoke for Fake {
    fn id(&self) -> &Arc<FunctionId> {
        &self.id
    }

    fn request(&self, _: Request<Body>, _: Call) -> BoxFuture<'_, Result<Response<Body>, Failure>> {
        let answer = if self.full {
            Err(Failure::new(Kind::Overloaded, "128 requests run and 256 wait"))
        } else {
            Ok(Response::new(full_body("Hello, world!\n")))
        };
        std::future::ready(answer).boxed()
    }
}

struct SystemClock;

impl Clock for SystemClock {
    fn unix_ns(&self) -> u64 {
        0
    }
    fn instant(&self) -> Instant {
        Instant::now()
    }
}

/// SplitMix64, which is good enough for identifiers.
struct Mixed(AtomicU64);

impl Entropy for Mixed {
    fn u64(&self) -> u64 {
        let mut z = self.0.fetch_add(0x9e37_79b9_7f4a_7c15, Relaxed);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

fn main() -> anyhow::Result<()> {
    let argument = std::env::args().nth(1);
    let rounds = argument.as_deref().map_or(Ok(5), str::parse).ok();
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?.block_on(run(rounds))
}

/// Without a number of rounds it only serves, to be looked at with a profiler.
async fn run(rounds: Option<usize>) -> anyhow::Result<()> {
    let (bare, auto) = (bare().await?, auto().await?);
    let front = front().await?;
    let servers = [("bare hyper", bare), ("hyper-util auto", auto), ("front", front)];
    let Some(rounds) = rounds else {
        servers.iter().for_each(|(name, address)| say(format_args!("{name}={address}")));
        return std::future::pending().await;
    };
    let mut rates = [const { Vec::new() }; 3];
    for _ in 0..rounds {
        for ((_, address), rates) in servers.iter().zip(&mut rates) {
            rates.push(wrk(*address, "/hello", 16, 3).await?.rate);
        }
    }
    let medians = rates.map(median);
    for ((name, _), rate) in servers.iter().zip(&medians) {
        say(format_args!("{name:16} {rate:9.0} req/s   {:.3} × bare hyper", rate / medians[0]));
    }
    flood(front).await
}

/// Another function's p99, quiet and under a flood.
async fn flood(front: SocketAddr) -> anyhow::Result<()> {
    let quiet = wrk(front, "/hello", 4, 5).await?;
    let flooding = tokio::spawn(async move { wrk(front, "/full", 5_000, 12).await });
    tokio::time::sleep(Duration::from_secs(4)).await;
    let flooded = wrk(front, "/hello", 4, 5).await?;
    let flooding = flooding.await??;
    say(format_args!("quiet:   {quiet:?}\nflooded: {flooded:?}\nflood:   {flooding:?}"));
    say(format_args!("p99 under the flood: {:.2} × quiet", flooded.p99_ms / quiet.p99_ms));
    Ok(())
}

#[expect(clippy::print_stdout, reason = "the result of a benchmark")]
fn say(line: std::fmt::Arguments<'_>) {
    println!("{line}");
}

fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}

#[derive(Debug)]
struct Measured {
    rate: f64,
    p99_ms: f64,
    #[expect(dead_code, reason = "it is shown by Debug")]
    errors: String,
}

async fn wrk(address: SocketAddr, path: &str, connections: u32, seconds: u32) -> anyhow::Result<Measured> {
    let output = Command::new("wrk")
        .args([
            "-t1",
            "--latency",
            &format!("-c{connections}"),
            &format!("-d{seconds}"),
            &format!("http://{address}{path}"),
        ])
        .stderr(Stdio::inherit())
        .output()
        .await
        .context("wrk cannot be run: apt-get install wrk")?;
    let text = String::from_utf8(output.stdout)?;
    let field = |name: &str| {
        let line = text.lines().find(|line| line.trim_start().starts_with(name));
        line.map(|line| line.trim_start()[name.len()..].trim().to_owned())
    };
    let p99 = field("99%").context("no p99")?;
    let units = [("us", 0.001), ("ms", 1.0), ("s", 1000.0), ("m", 60_000.0)];
    let (unit, scale) = units.iter().find(|(unit, _)| p99.ends_with(unit)).context("a unit")?;
    Ok(Measured {
        rate: field("Requests/sec:").context("no rate")?.parse()?,
        p99_ms: p99.trim_end_matches(unit).parse::<f64>()? * scale,
        errors: [field("Socket errors:"), field("Non-2xx or 3xx responses:")]
            .into_iter()
            .flatten()
            .collect::<Vec<_>>()
            .join("; "),
    })
}

async fn hello(_: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    Ok(Response::new(Full::new(Bytes::from_static(b"Hello, world!\n"))))
}

async fn bare() -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let _ = stream.set_nodelay(true);
            let io = TokioIo::new(stream);
            tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(io, service_fn(hello)));
        }
    });
    Ok(address)
}

async fn auto() -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        let builder = Arc::new(hyper_util::server::conn::auto::Builder::new(TokioExecutor::new()));
        while let Ok((stream, _)) = listener.accept().await {
            let _ = stream.set_nodelay(true);
            let builder = builder.clone();
            tokio::spawn(async move { builder.serve_connection(TokioIo::new(stream), service_fn(hello)).await });
        }
    });
    Ok(address)
}

async fn front() -> anyhow::Result<SocketAddr> {
    let gateway = Gateway::new(
        GatewayConfig::default(),
        Arc::new(SystemClock),
        Arc::new(Mixed(AtomicU64::new(1))),
        Arc::new(Unobserved),
    );
    let route = |path: &str, name: &str, full| -> anyhow::Result<Route> {
        let name = Name::new(name)?;
        let id = Arc::new(FunctionId { app: name.clone(), function: name, revision: Digest::of(b"") });
        let target = Target::new(Arc::new(Fake { id, full }), 8 << 20);
        Ok(Route { pattern: RoutePattern::parse(path)?, methods: vec![], target })
    };
    gateway.routes().swap(Table::build([route("/hello", "hello", false)?, route("/full", "full", true)?])?);
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(gateway.serve(listener, CancellationToken::new()));
    Ok(address)
}
