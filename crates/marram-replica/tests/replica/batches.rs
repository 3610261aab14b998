//! Changes that are made together are what they are one after the other: the same state, and a delta that says the same.
use bytes::Bytes;
use marram_replica::{FieldOutOfRange, MapChange, NodeId, OrMap, OrSet, Register, SetChange, Stamp, Time};
use proptest::prelude::*;

use crate::support::{MapOp, apply_map, bytes, map_op};

/// Three copies that have changed and heard of each other: what one node changes may be under dots of all of them.
fn merged<T: Clone + Default, Op>(
    before: &[(usize, Op)],
    change: impl Fn(&mut T, &Op, Stamp),
    merge: impl Fn(&mut T, &T),
) -> T {
    let mut copies: [T; 3] = std::array::from_fn(|_| T::default());
    for (at, (node, op)) in before.iter().enumerate() {
        change(&mut copies[*node], op, stamp(at, *node));
        // Some of what others did is heard of only at the end, so that it is concurrent.
        if at % 5 == 4 {
            let other = copies[(node + 1) % 3].clone();
            merge(&mut copies[*node], &other);
        }
    }
    let [mut all, rest @ ..] = copies;
    rest.iter().for_each(|other| merge(&mut all, other));
    all
}

fn stamp(time: usize, node: usize) -> Stamp {
    Stamp { time: Time::from_bits(time as u64 + 1), node: NodeId(node as u64) }
}

fn set_op() -> impl Strategy<Value = SetChange> {
    (any::<bool>(), bytes())
        .prop_map(|(add, member)| if add { SetChange::Add(member) } else { SetChange::Remove(member) })
}

fn change_set(set: &mut OrSet, op: &SetChange, node: NodeId) -> OrSet {
    match op {
        SetChange::Add(member) => set.add(node, member.clone()),
        SetChange::Remove(member) => set.remove(node, member),
    }
}

fn map_change(op: &MapOp, stamp: Stamp) -> MapChange<'_> {
    match op {
        MapOp::Put(field, value) => {
            MapChange::Put(field, Register { stamp, value: Some(value.clone()), expires_unix_ns: None })
        }
        MapOp::Increment(field, by) => MapChange::Increment(field, *by),
        MapOp::Add(field, member) => MapChange::Add(field, member.clone()),
        MapOp::Discard(field, member) => MapChange::Discard(field, member.clone()),
        MapOp::Remove(field) => MapChange::Remove(field),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn sets_change_at_once_as_one_by_one(
        before in proptest::collection::vec((0usize..3, set_op()), 0..30),
        batch in proptest::collection::vec(set_op(), 0..20),
    ) {
        let start: OrSet =
            merged(&before, |set, op, stamp| _ = change_set(set, op, stamp.node), |set: &mut OrSet, other| set.merge(other));
        let (mut single, mut deltas) = (start.clone(), OrSet::default());
        for op in &batch {
            deltas.merge(&change_set(&mut single, op, NodeId(1)));
        }
        let mut at_once = start;
        let delta = at_once.change(NodeId(1), &batch);
        prop_assert_eq!(at_once, single);
        prop_assert_eq!(delta, deltas);
    }

    #[test]
    fn maps_change_at_once_as_one_by_one(
        before in proptest::collection::vec((0usize..3, map_op()), 0..30),
        batch in proptest::collection::vec(map_op(), 0..20),
    ) {
        let start: OrMap =
            merged(&before, |map, op, stamp| _ = apply_map(map, op, stamp), |map: &mut OrMap, other| map.merge(other));
        let now = stamp(before.len(), 1);
        let (mut single, mut deltas) = (start.clone(), OrMap::default());
        let mut refused = None;
        for op in &batch {
            match (apply_map(&mut single, op, now), op) {
                (Some(delta), _) => deltas.merge(&delta),
                (None, MapOp::Increment(field, delta)) => {
                    refused = Some(FieldOutOfRange { field: field.clone(), delta: *delta });
                    break;
                }
                (None, other) => panic!("{other:?} was refused"),
            }
        }
        let mut at_once = start.clone();
        let changes: Vec<_> = batch.iter().map(|op| map_change(op, now)).collect();
        match (at_once.change(now.node, &changes), refused) {
            (Ok(delta), None) => {
                prop_assert_eq!(at_once, single);
                prop_assert_eq!(delta, deltas);
            }
            (Err(error), Some(refused)) => {
                prop_assert_eq!(error, refused);
                prop_assert_eq!(at_once, start, "a refused batch left something");
            }
            other => return Err(TestCaseError::fail(format!("{other:?}"))),
        }
    }
}

/// A pass for each change would be 40,000 million steps, which nobody waits for.
#[test]
fn as_many_changes_as_there_are_members_are_one_pass() {
    const MEMBERS: u32 = 200_000;
    let member = |n: u32| Bytes::copy_from_slice(&n.to_be_bytes());
    let adds: Vec<_> = (0..MEMBERS).map(|n| SetChange::Add(member(n))).collect();
    let mut set = OrSet::default();
    set.change(NodeId(1), &adds);
    // Again, so that each replaces one.
    set.change(NodeId(1), &adds);
    assert_eq!(set.causal().iter().count(), MEMBERS as usize);
    let removes: Vec<_> = (0..MEMBERS).step_by(2).map(|n| SetChange::Remove(member(n))).collect();
    set.change(NodeId(2), &removes);
    assert!(set.members().iter().all(|member| member[3] % 2 == 1));

    let mut map = OrMap::default();
    let adds: Vec<_> = (0..MEMBERS).map(|n| MapChange::Add("f", member(n))).collect();
    map.change(NodeId(1), &adds).unwrap();
    let discards: Vec<_> = (0..MEMBERS).skip(1).map(|n| MapChange::Discard("f", member(n))).collect();
    map.change(NodeId(1), &discards).unwrap();
    assert_eq!(map.members("f").len(), 1);
    map.change(NodeId(2), &[MapChange::Remove("f")]).unwrap();
    assert_eq!(map.causal().iter().count(), 0);
}
