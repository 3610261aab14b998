//! `wasi:keyvalue/watcher`, in both drafts: a component is called with each change of a key that starts it, one at a time.
//! Returning acknowledges the change; what else can happen is what happens to any run.

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use marram_core::event::ChangedKey;
use marram_core::port::empty_body;
use marram_core::{Failure, Kind};
use wasmtime::Store;
use wasmtime::component::{Accessor, Component, ComponentExportIndex, Instance, Resource, TypedFunc};
use wasmtime_wasi_http::WasiBody;

use crate::body::{RequestBody, to_wasi};
use crate::capability::keyvalue::{self, Bucket};
use crate::invocation::Invocation;
use crate::state::GuestState;
use crate::watch;

/// Where the two functions of a component are.
#[derive(Clone)]
pub(crate) struct WatcherIndices {
    on_set: ComponentExportIndex,
    on_delete: ComponentExportIndex,
}

/// The two functions of an instance. The bucket is a handle that becomes the guest's own.
#[derive(Clone)]
pub(crate) struct Watcher {
    on_set: TypedFunc<(Resource<Bucket>, String, Vec<u8>), ()>,
    on_delete: TypedFunc<(Resource<Bucket>, String), ()>,
}

impl WatcherIndices {
    /// Those of the draft that is called, if the component watches keys.
    pub(crate) fn of(component: &Component) -> Option<Self> {
        let interface = component.get_export_index(None, watch::draft(component)?.watcher)?;
        Some(Self {
            on_set: component.get_export_index(Some(&interface), "on-set")?,
            on_delete: component.get_export_index(Some(&interface), "on-delete")?,
        })
    }

    pub(crate) fn load(&self, store: &mut Store<GuestState>, instance: &Instance) -> wasmtime::Result<Watcher> {
        Ok(Watcher {
            on_set: instance.get_typed_func(&mut *store, self.on_set)?,
            on_delete: instance.get_typed_func(&mut *store, self.on_delete)?,
        })
    }
}

impl Watcher {
    /// Tells an instance that does one thing at a time.
    pub(crate) async fn tell(&self, store: &mut Store<GuestState>, change: ChangedKey) -> wasmtime::Result<()> {
        let ChangedKey { bucket, key, value } = change;
        let bucket = keyvalue::hand(store.data_mut(), bucket)?;
        match value {
            Some(value) => self.on_set.call_async(store, (bucket, key, value.into())).await,
            None => self.on_delete.call_async(store, (bucket, key)).await,
        }
    }

    /// Tells an instance in which other calls are under way.
    pub(crate) async fn tell_among(&self, accessor: &Accessor<GuestState>, change: ChangedKey) -> wasmtime::Result<()> {
        let ChangedKey { bucket, key, value } = change;
        let bucket = accessor.with(|mut store| keyvalue::hand(store.get(), bucket))?;
        match value {
            Some(value) => self.on_set.call_concurrent(accessor, (bucket, key, value.into())).await,
            None => self.on_delete.call_concurrent(accessor, (bucket, key)).await,
        }
    }
}

/// The change that `request` is made of, counted as what came in, since nobody will read the body.
pub(crate) fn take_change(request: &mut Request<RequestBody>, invocation: &Invocation) -> Option<ChangedKey> {
    let change = request.extensions_mut().remove::<ChangedKey>()?;
    invocation.add_bytes_in(change.value.as_ref().map_or(0, Bytes::len));
    Some(change)
}

/// Refuses what is no change of a key, for a component that takes nothing else.
pub(crate) fn check_change(request: &Request<RequestBody>) -> Result<(), Failure> {
    if request.extensions().get::<ChangedKey>().is_some() {
        return Ok(());
    }
    let message =
        "this function takes changes of keys only: its component exports wasi:keyvalue/watcher and no HTTP handler";
    Err(Failure::new(Kind::NotFound, message))
}

/// The answer of a watcher that has returned.
pub(crate) fn told() -> Response<WasiBody> {
    let mut response = Response::new(to_wasi(empty_body()));
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}
