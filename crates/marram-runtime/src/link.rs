//! Imports of a component: what is linked, and what to tell about the rest.

use marram_core::manifest::Allow;
use marram_core::{Failure, Kind};
use wasmtime::Engine;
use wasmtime::component::{Component, InstancePre, Linker};

use crate::capability::{OFFERS, Offer};
use crate::state::GuestState;
use crate::watch;

/// Packages whose interfaces every function gets. WASI is there with nothing opened: no directory, no address.
const LINKED: [&str; 9] = [
    "wasi:cli/",
    "wasi:clocks/",
    "wasi:random/",
    "wasi:io/",
    "wasi:filesystem/",
    "wasi:sockets/",
    "wasi:http/",
    "wasi:config/store",
    "wasi:logging/",
];

/// Interfaces that exist and that this version does not offer.
const LATER: [&str; 3] = ["wasi:nn/", "wasi:otel/", "wasi:config/runtime"];

/// Resolves every import, or says which one cannot be, and why. `keys`: whether changes of keys start the function.
pub(crate) fn link(
    engine: &Engine,
    linker: &Linker<GuestState>,
    component: &Component,
    allow: &Allow,
    keys: bool,
) -> Result<InstancePre<GuestState>, Failure> {
    check_imports(engine, component, allow, keys)?;
    linker.instantiate_pre(component).map_err(|error| {
        let message = format!(
            "an import of the component cannot be resolved: {error:#}; build it with a toolchain for WASI 0.2 or 0.3.0"
        );
        Failure::new(Kind::Invalid, message)
    })
}

/// Says which import nothing here provides, or the function was not granted, if there is one.
///
/// A component that watches keys imports the store whether it calls it or not, because the handle that it is given is a type
/// of the store's. That is let be where keys start the function: the store looks at the grant in each call.
pub(crate) fn check_imports(engine: &Engine, component: &Component, allow: &Allow, keys: bool) -> Result<(), Failure> {
    let handed = watch::draft(component).filter(|_| keys).map(|draft| draft.store);
    for (import, _) in component.component_type().imports(engine) {
        if LINKED.iter().any(|known| import.starts_with(known)) || handed == Some(import) {
            continue;
        }
        let refused = match OFFERS.iter().find(|offer| import.starts_with(offer.prefix)) {
            Some(offer) if (offer.granted)(allow) => continue,
            Some(offer) => ungranted(import, offer, allow),
            None => unknown(import),
        };
        return Err(Failure::new(Kind::Invalid, refused));
    }
    Ok(())
}

/// With what to add as it can be pasted: a second `allow` would be refused.
fn ungranted(import: &str, offer: &Offer, allow: &Allow) -> String {
    let has_allow = *allow != Allow::default();
    let line = |grant: &&str| if has_allow { format!("`{grant}`") } else { format!("`allow = {{ {grant} }}`") };
    let lines = offer.grants.iter().map(line).collect::<Vec<_>>().join(" or ");
    let place = if has_allow { "its `allow`" } else { "the function" };
    format!("the component imports `{import}`, which it was not granted: add {lines} to {place}")
}

fn unknown(import: &str) -> String {
    if LATER.iter().any(|later| import.starts_with(later)) {
        return format!(
            "the component imports `{import}`, which this version of Marram does not offer: build it without, or install a later version"
        );
    }
    match import {
        _ if import.starts_with("wasi_snapshot_preview1") => {
            "the component imports `wasi_snapshot_preview1`: it was wrapped without its adapter; build for wasm32-wasip2".into()
        }
        _ if import.contains(':') => format!(
            "the component imports `{import}`, which no grant in the manifest gives and Marram does not know: compose it with a component that exports it (`wac plug`), or build it without"
        ),
        _ => format!("the component imports `{import}`, which is not an interface: compose it with what provides it, or build it without"),
    }
}
