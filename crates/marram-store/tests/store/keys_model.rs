//! Random operations beside a map, with restarts, maintenance and time that goes on in between.
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::support::{TestClock, name, open};
use futures::{FutureExt as _, StreamExt as _};
use marram_core::port::kv::{Change, Expect, KeyEvent, Version, Watched};
use marram_core::port::{Clock as _, Kv as _};
use marram_core::{Kind, Name};
use marram_store::{Keys, Store};
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Op {
    /// Changes of one bucket: key, value or removal, time to live, what is expected.
    Apply(usize, Vec<(String, Option<String>, Option<u64>, Expected)>),
    Increment(usize, String, i64),
    Pass(u64),
    Maintain,
    Reopen,
}

#[derive(Clone, Copy, Debug)]
enum Expected {
    Any,
    Absent,
    Current,
    Other,
}

#[derive(Clone, Debug, PartialEq)]
struct Known {
    value: String,
    version: Version,
    expires: Option<u64>,
}

type Events = BTreeMap<(usize, String), Vec<KeyEvent>>;

#[derive(Clone, Default)]
struct Model {
    entries: BTreeMap<(usize, String), Known>,
    events: Events,
    now: u64,
    /// What every write so far is older than.
    last: Option<Version>,
}

impl Model {
    fn event(&mut self, at: &(usize, String), event: KeyEvent) {
        self.events.entry(at.clone()).or_default().push(event);
    }

    fn lapse(&mut self, at: &(usize, String)) {
        if self.entries.get(at).is_some_and(|known| known.expires.is_some_and(|expires| expires <= self.now)) {
            self.entries.remove(at);
            self.event(at, KeyEvent::Expired);
        }
    }

    fn write(&mut self, at: &(usize, String), known: Known) {
        assert!(Some(known.version) > self.last, "versions grow");
        self.last = Some(known.version);
        let before = self.entries.insert(at.clone(), known);
        self.event(at, if before.is_some() { KeyEvent::Updated } else { KeyEvent::Created });
    }

    /// What readers see.
    fn visible(&self, bucket: usize) -> Vec<(&str, &Known)> {
        let there = self
            .entries
            .iter()
            .filter(|((of, _), known)| *of == bucket && known.expires.is_none_or(|expires| expires > self.now));
        there.map(|((_, key), known)| (key.as_str(), known)).collect()
    }
}

fn op() -> impl Strategy<Value = Op> {
    let key = || "[ab]/?[12]?";
    let value = prop_oneof![3 => "[0-9]{1,3}".prop_map(Some), 1 => "[xyz]".prop_map(Some), 1 => Just(None)];
    let expected = prop_oneof![
        6 => Just(Expected::Any),
        1 => Just(Expected::Absent),
        2 => Just(Expected::Current),
        1 => Just(Expected::Other),
    ];
    let change = (key(), value, proptest::option::weighted(0.3, 0u64..20), expected);
    prop_oneof![
        6 => (0usize..2, proptest::collection::vec(change, 1..4)).prop_map(|(bucket, changes)| Op::Apply(bucket, changes)),
        3 => (0usize..2, key(), prop_oneof![4 => -9i64..9, 1 => any::<i64>()])
            .prop_map(|(bucket, key, by)| Op::Increment(bucket, key, by)),
        2 => (0u64..10).prop_map(Op::Pass),
        1 => Just(Op::Maintain),
        1 => Just(Op::Reopen),
    ]
}

struct World {
    dir: tempfile::TempDir,
    clock: Arc<TestClock>,
    opened: Option<(Store, Keys)>,
    buckets: [Name; 2],
    model: Model,
    /// Fewer keys than there are fit into it, so that reads come from both places.
    watches: Vec<futures::stream::BoxStream<'static, Watched>>,
    seen: Events,
}

impl World {
    fn new() -> Self {
        let clock = TestClock::new();
        let model = Model { now: clock.unix_ns(), ..Model::default() };
        let buckets = [name("first"), name("second")];
        let dir = tempfile::tempdir().unwrap();
        let mut world = Self { dir, clock, opened: None, buckets, model, watches: Vec::new(), seen: Events::new() };
        world.reopen();
        world
    }

    fn reopen(&mut self) {
        self.note();
        self.opened = None;
        let store = open(&self.dir);
        let keys = store.kv(Arc::clone(&self.clock) as _);
        self.watches = self.buckets.iter().map(|bucket| keys.watch(bucket, "").unwrap()).collect();
        self.opened = Some((store, keys));
    }

    fn keys(&self) -> Keys {
        self.opened.as_ref().unwrap().1.clone()
    }

    /// Takes down what the watches have seen.
    fn note(&mut self) {
        for (bucket, watch) in self.watches.iter_mut().enumerate() {
            while let Some(Some(watched)) = watch.next().now_or_never() {
                let Watched::Changed(change) = watched else { panic!("nothing is missed") };
                self.seen.entry((bucket, change.key)).or_default().push(change.event);
            }
        }
    }

    async fn run(&mut self, op: &Op) {
        match op {
            Op::Pass(ns) => {
                self.clock.pass(Duration::from_nanos(*ns));
                self.model.now += ns;
            }
            Op::Reopen => self.reopen(),
            Op::Maintain => {
                self.keys().maintain().await.unwrap();
                let keys: Vec<_> = self.model.entries.keys().cloned().collect();
                keys.iter().for_each(|at| self.model.lapse(at));
            }
            Op::Apply(bucket, changes) => self.apply(*bucket, changes).await,
            Op::Increment(bucket, key, by) => self.increment((*bucket, key.clone()), *by).await,
        }
    }

