//! QuickJS with the Web's APIs, as a core WebAssembly module behind the three exports that `marram-js-abi` describes.
//!
//! The module is booted once at build time (`marram_boot`) and shipped as a snapshot of its memory, so an instance
//! starts with everything in place. It must never block and never call anything that could wait: what takes time is an
//! action out and an event in.

mod actions;
mod engine;
mod error;
mod heap;
mod imports;
mod modules;
mod native;

use engine::Engine;
use marram_js_abi::pack;
use std::cell::RefCell;

thread_local! {
    static ENGINE: RefCell<Option<Engine>> = const { RefCell::new(None) };
    static INBOUND: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    static OUTBOUND: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Starts the engine and runs its prelude. Called once, before the snapshot is taken.
#[allow(unsafe_code)] // An export needs its name as written.
#[unsafe(no_mangle)]
pub extern "C" fn marram_boot() {
    std::panic::set_hook(Box::new(|panic| imports::panicked(&panic.to_string())));
    INBOUND.with_borrow_mut(|inbound| inbound.resize(8 * 1024, 0));
    OUTBOUND.with_borrow_mut(|outbound| outbound.reserve(8 * 1024));
    let engine = Engine::boot().unwrap_or_else(|error| panic!("the prelude failed: {error}"));
    ENGINE.set(Some(engine));
}

/// Room for a message of `len` bytes, valid until it is asked for more.
#[allow(unsafe_code)] // As above.
#[unsafe(no_mangle)]
pub extern "C" fn marram_alloc(len: u32) -> u32 {
    INBOUND.with_borrow_mut(|inbound| {
        if inbound.len() < len as usize {
            inbound.resize(len as usize, 0);
        }
        inbound.as_ptr() as u32
    })
}

/// Takes a `Load`, answers with a `Loaded`.
#[allow(unsafe_code)] // As above.
#[unsafe(no_mangle)]
pub extern "C" fn marram_load(_ptr: u32, len: u32) -> u64 {
    answer(len, Engine::load)
}

/// Takes events, answers with actions.
#[allow(unsafe_code)] // As above.
#[unsafe(no_mangle)]
pub extern "C" fn marram_turn(_ptr: u32, len: u32) -> u64 {
    answer(len, |engine, inbound| engine.turn(inbound))
}

/// Hands the inbound message, which is where `marram_alloc` said, to the engine; its answer stays in `OUTBOUND`.
fn answer(len: u32, serve: impl FnOnce(&mut Engine, &[u8])) -> u64 {
    OUTBOUND.with_borrow_mut(Vec::clear);
    ENGINE.with_borrow_mut(|engine| {
        let engine = engine.as_mut().expect("marram_boot comes first");
        INBOUND.with_borrow(|inbound| serve(engine, &inbound[..len as usize]));
    });
    OUTBOUND.with_borrow(|outbound| pack(outbound.as_ptr() as u32, outbound.len() as u32))
}

/// Takes back what was said.
fn take_said<T>(look: impl FnOnce(&[u8]) -> T) -> T {
    OUTBOUND.with_borrow_mut(|outbound| {
        let seen = look(outbound);
        outbound.clear();
        seen
    })
}

/// Appends a message to the answer.
fn say<T: serde::Serialize>(message: &T) {
    OUTBOUND.with_borrow_mut(|outbound| marram_js_abi::push(outbound, message));
}
