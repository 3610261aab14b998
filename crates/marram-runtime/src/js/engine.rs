//! The engine's code, linked: what it imports is a memory with a script in it, two clocks, randomness, and a place for its
//! last words.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use marram_core::Failure;
use wasmtime::{Caller, Engine, Extern, Instance, Linker, Memory, Module, ModuleExport, Result, Store};

use super::image::Image;
use crate::cpu::SharedPollClock;

/// The data of a store: what the engine asks for, and the limits. Called often, so cheap.
pub(crate) trait State: Send + 'static {
    /// Microseconds since the Unix epoch.
    fn unix_us(&self) -> f64;
    /// Microseconds of a clock that never goes back.
    fn monotonic_us(&self) -> f64;
    /// Randomness of cryptographic quality.
    fn fill_random(&self, buffer: &mut [u8]) -> Result<()>;
    /// Why the engine is about to trap.
    fn last_words(&mut self, text: &str);
    /// For charging the CPU time of a turn.
    fn clock(&self) -> &SharedPollClock;
    /// The failure that a trap is.
    fn failure(&self, error: wasmtime::Error) -> Failure;
}

/// The most that JavaScript may ask of randomness at once; the prelude asks for less.
const RANDOM_BYTES_MAX: u32 = 1 << 20;
/// The most that is read of a panic's message.
const LAST_WORDS_BYTES_MAX: u32 = 4 << 10;

/// The engine, ready to be instantiated in stores of `T`.
pub(crate) struct JsEngine<T: 'static> {
    code: Module,
    linker: Linker<T>,
    exports: [ModuleExport; 3],
    booted: Arc<Image>,
    capturing: Mutex<()>,
}

/// The functions that an instance of the engine exports: of `marram-js-abi`.
const EXPORTS: [&str; 3] = ["marram_alloc", "marram_load", "marram_turn"];
/// Module and name of the memory that it imports.
const MEMORY: (&str, &str) = ("marram", "memory");

impl<T: State> JsEngine<T> {
    /// Links the code, with its memory as it is without a script: what `guests/js-engine` has built and the caller has
    /// compiled.
    pub(crate) fn new(code: Module, memory: Module) -> Result<Self> {
        let mut linker = Linker::new(code.engine());
        linker.func_wrap("env", "__rquickjs_host_now_us", |caller: Caller<'_, T>| caller.data().unix_us())?;
        linker.func_wrap("marram", "monotonic_us", |caller: Caller<'_, T>| caller.data().monotonic_us())?;
        linker.func_wrap("marram", "random", random)?;
        linker.func_wrap("marram", "panic", last_words)?;
        let shares = code.imports().any(|import| (import.module(), import.name()) == MEMORY);
        wasmtime::ensure!(shares, "the engine's code has a memory of its own: build the engines again");
        let export = |name| code.get_export_index(name);
        let [Some(alloc), Some(load), Some(turn)] = EXPORTS.map(export) else {
            wasmtime::bail!("the engine does not export {EXPORTS:?}")
        };
        Ok(Self {
            linker,
            exports: [alloc, load, turn],
            booted: Arc::new(Image::booted(memory)),
            capturing: Mutex::default(),
            code,
        })
    }

    /// The engine without a script.
    pub(crate) fn booted(&self) -> &Arc<Image> {
        &self.booted
    }

    /// One at a time makes an image.
    pub(super) fn capturing(&self) -> MutexGuard<'_, ()> {
        self.capturing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn engine(&self) -> &Engine {
        self.code.engine()
    }

    /// The memory of an instance in the state of `image`, and its exports: alloc, load, turn.
    pub(super) async fn instantiate(&self, store: &mut Store<T>, image: &Image) -> Result<(Memory, [Extern; 3])> {
        let memory = image.map(&mut *store).await?;
        let mut imports = Vec::with_capacity(self.code.imports().len());
        for import in self.code.imports() {
            let given = match (import.module(), import.name()) {
                MEMORY => Some(Extern::Memory(memory)),
                _ => self.linker.get_by_import(&mut *store, &import),
            };
            let missing = || wasmtime::format_err!("the engine wants {} {}", import.module(), import.name());
            imports.push(given.ok_or_else(missing)?);
        }
        let instance = Instance::new_async(&mut *store, &self.code, &imports).await?;
        let exports = self.exports.each_ref().map(|export| instance.get_module_export(&mut *store, export));
        let [Some(alloc), Some(load), Some(turn)] = exports else { wasmtime::bail!("the engine has no exports") };
        Ok((memory, [alloc, load, turn]))
    }
}

fn random<T: State>(mut caller: Caller<'_, T>, ptr: u32, len: u32) -> Result<()> {
    wasmtime::ensure!(len <= RANDOM_BYTES_MAX, "the engine asks for {len} random bytes at once");
    let mut buffer = vec![0; len as usize];
    caller.data().fill_random(&mut buffer)?;
    let Some(Extern::Memory(memory)) = caller.get_export("memory") else { wasmtime::bail!("the engine has no memory") };
    Ok(memory.write(&mut caller, ptr as usize, &buffer)?)
}

fn last_words<T: State>(mut caller: Caller<'_, T>, ptr: u32, len: u32) -> Result<()> {
    let Some(Extern::Memory(memory)) = caller.get_export("memory") else { wasmtime::bail!("the engine has no memory") };
    let (memory, data) = memory.data_and_store_mut(&mut caller);
    let end = ptr as usize + len.min(LAST_WORDS_BYTES_MAX) as usize;
    data.last_words(&String::from_utf8_lossy(memory.get(ptr as usize..end).unwrap_or_default()));
    Ok(())
}
