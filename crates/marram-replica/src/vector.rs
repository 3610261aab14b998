//! Version vectors, and the causal context of a set or a map: which changes a state has seen.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::NodeId;

/// One change: the `seq`-th of `node`, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Dot {
    /// Who made it.
    pub node: NodeId,
    /// Counts up from 1 without gaps on each node.
    pub seq: u64,
}

/// For each node, how many of its changes have been seen, all of them from the first on. Partially ordered: neither of
/// two vectors is greater when each has seen something that the other has not.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct VersionVector(BTreeMap<NodeId, u64>);

impl VersionVector {
    /// How many changes of `node` have been seen.
    #[must_use]
    pub fn get(&self, node: NodeId) -> u64 {
        self.0.get(&node).copied().unwrap_or(0)
    }

    /// Whether this change has been seen.
    #[must_use]
    pub fn includes(&self, dot: Dot) -> bool {
        dot.seq <= self.get(dot.node)
    }

    /// Sees the first `seq` changes of `node`.
    pub fn advance(&mut self, node: NodeId, seq: u64) {
        // Nothing seen and no entry are the same vector, so they have to be the same value.
        if seq > self.get(node) {
            self.0.insert(node, seq);
        }
    }

    /// Sees everything that `other` has seen.
    pub fn merge(&mut self, other: &Self) {
        for (node, seq) in &other.0 {
            self.advance(*node, *seq);
        }
    }

    /// Each node of which something was seen, with how much.
    pub fn iter(&self) -> impl Iterator<Item = (NodeId, u64)> + '_ {
        self.0.iter().map(|(node, seq)| (*node, *seq))
    }

    fn covers(&self, other: &Self) -> bool {
        other.0.iter().all(|(node, seq)| self.get(*node) >= *seq)
    }
}

impl PartialOrd for VersionVector {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        match (self.covers(other), other.covers(self)) {
            (true, true) => Some(Ordering::Equal),
            (true, false) => Some(Ordering::Greater),
            (false, true) => Some(Ordering::Less),
            (false, false) => None,
        }
    }
}

/// Which changes a state has seen: a vector, and single ones that came before those in between (Almeida et al. §7.2,
/// "causal context compression"). Once the gaps have closed only the vector is left, so it stays as small as the number
/// of nodes.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Context {
    vector: VersionVector,
    cloud: BTreeSet<Dot>,
}

impl Context {
    /// Whether this change has been seen.
    #[must_use]
    pub fn includes(&self, dot: Dot) -> bool {
        self.vector.includes(dot) || self.cloud.contains(&dot)
    }

    /// The next change of `node`. It is not seen until it is inserted.
    #[must_use]
    pub fn next(&self, node: NodeId) -> Dot {
        // A node has always seen its own changes without a gap, so its vector is its count. Were that ever not so, a
        // number would be left out, which costs a dot in the cloud; one used twice would lose data.
        let last = self.cloud.range(Dot { node, seq: 0 }..=Dot { node, seq: u64::MAX }).next_back();
        let seen = last.map_or(0, |dot| dot.seq).max(self.vector.get(node));
        Dot { node, seq: seen + 1 }
    }

    /// Sees a change.
    pub fn insert(&mut self, dot: Dot) {
        if !self.vector.includes(dot) {
            self.cloud.insert(dot);
            self.compact();
        }
    }

    /// Sees everything that `other` has seen.
    pub fn merge(&mut self, other: &Self) {
        self.vector.merge(&other.vector);
        self.cloud.extend(&other.cloud);
        self.compact();
    }

    /// The part without gaps.
    #[must_use]
    pub const fn vector(&self) -> &VersionVector {
        &self.vector
    }

    /// Changes that were seen past a gap: 0 once everything has arrived.
    #[must_use]
    pub fn gaps(&self) -> usize {
        self.cloud.len()
    }

    fn compact(&mut self) {
        // In order of node and number, so that a run of them closes in one pass.
        let vector = &mut self.vector;
        self.cloud.retain(|dot| {
            if dot.seq == vector.get(dot.node) + 1 {
                vector.advance(dot.node, dot.seq);
            }
            !vector.includes(*dot)
        });
    }
}

impl FromIterator<Dot> for Context {
    fn from_iter<I: IntoIterator<Item = Dot>>(dots: I) -> Self {
        let mut context = Self { vector: VersionVector::default(), cloud: dots.into_iter().collect() };
        context.compact();
        context
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dot(node: u64, seq: u64) -> Dot {
        Dot { node: NodeId(node), seq }
    }

    #[test]
    fn vectors_are_partially_ordered() {
        let vector = |seqs: &[(u64, u64)]| {
            let mut vector = VersionVector::default();
            seqs.iter().for_each(|(node, seq)| vector.advance(NodeId(*node), *seq));
            vector
        };
        let check = |a: &[(u64, u64)], b: &[(u64, u64)], order| {
            assert_eq!(vector(a).partial_cmp(&vector(b)), order, "{a:?} {b:?}");
        };
        check(&[(1, 2)], &[(1, 2), (2, 0)], Some(Ordering::Equal));
        check(&[(1, 2), (2, 1)], &[(1, 2)], Some(Ordering::Greater));
        check(&[], &[(1, 1)], Some(Ordering::Less));
        check(&[(1, 2)], &[(2, 1)], None);
    }

    #[test]
    fn gaps_close() {
        let mut context: Context = [dot(1, 3), dot(1, 2), dot(2, 1)].into_iter().collect();
        assert_eq!((context.gaps(), context.next(NodeId(1)), context.next(NodeId(2))), (2, dot(1, 4), dot(2, 2)));
        assert!(context.includes(dot(1, 3)) && !context.includes(dot(1, 1)));
        context.insert(dot(1, 1));
        assert_eq!((context.gaps(), context.vector().get(NodeId(1))), (0, 3));
    }

    proptest::proptest! {
        /// However the same dots came together, the context is the same value and holds exactly them.
        #[test]
        fn contexts_are_sets_of_dots(
            dots in proptest::collection::vec((0u64..3, 1u64..8), 0..20),
            cut in 0usize..20,
        ) {
            let dots: Vec<_> = dots.into_iter().map(|(node, seq)| dot(node, seq)).collect();
            let all: Context = dots.iter().copied().collect();
            let (left, right) = dots.split_at(cut.min(dots.len()));
            let (mut merged, right): (Context, Context) = (left.iter().copied().collect(), right.iter().copied().collect());
            merged.merge(&right);
            proptest::prop_assert_eq!(&merged, &all);
            let mut single = Context::default();
            dots.iter().rev().for_each(|dot| single.insert(*dot));
            proptest::prop_assert_eq!(&single, &all);
            for node in 0..3 {
                for seq in 1..8 {
                    let dot = dot(node, seq);
                    proptest::prop_assert_eq!(all.includes(dot), dots.contains(&dot));
                }
            }
        }
    }
}
