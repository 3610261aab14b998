//! Objects that come in parts.

use std::time::Duration;

use marram_core::limits::OBJECT_UPLOAD_KEPT;
use marram_core::port::Blobs as _;
use marram_core::port::blobs::{Attributes, Expect, Finish, Multipart as _, Part, UploadId};
use marram_core::{Failure, Kind};
use marram_store::Objects;

use crate::support::{RealClock, name};
use crate::{bytes, fresh, opened, put, read, under_way};

pub(crate) async fn begin(objects: &Objects, key: &str) -> UploadId {
    objects.begin_upload(&name("b"), key, Attributes::default(), String::new()).await.unwrap()
}

pub(crate) async fn part(objects: &Objects, key: &str, id: &UploadId, number: u32, content: &[u8]) -> Part {
    try_part(objects, key, id, number, content).await.unwrap()
}

pub(crate) async fn try_part(
    objects: &Objects,
    key: &str,
    id: &UploadId,
    number: u32,
    content: &[u8],
) -> Result<Part, Failure> {
    let mut writer = objects.put_part(&name("b"), key, id, number).await?.unwrap();
    writer.write(content.to_vec().into()).await?;
    writer.finish(Finish::default()).await
}

#[tokio::test]
async fn parts_are_one_object_in_the_order_of_their_numbers() {
    let (dir, store, objects, _) = fresh().await;
    let id = begin(&objects, "k").await;
    let contents = [bytes(300_000, 1), bytes(0, 2), bytes(5, 3), bytes(300_000, 1)];
    let mut parts = Vec::new();
    // They come in any order, one of them twice, and over a restart.
    part(&objects, "k", &id, 9, b"replaced below").await;
    for (place, number) in [(3, 10), (2, 9)] {
        parts.push((number, part(&objects, "k", &id, number, &contents[place]).await.etag));
    }
    drop((store, objects));
    let (_store, objects) = opened(dir.path());
    for (place, number) in [(1, 7), (0, 3)] {
        parts.push((number, part(&objects, "k", &id, number, &contents[place]).await.etag));
    }
    part(&objects, "k", &id, 500, b"left out of the object").await;
    parts.sort();
    let page = objects.parts(&name("b"), "k", &id, 3, 2).await.unwrap().unwrap();
    assert_eq!((page.parts.iter().map(|part| part.number).collect::<Vec<_>>(), page.more), (vec![7, 9], true));
    assert_eq!(read(&objects, "k").await, None);
    let object = objects.complete_upload(&name("b"), "k", &id, parts, Finish::default()).await.unwrap().unwrap();
    assert_eq!((object.size, object.digest), (600_005, None));
    assert!(object.etag.ends_with("-4") && object.etag.len() == 34, "{}", object.etag);
    assert_eq!(read(&objects, "k").await.unwrap(), contents.concat());
    let opened = objects.get(&name("b"), "k").await.unwrap().unwrap();
    for range in [299_999..300_006, 300_000..300_005, 300_001..600_005, 0..600_005] {
        let chunks: Vec<_> = futures::TryStreamExt::try_collect(opened.content.read(range.clone())).await.unwrap();
        let chunks: Vec<bytes::Bytes> = chunks;
        assert_eq!(chunks.concat(), contents.concat()[range.start as usize..range.end as usize], "{range:?}");
    }
    assert_eq!(objects.upload(&name("b"), "k", &id).await.unwrap(), None);
    assert_eq!(objects.uploads(&name("b"), "", None, 10).await.unwrap().uploads, []);
    assert_eq!(under_way(dir.path()), 0);
}

