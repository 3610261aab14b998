//! The observed-remove set: a removal takes away what its node has seen, and an addition that it has not seen stays.

use std::collections::{BTreeSet, HashMap};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{Causal, Dot, NodeId};

/// One change of a set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SetChange {
    /// Adds a member.
    Add(Bytes),
    /// Removes a member, as far as the copy has seen it.
    Remove(Bytes),
}

impl SetChange {
    fn member(&self) -> &[u8] {
        match self {
            Self::Add(member) | Self::Remove(member) => member,
        }
    }
}

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

    /// Makes changes as `node`, as if one after the other. Returns the delta of all. One pass over the set, however many
    /// they are.
    pub fn change(&mut self, node: NodeId, changes: &[SetChange]) -> Self {
        let mut dots: HashMap<&[u8], Vec<Dot>> = changes.iter().map(|change| (change.member(), Vec::new())).collect();
        for (dot, member) in self.0.iter() {
            if let Some(dots) = dots.get_mut(&member[..]) {
                dots.push(dot);
            }
        }
        let mut edit = self.0.edit(node);
        for change in changes {
            let dots = dots.entry(change.member()).or_default();
            edit.remove(dots.drain(..));
            if let SetChange::Add(member) = change {
                dots.push(edit.add(member.clone()));
            }
        }
        Self(self.0.apply(edit))
    }

    /// Adds a member as `node`. Returns the delta.
    pub fn add(&mut self, node: NodeId, member: Bytes) -> Self {
        self.change(node, &[SetChange::Add(member)])
    }

    /// Removes a member, as far as this copy has seen it. Returns the delta.
    pub fn remove(&mut self, node: NodeId, member: &[u8]) -> Self {
        self.change(node, &[SetChange::Remove(Bytes::copy_from_slice(member))])
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
