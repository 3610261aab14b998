//! Metrics carry the names that the OpenTelemetry conventions give, and add up.
use std::collections::BTreeMap;
use std::time::Duration;

use crate::support::{id, open, record};
use marram_core::Kind;
use marram_core::port::Observe as _;
use marram_core::record::{Outcome, Start};

/// Every sample by its name and labels.
fn samples(text: &str) -> BTreeMap<&str, f64> {
    let samples = text.lines().filter(|line| !line.starts_with('#')).map(|line| line.rsplit_once(' ').unwrap());
    samples.map(|(name, value)| (name, value.parse().unwrap())).collect()
}

#[test]
fn faas_metrics() {
    let dir = tempfile::tempdir().unwrap();
    let (telemetry, _task) = open(&dir);
    let price = id("shop", "price");
    for n in 0..10 {
        telemetry.meter(record(&price, n));
    }
    let mut slow = record(&price, 10);
    (slow.wall_ns, slow.start, slow.outcome) = (2_000_000_000, Start::Cold, Outcome::Failed(Kind::Deadline));
    telemetry.meter(slow);
    telemetry.initialized(&price, Duration::from_micros(300));
    for kind in [Kind::Overloaded, Kind::Overloaded, Kind::Deadline] {
        telemetry.refused(&price, kind);
    }
    let text = telemetry.metrics();
    // A copy for a parser that is not ours: MARRAM_METRICS_OUT=metrics.txt, then `promtool check metrics` or the like.
    if let Ok(path) = std::env::var("MARRAM_METRICS_OUT") {
        std::fs::write(path, &text).unwrap();
    }
    let samples = samples(&text);
    let labels = "app=\"shop\",function=\"price\"";
    let is = |name: &str, more: &str, value: f64| {
        let name = format!("{name}{{{labels}{more}}}");
        let found = samples.get(name.as_str()).unwrap_or_else(|| panic!("no {name} in\n{text}"));
        assert!((found - value).abs() < 1e-9, "{name} is {found} and not {value}");
    };
    is("faas_invocations_total", ",start=\"fresh\"", 10.0);
    is("faas_errors_total", ",outcome=\"deadline\"", 2.0);
    is("faas_errors_total", ",outcome=\"overloaded\"", 2.0);
    is("faas_timeouts_total", "", 1.0);
    is("faas_coldstarts_total", "", 1.0);
    is("faas_invoke_duration_seconds_count", "", 11.0);
    is("faas_invoke_duration_seconds_sum", "", 2.001);
    for (bound, count) in [("0.0001", 10.0), ("+Inf", 11.0)] {
        let bucket = format!("faas_invoke_duration_seconds_bucket{{le=\"{bound}\",{labels}}}");
        assert_eq!(samples.get(bucket.as_str()), Some(&count), "{bucket}");
    }
    is("faas_init_duration_seconds_count", "", 1.0);
    is("faas_cpu_usage_seconds_sum", "", 11.0 * 60e-6);
    is("faas_mem_usage_bytes_sum", "", 11.0 * f64::from(2 << 20));
    is("faas_net_io_bytes_sum", ",direction=\"transmit\"", 121.0);
    is("marram_queue_duration_seconds_count", "", 11.0);
    is("marram_log_dropped_bytes_total", "", 5.0);
}

#[test]
fn node_metrics() {
    let dir = tempfile::tempdir().unwrap();
    let (telemetry, _task) = open(&dir);
    let http = telemetry.http();
    http.opened();
    http.opened();
    http.closed();
    http.answered(200, Duration::from_micros(700));
    http.answered(503, Duration::from_secs(120));
    http.answered(0, Duration::ZERO);
    http.refused(Kind::HeadersTooLarge);
    telemetry.gauge("marram_instances_live", "Instances that exist.", || 1.0);
    telemetry.gauge("marram_instances_live", "Instances that exist.", || 7.0);
    let text = telemetry.metrics();
    let samples = samples(&text);
    for (name, value) in [
        ("marram_http_requests_total{status=\"2xx\"}", 1.0),
        ("marram_http_requests_total{status=\"5xx\"}", 1.0),
        ("marram_http_requests_total{status=\"none\"}", 1.0),
        ("marram_http_refused_total{kind=\"headers-too-large\"}", 1.0),
        ("marram_http_connections_open", 1.0),
        ("marram_http_connections_total", 2.0),
        ("http_server_request_duration_seconds_count", 3.0),
        ("marram_instances_live", 7.0),
        ("marram_telemetry_lost_total{what=\"log_lines\"}", 0.0),
    ] {
        assert_eq!(samples.get(name), Some(&value), "{name} in\n{text}");
    }
    assert!(samples["process_resident_memory_bytes"] > 1e6);
    assert!(text.contains("marram_build_info{version=\""));
    assert!(text.ends_with("# EOF\n"));
}
