//! The observed-remove map: fields that each hold a register, a counter or a set.
//!
//! Everything in the map is an [`Item`] under a dot. Removing a field takes away the items of it that this copy has seen;
//! a change that was made elsewhere meanwhile stays, and so does the field then. For a counter that means: what its
//! changer had counted before is still in it (Almeida et al. §7.4, the resettable counter).

use std::collections::BTreeSet;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{Causal, Dot, NodeId, Register};

/// One thing in a field.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Item {
    /// What was put there. Of several, the latest is read.
    Register(Register),
    /// What the node of the dot has added. Several are summed up.
    Count(i64),
    /// A member.
    Member(Bytes),
}

/// A map from names of fields.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct OrMap(Causal<(String, Item)>);

impl OrMap {
    /// The names of the fields.
    #[must_use]
    pub fn fields(&self) -> BTreeSet<&str> {
        self.0.iter().map(|(_, (field, _))| field.as_str()).collect()
    }

    /// What was last put into the field.
    #[must_use]
    pub fn register(&self, field: &str) -> Option<&Register> {
        self.items(field)
            .filter_map(|(_, item)| if let Item::Register(register) = item { Some(register) } else { None })
            .max()
    }

    /// The counter of the field, if anybody has counted; at the end of the range where the sum is outside.
    #[must_use]
    pub fn count(&self, field: &str) -> Option<i64> {
        let sum = self.counts(field)?;
        Some(sum.clamp(i128::from(i64::MIN), i128::from(i64::MAX)) as i64)
    }

    /// The set of the field.
    #[must_use]
    pub fn members(&self, field: &str) -> BTreeSet<&Bytes> {
        self.items(field)
            .filter_map(|(_, item)| if let Item::Member(member) = item { Some(member) } else { None })
            .collect()
    }

    /// Puts a value into the field. Returns the delta.
    pub fn put(&mut self, node: NodeId, field: &str, register: Register) -> Self {
        let replaced = |_: Dot, (at, item): &(String, Item)| at == field && matches!(item, Item::Register(_));
        Self(self.0.replace(node, replaced, Some((field.to_owned(), Item::Register(register)))))
    }

    /// Adds to the counter of the field. Returns the delta, or `None`, with nothing changed, where the sum that this copy
    /// sees, or what this node has added in all, would leave the range of `i64`.
    pub fn increment(&mut self, node: NodeId, field: &str, delta: i64) -> Option<Self> {
        i64::try_from(self.counts(field).unwrap_or(0) + i128::from(delta)).ok()?;
        let count = self.items(field).try_fold(delta, |sum, (dot, item)| match item {
            Item::Count(count) if dot.node == node => sum.checked_add(*count),
            _ => Some(sum),
        })?;
        let replaced =
            |dot: Dot, (at, item): &(String, Item)| at == field && dot.node == node && matches!(item, Item::Count(_));
        Some(Self(self.0.replace(node, replaced, Some((field.to_owned(), Item::Count(count))))))
    }

    /// Adds a member to the set of the field. Returns the delta.
    pub fn add(&mut self, node: NodeId, field: &str, member: Bytes) -> Self {
        let same = member.clone();
        let replaced = |_: Dot, (at, item): &(String, Item)| at == field && is_member(item, &same);
        Self(self.0.replace(node, replaced, Some((field.to_owned(), Item::Member(member)))))
    }

    /// Removes a member from the set of the field. Returns the delta.
    pub fn discard(&mut self, node: NodeId, field: &str, member: &[u8]) -> Self {
        Self(self.0.replace(node, |_, (at, item)| at == field && is_member(item, member), None))
    }

    /// Removes the field with all that is in it. Returns the delta.
    pub fn remove(&mut self, node: NodeId, field: &str) -> Self {
        Self(self.0.replace(node, |_, (at, _)| at == field, None))
    }

    /// The join.
    pub fn merge(&mut self, other: &Self) {
        self.0.merge(&other.0);
    }

    /// The dots and the context behind it.
    #[must_use]
    pub const fn causal(&self) -> &Causal<(String, Item)> {
        &self.0
    }

    fn counts(&self, field: &str) -> Option<i128> {
        let mut counts =
            self.items(field).filter_map(|(_, item)| if let Item::Count(count) = item { Some(*count) } else { None });
        let first = i128::from(counts.next()?);
        Some(counts.fold(first, |sum, count| sum + i128::from(count)))
    }

    fn items<'a, 'f>(&'a self, field: &'f str) -> impl Iterator<Item = (Dot, &'a Item)> + use<'a, 'f> {
        self.0.iter().filter(move |(_, (at, _))| at == field).map(|(dot, (_, item))| (dot, item))
    }
}

fn is_member(item: &Item, member: &[u8]) -> bool {
    matches!(item, Item::Member(found) if found == member)
}
