//! What invocations add up to, exactly, and how it spreads.

use marram_core::Kind;
use marram_core::record::{MeterRecord, Outcome, Start};

/// `ok` and every kind of failure.
pub(crate) const OUTCOMES: usize = Kind::ALL.len() + 1;

/// Sums over invocations. Nothing here is rounded or sampled.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    /// By outcome: `ok` first, then as in [`Kind::ALL`].
    pub(crate) outcomes: [u64; OUTCOMES],
    /// All, by start: cold, fresh, reused.
    pub(crate) starts: [u64; 3],
    pub(crate) wall_ns: u64,
    pub(crate) cpu_ns: u64,
    pub(crate) queued_ns: u64,
    /// Peak memory times wall time. 64 bits would overflow within one run of an hour with 4 GiB.
    pub(crate) memory_byte_ns: u128,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
}

impl Totals {
    pub(crate) fn add(&mut self, record: &MeterRecord) {
        self.outcomes[outcome_index(record.outcome)] += 1;
        self.starts[start_index(record.start)] += 1;
        self.wall_ns = self.wall_ns.saturating_add(record.wall_ns);
        self.cpu_ns = self.cpu_ns.saturating_add(record.cpu_ns);
        self.queued_ns = self.queued_ns.saturating_add(record.queued_ns);
        let memory = u128::from(record.memory_peak_bytes) * u128::from(record.wall_ns);
        self.memory_byte_ns = self.memory_byte_ns.saturating_add(memory);
        self.bytes_in = self.bytes_in.saturating_add(record.bytes_in);
        self.bytes_out = self.bytes_out.saturating_add(record.bytes_out);
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        merge_counts(&mut self.outcomes, &other.outcomes);
        merge_counts(&mut self.starts, &other.starts);
        self.wall_ns = self.wall_ns.saturating_add(other.wall_ns);
        self.cpu_ns = self.cpu_ns.saturating_add(other.cpu_ns);
        self.queued_ns = self.queued_ns.saturating_add(other.queued_ns);
        self.memory_byte_ns = self.memory_byte_ns.saturating_add(other.memory_byte_ns);
        self.bytes_in = self.bytes_in.saturating_add(other.bytes_in);
        self.bytes_out = self.bytes_out.saturating_add(other.bytes_out);
    }

    pub(crate) fn invocations(&self) -> u64 {
        self.starts.iter().sum()
    }
}

/// The labels of [`Totals::outcomes`], in its order.
pub(crate) fn outcome_labels() -> impl Iterator<Item = &'static str> {
    std::iter::once(Outcome::Answered.label()).chain(Kind::ALL.iter().map(|kind| kind.label()))
}

/// The labels of [`Totals::starts`], in its order.
pub(crate) const START_LABELS: [&str; 3] = ["cold", "fresh", "reused"];

/// Where an outcome is counted. [`Kind::ALL`] is in the order of the variants; a test holds it to that.
pub(crate) const fn outcome_index(outcome: Outcome) -> usize {
    match outcome {
        Outcome::Answered => 0,
        Outcome::Failed(kind) => kind as usize + 1,
    }
}

pub(crate) const fn start_index(start: Start) -> usize {
    match start {
        Start::Cold => 0,
        Start::Fresh => 1,
        Start::Reused => 2,
    }
}

fn merge_counts(into: &mut [u64], from: &[u64]) {
    for (into, from) in into.iter_mut().zip(from) {
        *into += from;
    }
}

/// Counts of values up to each of `N` bounds, and past the last.
#[derive(Clone, Debug)]
pub(crate) struct Histogram<const N: usize> {
    pub(crate) counts: [u64; N],
    pub(crate) over: u64,
    pub(crate) sum: u128,
}

impl<const N: usize> Default for Histogram<N> {
    fn default() -> Self {
        Self { counts: [0; N], over: 0, sum: 0 }
    }
}

impl<const N: usize> Histogram<N> {
    pub(crate) fn observe(&mut self, value: u64, bounds: &[u64; N]) {
        let bucket = bounds.partition_point(|bound| *bound < value);
        *self.counts.get_mut(bucket).unwrap_or(&mut self.over) += 1;
        self.sum += u128::from(value);
    }

    fn merge(&mut self, other: &Self) {
        merge_counts(&mut self.counts, &other.counts);
        self.over += other.over;
        self.sum += other.sum;
    }
}

const US: u64 = 1_000;
const MS: u64 = 1_000 * US;
const S: u64 = 1_000 * MS;
const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

