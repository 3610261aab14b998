//! `marram:crdt`: counters, sets and maps in the buckets of `wasi:keyvalue`.

use std::sync::Arc;

use bytes::Bytes;
use marram_core::port::crdt::{self, Collection, CrdtChange};
use marram_core::{Failure, Kind};
use wasmtime::StoreContextMut;
use wasmtime::component::{ComponentType, Lift, Linker, Lower};

use super::Offer;
use crate::reach::Reach;
use crate::state::GuestState;

pub(super) const OFFER: Offer =
    Offer { prefix: "marram:crdt/", granted: |allow| !allow.kv.is_empty(), grants: &["kv = [\"<bucket>\"]"], link };

/// `variant error`.
#[derive(ComponentType, Lower)]
#[component(variant)]
enum Error {
    #[component(name = "access-denied")]
    AccessDenied(String),
    #[component(name = "conflict")]
    Conflict(String),
    #[component(name = "invalid")]
    Invalid(String),
    #[component(name = "too-large")]
    TooLarge(String),
    #[component(name = "unavailable")]
    Unavailable(String),
}

/// `record field`.
#[derive(ComponentType, Lower)]
#[component(record)]
struct Field {
    value: Option<Vec<u8>>,
    count: Option<i64>,
    members: Vec<Vec<u8>>,
}

/// `variant change`.
#[derive(ComponentType, Lift)]
#[component(variant)]
enum Change {
    #[component(name = "put")]
    Put((String, Vec<u8>)),
    #[component(name = "increment")]
    Increment((String, i64)),
    #[component(name = "add")]
    Add((String, Vec<u8>)),
    #[component(name = "discard")]
    Discard((String, Vec<u8>)),
    #[component(name = "remove")]
    Remove(String),
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        let message = failure.message().to_owned();
        match failure.kind() {
            Kind::Unauthorized => Self::AccessDenied(message),
            Kind::Conflict => Self::Conflict(message),
            Kind::Invalid | Kind::BadRequest => Self::Invalid(message),
            Kind::BodyTooLarge => Self::TooLarge(message),
            _ => Self::Unavailable(message),
        }
    }
}

impl From<Change> for CrdtChange {
    fn from(change: Change) -> Self {
        match change {
            Change::Put((field, value)) => Self::MapPut { field, value: value.into() },
            Change::Increment((field, delta)) => Self::MapIncrement { field, delta },
            Change::Add((field, member)) => Self::MapAdd { field, member: member.into() },
            Change::Discard((field, member)) => Self::MapDiscard { field, member: member.into() },
            Change::Remove(field) => Self::MapRemove { field },
        }
    }
}

impl From<&crdt::Field> for Field {
    fn from(field: &crdt::Field) -> Self {
        Self {
            value: field.value.as_ref().map(|value| value.to_vec()),
            count: field.count,
            members: field.members.iter().map(|member| member.to_vec()).collect(),
        }
    }
}

type Store<'a> = StoreContextMut<'a, GuestState>;

fn link(linker: &mut Linker<GuestState>) -> wasmtime::Result<()> {
    link_counter(linker)?;
    link_set(linker)?;
    link_map(linker)
}

fn link_counter(linker: &mut Linker<GuestState>) -> wasmtime::Result<()> {
    let mut instance = linker.instance("marram:crdt/counters@0.1.0")?;
    instance.func_wrap_async("increment", |store: Store<'_>, (bucket, key, delta): (String, String, i64)| {
        Box::new(async move {
            let reach = store.data().reach();
            let sum = async { reach.kv()?.increment(reach.bucket(&bucket)?, &key, delta).await }.await;
            Ok((sum.map_err(Error::from),))
        })
    })?;
    instance.func_wrap("value", |store: Store<'_>, (bucket, key): (String, String)| {
        Ok((count(&store.data().deployed.reach, &bucket, &key).map_err(Error::from),))
    })
}

