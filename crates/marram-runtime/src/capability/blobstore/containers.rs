//! `container`: the objects of one bucket.

use std::collections::VecDeque;

use marram_core::limits::{OBJECT_LIST_MAX, OBJECT_NAME_BYTES_MAX};
use marram_core::port::blobs::{Bucket, ByteRange, ListQuery, Listed, Opened};
use marram_core::{Failure, Kind, Name};
use wasmtime::component::{Linker, Resource, ResourceType};

use super::incoming::CHUNK_BYTES_MAX;
use super::{Answer, ContainerMetadata, Incoming, ObjectMetadata, Outgoing, Store, attributes, delete, missing, told};
use crate::reach::Reach;
use crate::room::Held;
use crate::state::GuestState;

/// What a list holds at most: one page.
const PAGE_BYTES: usize = OBJECT_LIST_MAX * OBJECT_NAME_BYTES_MAX;

/// `resource container`.
pub(super) struct Container(pub(super) Bucket);

/// `resource stream-object-names`.
pub(super) struct Names {
    bucket: Name,
    found: VecDeque<String>,
    after: Option<String>,
    more: bool,
    _held: Held,
}

type Named = (Resource<Container>, String);

pub(super) fn link(linker: &mut Linker<GuestState>) -> wasmtime::Result<()> {
    link_container(linker)?;
    link_objects(linker)?;
    link_names(linker)
}

fn link_container(linker: &mut Linker<GuestState>) -> wasmtime::Result<()> {
    let mut instance = linker.instance("wasi:blobstore/container@0.2.0-draft")?;
    instance.resource("container", ResourceType::host::<Container>(), |mut store: Store<'_>, rep| {
        store.data_mut().table().delete(Resource::<Container>::new_own(rep))?;
        Ok(())
    })?;
    instance.func_wrap("[method]container.name", |mut store: Store<'_>, (container,): (Resource<Container>,)| {
        Ok((Ok::<_, String>(store.data_mut().table().get(&container)?.0.name.to_string()),))
    })?;
    instance.func_wrap("[method]container.info", |mut store: Store<'_>, (container,): (Resource<Container>,)| {
        let bucket = &store.data_mut().table().get(&container)?.0;
        let (name, created_at) = (bucket.name.to_string(), seconds(bucket.created_unix_ns));
        Ok((Ok::<_, String>(ContainerMetadata { name, created_at }),))
    })?;
    instance.func_wrap_async(
        "[method]container.clear",
        |mut store: Store<'_>, (container,): (Resource<Container>,)| {
            Box::new(async move {
                let bucket = name(&mut store, &container)?;
                let cleared = clear(&store.data().reach(), &bucket).await;
                Ok((cleared.map_err(|failure| told(&store, &failure)),))
            })
        },
    )?;
    instance.func_wrap_async("[method]container.delete-object", |store: Store<'_>, (container, object): Named| {
        Box::new(remove(store, container, vec![object]))
    })?;
    instance.func_wrap_async(
        "[method]container.delete-objects",
        |store: Store<'_>, (container, objects): (Resource<Container>, Vec<String>)| {
            Box::new(remove(store, container, objects))
        },
    )
}

fn link_objects(linker: &mut Linker<GuestState>) -> wasmtime::Result<()> {
    let mut instance = linker.instance("wasi:blobstore/container@0.2.0-draft")?;
    instance.func_wrap_async(
        "[method]container.get-data",
        |mut store: Store<'_>, (container, object, start, end): (Resource<Container>, String, u64, u64)| {
            Box::new(async move {
                let bucket = name(&mut store, &container)?;
                let held = store.data().room.take(CHUNK_BYTES_MAX)?;
                match get(&store.data().reach(), &bucket, &object, (start, end), held).await {
                    Ok(incoming) => Ok((Ok(store.data_mut().table().push(incoming)?),)),
                    Err(failure) => Ok((Err(told(&store, &failure)),)),
                }
            })
        },
    )?;
    instance.func_wrap_async(
        "[method]container.write-data",
        |mut store: Store<'_>, (container, object, value): (Resource<Container>, String, Resource<Outgoing>)| {
            Box::new(async move {
                let bucket = name(&mut store, &container)?;
                let reach = store.data().reach();
                let writer = async { reach.blobs()?.put(&bucket, &object, attributes()).await };
                match writer.await {
                    Ok(writer) => Ok((store.data_mut().table().get_mut(&value)?.attach(writer),)),
                    Err(failure) => Ok((Err(told(&store, &failure)),)),
                }
            })
        },
    )?;
    instance.func_wrap_async("[method]container.has-object", |mut store: Store<'_>, (container, object): Named| {
        Box::new(async move {
            let bucket = name(&mut store, &container)?;
            let reach = store.data().reach();
            let found = async { reach.blobs()?.head(&bucket, &object).await };
            Ok((found.await.map(|found| found.is_some()).map_err(|failure| told(&store, &failure)),))
        })
    })?;
    instance.func_wrap_async("[method]container.object-info", |mut store: Store<'_>, (container, object): Named| {
        Box::new(async move {
            let bucket = name(&mut store, &container)?;
            let reach = store.data().reach();
            let found = async {
                let found = reach.blobs()?.head(&bucket, &object).await?;
                found.ok_or_else(|| missing(&bucket, &object))
            };
            let info = found.await.map(|object| ObjectMetadata {
                name: object.name,
                container: bucket.to_string(),
                created_at: seconds(object.modified_unix_ns),
                size: object.size,
            });
            Ok((info.map_err(|failure| told(&store, &failure)),))
        })
    })
}

