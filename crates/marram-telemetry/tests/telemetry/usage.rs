//! Usage is exact, survives a restart, and is folded without losing any.
use std::sync::Arc;

use crate::support::{HandClock, NOW, SECOND, id, open, record};
use marram_core::Kind;
use marram_core::port::Observe as _;
use marram_core::record::{Outcome, Start};
use marram_telemetry::{InvocationQuery, Telemetry, TelemetryConfig, UsageQuery, Used, limits};

fn total(telemetry: &Telemetry) -> Used {
    let usage = telemetry.usage(&UsageQuery::default()).unwrap();
    usage.into_iter().fold(Used::default(), |mut sum, usage| {
        sum.invocations += usage.used.invocations;
        sum.failed += usage.used.failed;
        sum.wall_ns += usage.used.wall_ns;
        sum.cpu_ns += usage.used.cpu_ns;
        sum.bytes_out += usage.used.bytes_out;
        sum.gb_seconds += usage.used.gb_seconds;
        sum
    })
}

#[test]
fn nothing_is_lost_when_records_overflow() {
    const THREADS: u64 = 4;
    const EACH: u64 = 50_000;
    let dir = tempfile::tempdir().unwrap();
    let (telemetry, task) = open(&dir);
    let functions: Vec<_> = (0..5).map(|n| id("shop", &format!("f{n}"))).collect();
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (telemetry, functions) = (&telemetry, &functions);
            scope.spawn(move || {
                for n in 0..EACH {
                    let mut record = record(&functions[n as usize % 5], n);
                    record.cpu_ns = n;
                    if n % 10 == 0 {
                        record.outcome = Outcome::Failed(Kind::Trap);
                    }
                    telemetry.meter(record);
                    // Reading meanwhile must neither lose nor double anything.
                    if thread == 0 && n % 5_000 == 0 {
                        telemetry.usage(&UsageQuery::default()).unwrap();
                    }
                }
            });
        }
    });
    let used = total(&telemetry);
    assert_eq!(used.invocations, THREADS * EACH);
    assert_eq!(used.failed, THREADS * EACH / 10);
    assert_eq!(used.cpu_ns, THREADS * (EACH * (EACH - 1) / 2));
    assert_eq!(used.wall_ns, THREADS * EACH * 100_000);
    let gb_seconds = (THREADS * EACH) as f64 * f64::from(2 << 20) * 100_000.0 / 1e18;
    assert!((used.gb_seconds - gb_seconds).abs() < 1e-9);
    let metrics = telemetry.metrics();
    let lost: u64 = metrics
        .lines()
        .find_map(|line| line.strip_prefix("marram_telemetry_lost_total{what=\"recent_invocations\"} "))
        .unwrap()
        .parse()
        .unwrap();
    assert!(lost > 0, "the queue of records was not forced over its limit");
    assert!(telemetry.invocations(&InvocationQuery::default()).len() <= limits::RECORDS_KEPT);
    task.stop();
    // And again from the disk alone.
    let (telemetry, _task) = open(&dir);
    assert_eq!(total(&telemetry).invocations, THREADS * EACH);
    assert_eq!(total(&telemetry).cpu_ns, THREADS * (EACH * (EACH - 1) / 2));
}

#[test]
fn a_query_restricts_and_names_outcomes_and_starts() {
    let dir = tempfile::tempdir().unwrap();
    let (telemetry, _task) = open(&dir);
    let (price, audit) = (id("shop", "price"), id("other", "audit"));
    telemetry.meter(record(&price, 1));
    let mut cold = record(&price, 2);
    (cold.start, cold.outcome) = (Start::Cold, Outcome::Failed(Kind::Deadline));
    telemetry.meter(cold);
    telemetry.meter(record(&audit, 3));
    for flushed in [false, true] {
        if flushed {
            telemetry.flush().unwrap();
        }
        let only = UsageQuery { app: Some(price.app.clone()), ..UsageQuery::default() };
        let usage = telemetry.usage(&only).unwrap();
        assert_eq!(usage.len(), 1);
        let json = serde_json::to_value(&usage[0]).unwrap();
        assert_eq!(json["function"], "price");
        assert_eq!(json["outcomes"], serde_json::json!({ "ok": 1, "deadline": 1 }));
        assert_eq!(json["starts"], serde_json::json!({ "cold": 1, "fresh": 1 }));
        let later = UsageQuery { since_unix_ns: Some(NOW + 120 * SECOND), ..UsageQuery::default() };
        assert!(telemetry.usage(&later).unwrap().is_empty());
        let before = UsageQuery { until_unix_ns: Some(NOW - 120 * SECOND), ..UsageQuery::default() };
        assert!(telemetry.usage(&before).unwrap().is_empty());
    }
    let of_request = InvocationQuery { request: Some(marram_core::trace::RequestId(2)), ..InvocationQuery::default() };
    let found = telemetry.invocations(&of_request);
    assert_eq!((found.len(), found[0].outcome.as_str(), found[0].start), (1, "deadline", Start::Cold));
    let last = telemetry.invocations(&InvocationQuery { limit: Some(1), ..InvocationQuery::default() });
    assert_eq!(last[0].function.as_str(), "audit");
}

