//! Sets and maps in buckets.
use std::collections::BTreeSet;
use std::sync::Arc;

use crate::support::{TestClock, delete, name, open, set};
use bytes::Bytes;
use marram_core::port::crdt::{Collection, CrdtChange, Field};
use marram_core::port::{Crdt as _, Kv as _};
use marram_core::{Kind, Name};
use marram_store::{Keys, Store};

fn add(member: &str) -> CrdtChange {
    CrdtChange::SetAdd(member.to_owned().into())
}

fn remove(member: &str) -> CrdtChange {
    CrdtChange::SetRemove(member.to_owned().into())
}

fn opened(dir: &tempfile::TempDir) -> (Store, Keys, Name) {
    let store = open(dir);
    let keys = store.kv(TestClock::new());
    (store, keys, name("b"))
}

fn members(keys: &Keys, bucket: &Name, key: &str) -> Option<Vec<String>> {
    match keys.crdt_read(bucket, key).unwrap().as_deref()? {
        Collection::Set(set) => Some(set.iter().map(|member| String::from_utf8(member.to_vec()).unwrap()).collect()),
        Collection::Map(_) => panic!("it is a map"),
    }
}

#[tokio::test]
async fn a_set_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let (store, keys, bucket) = opened(&dir);
    assert_eq!(keys.crdt_update(&bucket, "s", vec![remove("x")]).await.unwrap(), None);
    assert_eq!(members(&keys, &bucket, "s"), None);
    let first =
        keys.crdt_update(&bucket, "s", vec![add("a"), add("b"), add("a"), remove("b"), add("c")]).await.unwrap();
    assert_eq!(members(&keys, &bucket, "s").unwrap(), ["a", "c"]);
    let second = keys.crdt_update(&bucket, "s", vec![remove("a")]).await.unwrap();
    assert!(second > first);
    drop((keys, store));
    let (_store, keys, bucket) = opened(&dir);
    assert_eq!(members(&keys, &bucket, "s").unwrap(), ["c"]);
    // Emptied, it is still a set; deleted, it is not there.
    keys.crdt_update(&bucket, "s", vec![remove("c")]).await.unwrap();
    assert_eq!(members(&keys, &bucket, "s").unwrap(), [""; 0]);
    assert_eq!(keys.list(&bucket, "", None, 9).unwrap().keys, ["s"]);
    keys.apply(&bucket, vec![delete("s")]).await.unwrap();
    assert_eq!(members(&keys, &bucket, "s"), None);
    keys.crdt_update(&bucket, "s", vec![add("again")]).await.unwrap();
    assert_eq!(members(&keys, &bucket, "s").unwrap(), ["again"]);
}

#[tokio::test]
async fn a_map_has_values_counters_and_sets() {
    let dir = tempfile::tempdir().unwrap();
    let (store, keys, bucket) = opened(&dir);
    let field = |text: &str| text.to_owned();
    let changes = vec![
        CrdtChange::MapPut { field: field("name"), value: "one".into() },
        CrdtChange::MapPut { field: field("name"), value: "two".into() },
        CrdtChange::MapIncrement { field: field("hits"), delta: 5 },
        CrdtChange::MapIncrement { field: field("hits"), delta: -2 },
        CrdtChange::MapAdd { field: field("tags"), member: "x".into() },
        CrdtChange::MapAdd { field: field("tags"), member: "y".into() },
        CrdtChange::MapDiscard { field: field("tags"), member: "x".into() },
        CrdtChange::MapPut { field: field("gone"), value: "".into() },
        CrdtChange::MapRemove { field: field("gone") },
    ];
    keys.crdt_update(&bucket, "m", changes).await.unwrap();
    let check = |keys: &Keys| {
        let read = keys.crdt_read(&bucket, "m").unwrap().unwrap();
        let Collection::Map(map) = &*read else { panic!("it is a set") };
        let expected = [
            (field("hits"), Field { count: Some(3), ..Field::default() }),
            (field("name"), Field { value: Some("two".into()), ..Field::default() }),
            (field("tags"), Field { members: BTreeSet::from([Bytes::from("y")]), ..Field::default() }),
        ];
        assert_eq!(*map, expected.into());
    };
    check(&keys);
    drop((keys, store));
    check(&opened(&dir).1);
}