    async fn apply(&mut self, bucket: usize, changes: &[(String, Option<String>, Option<u64>, Expected)]) {
        let mut batch = Vec::new();
        for (key, value, ttl, expected) in changes {
            let at = (bucket, key.clone());
            let current = self.model.entries.get(&at).map(|known| known.version);
            let expect = match (expected, current) {
                (Expected::Any, _) => Expect::Any,
                (Expected::Absent, _) | (Expected::Current, None) => Expect::Absent,
                (Expected::Current, Some(version)) => Expect::Version(version),
                (Expected::Other, _) => Expect::Version(Version([7; 16])),
            };
            let (key, ttl) = (key.clone(), ttl.map(Duration::from_nanos));
            batch.push(match value {
                Some(value) => Change::Put { key, value: value.clone().into(), ttl, expect },
                None => Change::Delete { key, expect },
            });
        }
        let before = self.model.clone();
        let done = self.keys().apply(&self.buckets[bucket], batch.clone()).await;
        let written = done.clone().unwrap_or_else(|_| vec![None; batch.len()]);
        let fine =
            batch.iter().zip(written).all(|(change, written)| self.expected(bucket, change, written, done.is_ok()));
        if !fine {
            self.model = before;
        }
        assert_eq!(done.map(drop).map_err(|failure| failure.kind()), if fine { Ok(()) } else { Err(Kind::Conflict) });
    }

    /// Does to the model what the change does, and says whether it was allowed.
    fn expected(&mut self, bucket: usize, change: &Change, written: Option<Version>, done: bool) -> bool {
        let (Change::Put { key, expect, .. } | Change::Delete { key, expect }) = change;
        let at = (bucket, key.clone());
        self.model.lapse(&at);
        let found = self.model.entries.get(&at).map(|known| known.version);
        let met = match expect {
            Expect::Any => true,
            Expect::Absent => found.is_none(),
            Expect::Version(version) => found == Some(*version),
        };
        if !met {
            return false;
        }
        // A batch that fails later has written nothing; what it would have written is taken back.
        let version = written.unwrap_or(Version([0xff; 16]));
        match change {
            Change::Put { value, ttl, .. } => {
                let value = String::from_utf8(value.to_vec()).unwrap();
                let expires = ttl.map(|ttl| self.model.now + ttl.as_nanos() as u64);
                assert!(written.is_some() || !done);
                if done {
                    self.model.write(&at, Known { value, version, expires });
                } else {
                    self.model.entries.insert(at, Known { value, version, expires });
                }
            }
            Change::Delete { .. } => {
                let was = self.model.entries.remove(&at).is_some();
                assert_eq!(written.is_some(), was && done);
                if was {
                    self.model.event(&at, KeyEvent::Deleted);
                }
            }
        }
        true
    }

    async fn increment(&mut self, at: (usize, String), by: i64) {
        let done = self.keys().increment(&self.buckets[at.0], &at.1, by).await;
        let before = self.model.clone();
        self.model.lapse(&at);
        let known = self.model.entries.get(&at).cloned();
        let base = known.as_ref().map_or(Some(0), |known| known.value.parse::<i64>().ok());
        let Some(sum) = base.and_then(|base| base.checked_add(by)) else {
            assert_eq!(done.unwrap_err().kind(), Kind::Conflict);
            self.model = before;
            return;
        };
        assert_eq!(done.unwrap(), sum);
        let version = self.keys().get(&self.buckets[at.0], &at.1).unwrap();
        let expires = known.and_then(|known| known.expires);
        // An entry with a time to live of nothing is never seen.
        let version = version.map_or(Version([0xff; 16]), |entry| entry.version);
        self.model.write(&at, Known { value: sum.to_string(), version, expires });
    }

    fn check(&mut self) {
        let keys = self.keys();
        let mut buckets = Vec::new();
        for (bucket, name) in self.buckets.iter().enumerate() {
            let visible = self.model.visible(bucket);
            let listed = keys.list(name, "", None, 1_000).unwrap().keys;
            assert_eq!(listed, visible.iter().map(|(key, _)| *key).collect::<Vec<_>>());
            for prefix in ["a", "a/", "b/1"] {
                let listed = keys.list(name, prefix, None, 1_000).unwrap().keys;
                assert!(listed.iter().eq(visible.iter().map(|(key, _)| key).filter(|key| key.starts_with(prefix))));
            }
            for (key, known) in &visible {
                let entry = keys.get(name, key).unwrap().unwrap();
                let value = std::str::from_utf8(&entry.value).unwrap();
                assert_eq!(
                    (value, entry.version, entry.expires_unix_ns),
                    (&*known.value, known.version, known.expires)
                );
            }
            for key in ["a", "b", "a/", "b1"] {
                assert_eq!(keys.get(name, key).unwrap().is_some(), visible.iter().any(|(there, _)| *there == key));
            }
            buckets.extend((!visible.is_empty()).then(|| name.clone()));
        }
        assert_eq!(keys.buckets().unwrap(), buckets);
        self.note();
        assert_eq!(self.seen, self.model.events);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn keys_are_a_map(ops in proptest::collection::vec(op(), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let mut world = World::new();
            for op in &ops {
                world.run(op).await;
                world.check();
            }
        });
    }
}