#[test]
fn old_minutes_become_hours_and_old_hours_go() {
    let dir = tempfile::tempdir().unwrap();
    let price = id("shop", "price");
    let clock = HandClock::at(NOW);
    let day = 86_400 * SECOND;
    {
        let (telemetry, _task) = Telemetry::open(TelemetryConfig::new(dir.path()), clock.clone()).unwrap();
        for minute in 0..120 {
            clock.set(NOW + minute * 60 * SECOND);
            telemetry.meter(record(&price, minute));
            telemetry.flush().unwrap();
        }
    }
    // Retention is enforced when telemetry starts, by its thread.
    let rows = || {
        let db = rusqlite::Connection::open(dir.path().join("telemetry.db")).unwrap();
        db.query_row("SELECT count(*) FROM usage", [], |row| row.get::<_, u64>(0)).unwrap()
    };
    assert_eq!(rows(), 120);
    let after = |days: u64| {
        clock.set(NOW + days * day);
        let (telemetry, task) = Telemetry::open(TelemetryConfig::new(dir.path()), clock.clone()).unwrap();
        task.stop();
        let (telemetry, _) = (Arc::clone(&telemetry), ());
        total(&telemetry).invocations
    };
    assert_eq!(after(4), 120);
    assert!(rows() <= 3, "{} rows of usage after folding", rows());
    assert_eq!(after(399), 120);
    assert_eq!(after(402), 0);
    assert_eq!(rows(), 0);
}

#[test]
fn a_label_explosion_is_bounded_and_still_counted() {
    const FUNCTIONS: u64 = limits::FUNCTIONS_MAX as u64 + 500;
    let dir = tempfile::tempdir().unwrap();
    let (telemetry, _task) = open(&dir);
    for n in 0..FUNCTIONS {
        // A new id each time: the worst caller there can be.
        telemetry.meter(record(&id("shop", &format!("f{n}")), n));
    }
    assert_eq!(total(&telemetry).invocations, FUNCTIONS);
    let metrics = telemetry.metrics();
    let series = metrics.lines().filter(|line| line.starts_with("faas_coldstarts_total{")).count();
    assert!(series <= limits::FUNCTIONS_MAX + 1, "{series} series");
    assert!(metrics.contains("faas_coldstarts_total{app=\"_other\",function=\"_other\"} 0"));
    telemetry.remove_app(&id("shop", "x").app);
    assert_eq!(telemetry.metrics().matches("app=\"shop\"").count(), 0);
    assert_eq!(total(&telemetry).invocations, FUNCTIONS, "usage stays");
}

#[test]
fn a_disk_that_cannot_be_written_costs_nothing_but_time() {
    let dir = tempfile::tempdir().unwrap();
    let (telemetry, _task) = open(&dir);
    let price = id("shop", "price");
    telemetry.flush().unwrap();
    // Another writer that does not let go makes every write fail after the busy time-out.
    let other = rusqlite::Connection::open(dir.path().join("telemetry.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    telemetry.meter(record(&price, 1));
    assert!(telemetry.flush().is_err());
    telemetry.meter(record(&price, 2));
    other.execute_batch("ROLLBACK").unwrap();
    telemetry.flush().unwrap();
    assert_eq!(total(&telemetry).invocations, 2);
}
