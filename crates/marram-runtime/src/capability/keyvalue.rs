//! `wasi:keyvalue`: store, atomics and batch, in both drafts that toolchains use. Keys of the node, under `allow.kv`.
//!
//! The drafts differ in the cursor of a listing (a number in the first, a key in the second), in the sign of increments, and
//! in `cas`, which only the second has. A set returns once it is durable. What a component exports to watch keys is called by
//! [`crate::program`]; the buckets that it is handed are from here.

use bytes::Bytes;
use marram_core::limits::{KV_BATCH_BYTES_MAX, KV_BATCH_CHANGES_MAX, KV_LIST_KEYS_MAX};
use marram_core::port::kv::{Change, Entry, Expect};
use marram_core::{Failure, Kind, Name};
use wasmtime::StoreContextMut;
use wasmtime::component::{ComponentType, Linker, Lower, Resource, ResourceType};

use super::Offer;
use crate::state::GuestState;

pub(super) const OFFER: Offer =
    Offer { prefix: "wasi:keyvalue/", granted: |allow| !allow.kv.is_empty(), grants: &["kv = [\"<bucket>\"]"], link };

const DRAFT_1: &str = "0.2.0-draft";
const DRAFT_2: &str = "0.2.0-draft2";

/// `resource bucket`: one that was opened, or that a watcher was handed. Whether the function may use it is looked at in each
/// call.
pub(crate) struct Bucket {
    name: Name,
    /// The first draft's cursor is a number: how many keys were listed so far, and the last of them. Only the latest can be
    /// gone on from.
    listed: Option<(u64, String)>,
}

/// `resource cas`.
pub(crate) struct Cas {
    bucket: Name,
    key: String,
    /// What was seen last.
    expect: Expect,
}

/// `variant error`.
#[derive(Debug, Clone, ComponentType, Lower)]
#[component(variant)]
enum Error {
    #[component(name = "no-such-store")]
    #[allow(dead_code, reason = "part of the interface's type: a bucket is there once it is used")]
    NoSuchStore,
    #[component(name = "access-denied")]
    AccessDenied,
    #[component(name = "other")]
    Other(String),
}

/// `variant cas-error`.
#[derive(ComponentType, Lower)]
#[component(variant)]
enum CasError {
    #[component(name = "store-error")]
    Store(Error),
    #[component(name = "cas-failed")]
    Failed(Resource<Cas>),
}

/// `record key-response`.
#[derive(ComponentType, Lower)]
#[component(record)]
struct KeyResponse<C> {
    keys: Vec<String>,
    cursor: Option<C>,
}

type Store<'a> = StoreContextMut<'a, GuestState>;
type Answer<T> = wasmtime::Result<(Result<T, Error>,)>;

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        if failure.kind() == Kind::Unauthorized {
            Self::AccessDenied
        } else {
            Self::Other(failure.message().to_owned())
        }
    }
}

fn link(linker: &mut Linker<GuestState>) -> wasmtime::Result<()> {
    for draft in [DRAFT_1, DRAFT_2] {
        link_store(linker, draft)?;
        link_batch(linker, draft)?;
    }
    let mut store = linker.instance("wasi:keyvalue/store@0.2.0-draft")?;
    store.func_wrap("[method]bucket.list-keys", list_by_number)?;
    let mut store = linker.instance("wasi:keyvalue/store@0.2.0-draft2")?;
    store.func_wrap("[method]bucket.list-keys", list_by_key)?;
    let mut atomics = linker.instance("wasi:keyvalue/atomics@0.2.0-draft")?;
    atomics.func_wrap_async("increment", |mut store, (bucket, key, delta): (Resource<Bucket>, String, u64)| {
        Box::new(async move {
            let Ok(delta) = i64::try_from(delta) else { return Ok((Err(past_the_end()),)) };
            // The sum is durable when it is known: one that cannot be told must not come about.
            let sum = increment(&mut store, &bucket, &key, delta, 0).await?;
            Ok((sum.and_then(|sum| u64::try_from(sum).map_err(|_| past_the_end())),))
        })
    })?;
    link_cas(linker)
}

fn past_the_end() -> Error {
    Error::Other("the number would leave the range of this interface: use wasi:keyvalue@0.2.0-draft2".into())
}