/// From a fresh instance's 50 µs to a minute, about 2.2 apart: a quantile read off is within that factor.
pub(crate) const DURATION_NS: [u64; 19] = [
    50 * US,
    100 * US,
    250 * US,
    500 * US,
    MS,
    2_500 * US,
    5 * MS,
    10 * MS,
    25 * MS,
    50 * MS,
    100 * MS,
    250 * MS,
    500 * MS,
    S,
    2_500 * MS,
    5 * S,
    10 * S,
    30 * S,
    60 * S,
];
/// Coarser: what matters is whether requests wait, and whether they wait long.
pub(crate) const QUEUE_NS: [u64; 10] = [50 * US, 250 * US, MS, 5 * MS, 25 * MS, 100 * MS, 500 * MS, S, 5 * S, 30 * S];
/// Powers of two, from a page or so to what 32-bit addresses reach.
pub(crate) const MEMORY_BYTES: [u64; 13] = [
    MIB,
    2 * MIB,
    4 * MIB,
    8 * MIB,
    16 * MIB,
    32 * MIB,
    64 * MIB,
    128 * MIB,
    256 * MIB,
    512 * MIB,
    1024 * MIB,
    2048 * MIB,
    4096 * MIB,
];
/// Factors of eight.
pub(crate) const BODY_BYTES: [u64; 8] = [128, KIB, 8 * KIB, 64 * KIB, 512 * KIB, 4 * MIB, 32 * MIB, 256 * MIB];

/// Everything that is known of a function: sums, and how the values spread.
#[derive(Clone, Debug, Default)]
pub(crate) struct Series {
    pub(crate) totals: Totals,
    /// Answered ones by start.
    pub(crate) answered: [u64; 3],
    /// Requests that failed before an invocation began, as [`Totals::outcomes`]. Nothing was used, so they are in no usage.
    pub(crate) refused: [u64; OUTCOMES],
    pub(crate) wall: Histogram<19>,
    pub(crate) cpu: Histogram<19>,
    pub(crate) queued: Histogram<10>,
    pub(crate) memory: Histogram<13>,
    pub(crate) body_in: Histogram<8>,
    pub(crate) body_out: Histogram<8>,
    pub(crate) init: Histogram<19>,
    pub(crate) log_bytes_dropped: u64,
}

impl Series {
    pub(crate) fn add(&mut self, record: &MeterRecord) {
        self.totals.add(record);
        if record.outcome == Outcome::Answered {
            self.answered[start_index(record.start)] += 1;
        }
        self.wall.observe(record.wall_ns, &DURATION_NS);
        self.cpu.observe(record.cpu_ns, &DURATION_NS);
        self.queued.observe(record.queued_ns, &QUEUE_NS);
        self.memory.observe(record.memory_peak_bytes, &MEMORY_BYTES);
        self.body_in.observe(record.bytes_in, &BODY_BYTES);
        self.body_out.observe(record.bytes_out, &BODY_BYTES);
        self.log_bytes_dropped = self.log_bytes_dropped.saturating_add(record.log_bytes_dropped);
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        self.totals.merge(&other.totals);
        merge_counts(&mut self.answered, &other.answered);
        merge_counts(&mut self.refused, &other.refused);
        self.wall.merge(&other.wall);
        self.cpu.merge(&other.cpu);
        self.queued.merge(&other.queued);
        self.memory.merge(&other.memory);
        self.body_in.merge(&other.body_in);
        self.body_out.merge(&other.body_out);
        self.init.merge(&other.init);
        self.log_bytes_dropped = self.log_bytes_dropped.saturating_add(other.log_bytes_dropped);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_outcome_has_its_place() {
        let labels: Vec<_> = outcome_labels().collect();
        assert_eq!(labels.len(), OUTCOMES);
        for kind in Kind::ALL {
            assert_eq!(labels[outcome_index(Outcome::Failed(*kind))], kind.label());
        }
    }

    #[test]
    fn bounds_rise_and_hold_their_own_value() {
        assert!(DURATION_NS.is_sorted() && QUEUE_NS.is_sorted() && MEMORY_BYTES.is_sorted() && BODY_BYTES.is_sorted());
        let mut histogram = Histogram::default();
        for value in [0, 128, 129, u64::MAX] {
            histogram.observe(value, &BODY_BYTES);
        }
        assert_eq!((histogram.counts[0], histogram.counts[1], histogram.over), (2, 1, 1));
    }
}