#[tokio::test]
async fn what_does_not_fit_is_refused_and_the_upload_goes_on() {
    let (_dir, _store, objects, _) = fresh().await;
    let id = begin(&objects, "k").await;
    let one = part(&objects, "k", &id, 1, b"1").await.etag;
    let two = part(&objects, "k", &id, 2, b"2").await.etag;
    let complete = async |parts: &[(u32, &String)]| {
        let parts = parts.iter().map(|(number, etag)| (*number, (*etag).clone())).collect();
        let done = objects.complete_upload(&name("b"), "k", &id, parts, Finish::from(Expect::Absent)).await;
        done.map(|object| object.map(|object| object.size)).map_err(|failure| failure.kind())
    };
    for bad in [&[][..], &[(2, &two), (1, &one)], &[(1, &one), (1, &one)], &[(1, &two)], &[(3, &one)]] {
        assert_eq!(complete(bad).await, Err(Kind::Invalid), "{bad:?}");
    }
    put(&objects, "k", b"in the way").await;
    assert_eq!(complete(&[(1, &one)]).await, Err(Kind::Conflict));
    crate::delete(&objects, "k", Expect::Any).await.unwrap();
    let of_other = objects.upload(&name("b"), "other", &id).await.unwrap();
    assert_eq!(of_other, None);
    assert!(objects.put_part(&name("b"), "k", &id, 0).await.is_err());
    assert!(objects.put_part(&name("b"), "k", &id, 10_001).await.is_err());
    assert_eq!(complete(&[(1, &one), (2, &two)]).await, Ok(Some(2)));
    assert_eq!(complete(&[(1, &one)]).await, Ok(None));
}

#[tokio::test]
async fn an_upload_that_is_aborted_forgotten_or_without_a_bucket_leaves_nothing() {
    let (_dir, store, objects, clock) = fresh().await;
    let blobs = || store.blobs().list().unwrap().len();
    let id = begin(&objects, "k").await;
    part(&objects, "k", &id, 1, b"1").await;
    let mut late = objects.put_part(&name("b"), "k", &id, 2).await.unwrap().unwrap();
    late.write("late".into()).await.unwrap();
    assert!(objects.abort_upload(&name("b"), "k", &id).await.unwrap());
    assert!(!objects.abort_upload(&name("b"), "k", &id).await.unwrap());
    assert_eq!(late.finish(Finish::default()).await.unwrap_err().kind(), Kind::NotFound);
    assert!(objects.put_part(&name("b"), "k", &id, 1).await.unwrap().is_none());
    store.collect_blobs(Duration::ZERO).unwrap();
    assert_eq!(blobs(), 0);

    let old = begin(&objects, "old").await;
    part(&objects, "old", &old, 1, b"1").await;
    clock.pass(OBJECT_UPLOAD_KEPT / 2);
    let young = begin(&objects, "young").await;
    clock.pass(OBJECT_UPLOAD_KEPT / 2 + Duration::from_secs(1));
    while objects.maintain().await.unwrap() > 0 {}
    let left = objects.uploads(&name("b"), "", None, 10).await.unwrap().uploads;
    assert_eq!(left.iter().map(|upload| &upload.id).collect::<Vec<_>>(), [&young]);

    begin(&objects, "young").await;
    assert!(objects.delete_bucket(&name("b")).await.unwrap());
    store.collect_blobs(Duration::ZERO).unwrap();
    assert_eq!(blobs(), 0);
    let real = store.objects(std::sync::Arc::new(RealClock));
    assert_eq!(real.upload(&name("b"), "young", &young).await.unwrap_err().kind(), Kind::NotFound);
}

#[tokio::test]
async fn uploads_are_listed_by_name_in_pages() {
    let (_dir, _store, objects, _) = fresh().await;
    let mut ids = Vec::new();
    for key in ["a", "b/1", "b/1", "b/2", "c"] {
        ids.push((key.to_owned(), begin(&objects, key).await));
    }
    ids.sort();
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let page = objects.uploads(&name("b"), "", after.take(), 2).await.unwrap();
        found.extend(page.uploads.into_iter().map(|upload| (upload.name, upload.id)));
        if !page.more {
            break;
        }
        after = found.last().cloned();
    }
    assert_eq!(found, ids);
    let under = objects.uploads(&name("b"), "b/", None, 10).await.unwrap();
    assert_eq!(under.uploads.len(), 3);
}