fn link_store(linker: &mut Linker<GuestState>, draft: &str) -> wasmtime::Result<()> {
    let mut instance = linker.instance(&format!("wasi:keyvalue/store@{draft}"))?;
    instance.resource("bucket", ResourceType::host::<Bucket>(), |mut store: Store<'_>, rep| {
        store.data_mut().table().delete(Resource::<Bucket>::new_own(rep))?;
        Ok(())
    })?;
    instance.func_wrap("open", |mut store: Store<'_>, (name,): (String,)| -> Answer<Resource<Bucket>> {
        let state = store.data_mut();
        match state.deployed.reach.opened(&name) {
            Ok(name) => {
                let bucket = Bucket { name: name.clone(), listed: None };
                Ok((Ok(state.table().push(bucket)?),))
            }
            Err(failure) => {
                state.console.warn(format!("wasi:keyvalue: {failure}"));
                Ok((Err(failure.into()),))
            }
        }
    })?;
    type Asked = (Resource<Bucket>, String);
    instance.func_wrap("[method]bucket.get", |mut store: Store<'_>, (bucket, key): Asked| {
        let entry = read(&mut store, &bucket, &key)?;
        Ok((entry.map(|value| value.map(Vec::from)),))
    })?;
    instance.func_wrap("[method]bucket.exists", |mut store: Store<'_>, (bucket, key): Asked| {
        Ok((exists(&mut store, &bucket, &key)?,))
    })?;
    instance.func_wrap_async(
        "[method]bucket.set",
        |mut store: Store<'_>, (bucket, key, value): (Resource<Bucket>, String, Vec<u8>)| {
            Box::new(async move { apply(&mut store, &bucket, vec![put(key, value)]).await })
        },
    )?;
    instance.func_wrap_async("[method]bucket.delete", |mut store: Store<'_>, (bucket, key): Asked| {
        Box::new(async move { apply(&mut store, &bucket, vec![delete(key)]).await })
    })
}

fn link_batch(linker: &mut Linker<GuestState>, draft: &str) -> wasmtime::Result<()> {
    let mut instance = linker.instance(&format!("wasi:keyvalue/batch@{draft}"))?;
    instance.func_wrap("get-many", |mut store: Store<'_>, (bucket, keys): (Resource<Bucket>, Vec<String>)| {
        if keys.len() > KV_BATCH_CHANGES_MAX {
            return Ok((Err(Error::Other(format!("more than {KV_BATCH_CHANGES_MAX} keys at once: get fewer"))),));
        }
        let (mut values, mut bytes) = (Vec::with_capacity(keys.len()), 0);
        for key in keys {
            let value = match read(&mut store, &bucket, &key)? {
                Ok(value) => value,
                Err(error) => return Ok((Err(error),)),
            };
            bytes += value.as_ref().map_or(0, Bytes::len);
            if bytes > KV_BATCH_BYTES_MAX {
                let message = format!("the values have more than {KV_BATCH_BYTES_MAX} bytes: get fewer at once");
                return Ok((Err(Error::Other(message)),));
            }
            values.push(value.map(|value| (key, Vec::from(value))));
        }
        Ok((Ok(values),))
    })?;
    instance.func_wrap_async(
        "set-many",
        |mut store: Store<'_>, (bucket, entries): (Resource<Bucket>, Vec<(String, Vec<u8>)>)| {
            let changes = entries.into_iter().map(|(key, value)| put(key, value)).collect();
            Box::new(async move { apply(&mut store, &bucket, changes).await })
        },
    )?;
    instance.func_wrap_async("delete-many", |mut store: Store<'_>, (bucket, keys): (Resource<Bucket>, Vec<String>)| {
        let changes = keys.into_iter().map(delete).collect();
        Box::new(async move { apply(&mut store, &bucket, changes).await })
    })
}

