//! Delivery: pull, invoke, settle. The one engine of all triggers.
//!
//! | The function | The event |
//! |---|---|
//! | answers `2xx` | is acknowledged; if the answer is itself an event, or a batch, it is published to the output in the same transaction |
//! | answers `408`, `425`, `429` or `5xx`, traps, or goes over a limit or its deadline | is delivered again after the back-off, no earlier than `Retry-After` says |
//! | answers anything else, or an event that is malformed | goes to the dead-letter stream at once |
//! | cannot be started, because it is at its limit of concurrency, or the node drains or is full | waits here and does not count as delivered |
//!
//! A batch has one answer for all of its events. Where it fails in a way that one of them may be the reason of, it is
//! taken apart until the culprits are alone, and only these are retried or given up on. An answer that says "later"
//! (`408`, `425`, `429`, `503`) is about all of them.
//!
//! What is pulled and not yet settled is extended for as long as it is here, and given back uncounted when delivery stops.

mod answer;
mod engine;
mod request;
mod run;
mod status;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use http::{HeaderValue, Uri};
use marram_core::manifest::Batch;
use marram_core::port::{Clock, Entropy, Invoke};
use marram_core::stream::StreamName;
use tokio_util::sync::CancellationToken;

pub use engine::run;
pub(crate) use run::spread;
pub use status::{Counters, Counts};

use crate::limits::RUNS_MAX;

/// What runs, and within which limits. Another one takes its place when another revision is deployed.
pub struct Target {
    pub(crate) invoke: Arc<dyn Invoke>,
    pub(crate) output: Option<StreamName>,
    pub(crate) body_bytes_max: u64,
    pub(crate) concurrency: u32,
    pub(crate) uri: Uri,
    pub(crate) host: HeaderValue,
}

impl Target {
    /// A function, where its answers go that are events, and its limits of body and concurrency.
    #[must_use]
    pub fn new(invoke: Arc<dyn Invoke>, output: Option<StreamName>, body_bytes_max: u64, concurrency: u32) -> Self {
        // A name is a DNS label, so both of these are valid.
        let host = format!("{}.internal", invoke.id().function);
        let uri = Uri::try_from(format!("http://{host}/")).unwrap_or_default();
        let host = HeaderValue::from_str(&host).unwrap_or_else(|_| HeaderValue::from_static("internal"));
        Self { invoke, output, body_bytes_max, concurrency, uri, host }
    }
}

/// How events are handed over, for the life of a delivery.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The trigger, as the function sees it in `marram-trigger`.
    pub source: String,
    /// Whether several events come in one request.
    pub batch: Option<Batch>,
    /// Whether they are changes of keys, which a component may have as calls of `wasi:keyvalue/watcher`.
    pub keys: bool,
    /// As in the consumer's policy.
    pub ack_wait: Duration,
    /// As in the consumer's policy.
    pub in_flight_max: u32,
}

impl Plan {
    /// Invocations at the same time: half of what the function may have, so that its web requests find a place as well,
    /// and no more than there are events for.
    fn runs_max(&self, target: &Target) -> usize {
        let needed = self.in_flight_max.div_ceil(self.batch.map_or(1, |batch| batch.max.max(1)));
        target.concurrency.div_ceil(2).min(RUNS_MAX).min(needed).max(1) as usize
    }
}

/// What the engine of one trigger shares with those who look after it.
pub struct Shared {
    /// What runs.
    pub target: ArcSwap<Target>,
    /// How.
    pub plan: Plan,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Identifiers, and how waits are spread.
    pub entropy: Arc<dyn Entropy>,
    /// What happened so far.
    pub counters: Counters,
    /// Ends the pulling. What runs goes on.
    pub stop: CancellationToken,
    /// Ends what still runs after that.
    pub cut: CancellationToken,
}
