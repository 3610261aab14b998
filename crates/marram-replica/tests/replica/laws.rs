//! The laws of a join semilattice with deltas, for every type, over states that three nodes reached by changes and merges.
use std::fmt::Debug;

use crate::support::{EntryOp, MapOp, apply_entry, apply_map, bytes, entry_op, map_op};
use bytes::Bytes;
use marram_replica::{Entry, Hlc, NodeId, OrMap, OrSet, PnCounter, Register, Stamp, Time};
use proptest::prelude::*;

/// A type under test: its changes, and how one is made. `None` is a change that was refused.
trait Replicated: Clone + PartialEq + Debug + Default {
    type Op: Clone + Debug + 'static;
    fn op() -> BoxedStrategy<Self::Op>;
    fn change(&mut self, op: &Self::Op, stamp: Stamp) -> Option<Self>;
    fn join(&mut self, other: &Self);
    /// What happens by itself when time goes on.
    fn pass(&mut self, _now: u64) {}
}

#[derive(Clone, Debug)]
enum Step<Op> {
    Change(usize, Op),
    Merge(usize, usize),
    Pass(usize),
}

fn history<T: Replicated>() -> impl Strategy<Value = Vec<Step<T::Op>>> {
    let step = prop_oneof![
        4 => (0usize..3, T::op()).prop_map(|(node, op)| Step::Change(node, op)),
        2 => (0usize..3, 0usize..3).prop_map(|(from, to)| Step::Merge(from, to)),
        1 => (0usize..3).prop_map(Step::Pass),
    ];
    proptest::collection::vec(step, 0..40)
}

fn joined<'a, T: Replicated + 'a>(parts: impl IntoIterator<Item = &'a T>) -> T {
    parts.into_iter().fold(T::default(), |mut all, part| {
        all.join(part);
        all
    })
}

fn laws<T: Replicated>(history: &[Step<T::Op>], order: &[usize]) -> Result<(), TestCaseError> {
    let mut states: [T; 3] = std::array::from_fn(|_| T::default());
    let mut clocks: [Hlc; 3] = std::array::from_fn(|node| Hlc::new(NodeId(node as u64), Time::default()));
    let mut deltas: Vec<T> = Vec::new();
    let mut now = 1_000;
    for step in history {
        now += 1;
        match step {
            Step::Change(node, op) => {
                let stamp = clocks[*node].tick(now).unwrap();
                states[*node].pass(now);
                let before = states[*node].clone();
                match states[*node].change(op, stamp) {
                    // The law of delta mutators: the change is the join with its delta.
                    Some(delta) => {
                        prop_assert_eq!(&joined([&before, &delta]), &states[*node]);
                        deltas.push(delta);
                    }
                    None => prop_assert_eq!(&before, &states[*node], "a refused change left something"),
                }
            }
            Step::Merge(from, to) => {
                let theirs = states[*from].clone();
                states[*to].join(&theirs);
                let time = clocks[*from].last();
                clocks[*to].observe(time, now).unwrap();
            }
            Step::Pass(node) => states[*node].pass(now),
        }
    }

    let some: Vec<T> = states.iter().cloned().chain(deltas.iter().take(3).cloned()).collect();
    for a in &some {
        prop_assert_eq!(&joined([a, a]), a, "idempotent");
        prop_assert_eq!(&joined([&T::default(), a]), a, "the default is the bottom");
        for b in &some {
            let ab = joined([a, b]);
            prop_assert_eq!(&ab, &joined([b, a]), "commutative");
            prop_assert_eq!(&joined([&ab, a]), &ab, "an upper bound");
            for c in &some {
                let mut bc = b.clone();
                bc.join(c);
                let (mut left, mut right) = (ab.clone(), a.clone());
                left.join(c);
                right.join(&bc);
                prop_assert_eq!(left, right, "associative");
            }
        }
    }

    // Every delta, in another order and some of them twice, is the same as all states.
    let mut by_state = joined(&states);
    let mut shuffled: Vec<&T> = deltas.iter().collect();
    for (at, other) in order.iter().enumerate() {
        if at < shuffled.len() {
            let other = other % shuffled.len();
            shuffled.swap(at, other);
        }
    }
    shuffled.extend(deltas.iter().step_by(2));
    let mut by_delta = joined(shuffled);
    by_state.pass(now);
    by_delta.pass(now);
    prop_assert_eq!(by_state, by_delta, "deltas are the states");
    Ok(())
}

impl Replicated for Register {
    type Op = (Option<Bytes>, Option<u64>);
    fn op() -> BoxedStrategy<Self::Op> {
        (proptest::option::of(bytes()), proptest::option::of(1_000u64..1_050)).boxed()
    }
    fn change(&mut self, (value, expires): &Self::Op, stamp: Stamp) -> Option<Self> {
        let delta = Self { stamp, value: value.clone(), expires_unix_ns: *expires };
        self.merge(&delta);
        Some(delta)
    }
    fn join(&mut self, other: &Self) {
        self.merge(other);
    }
}

impl Replicated for PnCounter {
    type Op = i64;
    fn op() -> BoxedStrategy<i64> {
        prop_oneof![4 => -9i64..9, 1 => any::<i64>()].boxed()
    }
    fn change(&mut self, delta: &i64, stamp: Stamp) -> Option<Self> {
        self.add(stamp.node, 0, *delta).ok()
    }
    fn join(&mut self, other: &Self) {
        self.merge(other);
    }
}

impl Replicated for OrSet {
    type Op = (bool, Bytes);
    fn op() -> BoxedStrategy<Self::Op> {
        (any::<bool>(), bytes()).boxed()
    }
    fn change(&mut self, (add, member): &Self::Op, stamp: Stamp) -> Option<Self> {
        Some(if *add { self.add(stamp.node, member.clone()) } else { self.remove(stamp.node, member) })
    }
    fn join(&mut self, other: &Self) {
        self.merge(other);
    }
}

impl Replicated for OrMap {
    type Op = MapOp;
    fn op() -> BoxedStrategy<MapOp> {
        map_op().boxed()
    }
    fn change(&mut self, op: &MapOp, stamp: Stamp) -> Option<Self> {
        apply_map(self, op, stamp)
    }
    fn join(&mut self, other: &Self) {
        self.merge(other);
    }
}

impl Replicated for Entry {
    type Op = EntryOp;
    fn op() -> BoxedStrategy<EntryOp> {
        entry_op().boxed()
    }
    fn change(&mut self, op: &EntryOp, stamp: Stamp) -> Option<Self> {
        apply_entry(self, op, stamp)
    }
    fn join(&mut self, other: &Self) {
        self.merge(other);
    }
    fn pass(&mut self, now: u64) {
        self.lapse(now);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn registers(steps in history::<Register>(), order in proptest::collection::vec(0usize..99, 40)) {
        laws::<Register>(&steps, &order)?;
    }

    #[test]
    fn counters(steps in history::<PnCounter>(), order in proptest::collection::vec(0usize..99, 40)) {
        laws::<PnCounter>(&steps, &order)?;
    }

    #[test]
    fn sets(steps in history::<OrSet>(), order in proptest::collection::vec(0usize..99, 40)) {
        laws::<OrSet>(&steps, &order)?;
    }

    #[test]
    fn maps(steps in history::<OrMap>(), order in proptest::collection::vec(0usize..99, 40)) {
        laws::<OrMap>(&steps, &order)?;
    }

    #[test]
    fn entries(steps in history::<Entry>(), order in proptest::collection::vec(0usize..99, 40)) {
        laws::<Entry>(&steps, &order)?;
    }
}