fn link_cas(linker: &mut Linker<GuestState>) -> wasmtime::Result<()> {
    let mut instance = linker.instance("wasi:keyvalue/atomics@0.2.0-draft2")?;
    instance.func_wrap_async("increment", |mut store, (bucket, key, delta): (Resource<Bucket>, String, i64)| {
        Box::new(async move { Ok((increment(&mut store, &bucket, &key, delta, i64::MIN).await?,)) })
    })?;
    instance.resource("cas", ResourceType::host::<Cas>(), |mut store: Store<'_>, rep| {
        store.data_mut().table().delete(Resource::<Cas>::new_own(rep))?;
        Ok(())
    })?;
    instance.func_wrap("[static]cas.new", |mut store: Store<'_>, (bucket, key): (Resource<Bucket>, String)| {
        Ok((match usable(&mut store, &bucket)? {
            Ok(bucket) => begin_cas(&mut store, bucket, key)?,
            Err(error) => Err(error),
        },))
    })?;
    instance.func_wrap("[method]cas.current", |mut store: Store<'_>, (cas,): (Resource<Cas>,)| {
        Ok((current(&mut store, &cas)?,))
    })?;
    instance.func_wrap_async("swap", |mut store: Store<'_>, (cas, value): (Resource<Cas>, Vec<u8>)| {
        Box::new(async move {
            let cas = store.data_mut().table().delete(cas)?;
            Ok((swap(&mut store, cas, value).await?,))
        })
    })
}

fn put(key: String, value: Vec<u8>) -> Change {
    Change::Put { key, value: value.into(), ttl: None, expect: Expect::Any }
}

fn delete(key: String) -> Change {
    Change::Delete { key, expect: Expect::Any }
}

/// A handle of the bucket in which a key has changed, for the component that is told of it. A trigger on some keys is no grant
/// of their bucket: without one, each call on the handle is refused.
pub(crate) fn hand(state: &mut GuestState, name: Name) -> wasmtime::Result<Resource<Bucket>> {
    Ok(state.table().push(Bucket { name, listed: None })?)
}

/// The bucket's name, if the function was granted it.
fn usable(store: &mut Store<'_>, bucket: &Resource<Bucket>) -> wasmtime::Result<Result<Name, Error>> {
    let state = store.data_mut();
    let name = state.table().get(bucket)?.name.clone();
    Ok(match state.deployed.reach.bucket(name.as_str()) {
        Ok(_) => Ok(name),
        Err(failure) => {
            state.console.warn(format!("wasi:keyvalue: {failure}"));
            Err(failure.into())
        }
    })
}

/// The value of a key. From the cache, as a rule; otherwise it waits for the disk.
fn read(store: &mut Store<'_>, bucket: &Resource<Bucket>, key: &str) -> wasmtime::Result<Result<Option<Bytes>, Error>> {
    let name = match usable(store, bucket)? {
        Ok(name) => name,
        Err(error) => return Ok(Err(error)),
    };
    let entry = store.data().deployed.reach.kv().and_then(|kv| kv.get(&name, key));
    Ok(entry.map(|entry| entry.map(|entry| entry.value)).map_err(Error::from))
}

/// Whether the key is there, with whatever it holds: a set or a map, which cannot be read here, is listed too.
fn exists(store: &mut Store<'_>, bucket: &Resource<Bucket>, key: &str) -> wasmtime::Result<Result<bool, Error>> {
    let name = match usable(store, bucket)? {
        Ok(name) => name,
        Err(error) => return Ok(Err(error)),
    };
    Ok(match store.data().deployed.reach.kv().and_then(|kv| kv.get(&name, key)) {
        Ok(entry) => Ok(entry.is_some()),
        Err(failure) if failure.kind() == Kind::Conflict => Ok(true),
        Err(failure) => Err(failure.into()),
    })
}

async fn apply(store: &mut Store<'_>, bucket: &Resource<Bucket>, changes: Vec<Change>) -> Answer<()> {
    let name = match usable(store, bucket)? {
        Ok(name) => name,
        Err(error) => return Ok((Err(error),)),
    };
    if changes.is_empty() {
        return Ok((Ok(()),));
    }
    let reach = store.data().reach();
    let applied = async { reach.kv()?.apply(&name, changes).await }.await;
    Ok((applied.map(|_| ()).map_err(Error::from),))
}

async fn increment(
    store: &mut Store<'_>,
    bucket: &Resource<Bucket>,
    key: &str,
    delta: i64,
    least: i64,
) -> wasmtime::Result<Result<i64, Error>> {
    let name = match usable(store, bucket)? {
        Ok(name) => name,
        Err(error) => return Ok(Err(error)),
    };
    let reach = store.data().reach();
    let sum = async { reach.kv()?.increment_to(&name, key, delta, least).await }.await;
    Ok(sum.map_err(Error::from).and_then(|sum| sum.ok_or_else(past_the_end)))
}

