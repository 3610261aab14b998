//! The PN-counter: each node counts what it added and what it took away, and nobody else's (Shapiro et al., "A
//! comprehensive study of Convergent and Commutative Replicated Data Types", 2011, specification 7).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::NodeId;

/// What a node has added and taken away, in all. 128 bits do not overflow by adding 64-bit numbers for longer than any
/// node lives; it is checked all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
struct Pair {
    added: u128,
    taken: u128,
}

/// Why a number was not added. The counter is as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CounterError {
    /// The sum would not fit.
    #[error("adding {delta} to {value} leaves the range of a signed 64-bit number")]
    OutOfRange {
        /// What the counter is.
        value: i64,
        /// What was to be added.
        delta: i64,
    },
}

/// A counter that every node can add to at any time.
///
/// **Range.** A node refuses what would take the value that it sees out of `i64`, so on one node the value is exact. Two
/// nodes that each stay inside can be outside together: then the value reads as the nearest end of the range, and the
/// true sum is kept and comes back into sight as soon as something is taken away.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PnCounter(BTreeMap<NodeId, Pair>);

impl PnCounter {
    /// Whether nobody has ever added anything. 0 by additions that cancel out is not empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The sum, at the end of the range where it is outside.
    #[must_use]
    pub fn value(&self) -> i64 {
        self.value_over(0)
    }

    /// The sum on top of `base`.
    #[must_use]
    pub fn value_over(&self, base: i64) -> i64 {
        let sum = self.sum().saturating_add(i128::from(base));
        sum.clamp(i128::from(i64::MIN), i128::from(i64::MAX)) as i64
    }

    /// Adds `delta` as `node`; `base` is what the counter counts from. Returns the delta.
    pub fn add(&mut self, node: NodeId, base: i64, delta: i64) -> Result<Self, CounterError> {
        let error = CounterError::OutOfRange { value: self.value_over(base), delta };
        let sum = self.sum().saturating_add(i128::from(base)).saturating_add(i128::from(delta));
        // Back towards the range is always allowed.
        let outward = i64::try_from(sum).is_err() && sum.signum() == i128::from(delta.signum());
        if outward {
            return Err(error);
        }
        let mut pair = self.0.get(&node).copied().unwrap_or_default();
        let side = if delta >= 0 { &mut pair.added } else { &mut pair.taken };
        *side = side.checked_add(u128::from(delta.unsigned_abs())).ok_or(error)?;
        self.0.insert(node, pair);
        Ok(Self([(node, pair)].into()))
    }

    /// The join: of each node, the later of its two numbers, which is the greater.
    pub fn merge(&mut self, other: &Self) {
        for (node, theirs) in &other.0 {
            let ours = self.0.entry(*node).or_default();
            ours.added = ours.added.max(theirs.added);
            ours.taken = ours.taken.max(theirs.taken);
        }
    }

    fn sum(&self) -> i128 {
        self.0.values().fold(0i128, |sum, pair| {
            let added = i128::try_from(pair.added).unwrap_or(i128::MAX);
            let taken = i128::try_from(pair.taken).unwrap_or(i128::MAX);
            sum.saturating_add(added - taken)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: NodeId = NodeId(1);
    const B: NodeId = NodeId(2);

    #[test]
    fn the_range_is_kept_on_one_node_and_saturates_over_two() {
        let mut a = PnCounter::default();
        a.add(A, 0, i64::MAX).unwrap();
        assert_eq!(a.add(A, 0, 1), Err(CounterError::OutOfRange { value: i64::MAX, delta: 1 }));
        assert_eq!(a.value(), i64::MAX);
        // From one end to the other and back, many times.
        for _ in 0..10 {
            a.add(A, 0, i64::MIN).unwrap();
            assert_eq!(a.value(), -1);
            a.add(A, 0, i64::MAX).unwrap();
            a.add(A, 0, 1).unwrap();
        }
        let mut b = PnCounter::default();
        b.add(B, 0, i64::MAX).unwrap();
        a.merge(&b);
        assert_eq!(a.value(), i64::MAX);
        // Together they are at twice the end, which is kept: half of it is the end, and one less is one less.
        a.add(A, 0, 0).unwrap();
        a.add(A, 0, -i64::MAX).unwrap();
        assert_eq!(a.value(), i64::MAX);
        a.add(A, 0, -1).unwrap();
        assert_eq!(a.value(), i64::MAX - 1);
    }

    #[test]
    fn a_base_counts_in() {
        let mut counter = PnCounter::default();
        assert!(counter.add(A, i64::MAX, 1).is_err() && counter.is_empty());
        counter.add(A, 5, -7).unwrap();
        assert_eq!((counter.value(), counter.value_over(5)), (-7, -2));
    }
}