fn link_names(linker: &mut Linker<GuestState>) -> wasmtime::Result<()> {
    let mut instance = linker.instance("wasi:blobstore/container@0.2.0-draft")?;
    instance.resource("stream-object-names", ResourceType::host::<Names>(), |mut store: Store<'_>, rep| {
        store.data_mut().table().delete(Resource::<Names>::new_own(rep))?;
        Ok(())
    })?;
    instance.func_wrap(
        "[method]container.list-objects",
        |mut store: Store<'_>, (container,): (Resource<Container>,)| {
            let bucket = name(&mut store, &container)?;
            let _held = store.data().room.take(PAGE_BYTES)?;
            let names = Names { bucket, found: VecDeque::new(), after: None, more: true, _held };
            Ok((Ok::<_, String>(store.data_mut().table().push(names)?),))
        },
    )?;
    instance.func_wrap_async(
        "[method]stream-object-names.read-stream-object-names",
        |mut store: Store<'_>, (names, length): (Resource<Names>, u64)| {
            Box::new(async move {
                let taken = take(&mut store, &names, length).await?;
                Ok((taken.map_err(|failure| told(&store, &failure)),))
            })
        },
    )?;
    instance.func_wrap_async(
        "[method]stream-object-names.skip-stream-object-names",
        |mut store: Store<'_>, (names, count): (Resource<Names>, u64)| {
            Box::new(async move {
                let taken = take(&mut store, &names, count).await?;
                let skipped = taken.map(|(names, ended)| (names.len() as u64, ended));
                Ok((skipped.map_err(|failure| told(&store, &failure)),))
            })
        },
    )
}

/// `timestamp` is in seconds since the Unix epoch.
fn seconds(unix_ns: u64) -> u64 {
    unix_ns / 1_000_000_000
}

fn name(store: &mut Store<'_>, container: &Resource<Container>) -> wasmtime::Result<Name> {
    Ok(store.data_mut().table().get(container)?.0.name.clone())
}

async fn remove(mut store: Store<'_>, container: Resource<Container>, objects: Vec<String>) -> Answer<()> {
    let bucket = name(&mut store, &container)?;
    let removed = delete(&store.data().reach(), &bucket, objects).await;
    Ok((removed.map_err(|failure| told(&store, &failure)),))
}

/// Removes all objects of a bucket, also those that come meanwhile.
pub(super) async fn clear(reach: &Reach, bucket: &Name) -> Result<(), Failure> {
    loop {
        let query = ListQuery { max: OBJECT_LIST_MAX, ..ListQuery::default() };
        let page = reach.blobs()?.list(bucket, query).await?;
        if page.entries.is_empty() {
            return Ok(());
        }
        delete(reach, bucket, page.entries.iter().map(|entry| entry.name().to_owned()).collect()).await?;
    }
}

/// Both ends are in the range; what is past the end of the object is left out.
async fn get(
    reach: &Reach,
    bucket: &Name,
    object: &str,
    (start, end): (u64, u64),
    held: Held,
) -> Result<Incoming, Failure> {
    let opened: Opened = reach.blobs()?.get(bucket, object).await?.ok_or_else(|| missing(bucket, object))?;
    if start > end {
        return Err(Failure::new(Kind::Invalid, format!("a range from {start} to {end}: it ends before it begins")));
    }
    // An empty object has no bytes to ask for, and is there.
    let range = ByteRange::Between(start, end).of(opened.object.size).unwrap_or(0..0);
    Ok(Incoming { opened, range, held })
}

/// Up to `length` names, of at most a page, and whether there are no more.
async fn take(
    store: &mut Store<'_>,
    names: &Resource<Names>,
    length: u64,
) -> wasmtime::Result<Result<(Vec<String>, bool), Failure>> {
    let length = usize::try_from(length).unwrap_or(usize::MAX).min(OBJECT_LIST_MAX);
    let mut taken = Vec::new();
    loop {
        let list = store.data_mut().table().get_mut(names)?;
        while taken.len() < length
            && let Some(name) = list.found.pop_front()
        {
            taken.push(name);
        }
        if taken.len() == length && !list.found.is_empty() {
            return Ok(Ok((taken, false)));
        }
        if !list.more {
            return Ok(Ok((taken, true)));
        }
        let (bucket, after) = (list.bucket.clone(), list.after.clone());
        let reach = store.data().reach();
        let query = ListQuery { after, max: OBJECT_LIST_MAX, ..ListQuery::default() };
        let page = match async { reach.blobs()?.list(&bucket, query).await }.await {
            Ok(page) => page,
            Err(failure) => return Ok(Err(failure)),
        };
        let list = store.data_mut().table().get_mut(names)?;
        list.after = page.entries.last().map(|entry| entry.name().to_owned());
        list.more = page.more;
        list.found.extend(page.entries.into_iter().filter_map(|entry| match entry {
            Listed::Object(object) => Some(object.name),
            Listed::Prefix(_) => None,
        }));
    }
}
