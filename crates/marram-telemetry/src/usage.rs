//! Usage: what functions used in a span of time, and what it costs.

use std::collections::BTreeMap;

use marram_core::Name;
use serde::{Deserialize, Serialize};

use crate::totals::{START_LABELS, Totals, outcome_labels};

/// Which usage is asked for. What is left out does not restrict.
#[derive(Clone, Debug, Default)]
pub struct UsageQuery {
    /// Only this app.
    pub app: Option<Name>,
    /// Only functions of this name.
    pub function: Option<Name>,
    /// From this time on; nanoseconds since the Unix epoch.
    pub since_unix_ns: Option<u64>,
    /// Before this time.
    pub until_unix_ns: Option<u64>,
}

/// What one function used. Usage is kept by the minute, and by the hour once it is two days old: the ends of the span that
/// is asked for are rounded outwards to that.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Usage {
    /// The app; `_other` where there were too many functions to tell apart.
    pub app: String,
    /// The function.
    pub function: String,
    /// What it used.
    #[serde(flatten)]
    pub used: Used,
}

/// Sums over invocations. Integers are exact.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Used {
    /// Invocations, however they ended.
    pub invocations: u64,
    /// Those that did not answer completely.
    pub failed: u64,
    /// Invocations by outcome: `ok`, or the failure's label. Outcomes that never happened are left out.
    pub outcomes: BTreeMap<String, u64>,
    /// Invocations by start: `cold`, `fresh`, `reused`. Starts that never happened are left out.
    pub starts: BTreeMap<String, u64>,
    /// Nanoseconds from permits to ends of answers.
    pub wall_ns: u64,
    /// Nanoseconds of CPU time.
    pub cpu_ns: u64,
    /// Nanoseconds in queues.
    pub queued_ns: u64,
    /// Peak memory times wall time, in units of 10^9 bytes and seconds.
    pub gb_seconds: f64,
    /// Bytes of requests' bodies.
    pub bytes_in: u64,
    /// Bytes of answers' bodies.
    pub bytes_out: u64,
}

/// Bytes times nanoseconds in a GB-second.
const BYTE_NS_PER_GB_SECOND: f64 = 1e18;

impl From<&Totals> for Used {
    fn from(totals: &Totals) -> Self {
        let named = |labels: &mut dyn Iterator<Item = &'static str>, counts: &[u64]| {
            labels
                .zip(counts)
                .filter(|(_, count)| **count > 0)
                .map(|(label, count)| (label.to_owned(), *count))
                .collect()
        };
        Self {
            invocations: totals.invocations(),
            failed: totals.outcomes[1..].iter().sum(),
            outcomes: named(&mut outcome_labels(), &totals.outcomes),
            starts: named(&mut START_LABELS.into_iter(), &totals.starts),
            wall_ns: totals.wall_ns,
            cpu_ns: totals.cpu_ns,
            queued_ns: totals.queued_ns,
            gb_seconds: totals.memory_byte_ns as f64 / BYTE_NS_PER_GB_SECOND,
            bytes_in: totals.bytes_in,
            bytes_out: totals.bytes_out,
        }
    }
}

/// What a unit of each kind costs; what is left out is free. The file `prices.toml` has this shape.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PriceList {
    /// Of the prices, as in ISO 4217: `EUR`.
    pub currency: String,
    /// Per million invocations, failed ones included.
    pub per_million_invocations: f64,
    /// Per 10^9 bytes of peak memory held for a second.
    pub per_gb_second: f64,
    /// Per second of CPU time.
    pub per_cpu_second: f64,
    /// Per 10^9 bytes of answers' bodies.
    pub per_gb_out: f64,
}

impl Default for PriceList {
    fn default() -> Self {
        Self {
            currency: "EUR".into(),
            per_million_invocations: 0.0,
            per_gb_second: 0.0,
            per_cpu_second: 0.0,
            per_gb_out: 0.0,
        }
    }
}

/// What usage costs by a [`PriceList`], not rounded.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Cost {
    /// As in the price list.
    pub currency: String,
    /// For invocations.
    pub invocations: f64,
    /// For memory over time.
    pub memory: f64,
    /// For CPU time.
    pub cpu: f64,
    /// For bytes out.
    pub bytes_out: f64,
    /// All of it.
    pub total: f64,
}

impl PriceList {
    /// What `used` costs.
    #[must_use]
    pub fn cost(&self, used: &Used) -> Cost {
        let invocations = used.invocations as f64 / 1e6 * self.per_million_invocations;
        let memory = used.gb_seconds * self.per_gb_second;
        let cpu = used.cpu_ns as f64 / 1e9 * self.per_cpu_second;
        let bytes_out = used.bytes_out as f64 / 1e9 * self.per_gb_out;
        let total = invocations + memory + cpu + bytes_out;
        Cost { currency: self.currency.clone(), invocations, memory, cpu, bytes_out, total }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prices_times_usage() {
        let prices = PriceList {
            currency: "EUR".into(),
            per_million_invocations: 0.2,
            per_gb_second: 0.00001,
            per_cpu_second: 0.00002,
            per_gb_out: 0.1,
        };
        let used = Used {
            invocations: 5_000_000,
            gb_seconds: 10_000.0,
            cpu_ns: 3_000_000_000_000,
            bytes_out: 2_000_000_000,
            ..Used::default()
        };
        let cost = prices.cost(&used);
        for (is, should) in
            [(cost.invocations, 1.0), (cost.memory, 0.1), (cost.cpu, 0.06), (cost.bytes_out, 0.2), (cost.total, 1.36)]
        {
            assert!((is - should).abs() < 1e-12, "{is} is not {should}");
        }
    }
}
