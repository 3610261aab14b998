//! Host interfaces, one file each. A capability is one file here and one line in [`link`].

mod config;
mod logging;
mod source;

use wasmtime::component::Linker;

use crate::engine::Calls;
use crate::state::GuestState;

/// Links every interface that needs no grant: all of WASI with nothing opened, configuration, logging.
pub(crate) fn link(linker: &mut Linker<GuestState>, calls: Calls) -> wasmtime::Result<()> {
    wasmtime_wasi::p2::add_to_linker_async(linker)?;
    wasmtime_wasi_http::p2::add_only_http_to_linker_async(linker)?;
    if calls == Calls::Concurrent {
        wasmtime_wasi::p3::add_to_linker(linker)?;
        wasmtime_wasi_http::p3::add_to_linker(linker)?;
    }
    config::link(linker)?;
    logging::link(linker)
}

/// Links what only an engine that comes with Marram may ask for.
pub(crate) fn link_engine(linker: &mut Linker<GuestState>) -> wasmtime::Result<()> {
    source::link(linker)
}
