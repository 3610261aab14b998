//! `marram:engine/state`: the node's state for a language engine that comes with Marram, by the calls of [`super::script`].

use bytes::Bytes;
use wasmtime::StoreContextMut;
use wasmtime::component::{ComponentType, Linker, Lower};

use super::script;
use crate::state::GuestState;

/// `record failure` of the interface.
#[derive(ComponentType, Lower)]
#[component(record)]
struct Failure {
    kind: String,
    message: String,
}

pub(super) fn link(linker: &mut Linker<GuestState>) -> wasmtime::Result<()> {
    type Store<'a> = StoreContextMut<'a, GuestState>;
    let mut instance = linker.instance("marram:engine/state@0.1.0")?;
    instance
        .func_wrap("granted", |store: Store<'_>, (): ()| Ok((script::granted(&store.data().deployed.reach.allow),)))?;
    instance.func_wrap_async("call", |store: Store<'_>, (capability, payload): (String, String)| {
        Box::new(async move {
            let (reach, run) = (store.data().reach(), store.data().console.any());
            let called = bytes(payload).map(|payload| script::call(&reach, run.as_deref(), &capability, payload));
            drop(run);
            let called = match called {
                Ok(call) => call.await,
                Err(failure) => Err(failure),
            };
            let told = |failure: marram_core::Failure| Failure {
                kind: failure.kind().label().to_owned(),
                message: failure.message().to_owned(),
            };
            Ok((called.map_err(told),))
        })
    })
}

/// The bytes that the characters of a payload are.
fn bytes(payload: String) -> Result<Bytes, marram_core::Failure> {
    if payload.is_ascii() {
        return Ok(payload.into());
    }
    let bytes: Result<Vec<u8>, _> = payload.chars().map(u8::try_from).collect();
    bytes.map(Bytes::from).map_err(|_| {
        marram_core::Failure::new(marram_core::Kind::Internal, "the engine and this node are of different versions")
    })
}
