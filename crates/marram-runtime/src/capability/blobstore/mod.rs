//! `wasi:blobstore@0.2.0-draft`: objects of the node, under `allow.blob`. A container is a bucket.

mod containers;
mod incoming;
mod outgoing;

use marram_core::port::blobs::{Attributes, CopyOptions, Delete, Expect};
use marram_core::{Failure, Name};
use wasmtime::StoreContextMut;
use wasmtime::component::{ComponentType, Lift, Linker, Lower, Resource, ResourceType};
use wasmtime_wasi::p2::{DynInputStream, DynOutputStream};

use super::Offer;
use crate::reach::Reach;
use crate::state::GuestState;
use containers::{Container, clear};
use incoming::Incoming;
use outgoing::Outgoing;

pub(super) const OFFER: Offer = Offer {
    prefix: "wasi:blobstore/",
    granted: |allow| !allow.blob.is_empty(),
    grants: &["blob = [\"<bucket>\"]"],
    link,
};

/// `record object-id`.
#[derive(ComponentType, Lift)]
#[component(record)]
struct ObjectId {
    container: String,
    object: String,
}

/// `record container-metadata`.
#[derive(ComponentType, Lower)]
#[component(record)]
struct ContainerMetadata {
    name: String,
    #[component(name = "created-at")]
    created_at: u64,
}

/// `record object-metadata`.
#[derive(ComponentType, Lower)]
#[component(record)]
struct ObjectMetadata {
    name: String,
    container: String,
    #[component(name = "created-at")]
    created_at: u64,
    size: u64,
}

type Store<'a> = StoreContextMut<'a, GuestState>;
/// `error` of the interface is a text.
type Answer<T> = wasmtime::Result<(Result<T, String>,)>;

fn link(linker: &mut Linker<GuestState>) -> wasmtime::Result<()> {
    link_types(linker)?;
    containers::link(linker)?;
    link_blobstore(linker)
}

/// The text of a failure. What was not granted is in the function's log too: guests often drop the text of an error.
fn told(store: &Store<'_>, failure: &Failure) -> String {
    if failure.kind() == marram_core::Kind::Unauthorized {
        store.data().console.warn(format!("wasi:blobstore: {failure}"));
    }
    failure.message().to_owned()
}

fn link_types(linker: &mut Linker<GuestState>) -> wasmtime::Result<()> {
    let mut instance = linker.instance("wasi:blobstore/types@0.2.0-draft")?;
    instance.resource("outgoing-value", ResourceType::host::<Outgoing>(), |mut store: Store<'_>, rep| {
        store.data_mut().table().delete(Resource::<Outgoing>::new_own(rep))?;
        Ok(())
    })?;
    instance.func_wrap("[static]outgoing-value.new-outgoing-value", |mut store: Store<'_>, (): ()| {
        let held = store.data().room.take(outgoing::HELD_BYTES)?;
        Ok((store.data_mut().table().push(Outgoing::new(held))?,))
    })?;
    // Its result has no error.
    instance.func_wrap(
        "[method]outgoing-value.outgoing-value-write-body",
        |mut store: Store<'_>, (value,): (Resource<Outgoing>,)| {
            let table = store.data_mut().table();
            let body: DynOutputStream = Box::new(table.get(&value)?.body());
            Ok((Ok::<_, ()>(table.push(body)?),))
        },
    )?;
    instance.func_wrap_async(
        "[static]outgoing-value.finish",
        |mut store: Store<'_>, (value,): (Resource<Outgoing>,)| {
            Box::new(async move {
                let value = store.data_mut().table().delete(value)?;
                Ok((value.finish().await.map_err(|failure| told(&store, &failure)),))
            })
        },
    )?;
    instance.resource("incoming-value", ResourceType::host::<Incoming>(), |mut store: Store<'_>, rep| {
        store.data_mut().table().delete(Resource::<Incoming>::new_own(rep))?;
        Ok(())
    })?;
    instance.func_wrap_async(
        "[static]incoming-value.incoming-value-consume-sync",
        |mut store: Store<'_>, (value,): (Resource<Incoming>,)| {
            Box::new(async move {
                let value = store.data_mut().table().delete(value)?;
                Ok((value.whole().await,))
            })
        },
    )?;
    instance.func_wrap(
        "[static]incoming-value.incoming-value-consume-async",
        |mut store: Store<'_>, (value,): (Resource<Incoming>,)| {
            let table = store.data_mut().table();
            let stream: DynInputStream = Box::new(table.delete(value)?.stream());
            Ok((Ok::<_, String>(table.push(stream)?),))
        },
    )?;
    instance.func_wrap("[method]incoming-value.size", |mut store: Store<'_>, (value,): (Resource<Incoming>,)| {
        Ok((store.data_mut().table().get(&value)?.size(),))
    })
}

