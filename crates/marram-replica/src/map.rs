//! The observed-remove map: fields that each hold a register, a counter or a set.
//!
//! Everything in the map is an [`Item`] under a dot. Removing a field takes away the items of it that this copy has seen;
//! a change that was made elsewhere meanwhile stays, and so does the field then. For a counter that means: what its
//! changer had counted before is still in it (Almeida et al. §7.4, the resettable counter).

use std::collections::{BTreeSet, HashMap};

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

/// One change of a field of a map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MapChange<'a> {
    /// Puts a value into the field.
    Put(&'a str, Register),
    /// Adds to the counter of the field.
    Increment(&'a str, i64),
    /// Adds a member to the set of the field.
    Add(&'a str, Bytes),
    /// Removes a member from the set of the field, as far as the copy has seen it.
    Discard(&'a str, Bytes),
    /// Removes the field with all that is in it, as far as the copy has seen it.
    Remove(&'a str),
}

impl<'a> MapChange<'a> {
    const fn field(&self) -> &'a str {
        match *self {
            Self::Put(field, _)
            | Self::Increment(field, _)
            | Self::Add(field, _)
            | Self::Discard(field, _)
            | Self::Remove(field) => field,
        }
    }
}

/// An increment that was refused: the sum that the copy sees, or what its node has added in all, would leave the range.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("adding {delta} to the counter of field {field:?} leaves the range of a signed 64-bit number")]
pub struct FieldOutOfRange {
    /// The field.
    pub field: String,
    /// What was to be added.
    pub delta: i64,
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

    /// Makes changes as `node`, as if one after the other, or none of them where an increment is refused. Returns the delta
    /// of all. One pass over the map, however many they are.
    pub fn change(&mut self, node: NodeId, changes: &[MapChange<'_>]) -> Result<Self, FieldOutOfRange> {
        let mut places = self.places(changes);
        let mut edit = self.0.edit(node);
        for change in changes {
            let field = change.field();
            let place = places.entry(field).or_default();
            match change {
                MapChange::Put(_, register) => {
                    edit.remove(place.registers.drain(..));
                    place.registers.push(edit.add((field.to_owned(), Item::Register(register.clone()))));
                }
                MapChange::Increment(_, delta) => {
                    let refused = || FieldOutOfRange { field: field.to_owned(), delta: *delta };
                    let count = place.counted(node, *delta).ok_or_else(refused)?;
                    edit.remove(place.counts.iter().map(|(dot, _)| *dot).filter(|dot| dot.node == node));
                    place.counts.retain(|(dot, _)| dot.node != node);
                    place.counts.push((edit.add((field.to_owned(), Item::Count(count))), count));
                }
                MapChange::Add(_, member) => {
                    let dots = place.named.entry(member).or_default();
                    edit.remove(dots.drain(..));
                    dots.push(edit.add((field.to_owned(), Item::Member(member.clone()))));
                }
                MapChange::Discard(_, member) => edit.remove(place.named.remove(&member[..]).unwrap_or_default()),
                MapChange::Remove(_) => edit.remove(place.all()),
            }
        }
        Ok(Self(self.0.apply(edit)))
    }

    /// Puts a value into the field. Returns the delta.
    pub fn put(&mut self, node: NodeId, field: &str, register: Register) -> Self {
        self.change_one(node, MapChange::Put(field, register))
    }

    /// Adds to the counter of the field. Returns the delta, or `None`, with nothing changed, where the sum that this copy
    /// sees, or what this node has added in all, would leave the range of `i64`.
    pub fn increment(&mut self, node: NodeId, field: &str, delta: i64) -> Option<Self> {
        self.change(node, &[MapChange::Increment(field, delta)]).ok()
    }

    /// Adds a member to the set of the field. Returns the delta.
    pub fn add(&mut self, node: NodeId, field: &str, member: Bytes) -> Self {
        self.change_one(node, MapChange::Add(field, member))
    }

    /// Removes a member from the set of the field. Returns the delta.
    pub fn discard(&mut self, node: NodeId, field: &str, member: &[u8]) -> Self {
        self.change_one(node, MapChange::Discard(field, Bytes::copy_from_slice(member)))
    }

    /// Removes the field with all that is in it. Returns the delta.
    pub fn remove(&mut self, node: NodeId, field: &str) -> Self {
        self.change_one(node, MapChange::Remove(field))
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

    /// One change that is no increment.
    fn change_one(&mut self, node: NodeId, change: MapChange<'_>) -> Self {
        self.change(node, &[change]).expect("only increments are refused")
    }

    /// Where the things are that these changes may replace.
    fn places<'a>(&self, changes: &'a [MapChange<'a>]) -> HashMap<&'a str, Place<'a>> {
        let mut places = HashMap::<&str, Place<'_>>::new();
        for change in changes {
            let place = places.entry(change.field()).or_default();
            if let MapChange::Add(_, member) | MapChange::Discard(_, member) = change {
                place.named.entry(member).or_default();
            }
        }
        for (dot, (field, item)) in self.0.iter() {
            let Some(place) = places.get_mut(field.as_str()) else { continue };
            match item {
                Item::Register(_) => place.registers.push(dot),
                Item::Count(count) => place.counts.push((dot, *count)),
                Item::Member(member) => place.named.get_mut(&member[..]).unwrap_or(&mut place.others).push(dot),
            }
        }
        places
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

/// The dots of a field that is changed.
#[derive(Default)]
struct Place<'a> {
    registers: Vec<Dot>,
    counts: Vec<(Dot, i64)>,
    /// Of the members that a change names.
    named: HashMap<&'a [u8], Vec<Dot>>,
    /// Of the members that none names: they only go with the field.
    others: Vec<Dot>,
}

impl Place<'_> {
    /// What `node` has added in all with `delta`; `None` where that or the sum leaves the range.
    fn counted(&self, node: NodeId, delta: i64) -> Option<i64> {
        let sum: i128 = self.counts.iter().map(|(_, count)| i128::from(*count)).sum();
        i64::try_from(sum + i128::from(delta)).ok()?;
        let mut own = self.counts.iter().filter(|(dot, _)| dot.node == node);
        own.try_fold(delta, |sum, (_, count)| sum.checked_add(*count))
    }

    /// Every dot; none is left.
    fn all(&mut self) -> impl Iterator<Item = Dot> {
        let counts = self.counts.drain(..).map(|(dot, _)| dot);
        let named = self.named.drain().flat_map(|(_, dots)| dots);
        self.registers.drain(..).chain(counts).chain(named).chain(self.others.drain(..))
    }
}
