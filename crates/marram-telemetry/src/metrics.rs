//! Metrics as OpenMetrics text, for Prometheus.
//!
//! Names are OpenTelemetry's (semantic conventions, "FaaS metrics") as its Prometheus compatibility rules write them: dots
//! become `_`, the unit is appended, counters end in `_total`. `faas_invocations` counts successful invocations and
//! `faas_errors` the others, as the conventions say; a timeout is in `faas_errors` and in `faas_timeouts`. What has no
//! convention begins with `marram_`.

use std::fmt;
use std::sync::Weak;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, LabelSetEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;

use crate::Telemetry;
use crate::books::{Books, Key};
use crate::node_metrics::resident_bytes;
use crate::totals::{
    BODY_BYTES, DURATION_NS, Histogram, MEMORY_BYTES, QUEUE_NS, START_LABELS, Series, outcome_index, outcome_labels,
};
use marram_core::Kind;
use marram_core::record::Outcome;

/// The media type of [`Telemetry::metrics`].
pub const METRICS_CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Everything of a node, read when it is asked for.
pub(crate) struct Metrics(pub(crate) Weak<Telemetry>);

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

impl Collector for Metrics {
    fn encode(&self, mut to: DescriptorEncoder<'_>) -> fmt::Result {
        let Some(telemetry) = self.0.upgrade() else { return Ok(()) };
        node(&telemetry, &mut to)?;
        front(&telemetry, &mut to)?;
        let books = telemetry.books();
        functions(&books, &mut to)
    }
}

/// Pairs of label and value.
struct Labels<'a, const N: usize>([(&'static str, &'a str); N]);

impl<const N: usize> EncodeLabelSet for Labels<'_, N> {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        self.0
            .iter()
            .try_for_each(|pair| prometheus_client::encoding::EncodeLabel::encode(pair, encoder.encode_label()))
    }
}

fn node(telemetry: &Telemetry, to: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let build = Labels([("version", telemetry.version.as_str())]);
    to.encode_descriptor("marram_build", "The program that runs.", None, MetricType::Info)?.encode_info(&build)?;
    if let Some(bytes) = resident_bytes() {
        gauge(
            to,
            "process_resident_memory",
            "Resident memory of the node's process.",
            Some(&Unit::Bytes),
            bytes as f64,
        )?;
    }
    let lost = telemetry.losses();
    let mut counters = to.encode_descriptor(
        "marram_telemetry_lost",
        "What could not be kept, by what it was.",
        None,
        MetricType::Counter,
    )?;
    for (what, count) in lost {
        counters.encode_family(&Labels([("what", what)]))?.encode_counter::<NoLabelSet, _, u64>(&count, None)?;
    }
    for other in telemetry.gauges.lock().iter() {
        gauge(to, other.name, other.help, None, (other.read)())?;
    }
    Ok(())
}

fn gauge(to: &mut DescriptorEncoder<'_>, name: &str, help: &str, unit: Option<&Unit>, value: f64) -> fmt::Result {
    to.encode_descriptor(name, help, unit, MetricType::Gauge)?.encode_gauge(&value)
}

fn front(telemetry: &Telemetry, to: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let http = telemetry.http();
    let mut answers =
        to.encode_descriptor("marram_http_requests", "Requests by class of status.", None, MetricType::Counter)?;
    for (class, count) in http.answers() {
        answers.encode_family(&Labels([("status", class)]))?.encode_counter::<NoLabelSet, _, u64>(&count, None)?;
    }
    let help = "From a request's header section to the end of its answer.";
    to.encode_descriptor("http_server_request_duration", help, Some(&Unit::Seconds), MetricType::Histogram)
        .and_then(|mut to| histogram(&mut to, &http.durations(), &DURATION_NS, 1e9))?;
    let mut refused =
        to.encode_descriptor("marram_http_refused", "Bytes that never became a request.", None, MetricType::Counter)?;
    for (kind, count) in http.refusals() {
        refused.encode_family(&Labels([("kind", kind)]))?.encode_counter::<NoLabelSet, _, u64>(&count, None)?;
    }
    let (accepted, open, failed) = http.connections();
    gauge(to, "marram_http_connections_open", "Connections to the front that are open.", None, open as f64)?;
    for (name, help, count) in [
        ("marram_http_connections", "Connections to the front that were accepted.", accepted),
        ("marram_http_accept_failures", "Connections that could not be accepted.", failed),
    ] {
        to.encode_descriptor(name, help, None, MetricType::Counter)?
            .encode_counter::<NoLabelSet, _, u64>(&count, None)?;
    }
    Ok(())
}

