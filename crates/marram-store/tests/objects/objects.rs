//! One object: what comes back, what is expected, and what is left of what was given up.

use futures::TryStreamExt as _;
use marram_core::limits::{OBJECT_ATTRIBUTES_BYTES_MAX, OBJECT_BUCKETS_MAX};
use marram_core::port::Blobs as _;
use marram_core::port::blobs::{Attributes, Checksum, CopyOptions, Delete, Expect, Finish};
use marram_core::{Digest, Kind};

use crate::support::{NOW, name};
use crate::{bytes, delete, fresh, opened, put, put_if, read, under_way};

#[tokio::test]
async fn an_object_comes_back_as_it_was_also_after_a_restart() {
    let (dir, store, objects, _) = fresh().await;
    let content = bytes(700_001, 1);
    let attributes = Attributes {
        content_type: Some("image/png".into()),
        headers: vec![("cache-control".into(), "no-store".into())],
        user: vec![("taken-by".into(), "müller".into())],
    };
    let mut writer = objects.put(&name("b"), "a/../b", attributes.clone()).await.unwrap();
    for chunk in content.chunks(3_333) {
        writer.write(chunk.to_vec().into()).await.unwrap();
    }
    let checksum = Checksum { algorithm: "CRC32".into(), value: "AAAAAA==".into() };
    let finish = Finish { checksum: Some(checksum.clone()), ..Finish::default() };
    let object = writer.finish(finish).await.unwrap();
    assert_eq!((object.size, object.digest), (700_001, Some(Digest::of(&content))));
    assert_eq!((&object.attributes, &object.checksum), (&attributes, &Some(checksum)));
    assert_eq!(object.modified_unix_ns, NOW);
    drop((store, objects));
    let (_store, objects) = opened(dir.path());
    assert_eq!(objects.head(&name("b"), "a/../b").await.unwrap(), Some(object));
    assert_eq!(read(&objects, "a/../b").await, Some(content));
    assert_eq!(under_way(dir.path()), 0);
}

#[tokio::test]
async fn the_etag_is_the_md5_digest() {
    let (_dir, _store, objects, _) = fresh().await;
    // RFC 1321 §A.5.
    assert_eq!(put(&objects, "empty", b"").await.etag, "d41d8cd98f00b204e9800998ecf8427e");
    assert_eq!(put(&objects, "abc", b"abc").await.etag, "900150983cd24fb0d6963f7d28e17f72");
    assert_eq!(read(&objects, "empty").await, Some(vec![]));
    let mut writer = objects.put(&name("b"), "abc", Attributes::default()).await.unwrap();
    writer.write("abd".into()).await.unwrap();
    let abc = 0x9001_5098_3cd2_4fb0_d696_3f7d_28e1_7f72_u128.to_be_bytes();
    let wrong = writer.finish(Finish { md5: Some(abc), ..Finish::default() }).await.unwrap_err();
    assert_eq!(wrong.kind(), Kind::BadRequest);
    assert_eq!(read(&objects, "abc").await.unwrap(), b"abc");
}

#[tokio::test]
async fn ranges_are_what_was_asked_for_and_no_more() {
    let (_dir, _store, objects, _) = fresh().await;
    let content = bytes(1_000_000, 2);
    put(&objects, "k", &content).await;
    let opened = objects.get(&name("b"), "k").await.unwrap().unwrap();
    for range in
        [0..1, 0..0, 262_143..262_145, 5..999_999, 999_999..1_000_000, 999_990..2_000_000, 1_000_000..1_000_001]
    {
        let chunks: Vec<_> = opened.content.read(range.clone()).try_collect().await.unwrap();
        let end = (range.end as usize).min(content.len());
        assert_eq!(chunks.concat(), content[(range.start as usize).min(end)..end], "{range:?}");
    }
}

