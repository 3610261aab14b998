//! Changes of sets and maps.

use marram_core::Name;
use marram_core::port::crdt::CrdtChange;
use marram_core::port::kv::{Expect, Version};
use marram_replica::{Entry, EntryError, FieldOutOfRange, MapChange, Register, SetChange, Stamp};

use super::write::{At, Outcome, Writing, conflict};
use super::{check, view};
use crate::StoreError;

/// All of the changes, as one write of the entry.
pub(super) fn update(
    at: &At<'_>,
    bucket: &Name,
    key: &str,
    changes: &[CrdtChange],
) -> Result<Option<Version>, StoreError> {
    let mut writing = Writing::new(at, bucket);
    let written = writing.change(key, Expect::Any, |entry, stamp, was| {
        // Taking something away from nothing makes nothing.
        if !was && changes.iter().all(takes_away) {
            return Ok(Outcome::Unchanged);
        }
        for alike in changes.chunk_by(|one, next| is_of_a_set(one) == is_of_a_set(next)) {
            change(entry, stamp, alike).map_err(|error| conflict(bucket, key, &error))?;
        }
        Ok(Outcome::Changed)
    })?;
    writing.finish()?;
    Ok(written.map(view::version))
}

/// What a batch counts for in the limits: everything in it, and a little for each.
pub(super) fn bytes(changes: &[CrdtChange]) -> usize {
    let one = |change: &CrdtChange| match change {
        CrdtChange::SetAdd(member) | CrdtChange::SetRemove(member) => member.len(),
        CrdtChange::MapPut { field, value } => field.len() + value.len(),
        CrdtChange::MapAdd { field, member } | CrdtChange::MapDiscard { field, member } => field.len() + member.len(),
        CrdtChange::MapIncrement { field, .. } | CrdtChange::MapRemove { field } => field.len(),
    };
    changes.iter().map(|change| one(change) + 16).sum()
}

/// Names of fields follow the rule for keys: they are what people type and see.
pub(super) fn check_fields(bucket: &Name, changes: &[CrdtChange]) -> Result<(), StoreError> {
    changes.iter().try_for_each(|change| match change {
        CrdtChange::SetAdd(_) | CrdtChange::SetRemove(_) => Ok(()),
        CrdtChange::MapPut { field, .. }
        | CrdtChange::MapIncrement { field, .. }
        | CrdtChange::MapAdd { field, .. }
        | CrdtChange::MapDiscard { field, .. }
        | CrdtChange::MapRemove { field } => check::field(bucket, field),
    })
}

/// Whether nothing is more after it.
pub(super) const fn takes_away(change: &CrdtChange) -> bool {
    matches!(change, CrdtChange::SetRemove(_) | CrdtChange::MapDiscard { .. } | CrdtChange::MapRemove { .. })
}

#[derive(Debug, thiserror::Error)]
enum ChangeError {
    #[error(transparent)]
    Entry(#[from] EntryError),
    #[error("adding {delta} to the counter of field {field} leaves the range of a signed 64-bit number")]
    OutOfRange { field: String, delta: i64 },
}

impl From<FieldOutOfRange> for ChangeError {
    fn from(FieldOutOfRange { field, delta }: FieldOutOfRange) -> Self {
        Self::OutOfRange { field: check::shown(&field), delta }
    }
}

const fn is_of_a_set(change: &CrdtChange) -> bool {
    matches!(change, CrdtChange::SetAdd(_) | CrdtChange::SetRemove(_))
}

/// Changes that are all of a set or all of a map, in one pass over it: one each would hold up everybody's writes.
fn change(entry: &mut Entry, stamp: Stamp, changes: &[CrdtChange]) -> Result<(), ChangeError> {
    let of_set: Vec<_> = changes.iter().filter_map(set_change).collect();
    if !of_set.is_empty() {
        entry.change_set(stamp, |set, node| set.change(node, &of_set))?;
    }
    let of_map: Vec<_> = changes.iter().filter_map(|change| map_change(change, stamp)).collect();
    if !of_map.is_empty() {
        entry.change_map(stamp, |map, node| map.change(node, &of_map).map_err(ChangeError::from))?;
    }
    Ok(())
}

fn set_change(change: &CrdtChange) -> Option<SetChange> {
    match change {
        CrdtChange::SetAdd(member) => Some(SetChange::Add(member.clone())),
        CrdtChange::SetRemove(member) => Some(SetChange::Remove(member.clone())),
        _ => None,
    }
}

fn map_change(change: &CrdtChange, stamp: Stamp) -> Option<MapChange<'_>> {
    Some(match change {
        CrdtChange::SetAdd(_) | CrdtChange::SetRemove(_) => return None,
        CrdtChange::MapPut { field, value } => {
            MapChange::Put(field, Register { stamp, value: Some(value.clone()), expires_unix_ns: None })
        }
        CrdtChange::MapIncrement { field, delta } => MapChange::Increment(field, *delta),
        CrdtChange::MapAdd { field, member } => MapChange::Add(field, member.clone()),
        CrdtChange::MapDiscard { field, member } => MapChange::Discard(field, member.clone()),
        CrdtChange::MapRemove { field } => MapChange::Remove(field),
    })
}