fn functions(books: &Books, to: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let mut all: Vec<_> = books.series.iter().collect();
    all.sort_unstable_by_key(|(key, _)| *key);
    let all = all.as_slice();
    by_start(all, to)?;
    errors(all, to)?;
    let timeout = outcome_index(Outcome::Failed(Kind::Deadline));
    counts(all, to, "faas_timeouts", "Invocations that ran into their deadline.", |series| {
        series.totals.outcomes[timeout]
    })?;
    counts(all, to, "faas_coldstarts", "Invocations whose code was not mapped.", |series| series.totals.starts[0])?;
    let seconds = |to: &mut DescriptorEncoder<'_>, name, help, of: fn(&Series) -> &Histogram<19>| {
        spread(all, to, (name, help, Unit::Seconds, 1e9), &DURATION_NS, of)
    };
    seconds(to, "faas_invoke_duration", "Wall time of an invocation.", |series| &series.wall)?;
    let help = "Time to map the code of a function that was needed and not mapped.";
    seconds(to, "faas_init_duration", help, |series| &series.init)?;
    seconds(to, "faas_cpu_usage", "CPU time of an invocation.", |series| &series.cpu)?;
    spread(all, to, ("faas_mem_usage", "Peak memory of an invocation.", Unit::Bytes, 1.0), &MEMORY_BYTES, |series| {
        &series.memory
    })?;
    let queue = ("marram_queue_duration", "Time that an invocation waited for its permit.", Unit::Seconds, 1e9);
    spread(all, to, queue, &QUEUE_NS, |series| &series.queued)?;
    let help = "Bytes of log output past a function's limit: they are not in its log.";
    counts(all, to, "marram_log_dropped_bytes", help, |series| series.log_bytes_dropped)?;
    net_io(all, to)
}

type All<'a> = &'a [(&'a Key, &'a Series)];

fn by_start(all: All<'_>, to: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let help = "Invocations that answered, by how their instance was started.";
    let mut to = to.encode_descriptor("faas_invocations", help, None, MetricType::Counter)?;
    for (key, series) in all {
        for (start, count) in START_LABELS.iter().zip(series.answered).filter(|(_, count)| *count > 0) {
            let labels = Labels([("app", key.app()), ("function", key.function()), ("start", start)]);
            to.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&count, None)?;
        }
    }
    Ok(())
}

fn errors(all: All<'_>, to: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let help = "Invocations that failed and requests that were refused before one began, by why.";
    let mut to = to.encode_descriptor("faas_errors", help, None, MetricType::Counter)?;
    for (key, series) in all {
        let counts = series.totals.outcomes.iter().zip(series.refused).map(|(failed, refused)| failed + refused);
        for (outcome, count) in outcome_labels().zip(counts).skip(1).filter(|(_, count)| *count > 0) {
            let labels = Labels([("app", key.app()), ("function", key.function()), ("outcome", outcome)]);
            to.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&count, None)?;
        }
    }
    Ok(())
}

fn counts(
    all: All<'_>,
    to: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    of: impl Fn(&Series) -> u64,
) -> fmt::Result {
    let mut to = to.encode_descriptor(name, help, None, MetricType::Counter)?;
    for (key, series) in all {
        let labels = Labels([("app", key.app()), ("function", key.function())]);
        to.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&of(series), None)?;
    }
    Ok(())
}

fn spread<const N: usize>(
    all: All<'_>,
    to: &mut DescriptorEncoder<'_>,
    (name, help, unit, scale): (&str, &str, Unit, f64),
    bounds: &[u64; N],
    of: impl Fn(&Series) -> &Histogram<N>,
) -> fmt::Result {
    let mut to = to.encode_descriptor(name, help, Some(&unit), MetricType::Histogram)?;
    for (key, series) in all {
        let labels = Labels([("app", key.app()), ("function", key.function())]);
        histogram(&mut to.encode_family(&labels)?, of(series), bounds, scale)?;
    }
    Ok(())
}

fn net_io(all: All<'_>, to: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let help = "Bytes of bodies of an invocation.";
    let mut to = to.encode_descriptor("faas_net_io", help, Some(&Unit::Bytes), MetricType::Histogram)?;
    for (key, series) in all {
        for (direction, bytes) in [("receive", &series.body_in), ("transmit", &series.body_out)] {
            let labels = Labels([("app", key.app()), ("function", key.function()), ("direction", direction)]);
            histogram(&mut to.encode_family(&labels)?, bytes, &BODY_BYTES, 1.0)?;
        }
    }
    Ok(())
}

fn histogram<const N: usize>(
    to: &mut prometheus_client::encoding::MetricEncoder<'_>,
    values: &Histogram<N>,
    bounds: &[u64; N],
    scale: f64,
) -> fmt::Result {
    let past = [(f64::MAX, values.over)];
    let buckets = bounds.iter().zip(values.counts).map(|(bound, count)| (*bound as f64 / scale, count)).chain(past);
    let buckets: Vec<_> = buckets.collect();
    let count = buckets.iter().map(|(_, count)| count).sum();
    to.encode_histogram::<NoLabelSet>(values.sum as f64 / scale, count, &buckets, None)
}
