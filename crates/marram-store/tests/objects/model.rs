//! Every sequence of operations, restarts and collections against a plain map.

use std::collections::BTreeMap;
use std::time::Duration;

use marram_core::port::Blobs as _;
use marram_core::port::blobs::{CopyOptions, Expect, Finish, ListQuery, Multipart as _};
use proptest::prelude::*;

use crate::multipart::{begin, part};
use crate::support::name;
use crate::{bytes, delete, opened, put_if, read, runtime};

#[derive(Clone, Debug)]
enum Step {
    Put {
        key: u8,
        length: usize,
        seed: u64,
        expect: Wanted,
    },
    Parts {
        key: u8,
        lengths: Vec<usize>,
        seed: u64,
        expect: Wanted,
    },
    /// A put that is given up.
    GiveUp {
        key: u8,
        length: usize,
    },
    Copy {
        from: u8,
        to: u8,
        expect: Wanted,
    },
    Rename {
        from: u8,
        to: u8,
    },
    Delete {
        key: u8,
        expect: Wanted,
    },
    Collect,
    Restart,
}

#[derive(Clone, Copy, Debug)]
enum Wanted {
    Any,
    Absent,
    Present,
    /// The etag that the key has.
    Right,
    Wrong,
}

fn wanted() -> impl Strategy<Value = Wanted> {
    prop_oneof![
        5 => Just(Wanted::Any),
        1 => Just(Wanted::Absent),
        1 => Just(Wanted::Present),
        1 => Just(Wanted::Right),
        1 => Just(Wanted::Wrong)
    ]
}

fn step() -> impl Strategy<Value = Step> {
    // Lengths around what is read and written at once, and few contents, so that names share blobs.
    let length = prop_oneof![Just(0), 1..40_usize, Just(262_144), Just(262_145)];
    let part = prop_oneof![Just(0), 1..40_usize, Just(262_144)];
    let parts = prop::collection::vec(part, 1..4);
    prop_oneof![
        4 => (0..5_u8, length.clone(), 0..3_u64, wanted())
            .prop_map(|(key, length, seed, expect)| Step::Put { key, length, seed, expect }),
        2 => (0..5_u8, parts, 0..3_u64, wanted())
            .prop_map(|(key, lengths, seed, expect)| Step::Parts { key, lengths, seed, expect }),
        1 => (0..5_u8, length).prop_map(|(key, length)| Step::GiveUp { key, length }),
        2 => (0..5_u8, 0..5_u8, wanted()).prop_map(|(from, to, expect)| Step::Copy { from, to, expect }),
        1 => (0..5_u8, 0..5_u8).prop_map(|(from, to)| Step::Rename { from, to }),
        2 => (0..5_u8, wanted()).prop_map(|(key, expect)| Step::Delete { key, expect }),
        1 => Just(Step::Collect),
        1 => Just(Step::Restart),
    ]
}

/// Content and etag by key.
type Model = BTreeMap<String, (Vec<u8>, String)>;

/// What to ask for, and whether it is to be granted.
fn expect(model: &Model, key: &str, wanted: Wanted) -> (Expect, bool) {
    let etag = model.get(key).map(|(_, etag)| etag.clone());
    match wanted {
        Wanted::Any => (Expect::Any, true),
        Wanted::Absent => (Expect::Absent, etag.is_none()),
        Wanted::Present => (Expect::Present, etag.is_some()),
        Wanted::Right => (Expect::Etag(etag.clone().unwrap_or_default()), etag.is_some()),
        Wanted::Wrong => (Expect::Etag("wrong".into()), false),
    }
}

