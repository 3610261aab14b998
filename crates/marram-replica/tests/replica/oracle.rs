//! Beside the `crdts` crate, where it means the same: the set without tombstones, the register, the version vector.
use std::collections::BTreeSet;

use crate::support::bytes;
use bytes::Bytes;
use crdts::{CmRDT as _, CvRDT as _, Dot, LWWReg, Orswot, VClock};
use marram_replica::{NodeId, OrSet, Register, Stamp, Time, VersionVector};
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Step {
    Add(usize, Bytes),
    Remove(usize, Bytes),
    Merge(usize, usize),
}

fn step() -> impl Strategy<Value = Step> {
    let node = || 0usize..3;
    prop_oneof![
        (node(), bytes()).prop_map(|(node, member)| Step::Add(node, member)),
        (node(), bytes()).prop_map(|(node, member)| Step::Remove(node, member)),
        (node(), node()).prop_map(|(from, to)| Step::Merge(from, to)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn sets_are_orswots(steps in proptest::collection::vec(step(), 0..60)) {
        let mut ours: [OrSet; 3] = Default::default();
        let mut theirs: [Orswot<Bytes, u64>; 3] = Default::default();
        for step in steps {
            match step {
                Step::Add(node, member) => {
                    ours[node].add(NodeId(node as u64), member.clone());
                    let ctx = theirs[node].read_ctx().derive_add_ctx(node as u64);
                    let op = theirs[node].add(member, ctx);
                    theirs[node].apply(op);
                }
                Step::Remove(node, member) => {
                    ours[node].remove(NodeId(node as u64), &member);
                    let ctx = theirs[node].contains(&member).derive_rm_ctx();
                    let op = theirs[node].rm(member, ctx);
                    theirs[node].apply(op);
                }
                Step::Merge(from, to) => {
                    let (our_from, their_from) = (ours[from].clone(), theirs[from].clone());
                    ours[to].merge(&our_from);
                    theirs[to].merge(their_from);
                }
            }
            for (ours, theirs) in ours.iter().zip(&theirs) {
                prop_assert_eq!(ours.members(), theirs.read().val.into_iter().collect::<BTreeSet<_>>());
                // Whole states leave no gaps, and members are looked up as they are listed.
                prop_assert_eq!(ours.causal().context().gaps(), 0);
                prop_assert!(ours.members().iter().all(|member| ours.contains(member)));
            }
        }
    }

    #[test]
    fn registers_are_lww_registers(writes in proptest::collection::btree_map((0u64..9, 0u64..3), bytes(), 1..9)) {
        let stamp = |(time, node): (u64, u64)| Stamp { time: Time::from_bits(time), node: NodeId(node) };
        let mut ours = Register::default();
        let mut theirs = LWWReg { val: None, marker: (0, 0) };
        // Newest first, so that most writes lose.
        for (marker, value) in writes.into_iter().rev() {
            ours.merge(&Register { stamp: stamp(marker), value: Some(value.clone()), expires_unix_ns: None });
            if marker != (0, 0) {
                theirs.update(Some(value.clone()), marker);
                prop_assert_eq!(&ours.value, &theirs.val);
            }
        }
    }

    #[test]
    fn vectors_are_vclocks(a in proptest::collection::vec((0u64..3, 1u64..4), 0..6), b in proptest::collection::vec((0u64..3, 1u64..4), 0..6)) {
        let both = |seqs: &[(u64, u64)]| {
            let (mut ours, mut theirs) = (VersionVector::default(), VClock::default());
            for (node, seq) in seqs {
                ours.advance(NodeId(*node), *seq);
                theirs.apply(Dot::new(*node, *seq));
            }
            (ours, theirs)
        };
        let ((mut our_a, mut their_a), (our_b, their_b)) = (both(&a), both(&b));
        prop_assert_eq!(our_a.partial_cmp(&our_b), their_a.partial_cmp(&their_b));
        our_a.merge(&our_b);
        their_a.merge(their_b);
        for node in 0..3 {
            prop_assert_eq!(our_a.get(NodeId(node)), their_a.get(&node));
        }
    }
}
