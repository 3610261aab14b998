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
    "wasi:config/",
    "wasi:logging/",
];

/// Interfaces that only another component has, though their package is linked: who imports one is middleware.
const HANDLERS: [&str; 2] = ["wasi:http/incoming-handler@", "wasi:http/handler@"];

/// Interfaces that exist and that this version does not offer.
const LATER: [&str; 2] = ["wasi:nn/", "wasi:otel/"];

/// What there is of packages that are drafts, for who imports something else of them.
const DRAFTS: [(&str, &str); 5] = [
    ("wasi:blobstore/", "`wasi:blobstore/{types,container,blobstore}@0.2.0-draft`"),
    ("wasi:config/", "`wasi:config/store@0.2.0-rc.1` and three drafts of it"),
    ("wasi:keyvalue/", "`wasi:keyvalue/{store,atomics,batch}` of `@0.2.0-draft` and `@0.2.0-draft2`"),
    ("wasi:logging/", "`wasi:logging/logging@0.1.0-draft`, and the same without a version"),
    ("wasi:messaging/", "`wasi:messaging/{types,producer}@0.2.0-draft`, to publish with"),
];

/// Resolves every import, or says which one cannot be, and why. `keys`: whether changes of keys start the function.
pub(crate) fn link(
    engine: &Engine,
    linker: &Linker<GuestState>,
    component: &Component,
    allow: &Allow,
    keys: bool,
) -> Result<InstancePre<GuestState>, Failure> {
    check_imports(engine, component, allow, keys)?;
    linker.instantiate_pre(component).map_err(|error| unresolved(engine, component, &error))
}

/// Says which import nothing here provides, or the function was not granted, if there is one.
///
/// A component that watches keys imports the store whether it calls it or not, because the handle that it is given is a type
/// of the store's. That is let be where keys start the function: the store looks at the grant in each call.
pub(crate) fn check_imports(engine: &Engine, component: &Component, allow: &Allow, keys: bool) -> Result<(), Failure> {
    let handed = watch::draft(component).filter(|_| keys).map(|draft| draft.store);
    for (import, _) in component.component_type().imports(engine) {
        if HANDLERS.iter().any(|handler| import.starts_with(handler)) {
            return Err(Failure::new(Kind::Invalid, middleware(import)));
        }
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

/// Nothing here puts one component behind another: they are one before they are deployed.
fn middleware(import: &str) -> String {
    format!(
        "the component imports `{import}`: it is middleware, to be in front of a component that exports this; compose the two first (`wac plug <middleware> --plug <handler> -o composed.wasm`), and deploy what comes out"
    )
}

fn unknown(import: &str) -> String {
    if LATER.iter().any(|later| import.starts_with(later)) {
        return format!(
            "the component imports `{import}`, which this version of Marram does not offer: build it without, or install a later version"
        );
    }
    match import {
        _ if import.contains(':') => format!(
            "the component imports `{import}`, which no grant in the manifest gives and Marram does not know: compose it with a component that exports it (`wac plug`), or build it without"
        ),
        _ => format!(
            "the component imports `{import}`, which is not an interface: compose it with what provides it, or build it without"
        ),
    }
}

/// The package is known, and the version or the type is not.
fn unresolved(engine: &Engine, component: &Component, error: &wasmtime::Error) -> Failure {
    let told = format!("{error:#}");
    let imports = component.component_type();
    let import = imports.imports(engine).map(|(import, _)| import).find(|import| told.contains(&format!("`{import}`")));
    let draft = import.and_then(|import| DRAFTS.iter().find(|(package, _)| import.starts_with(package)));
    let step = match draft {
        Some((_, there_is)) => format!("there is {there_is}: build it for that"),
        None => "build it with a toolchain for WASI 0.2 or 0.3.0".to_owned(),
    };
    Failure::new(Kind::Invalid, format!("an import of the component cannot be resolved: {told}; {step}"))
}