#[tokio::test]
async fn expectations_are_held_and_nothing_changes_where_they_are_not() {
    let (_dir, _store, objects, _) = fresh().await;
    let conflict = |done: Result<_, marram_core::Failure>| done.map(|_| ()).unwrap_err().kind() == Kind::Conflict;
    assert!(conflict(put_if(&objects, "k", b"1", Expect::Present).await));
    assert!(conflict(put_if(&objects, "k", b"1", Expect::Etag("x".into())).await));
    let first = put_if(&objects, "k", b"1", Expect::Absent).await.unwrap();
    assert!(conflict(put_if(&objects, "k", b"2", Expect::Absent).await));
    let second = put_if(&objects, "k", b"2", Expect::Etag(first.etag.clone())).await.unwrap();
    assert!(second.version > first.version);
    assert!(conflict(put_if(&objects, "k", b"3", Expect::Etag(first.etag.clone())).await));
    let refused = delete(&objects, "k", Expect::Etag(first.etag)).await;
    assert_eq!(refused.unwrap_err().kind(), Kind::Conflict);
    assert_eq!(read(&objects, "k").await.unwrap(), b"2");
    assert!(delete(&objects, "k", Expect::Etag(second.etag)).await.unwrap());
    assert!(!delete(&objects, "k", Expect::Any).await.unwrap());
}

#[tokio::test]
async fn of_several_deletes_each_has_its_own_answer() {
    let (_dir, _store, objects, _) = fresh().await;
    for key in ["a", "b", "c"] {
        put(&objects, key, key.as_bytes()).await;
    }
    let of = |name: &str, expect| Delete { name: name.into(), expect };
    let deletes = vec![
        of("a", Expect::Any),
        of("b", Expect::Etag("no".into())),
        of("nothing", Expect::Any),
        of("c", Expect::Present),
    ];
    let answers = objects.delete(&name("b"), deletes).await.unwrap();
    let answers: Vec<_> = answers.into_iter().map(|answer| answer.map_err(|failure| failure.kind())).collect();
    assert_eq!(answers, [Ok(true), Err(Kind::Conflict), Ok(false), Ok(true)]);
    assert_eq!((read(&objects, "a").await, read(&objects, "b").await), (None, Some(b"b".to_vec())));
}

#[tokio::test]
async fn what_is_given_up_or_too_much_leaves_nothing() {
    let (dir, _store, objects, _) = fresh().await;
    let mut writer = objects.put(&name("b"), "k", Attributes::default()).await.unwrap();
    writer.write(bytes(600_000, 3).into()).await.unwrap();
    drop(writer);
    let gone = async || {
        // What is being written when it is given up is finished on its own thread.
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while under_way(dir.path()) > 0 {
            assert!(std::time::Instant::now() < deadline, "an upload that was given up is still there");
            tokio::task::yield_now().await;
        }
    };
    gone().await;
    assert_eq!(read(&objects, "k").await, None);
    let long = Attributes { content_type: Some("x".repeat(OBJECT_ATTRIBUTES_BYTES_MAX + 1)), ..Attributes::default() };
    assert_eq!(objects.put(&name("b"), "k", long).await.err().unwrap().kind(), Kind::HeadersTooLarge);
    assert_eq!(objects.put(&name("b"), "a\0b", Attributes::default()).await.err().unwrap().kind(), Kind::Invalid);
    gone().await;
}

#[tokio::test]
async fn a_copy_shares_the_content_and_outlives_its_source() {
    let (_dir, store, objects, _) = fresh().await;
    objects.create_bucket(&name("other")).await.unwrap();
    let source = put(&objects, "k", b"content").await;
    let attributes = Attributes { content_type: Some("text/plain".into()), ..Attributes::default() };
    let options = CopyOptions { attributes: Some(attributes.clone()), ..CopyOptions::default() };
    let copy = objects.copy((&name("b"), "k"), (&name("other"), "k2"), options).await.unwrap().unwrap();
    assert_eq!((copy.digest, copy.attributes, &copy.name[..]), (source.digest, attributes, "k2"));
    delete(&objects, "k", Expect::Any).await.unwrap();
    store.collect_blobs(std::time::Duration::ZERO).unwrap();
    let opened = objects.get(&name("other"), "k2").await.unwrap().unwrap();
    let chunks: Vec<_> = opened.content.read(0..7).try_collect().await.unwrap();
    assert_eq!(chunks.concat(), b"content");
    // Onto itself, and of nothing.
    let onto = objects.copy((&name("other"), "k2"), (&name("other"), "k2"), CopyOptions::default()).await.unwrap();
    assert!(onto.unwrap().version > copy.version);
    let none = objects.copy((&name("b"), "k"), (&name("b"), "x"), CopyOptions::default()).await.unwrap();
    assert_eq!(none, None);
    let options = CopyOptions { source_etag: Some("no".into()), ..CopyOptions::default() };
    let refused = objects.copy((&name("other"), "k2"), (&name("b"), "x"), options).await.unwrap_err();
    assert_eq!(refused.kind(), Kind::Conflict);
}