async fn run(steps: Vec<Step>) {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, mut objects) = opened(dir.path());
    objects.create_bucket(&name("b")).await.unwrap();
    let mut model = Model::new();
    for step in steps {
        match step.clone() {
            Step::Put { key, length, seed, expect: wanted } => {
                let (key, content) = (key.to_string(), bytes(length, seed));
                let (expect, granted) = expect(&model, &key, wanted);
                let put = put_if(&objects, &key, &content, expect).await;
                assert_eq!(put.is_ok(), granted, "{step:?}");
                put.into_iter().for_each(|object| _ = model.insert(key.clone(), (content.clone(), object.etag)));
            }
            Step::Parts { key, lengths, seed, expect: wanted } => {
                let key = key.to_string();
                let (expect, granted) = expect(&model, &key, wanted);
                let id = begin(&objects, &key).await;
                let (mut parts, mut content) = (Vec::new(), Vec::new());
                for (number, length) in (1..).zip(lengths) {
                    let bytes = bytes(length, seed + u64::from(number));
                    parts.push((number, part(&objects, &key, &id, number, &bytes).await.etag));
                    content.extend(bytes);
                }
                let done = objects.complete_upload(&name("b"), &key, &id, parts, Finish::from(expect)).await;
                assert_eq!(done.is_ok(), granted, "{step:?}");
                done.into_iter()
                    .flatten()
                    .for_each(|object| _ = model.insert(key.clone(), (content.clone(), object.etag)));
            }
            Step::GiveUp { key, length } => {
                let mut writer = objects.put(&name("b"), &key.to_string(), Default::default()).await.unwrap();
                writer.write(bytes(length, 9).into()).await.unwrap();
            }
            Step::Copy { from, to, expect: wanted } => {
                let (from, to) = (from.to_string(), to.to_string());
                let (expect, granted) = expect(&model, &to, wanted);
                let options = CopyOptions { expect, ..CopyOptions::default() };
                let copied = objects.copy((&name("b"), &from), (&name("b"), &to), options).await;
                match model.get(&from).cloned() {
                    None => assert_eq!(copied.unwrap(), None, "{step:?}"),
                    Some(source) if granted => {
                        assert_eq!(copied.unwrap().unwrap().etag, source.1, "{step:?}");
                        model.insert(to, source);
                    }
                    Some(_) => assert!(copied.is_err(), "{step:?}"),
                }
            }
            Step::Rename { from, to } => {
                let (from, to) = (from.to_string(), to.to_string());
                let renamed = objects.rename((&name("b"), &from), (&name("b"), &to)).await.unwrap();
                let source = model.remove(&from);
                assert_eq!(
                    renamed.map(|object| object.etag),
                    source.as_ref().map(|(_, etag)| etag.clone()),
                    "{step:?}"
                );
                source.into_iter().for_each(|source| _ = model.insert(to.clone(), source));
            }
            Step::Delete { key, expect: wanted } => {
                let key = key.to_string();
                let (expect, granted) = expect(&model, &key, wanted);
                let deleted = delete(&objects, &key, expect).await;
                assert_eq!(deleted.ok(), granted.then(|| model.remove(&key).is_some()), "{step:?}");
            }
            Step::Collect => _ = store.collect_blobs(Duration::ZERO).unwrap(),
            Step::Restart => {
                drop((store, objects));
                (store, objects) = opened(dir.path());
            }
        }
    }
    assert_eq!(store.check().unwrap(), []);
    let page = objects.list(&name("b"), ListQuery { max: 100, ..ListQuery::default() }).await.unwrap();
    let listed: Vec<_> = page.entries.iter().map(|entry| entry.name()).collect();
    assert_eq!(listed, model.keys().collect::<Vec<_>>());
    for (key, (content, etag)) in &model {
        assert_eq!(read(&objects, key).await.as_ref(), Some(content), "{key}");
        let head = objects.head(&name("b"), key).await.unwrap().unwrap();
        assert_eq!((head.size, &head.etag), (content.len() as u64, etag));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    #[test]
    fn objects_are_a_map_of_names_to_contents(steps in prop::collection::vec(step(), 1..25)) {
        runtime().block_on(run(steps));
    }
}
