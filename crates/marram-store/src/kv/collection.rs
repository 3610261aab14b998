//! Changes of sets and maps.

use bytes::Bytes;
use marram_core::Name;
use marram_core::port::crdt::CrdtChange;
use marram_core::port::kv::{Expect, Version};
use marram_replica::{Entry, EntryError, Register, Stamp};

use super::write::{At, Outcome, Writing, conflict};
use super::{check, view};
use crate::StoreError;

/// All of the changes, as one write of the entry.
pub(super) fn update(
    at: &At<'_>,
    bucket: &Name,
    key: &str,
    changes: Vec<CrdtChange>,
) -> Result<Option<Version>, StoreError> {
    let mut writing = Writing::new(at, bucket);
    let written = writing.change(key, Expect::Any, |entry, stamp, was| {
        // Taking something away from nothing makes nothing.
        if !was && changes.iter().all(takes_away) {
            return Ok(Outcome::Unchanged);
        }
        for change in changes {
            one(entry, stamp, change).map_err(|error| conflict(bucket, key, &error))?;
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

const fn takes_away(change: &CrdtChange) -> bool {
    matches!(change, CrdtChange::SetRemove(_) | CrdtChange::MapDiscard { .. } | CrdtChange::MapRemove { .. })
}

#[derive(Debug, thiserror::Error)]
enum ChangeError {
    #[error(transparent)]
    Entry(#[from] EntryError),
    #[error("adding {delta} to the counter of field {field} leaves the range of a signed 64-bit number")]
    OutOfRange { field: String, delta: i64 },
}

fn one(entry: &mut Entry, stamp: Stamp, change: CrdtChange) -> Result<(), ChangeError> {
    let put = |value: Bytes| Register { stamp, value: Some(value), expires_unix_ns: None };
    match change {
        CrdtChange::SetAdd(member) => _ = entry.change_set(stamp, |set, node| set.add(node, member))?,
        CrdtChange::SetRemove(member) => _ = entry.change_set(stamp, |set, node| set.remove(node, &member))?,
        other => {
            entry.change_map(stamp, |map, node| match other {
                CrdtChange::MapPut { field, value } => Ok(map.put(node, &field, put(value))),
                CrdtChange::MapIncrement { field, delta } => map
                    .increment(node, &field, delta)
                    .ok_or_else(|| ChangeError::OutOfRange { field: check::shown(&field), delta }),
                CrdtChange::MapAdd { field, member } => Ok(map.add(node, &field, member)),
                CrdtChange::MapDiscard { field, member } => Ok(map.discard(node, &field, &member)),
                CrdtChange::MapRemove { field } => Ok(map.remove(node, &field)),
                CrdtChange::SetAdd(_) | CrdtChange::SetRemove(_) => unreachable!("sets were taken care of above"),
            })?;
        }
    }
    Ok(())
}
