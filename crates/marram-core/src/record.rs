//! What is written down about a run: log lines and meter records.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::trace::{RequestId, SpanId, TraceId};
use crate::{FunctionId, Kind};

/// How much a log line matters; the levels of `wasi:logging`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Steps within a function.
    Trace,
    /// For the developer.
    Debug,
    /// Something worth knowing; what a guest writes to stdout.
    Info,
    /// Something odd; what a guest writes to stderr.
    Warn,
    /// Something failed.
    Error,
    /// Nothing works any more.
    Critical,
}

/// Where a log line came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// The guest's standard output.
    Stdout,
    /// The guest's standard error.
    Stderr,
    /// `wasi:logging`, or `console.*` in JavaScript.
    Logging,
    /// The node, about this invocation: a trap, a limit.
    Node,
}

/// One line of a function's log.
#[derive(Clone, Debug)]
pub struct LogLine {
    /// Nanoseconds since the Unix epoch.
    pub time_unix_ns: u64,
    /// How much it matters.
    pub level: Level,
    /// Which function wrote it.
    pub id: Arc<FunctionId>,
    /// The request that it belongs to; `None` where an instance serves several at once and does not say.
    pub request: Option<RequestId>,
    /// The trace of that request.
    pub trace: Option<TraceId>,
    /// Where it came from.
    pub source: Source,
    /// The `context` argument of `wasi:logging`; often empty.
    pub context: String,
    /// The text, at most [`crate::limits::LOG_LINE_BYTES_MAX`] bytes.
    pub text: String,
}

/// Whether a fresh instance had to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Start {
    /// The function's code was not mapped: scaled to zero, or just deployed.
    Cold,
    /// The code was mapped; the instance is new.
    Fresh,
    /// A live instance was used again.
    Reused,
}

/// How an invocation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The function answered, with whatever status.
    Answered,
    /// It did not, or not completely.
    Failed(Kind),
}

impl Outcome {
    /// `ok`, or the failure's label.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Answered => "ok",
            Self::Failed(kind) => kind.label(),
        }
    }
}

/// What one invocation used. Exactly one is made for each, when its answer is complete or it has failed.
#[derive(Clone, Debug)]
pub struct MeterRecord {
    /// Which function ran.
    pub id: Arc<FunctionId>,
    /// The request.
    pub request: RequestId,
    /// Its trace.
    pub trace: TraceId,
    /// The span of this invocation.
    pub span: SpanId,
    /// When it began: nanoseconds since the Unix epoch.
    pub start_unix_ns: u64,
    /// From the permit to the end of the answer.
    pub wall_ns: u64,
    /// CPU time of the guest and of host calls on its behalf.
    pub cpu_ns: u64,
    /// Time in the queue before it began.
    pub queued_ns: u64,
    /// The instance's peak linear memory in bytes.
    pub memory_peak_bytes: u64,
    /// Bytes of the request's body that the function read.
    pub bytes_in: u64,
    /// Bytes of the answer's body.
    pub bytes_out: u64,
    /// Bytes of log output past the limit, which are not in the log.
    pub log_bytes_dropped: u64,
    /// HTTP status of the answer, 0 if there was none.
    pub status: u16,
    /// Fresh, reused or cold.
    pub start: Start,
    /// How it ended.
    pub outcome: Outcome,
}
