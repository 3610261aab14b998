//! Changes of maps and entries, for every test here.
#![allow(clippy::unwrap_used, dead_code)]

use bytes::Bytes;
use marram_replica::{Entry, EntryError, OrMap, Register, Stamp};
use proptest::prelude::*;

#[derive(Clone, Debug)]
pub enum MapOp {
    Put(String, Bytes),
    Increment(String, i64),
    Add(String, Bytes),
    Discard(String, Bytes),
    Remove(String),
}

#[derive(Clone, Debug)]
pub enum EntryOp {
    Set(Bytes, Option<u64>),
    Delete,
    Increment(i64),
    Member(bool, Bytes),
    Map(MapOp),
}

/// Few and short, so that nodes meet each other's.
pub fn bytes() -> impl Strategy<Value = Bytes> {
    prop_oneof!["[a-c]", "[0-9]"].prop_map(Bytes::from)
}

pub fn map_op() -> impl Strategy<Value = MapOp> {
    let field = || "[xy]";
    prop_oneof![
        (field(), bytes()).prop_map(|(field, value)| MapOp::Put(field, value)),
        (field(), prop_oneof![4 => -5i64..5, 1 => any::<i64>()]).prop_map(|(field, by)| MapOp::Increment(field, by)),
        (field(), bytes()).prop_map(|(field, member)| MapOp::Add(field, member)),
        (field(), bytes()).prop_map(|(field, member)| MapOp::Discard(field, member)),
        field().prop_map(MapOp::Remove),
    ]
}

pub fn entry_op() -> impl Strategy<Value = EntryOp> {
    prop_oneof![
        1 => (bytes(), proptest::option::of(1_000u64..1_050)).prop_map(|(value, expires)| EntryOp::Set(value, expires)),
        1 => Just(EntryOp::Delete),
        3 => (-5i64..5).prop_map(EntryOp::Increment),
        3 => (any::<bool>(), bytes()).prop_map(|(add, member)| EntryOp::Member(add, member)),
        3 => map_op().prop_map(EntryOp::Map),
    ]
}

pub fn apply_map(map: &mut OrMap, op: &MapOp, stamp: Stamp) -> Option<OrMap> {
    let node = stamp.node;
    Some(match op {
        MapOp::Put(field, value) => {
            map.put(node, field, Register { stamp, value: Some(value.clone()), expires_unix_ns: None })
        }
        MapOp::Increment(field, by) => map.increment(node, field, *by)?,
        MapOp::Add(field, member) => map.add(node, field, member.clone()),
        MapOp::Discard(field, member) => map.discard(node, field, member),
        MapOp::Remove(field) => map.remove(node, field),
    })
}

pub fn apply_entry(entry: &mut Entry, op: &EntryOp, stamp: Stamp) -> Option<Entry> {
    match op {
        EntryOp::Set(value, expires) => Some(entry.set(stamp, Some(value.clone()), *expires)),
        EntryOp::Delete => Some(entry.set(stamp, None, None)),
        EntryOp::Increment(by) => entry.increment(stamp, *by).ok(),
        EntryOp::Member(add, member) => entry
            .change_set(stamp, |set, node| if *add { set.add(node, member.clone()) } else { set.remove(node, member) })
            .ok(),
        EntryOp::Map(op) => {
            entry.change_map(stamp, |map, _| apply_map(map, op, stamp).ok_or(EntryError::NotANumber)).ok()
        }
    }
}
