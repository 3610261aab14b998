//! `marram:engine/source`: the user's source text, for a language engine that comes with Marram.

use wasmtime::StoreContextMut;
use wasmtime::component::{ComponentType, Linker, Lower};

use crate::state::GuestState;

/// `record source` of the interface.
#[derive(ComponentType, Lower)]
#[component(record)]
struct Source {
    #[component(name = "file")]
    file: String,
    #[component(name = "text")]
    text: String,
}

pub(super) fn link(linker: &mut Linker<GuestState>) -> wasmtime::Result<()> {
    linker.instance("marram:engine/source@0.1.0")?.func_wrap("get", |store: StoreContextMut<'_, GuestState>, (): ()| {
        let (file, text) =
            store.data().deployed.source.as_ref().map_or(("", ""), |source| (source.file(), source.text()));
        Ok((Source { file: file.to_owned(), text: text.to_owned() },))
    })
}
