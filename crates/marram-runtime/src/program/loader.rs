//! What a language engine says of its program: through `marram:engine/loader`, which loads it ahead of the first request,
//! what is wrong with it; and in the place of an answer, what it has raised.

use marram_core::{Failure, Kind};
use wasmtime::Store;
use wasmtime::component::{ComponentType, Instance, Lift};
use wasmtime_wasi_http::p2::bindings::http::types::ErrorCode;

use crate::codes;
use crate::state::GuestState;
use crate::uncaught::{self, IN_THE_LOG};

const INTERFACE: &str = "marram:engine/loader@0.1.0";

/// `record failure` of the interface.
#[derive(ComponentType, Lift)]
#[component(record)]
pub(super) struct Mistake {
    #[component(name = "message")]
    message: String,
    #[component(name = "file")]
    file: String,
    #[component(name = "line")]
    line: u32,
    #[component(name = "column")]
    column: u32,
    #[component(name = "trace")]
    trace: String,
}

/// Loads the program in this instance, if it is not loaded yet.
pub(super) async fn load(store: &mut Store<GuestState>, instance: &Instance) -> wasmtime::Result<Result<(), Mistake>> {
    let missing = || wasmtime::format_err!("the engine does not export {INTERFACE}");
    let interface = instance.get_export_index(&mut *store, None, INTERFACE).ok_or_else(missing)?;
    let load = instance.get_export_index(&mut *store, Some(&interface), "load").ok_or_else(missing)?;
    let load = instance.get_typed_func::<(), (Result<(), Mistake>,)>(&mut *store, &load)?;
    Ok(load.call_async(&mut *store, ()).await?.0)
}

/// What an engine answers instead of a response: its program has raised what nobody has caught. The account of it, in the
/// language's own words, is for the log.
pub(super) fn raised(code: ErrorCode) -> Failure {
    match code {
        ErrorCode::InternalError(Some(account)) => {
            let message = format!("the function raised an exception{IN_THE_LOG}");
            Failure::new(Kind::Trap, message).because(uncaught::of_python(&account))
        }
        code => codes::failed_answer(&code.into()),
    }
}

/// A program that does not load, with the place that an editor jumps to.
pub(super) fn refused(mistake: Mistake) -> Failure {
    let Mistake { message, file, line, column, trace } = mistake;
    let place = match (line, column) {
        (0, _) => file,
        (line, 0) => format!("{file}:{line}"),
        (line, column) => format!("{file}:{line}:{column}"),
    };
    Failure::new(Kind::Invalid, format!("{place}: {message}")).because(uncaught::of_python(&trace))
}