fn link_set(linker: &mut Linker<GuestState>) -> wasmtime::Result<()> {
    let mut instance = linker.instance("marram:crdt/sets@0.1.0")?;
    type Members = (String, String, Vec<Vec<u8>>);
    for (name, change) in [("add", CrdtChange::SetAdd as fn(Bytes) -> CrdtChange), ("remove", CrdtChange::SetRemove)] {
        instance.func_wrap_async(name, move |store: Store<'_>, (bucket, key, members): Members| {
            let changes = members.into_iter().map(|member| change(member.into())).collect();
            Box::new(async move { Ok((update(&store.data().reach(), &bucket, &key, changes).await,)) })
        })?;
    }
    instance.func_wrap("contains", |store: Store<'_>, (bucket, key, member): (String, String, Vec<u8>)| {
        let found = read(&store.data().deployed.reach, &bucket, &key);
        let contains = |found: Option<Arc<Collection>>| match found.as_deref() {
            None => Ok(false),
            Some(Collection::Set(members)) => Ok(members.contains(&*member)),
            Some(Collection::Map(_)) => Err(another("map")),
        };
        Ok((found.and_then(contains).map_err(Error::from),))
    })?;
    instance.func_wrap("members", |store: Store<'_>, (bucket, key): (String, String)| {
        let found = read(&store.data().deployed.reach, &bucket, &key);
        let members = |found: Option<Arc<Collection>>| match found.as_deref() {
            None => Ok(None),
            Some(Collection::Set(members)) => Ok(Some(members.iter().map(|member| member.to_vec()).collect())),
            Some(Collection::Map(_)) => Err(another("map")),
        };
        let members: Result<Option<Vec<Vec<u8>>>, Failure> = found.and_then(members);
        Ok((members.map_err(Error::from),))
    })
}

fn link_map(linker: &mut Linker<GuestState>) -> wasmtime::Result<()> {
    let mut instance = linker.instance("marram:crdt/maps@0.1.0")?;
    instance.func_wrap_async("update", |store: Store<'_>, (bucket, key, changes): (String, String, Vec<Change>)| {
        let changes = changes.into_iter().map(CrdtChange::from).collect();
        Box::new(async move { Ok((update(&store.data().reach(), &bucket, &key, changes).await,)) })
    })?;
    instance.func_wrap("get", |store: Store<'_>, (bucket, key, field): (String, String, String)| {
        let found = read(&store.data().deployed.reach, &bucket, &key);
        let field = |found: Option<Arc<Collection>>| match found.as_deref() {
            None => Ok(None),
            Some(Collection::Map(fields)) => Ok(fields.get(&field).map(Field::from)),
            Some(Collection::Set(_)) => Err(another("set")),
        };
        Ok((found.and_then(field).map_err(Error::from),))
    })?;
    instance.func_wrap("keys", |store: Store<'_>, (bucket, key): (String, String)| {
        let found = read(&store.data().deployed.reach, &bucket, &key);
        let keys = |found: Option<Arc<Collection>>| match found.as_deref() {
            None => Ok(None),
            Some(Collection::Map(fields)) => Ok(Some(fields.keys().cloned().collect())),
            Some(Collection::Set(_)) => Err(another("set")),
        };
        let keys: Result<Option<Vec<String>>, Failure> = found.and_then(keys);
        Ok((keys.map_err(Error::from),))
    })
}

pub(super) fn another(what: &str) -> Failure {
    Failure::new(Kind::Conflict, format!("the key holds a {what}: use another key"))
}

async fn update(reach: &Reach, bucket: &str, key: &str, changes: Vec<CrdtChange>) -> Result<(), Error> {
    let updated = async {
        let bucket = reach.bucket(bucket)?;
        if changes.is_empty() {
            return Ok(());
        }
        reach.crdt()?.crdt_update(bucket, key, changes).await.map(|_| ())
    };
    updated.await.map_err(Error::from)
}

pub(super) fn read(reach: &Reach, bucket: &str, key: &str) -> Result<Option<Arc<Collection>>, Failure> {
    reach.crdt()?.crdt_read(reach.bucket(bucket)?, key)
}

/// A counter reads as its decimal text.
fn count(reach: &Reach, bucket: &str, key: &str) -> Result<Option<i64>, Failure> {
    let Some(entry) = reach.kv()?.get(reach.bucket(bucket)?, key)? else { return Ok(None) };
    let number = std::str::from_utf8(&entry.value).ok().and_then(|text| text.parse().ok());
    number.map(Some).ok_or_else(|| Failure::new(Kind::Conflict, "the key holds something that is not a number"))
}
