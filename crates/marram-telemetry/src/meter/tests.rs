//! Not checks but measurements: `cargo test --release -p marram-telemetry -- --ignored --nocapture cost_`.
#![allow(clippy::print_stdout)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use marram_core::port::{Clock, Observe as _};
use marram_core::record::{Level, LogLine, MeterRecord, Outcome, Source, Start};
use marram_core::trace::{RequestId, SpanId, TraceId};
use marram_core::{Digest, FunctionId, Name};

use crate::{Telemetry, TelemetryConfig};

struct SystemClock;

impl Clock for SystemClock {
    fn unix_ns(&self) -> u64 {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        u64::try_from(since.as_nanos()).unwrap()
    }

    fn instant(&self) -> Instant {
        Instant::now()
    }
}

fn id() -> Arc<FunctionId> {
    let name = |text| Name::new(text).unwrap();
    Arc::new(FunctionId { app: name("shop"), function: name("price"), revision: Digest::of(b"revision") })
}

fn record(id: &Arc<FunctionId>, number: u64) -> MeterRecord {
    MeterRecord {
        id: Arc::clone(id),
        request: RequestId(number),
        trace: TraceId(7),
        span: SpanId(1),
        start_unix_ns: number,
        wall_ns: 100_000 + number % 1_000_000,
        cpu_ns: 60_000,
        queued_ns: 10,
        memory_peak_bytes: 2 << 20,
        bytes_in: 3,
        bytes_out: 11,
        log_bytes_dropped: 0,
        status: 200,
        start: Start::Fresh,
        outcome: Outcome::Answered,
    }
}

fn line(id: &Arc<FunctionId>, number: u64) -> LogLine {
    LogLine {
        time_unix_ns: number,
        level: Level::Info,
        id: Arc::clone(id),
        request: Some(RequestId(number)),
        trace: Some(TraceId(7)),
        source: Source::Stdout,
        context: String::new(),
        text: "GET /price/42 answered from the cache in 0.3 ms".into(),
    }
}

/// CPU time of this thread: what a call costs, whoever else the machine runs.
fn cpu_ns() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    u64::try_from(time.tv_sec * 1_000_000_000 + time.tv_nsec).unwrap()
}

/// `call` is timed in runs of 50, as fast as `per_second` on each of `threads`. The time of the call includes making its
/// argument and its part of the two clock readings.
fn measure(what: &str, threads: u64, per_second: u64, call: impl Fn(&Telemetry, &Arc<FunctionId>, u64) + Sync) {
    const RUN: u64 = 50;
    let dir = tempfile::tempdir().unwrap();
    let (telemetry, task) = Telemetry::open(TelemetryConfig::new(dir.path()), Arc::new(SystemClock)).unwrap();
    let id = id();
    let pause = Duration::from_nanos(RUN * 1_000_000_000 / per_second);
    let mut runs: Vec<u64> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads)
            .map(|_| {
                let (telemetry, id, call) = (&telemetry, &id, &call);
                scope.spawn(move || {
                    let mut runs = Vec::new();
                    let begin = Instant::now();
                    let mut number = 0;
                    while begin.elapsed() < Duration::from_secs(3) {
                        let run = Instant::now();
                        let cpu = cpu_ns();
                        for _ in 0..RUN {
                            number += 1;
                            call(telemetry, id, number);
                        }
                        runs.push((cpu_ns() - cpu) / RUN);
                        while run.elapsed() < pause {
                            std::hint::spin_loop();
                        }
                    }
                    runs
                })
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    task.stop();
    runs.sort_unstable();
    let at = |part: f64| runs[((runs.len() - 1) as f64 * part) as usize];
    let mean = runs.iter().sum::<u64>() / runs.len() as u64;
    println!(
        "{what}, {threads} threads, {per_second}/s each: mean {mean} ns, median {}, p99 {}, worst {} (of means of {RUN})",
        at(0.5),
        at(0.99),
        at(1.0)
    );
    println!("{:?}", telemetry.losses());
}

#[test]
#[ignore = "measures, takes seconds"]
fn cost_of_a_call() {
    for (threads, per_second) in [(1, 25_000), (2, 25_000), (2, 1_000_000)] {
        measure("meter", threads, per_second, |telemetry, id, number| telemetry.meter(record(id, number)));
        measure("log", threads, per_second, |telemetry, id, number| telemetry.log(line(id, number)));
    }
}