#[tokio::test]
async fn one_kind_at_a_time_and_within_limits() {
    let dir = tempfile::tempdir().unwrap();
    let (_store, keys, bucket) = opened(&dir);
    keys.crdt_update(&bucket, "s", vec![add("a")]).await.unwrap();
    keys.apply(&bucket, vec![set("v", "text")]).await.unwrap();
    keys.increment(&bucket, "n", 1).await.unwrap();
    let update = async |key: &str, change| {
        let failure = keys.crdt_update(&bucket, key, vec![change]).await.unwrap_err();
        (failure.kind(), failure.message().to_owned())
    };
    let conflict = |text: &str| (Kind::Conflict, format!("the key {text}"));
    let changed = "of bucket \"b\" cannot be changed so: it holds";
    assert_eq!(update("v", add("x")).await, conflict(&format!("\"v\" {changed} a value, not a set")));
    assert_eq!(update("n", add("x")).await, conflict(&format!("\"n\" {changed} a counter, not a set")));
    let put = CrdtChange::MapPut { field: "f".into(), value: "v".into() };
    assert_eq!(update("s", put.clone()).await, conflict(&format!("\"s\" {changed} a set, not a map")));
    // All of the changes or none, and whatever comes first says what it is.
    let mixed = keys.crdt_update(&bucket, "new", vec![put, add("x")]).await.unwrap_err();
    assert!(mixed.message().ends_with("it holds a map, not a set"), "{mixed}");
    assert_eq!(keys.crdt_read(&bucket, "new").unwrap(), None);
    assert_eq!(keys.get(&bucket, "s").unwrap_err().kind(), Kind::Conflict);
    assert_eq!(keys.crdt_read(&bucket, "v").unwrap_err().kind(), Kind::Conflict);
    assert_eq!(keys.increment(&bucket, "s", 1).await.unwrap_err().kind(), Kind::Conflict);
    assert_eq!(update("m", CrdtChange::MapRemove { field: String::new() }).await.0, Kind::Invalid);
    let far = vec![
        CrdtChange::MapIncrement { field: "f".into(), delta: i64::MAX },
        CrdtChange::MapIncrement { field: "f".into(), delta: 1 },
    ];
    assert_eq!(keys.crdt_update(&bucket, "m", far).await.unwrap_err().kind(), Kind::Conflict);
    // A set that would grow past what an entry may have.
    let large = vec![add(&"x".repeat(600_000))];
    keys.crdt_update(&bucket, "large", large.clone()).await.unwrap();
    keys.crdt_update(&bucket, "large", large).await.unwrap();
    let failure = keys.crdt_update(&bucket, "large", vec![add(&"y".repeat(600_000))]).await.unwrap_err();
    assert_eq!(failure.kind(), Kind::BodyTooLarge, "{failure}");
    assert_eq!(members(&keys, &bucket, "large").unwrap().len(), 1);
    // A plain write takes its place.
    keys.apply(&bucket, vec![set("large", "v")]).await.unwrap();
    assert_eq!(keys.get(&bucket, "large").unwrap().unwrap().value, "v");
    assert_eq!(Arc::strong_count(&keys.crdt_read(&bucket, "s").unwrap().unwrap()), 2, "it comes from the cache");
}

/// A pass for each change would be 16,000 times 50,000 steps, for which everybody's writes wait.
#[tokio::test]
async fn large_batches_on_a_large_set_go_by_while_others_write() {
    let dir = tempfile::tempdir().unwrap();
    let (_store, keys, bucket) = opened(&dir);
    let thousand = |from: u32| (from..from + 1_000).map(|n| add(&format!("{n:05}"))).collect::<Vec<_>>();
    for from in (0..50_000).step_by(1_000) {
        keys.crdt_update(&bucket, "large", thousand(from)).await.unwrap();
    }
    let again = (0..16_000).step_by(1_000).map(|from| keys.crdt_update(&bucket, "large", thousand(from)));
    let other = keys.apply(&bucket, vec![set("other", "v")]);
    let (again, other) = futures::future::join(futures::future::join_all(again), other).await;
    assert!(again.iter().all(Result::is_ok), "{again:?}");
    assert!(other.is_ok() && keys.get(&bucket, "other").unwrap().is_some());
    // What comes last counts.
    let mut changes: Vec<_> = (0..998).map(|n| remove(&format!("{n:05}"))).collect();
    changes.extend([add("00000"), remove("49999")]);
    keys.crdt_update(&bucket, "large", changes).await.unwrap();
    let expected: Vec<_> = std::iter::once(0).chain(998..49_999).map(|n| format!("{n:05}")).collect();
    assert_eq!(members(&keys, &bucket, "large").unwrap(), expected);
}

/// With a folder where `node.reserve` is to be no room can be held, as on a full disk, and what adds something is refused.
#[tokio::test]
async fn members_and_fields_can_be_removed_on_a_full_disk() {
    let dir = tempfile::tempdir().unwrap();
    let (store, keys, bucket) = opened(&dir);
    keys.crdt_update(&bucket, "s", vec![add("a"), add("b")]).await.unwrap();
    let put = CrdtChange::MapPut { field: "f".into(), value: "v".into() };
    let tag = CrdtChange::MapAdd { field: "f".into(), member: "m".into() };
    keys.crdt_update(&bucket, "m", vec![put, tag]).await.unwrap();
    drop((keys, store));
    let reserve = dir.path().join("node.reserve");
    std::fs::remove_file(&reserve).unwrap();
    std::fs::create_dir(&reserve).unwrap();

    let (_store, keys, bucket) = opened(&dir);
    let refused = keys.crdt_update(&bucket, "s", vec![remove("b"), add("c")]).await.unwrap_err();
    assert_eq!(refused.kind(), Kind::StorageFull);
    keys.crdt_update(&bucket, "s", vec![remove("b"), remove("none")]).await.unwrap();
    let untag = CrdtChange::MapDiscard { field: "f".into(), member: "m".into() };
    keys.crdt_update(&bucket, "m", vec![untag]).await.unwrap();
    let of_map = || match keys.crdt_read(&bucket, "m").unwrap().as_deref() {
        Some(Collection::Map(map)) => map.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!(of_map()["f"], Field { value: Some("v".into()), ..Field::default() });
    keys.crdt_update(&bucket, "m", vec![CrdtChange::MapRemove { field: "f".into() }]).await.unwrap();
    assert!(of_map().is_empty());
    assert_eq!(members(&keys, &bucket, "s").unwrap(), ["a"]);
}
