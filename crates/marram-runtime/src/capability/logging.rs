//! `wasi:logging/logging`: structured lines of the function's log.

use marram_core::record;
use wasmtime::StoreContextMut;
use wasmtime::component::{ComponentType, Lift, Linker};

use crate::state::GuestState;

/// `enum level` of the interface.
#[allow(dead_code, reason = "values come from guests")]
#[derive(Clone, Copy, ComponentType, Lift)]
#[component(enum)]
#[repr(u8)]
enum Level {
    #[component(name = "trace")]
    Trace,
    #[component(name = "debug")]
    Debug,
    #[component(name = "info")]
    Info,
    #[component(name = "warn")]
    Warn,
    #[component(name = "error")]
    Error,
    #[component(name = "critical")]
    Critical,
}

pub(super) fn link(linker: &mut Linker<GuestState>) -> wasmtime::Result<()> {
    for interface in ["wasi:logging/logging", "wasi:logging/logging@0.1.0-draft"] {
        linker.instance(interface)?.func_wrap(
            "log",
            |store: StoreContextMut<'_, GuestState>, (level, context, message): (Level, String, String)| {
                store.data().console.log(level.into(), context, message);
                Ok(())
            },
        )?;
    }
    Ok(())
}

impl From<Level> for record::Level {
    fn from(level: Level) -> Self {
        match level {
            Level::Trace => Self::Trace,
            Level::Debug => Self::Debug,
            Level::Info => Self::Info,
            Level::Warn => Self::Warn,
            Level::Error => Self::Error,
            Level::Critical => Self::Critical,
        }
    }
}
