//! Wire forms: a log line and an invocation as others see them. Stable: fields are added, never changed.

use marram_core::record::{Level, LogLine, MeterRecord, Source, Start};
use marram_core::trace::{RequestId, SpanId, TraceId};
use marram_core::{Digest, Name};
use serde::{Deserialize, Serialize};

use crate::Timestamp;

/// A log line:
/// `{"time":"2026-11-24T04:09:29.000000001Z","level":"info","app":"shop","function":"price","revision":"sha256:…",
/// "request":"00000000000000ff","trace":"…","source":"stdout","context":"","text":"hello"}`.
///
/// Every field is always there; `request` and `trace` are `null` where the line belongs to no single request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct LogEntry {
    /// When it was written.
    pub time: Timestamp,
    /// How much it matters.
    pub level: Level,
    /// The app.
    pub app: Name,
    /// The function.
    pub function: Name,
    /// Its revision.
    pub revision: Digest,
    /// The request that it belongs to.
    pub request: Option<RequestId>,
    /// The trace of that request.
    pub trace: Option<TraceId>,
    /// Where it came from.
    pub source: Source,
    /// The `context` argument of `wasi:logging`; often empty.
    pub context: String,
    /// The text, without its line end.
    pub text: String,
}

impl From<&LogLine> for LogEntry {
    fn from(line: &LogLine) -> Self {
        Self {
            time: Timestamp(line.time_unix_ns),
            level: line.level,
            app: line.id.app.clone(),
            function: line.id.function.clone(),
            revision: line.id.revision,
            request: line.request,
            trace: line.trace,
            source: line.source,
            context: line.context.clone(),
            text: line.text.clone(),
        }
    }
}

/// Which log lines are asked for. What is left out does not restrict.
#[derive(Clone, Debug, Default)]
pub struct LogQuery {
    /// Only this app.
    pub app: Option<Name>,
    /// Only functions of this name.
    pub function: Option<Name>,
    /// Only this request.
    pub request: Option<RequestId>,
    /// Only this trace.
    pub trace: Option<TraceId>,
    /// Only lines that matter at least this much.
    pub level: Option<Level>,
    /// Only lines written at this time or later; nanoseconds since the Unix epoch.
    pub since_unix_ns: Option<u64>,
    /// At most this many, the latest ones; `None` and anything larger mean [`crate::limits::LOG_QUERY_LINES_MAX`].
    pub limit: Option<usize>,
}

impl LogQuery {
    pub(crate) fn takes(&self, entry: &LogEntry) -> bool {
        self.app.as_ref().is_none_or(|app| *app == entry.app)
            && self.function.as_ref().is_none_or(|function| *function == entry.function)
            && self.request.is_none_or(|request| Some(request) == entry.request)
            && self.trace.is_none_or(|trace| Some(trace) == entry.trace)
            && self.level.is_none_or(|level| entry.level >= level)
            && self.since_unix_ns.is_none_or(|since| entry.time.0 >= since)
    }
}

/// One invocation and what it used.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Invocation {
    /// When it began.
    pub time: Timestamp,
    /// The app.
    pub app: Name,
    /// The function.
    pub function: Name,
    /// Its revision.
    pub revision: Digest,
    /// The request.
    pub request: RequestId,
    /// Its trace.
    pub trace: TraceId,
    /// The span of this invocation.
    pub span: SpanId,
    /// `ok`, or the failure's label.
    pub outcome: String,
    /// HTTP status of the answer, 0 if there was none.
    pub status: u16,
    /// Whether a fresh instance had to be made.
    pub start: Start,
    /// Nanoseconds from the permit to the end of the answer.
    pub wall_ns: u64,
    /// Nanoseconds of CPU time.
    pub cpu_ns: u64,
    /// Nanoseconds in the queue.
    pub queued_ns: u64,
    /// Peak linear memory.
    pub memory_peak_bytes: u64,
    /// Bytes of the request's body.
    pub bytes_in: u64,
    /// Bytes of the answer's body.
    pub bytes_out: u64,
    /// Bytes of log output past the limit, which are not in the log.
    #[serde(default)]
    pub log_bytes_dropped: u64,
}

impl From<&MeterRecord> for Invocation {
    fn from(record: &MeterRecord) -> Self {
        Self {
            time: Timestamp(record.start_unix_ns),
            app: record.id.app.clone(),
            function: record.id.function.clone(),
            revision: record.id.revision,
            request: record.request,
            trace: record.trace,
            span: record.span,
            outcome: record.outcome.label().to_owned(),
            status: record.status,
            start: record.start,
            wall_ns: record.wall_ns,
            cpu_ns: record.cpu_ns,
            queued_ns: record.queued_ns,
            memory_peak_bytes: record.memory_peak_bytes,
            bytes_in: record.bytes_in,
            bytes_out: record.bytes_out,
            log_bytes_dropped: record.log_bytes_dropped,
        }
    }
}

/// Which invocations are asked for, among the recent ones. What is left out does not restrict.
#[derive(Clone, Debug, Default)]
pub struct InvocationQuery {
    /// Only this app.
    pub app: Option<Name>,
    /// Only functions of this name.
    pub function: Option<Name>,
    /// Only this request.
    pub request: Option<RequestId>,
    /// At most this many, the latest ones.
    pub limit: Option<usize>,
}

impl InvocationQuery {
    pub(crate) fn takes(&self, record: &MeterRecord) -> bool {
        self.app.as_ref().is_none_or(|app| *app == record.id.app)
            && self.function.as_ref().is_none_or(|function| *function == record.id.function)
            && self.request.is_none_or(|request| request == record.request)
    }
}
