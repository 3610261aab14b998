//! Host interfaces, one file each. A capability is one file here and one line in [`OFFERS`], or in [`link`] where it needs no
//! grant.

mod blobstore;
mod config;
mod crdt;
mod engine_state;
mod expiring;
pub(crate) mod keyvalue;
mod logging;
mod messaging;
mod publish;
pub(crate) mod script;
mod script_collections;
mod script_objects;
mod source;

use marram_core::manifest::Allow;
use wasmtime::component::Linker;

use crate::engine::Calls;
use crate::state::GuestState;

/// Interfaces that a function gets by a grant in its manifest.
pub(crate) struct Offer {
    /// What the names of these interfaces begin with.
    pub(crate) prefix: &'static str,
    /// Whether a function has any of the grant. How far it goes is looked at in each call.
    pub(crate) granted: fn(&Allow) -> bool,
    /// What to add to the function's `allow` in the manifest: one of these.
    pub(crate) grants: &'static [&'static str],
    link: fn(&mut Linker<GuestState>) -> wasmtime::Result<()>,
}

/// What can be granted.
pub(crate) const OFFERS: [Offer; 6] =
    [blobstore::OFFER, keyvalue::OFFER, expiring::OFFER, crdt::OFFER, messaging::OFFER, publish::OFFER];

/// Links all of WASI with nothing opened, configuration, logging, and everything that can be granted: a component that
/// imports what its function was not granted is refused before it is linked ([`crate::link`]).
pub(crate) fn link(linker: &mut Linker<GuestState>, calls: Calls) -> wasmtime::Result<()> {
    wasmtime_wasi::p2::add_to_linker_async(linker)?;
    wasmtime_wasi_http::p2::add_only_http_to_linker_async(linker)?;
    if calls == Calls::Concurrent {
        wasmtime_wasi::p3::add_to_linker(linker)?;
        wasmtime_wasi_http::p3::add_to_linker(linker)?;
    }
    config::link(linker)?;
    logging::link(linker)?;
    OFFERS.iter().try_for_each(|offer| (offer.link)(linker))
}

/// Links what only an engine that comes with Marram may ask for.
pub(crate) fn link_engine(linker: &mut Linker<GuestState>) -> wasmtime::Result<()> {
    source::link(linker)?;
    engine_state::link(linker)
}
