//! Objects of the store: what the ports promise, against a plain map with restarts, with events, beside the collector, under
//! `kill -9`, and on a disk that fails.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

#[path = "../store/support/mod.rs"]
mod support;

mod collector;
mod crash;
mod disk_failures;
mod events;
mod lists;
mod model;
mod multipart;
mod objects;

use std::sync::Arc;

use futures::TryStreamExt as _;
use marram_core::Failure;
use marram_core::port::Blobs as _;
use marram_core::port::blobs::{Attributes, Expect, Finish, Object};
use marram_store::{Objects, Store, StoreConfig};
use support::{TestClock, name};

pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

pub(crate) fn opened(dir: &std::path::Path) -> (Store, Objects) {
    let store = Store::open(&StoreConfig::new(dir)).unwrap();
    let objects = store.objects(TestClock::new());
    (store, objects)
}

/// A store with the bucket `b`.
pub(crate) async fn fresh() -> (tempfile::TempDir, Store, Objects, Arc<TestClock>) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&StoreConfig::new(dir.path())).unwrap();
    let clock = TestClock::new();
    let objects = store.objects(clock.clone());
    assert!(objects.create_bucket(&name("b")).await.unwrap());
    (dir, store, objects, clock)
}

pub(crate) async fn put(objects: &Objects, key: &str, content: &[u8]) -> Object {
    put_if(objects, key, content, Expect::Any).await.unwrap()
}

pub(crate) async fn put_if(objects: &Objects, key: &str, content: &[u8], expect: Expect) -> Result<Object, Failure> {
    let mut writer = objects.put(&name("b"), key, Attributes::default()).await?;
    for chunk in content.chunks(100_000) {
        writer.write(chunk.to_vec().into()).await?;
    }
    writer.finish(Finish::from(expect)).await
}

pub(crate) async fn read(objects: &Objects, key: &str) -> Option<Vec<u8>> {
    let opened = objects.get(&name("b"), key).await.unwrap()?;
    let chunks: Vec<_> = opened.content.read(0..opened.object.size).try_collect().await.unwrap();
    Some(chunks.concat())
}

pub(crate) async fn delete(objects: &Objects, key: &str, expect: Expect) -> Result<bool, Failure> {
    let delete = marram_core::port::blobs::Delete { name: key.into(), expect };
    objects.delete(&name("b"), vec![delete]).await?.remove(0)
}

/// Bytes that differ everywhere and can be told again.
pub(crate) fn bytes(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..length).map(|_| next()).collect()
}

/// Files in the folder of uploads that are under way.
pub(crate) fn under_way(dir: &std::path::Path) -> usize {
    std::fs::read_dir(dir.join("blobs/uploads")).unwrap().count()
}