#[tokio::test]
async fn an_object_that_is_renamed_has_the_other_name_only() {
    let (_dir, store, objects, _) = fresh().await;
    objects.create_bucket(&name("other")).await.unwrap();
    let source = put(&objects, "k", b"content").await;
    put(&objects, "k2", b"what is there goes").await;
    let (b, other) = (name("b"), name("other"));
    let renamed = objects.rename((&b, "k"), (&b, "k2")).await.unwrap().unwrap();
    assert_eq!((&renamed.name[..], renamed.digest, &renamed.etag), ("k2", source.digest, &source.etag));
    assert_eq!((read(&objects, "k").await, read(&objects, "k2").await), (None, Some(b"content".to_vec())));
    // To itself: as it was.
    assert_eq!(objects.rename((&b, "k2"), (&b, "k2")).await.unwrap(), Some(renamed));
    // To another bucket, of nothing, and to where there is no bucket.
    objects.rename((&b, "k2"), (&other, "k2")).await.unwrap().unwrap();
    store.collect_blobs(std::time::Duration::ZERO).unwrap();
    assert_eq!(objects.head(&other, "k2").await.unwrap().unwrap().digest, source.digest);
    assert_eq!(store.check().unwrap(), []);
    assert_eq!(objects.rename((&b, "k2"), (&b, "x")).await.unwrap(), None);
    assert_eq!(objects.rename((&b, "k2"), (&b, "k2")).await.unwrap(), None);
    let nowhere = objects.rename((&other, "k2"), (&name("none"), "x")).await.unwrap_err();
    assert_eq!((nowhere.kind(), objects.head(&other, "k2").await.unwrap().is_some()), (Kind::NotFound, true));
    assert_eq!(objects.rename((&other, "k2"), (&b, "a\0b")).await.unwrap_err().kind(), Kind::Invalid);
}

/// Somebody stores under the old name meanwhile: that is there afterwards, under one of both names.
#[tokio::test]
async fn what_is_stored_while_an_object_is_renamed_stays() {
    let (_dir, _store, objects, _) = fresh().await;
    let b = name("b");
    for round in 0..100 {
        put(&objects, "old", b"before").await;
        let meanwhile = format!("meanwhile {round}").into_bytes();
        let (renamed, _) =
            futures::future::join(objects.rename((&b, "old"), (&b, "new")), put(&objects, "old", &meanwhile)).await;
        assert!(renamed.unwrap().is_some());
        let found = [read(&objects, "old").await, read(&objects, "new").await];
        assert!(found.contains(&Some(meanwhile)), "round {round}: {found:?}");
    }
}

#[tokio::test]
async fn buckets_are_there_until_they_are_empty_and_deleted() {
    let (dir, store, objects, _) = fresh().await;
    assert!(!objects.create_bucket(&name("b")).await.unwrap());
    assert_eq!(put_in(&objects, "none").await.unwrap_err().kind(), Kind::NotFound);
    put(&objects, "k", b"1").await;
    assert_eq!(objects.delete_bucket(&name("b")).await.unwrap_err().kind(), Kind::Conflict);
    assert!(objects.create_bucket(&name("empty")).await.unwrap());
    drop((store, objects));
    let (_store, objects) = opened(dir.path());
    let names: Vec<_> = objects.buckets().await.unwrap().into_iter().map(|bucket| bucket.name).collect();
    assert_eq!(names, [name("b"), name("empty")]);
    delete(&objects, "k", Expect::Any).await.unwrap();
    assert!(objects.delete_bucket(&name("b")).await.unwrap());
    assert!(!objects.delete_bucket(&name("b")).await.unwrap());
    assert_eq!(objects.head(&name("b"), "k").await.unwrap_err().kind(), Kind::NotFound);
    for n in 1..OBJECT_BUCKETS_MAX {
        objects.create_bucket(&name(&format!("n{n}"))).await.unwrap();
    }
    assert_eq!(objects.create_bucket(&name("more")).await.unwrap_err().kind(), Kind::Overloaded);
}

async fn put_in(objects: &marram_store::Objects, bucket: &str) -> Result<(), marram_core::Failure> {
    objects.put(&name(bucket), "k", Attributes::default()).await.map(|_| ())
}
