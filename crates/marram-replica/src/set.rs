//! The observed-remove set: a removal takes away what its node has seen, and an addition that it has not seen stays.

use std::collections::BTreeSet;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{Causal, NodeId};

/// A set of byte strings. It keeps no tombstones: what was removed leaves only a number in the context.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct OrSet(Causal<Bytes>);

impl OrSet {
    /// Whether `member` is in it. Linear in the size of the set.
    #[must_use]
    pub fn contains(&self, member: &[u8]) -> bool {
        self.0.iter().any(|(_, found)| found == member)
    }

    /// Every member.
    #[must_use]
    pub fn members(&self) -> BTreeSet<Bytes> {
        self.0.iter().map(|(_, member)| member.clone()).collect()
    }

    /// Adds a member as `node`. Returns the delta.
    pub fn add(&mut self, node: NodeId, member: Bytes) -> Self {
        let replaced = member.clone();
        Self(self.0.replace(node, |_, found| *found == replaced, Some(member)))
    }

    /// Removes a member, as far as this copy has seen it. Returns the delta.
    pub fn remove(&mut self, node: NodeId, member: &[u8]) -> Self {
        Self(self.0.replace(node, |_, found| found == member, None))
    }

    /// The join.
    pub fn merge(&mut self, other: &Self) {
        self.0.merge(&other.0);
    }

    /// The dots and the context behind it.
    #[must_use]
    pub const fn causal(&self) -> &Causal<Bytes> {
        &self.0
    }
}