/// A page of keys after `after`, and whether there are more.
fn page(
    store: &mut Store<'_>,
    bucket: &Resource<Bucket>,
    after: Option<&str>,
) -> wasmtime::Result<Result<(Vec<String>, bool), Error>> {
    let name = match usable(store, bucket)? {
        Ok(name) => name,
        Err(error) => return Ok(Err(error)),
    };
    let page = store.data().deployed.reach.kv().and_then(|kv| kv.list(&name, "", after, KV_LIST_KEYS_MAX));
    Ok(page.map(|page| (page.keys, page.more)).map_err(Error::from))
}

/// The second draft: the cursor is the last key.
fn list_by_key(
    mut store: Store<'_>,
    (bucket, cursor): (Resource<Bucket>, Option<String>),
) -> Answer<KeyResponse<String>> {
    let listed = page(&mut store, &bucket, cursor.as_deref())?;
    Ok((listed.map(|(keys, more)| KeyResponse { cursor: keys.last().filter(|_| more).cloned(), keys }),))
}

/// The first draft: the cursor is the number of keys so far.
fn list_by_number(mut store: Store<'_>, (bucket, cursor): (Resource<Bucket>, Option<u64>)) -> Answer<KeyResponse<u64>> {
    let listed = store.data_mut().table().get(&bucket)?.listed.clone();
    let (before, after) = match (cursor, listed) {
        (None | Some(0), _) => (0, None),
        (Some(cursor), Some((count, last))) if count == cursor => (count, Some(last)),
        (Some(cursor), _) => {
            let message = format!("{cursor} is not the latest cursor of this bucket: list from the beginning again");
            return Ok((Err(Error::Other(message)),));
        }
    };
    let (keys, more) = match page(&mut store, &bucket, after.as_deref())? {
        Ok(listed) => listed,
        Err(error) => return Ok((Err(error),)),
    };
    let count = before + keys.len() as u64;
    store.data_mut().table().get_mut(&bucket)?.listed = keys.last().filter(|_| more).map(|last| (count, last.clone()));
    Ok((Ok(KeyResponse { keys, cursor: more.then_some(count) }),))
}

fn begin_cas(store: &mut Store<'_>, bucket: Name, key: String) -> wasmtime::Result<Result<Resource<Cas>, Error>> {
    let state = store.data_mut();
    let entry = match state.deployed.reach.kv().and_then(|kv| kv.get(&bucket, &key)) {
        Ok(entry) => entry,
        Err(failure) => return Ok(Err(failure.into())),
    };
    Ok(Ok(state.table().push(Cas { bucket, key, expect: seen(entry.as_ref()) })?))
}

fn seen(entry: Option<&Entry>) -> Expect {
    entry.map_or(Expect::Absent, |entry| Expect::Version(entry.version))
}

/// The value as it is now, which is what a swap replaces from here on.
fn current(store: &mut Store<'_>, cas: &Resource<Cas>) -> wasmtime::Result<Result<Option<Vec<u8>>, Error>> {
    let state = store.data_mut();
    let Cas { bucket, key, .. } = state.table().get(cas)?;
    let (bucket, key) = (bucket.clone(), key.clone());
    match state.deployed.reach.kv().and_then(|kv| kv.get(&bucket, &key)) {
        Ok(entry) => {
            state.table().get_mut(cas)?.expect = seen(entry.as_ref());
            Ok(Ok(entry.map(|entry| entry.value.into())))
        }
        Err(failure) => Ok(Err(failure.into())),
    }
}

async fn swap(store: &mut Store<'_>, cas: Cas, value: Vec<u8>) -> wasmtime::Result<Result<(), CasError>> {
    let Cas { bucket, key, expect, .. } = cas;
    let change = Change::Put { key: key.clone(), value: value.into(), ttl: None, expect };
    let reach = store.data().reach();
    let applied = async { reach.kv()?.apply(&bucket, vec![change]).await }.await;
    match applied {
        Ok(_) => Ok(Ok(())),
        Err(failure) if failure.kind() == Kind::Conflict => Ok(Err(match begin_cas(store, bucket, key)? {
            Ok(again) => CasError::Failed(again),
            Err(error) => CasError::Store(error),
        })),
        Err(failure) => Ok(Err(CasError::Store(failure.into()))),
    }
}