fn link_blobstore(linker: &mut Linker<GuestState>) -> wasmtime::Result<()> {
    let mut instance = linker.instance("wasi:blobstore/blobstore@0.2.0-draft")?;
    for (name, make) in [("create-container", true), ("get-container", false)] {
        instance.func_wrap_async(name, move |mut store: Store<'_>, (name,): (String,)| {
            Box::new(async move { open(&mut store, &name, make).await })
        })?;
    }
    instance.func_wrap_async("delete-container", |store: Store<'_>, (name,): (String,)| {
        Box::new(async move {
            let reach = store.data().reach();
            let deleted = async {
                let bucket = reach.container(&name)?;
                clear(&reach, bucket).await?;
                reach.blobs()?.delete_bucket(bucket).await
            };
            Ok((deleted.await.map(|_| ()).map_err(|failure| told(&store, &failure)),))
        })
    })?;
    instance.func_wrap_async("container-exists", |store: Store<'_>, (name,): (String,)| {
        Box::new(async move {
            let reach = store.data().reach();
            let found = async { reach.blobs()?.bucket(reach.container(&name)?).await };
            Ok((found.await.map(|found| found.is_some()).map_err(|failure| told(&store, &failure)),))
        })
    })?;
    for (name, keeps) in [("copy-object", true), ("move-object", false)] {
        instance.func_wrap_async(name, move |store: Store<'_>, (from, to): (ObjectId, ObjectId)| {
            Box::new(async move {
                let reach = store.data().reach();
                let copied = copy(&reach, &from, &to, keeps).await;
                Ok((copied.map_err(|failure| told(&store, &failure)),))
            })
        })?;
    }
    Ok(())
}

async fn open(store: &mut Store<'_>, name: &str, make: bool) -> Answer<Resource<Container>> {
    let reach = store.data().reach();
    let found = async {
        let bucket = reach.container(name)?;
        if make {
            reach.blobs()?.create_bucket(bucket).await?;
        }
        let found = reach.blobs()?.bucket(bucket).await?;
        found.ok_or_else(|| {
            Failure::new(marram_core::Kind::NotFound, format!("there is no bucket \"{bucket}\": create it"))
        })
    };
    match found.await {
        Ok(bucket) => Ok((Ok(store.data_mut().table().push(Container(bucket))?),)),
        Err(failure) => Ok((Err(told(store, &failure)),)),
    }
}

async fn copy(reach: &Reach, from: &ObjectId, to: &ObjectId, keeps: bool) -> Result<(), Failure> {
    let (source, target) = (reach.container(&from.container)?, reach.container(&to.container)?);
    let (blobs, old, new) = (reach.blobs()?, (source, &*from.object), (target, &*to.object));
    let copied = if keeps { blobs.copy(old, new, CopyOptions::default()) } else { blobs.rename(old, new) };
    copied.await?.map(|_| ()).ok_or_else(|| missing(source, &from.object))
}

async fn delete(reach: &Reach, bucket: &Name, names: Vec<String>) -> Result<(), Failure> {
    for names in names.chunks(marram_core::limits::OBJECT_LIST_MAX) {
        let deletes = names.iter().map(|name| Delete { name: name.clone(), expect: Expect::Any }).collect();
        for deleted in reach.blobs()?.delete(bucket, deletes).await? {
            deleted?;
        }
    }
    Ok(())
}

fn missing(bucket: &Name, name: &str) -> Failure {
    let name = marram_core::port::blobs::shown(name);
    Failure::new(marram_core::Kind::NotFound, format!("bucket \"{bucket}\" has no object {name}"))
}

/// What is said of an object that a guest writes: this interface has no word for it.
fn attributes() -> Attributes {
    Attributes { content_type: Some("application/octet-stream".into()), ..Attributes::default() }
}
