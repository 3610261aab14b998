//! Runs WebAssembly components and JavaScript: compiles, caches, instantiates, limits and meters them.
//!
//! The only crate that names wasmtime. [`Runtime::prepare`] makes [`Function`]s out of an app; each is an
//! [`Invoke`](marram_core::port::Invoke) that the gateway calls. A request's way: permit ([`gate`]) → code, mapped or
//! from the cache ([`load`], [`artifact`]) → instance, fresh or live ([`program`]) → the guest runs in the caller's
//! task until its answer is there, its CPU time charged at each poll ([`cpu`]) and interrupted at each tick
//! ([`ticker`]) → the last reference to the [`invocation`] closes its meter record.
//!
//! A guest must never panic, block or exhaust the host: everything that it can grow has a limit in
//! [`marram_core::limits`] or in the manifest.

mod answer;
mod artifact;
mod body;
mod capability;
mod charged;
mod codes;
mod compiler;
mod config;
mod console;
mod cpu;
mod deployed;
mod engine;
mod engines;
mod function;
mod functions;
mod gate;
mod hooks;
mod invocation;
mod js;
mod kind;
mod limiter;
mod link;
mod load;
mod log_budget;
mod machine;
mod mask;
mod outbound;
mod ports;
mod program;
mod reach;
mod room;
mod runtime;
mod shared;
mod state;
mod text;
mod ticker;
mod trap;
mod turns;
mod uncaught;
mod uploads;
mod watch;

pub use compiler::{Compiler, compile_stdin};
pub use config::RuntimeConfig;
pub use engine::Allocation;
pub use engines::available as available_engines;
pub use function::{Function, FunctionStatus};
pub use kind::Kind;
pub use ports::{Ports, StatePorts};
pub use runtime::{App, AppSpec, ComponentFile, Runtime, Verify};
pub use text::unmap_text;

/// A wasmtime error in the type that this crate passes on inside.
fn plain(error: wasmtime::Error) -> anyhow::Error {
    anyhow::Error::from_boxed(error.into_boxed_dyn_error())
}
