//! `wasi:config`: the function's `config` and `secrets`, in the versions that toolchains produce.

use wasmtime::StoreContextMut;
use wasmtime::component::{ComponentType, Linker, Lower};

use crate::state::GuestState;

/// The versions have the same shape under different names. Spin's toolchain produces the second, older ones of wasmCloud the
/// others.
const INTERFACES: [&str; 4] = [
    "wasi:config/store@0.2.0-rc.1",
    "wasi:config/store@0.2.0-draft-2024-09-27",
    "wasi:config/store@0.2.0-draft",
    "wasi:config/runtime@0.2.0-draft",
];

/// `variant error` of the interface. This host never fails: what is not there is `none`.
#[derive(ComponentType, Lower)]
#[component(variant)]
enum Error {
    #[component(name = "upstream")]
    #[allow(dead_code, reason = "part of the interface's type")]
    Upstream(String),
    #[component(name = "io")]
    #[allow(dead_code, reason = "part of the interface's type")]
    Io(String),
}

pub(super) fn link(linker: &mut Linker<GuestState>) -> wasmtime::Result<()> {
    for interface in INTERFACES {
        let mut instance = linker.instance(interface)?;
        instance.func_wrap("get", |store: StoreContextMut<'_, GuestState>, (key,): (String,)| {
            let value = store.data().deployed.config.get(&key).cloned();
            Ok((Ok::<_, Error>(value),))
        })?;
        instance.func_wrap("get-all", |store: StoreContextMut<'_, GuestState>, (): ()| {
            let all: Vec<(String, String)> =
                store.data().deployed.config.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
            Ok((Ok::<_, Error>(all),))
        })?;
    }
    Ok(())
}
