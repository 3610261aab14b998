//! The engine's module, linked: what it imports is two clocks, randomness, and a place for its last words.

use marram_core::Failure;
use wasmtime::{Caller, Engine, Extern, InstancePre, Linker, Module, Result};

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
    /// Linear memory, in bytes.
    fn memory_bytes(&self) -> u64;
    /// The failure that a trap is.
    fn failure(&self, error: wasmtime::Error) -> Failure;
}

/// The most that JavaScript may ask of randomness at once; the prelude asks for less.
const RANDOM_BYTES_MAX: u32 = 1 << 20;
/// The most that is read of a panic's message.
const LAST_WORDS_BYTES_MAX: u32 = 4 << 10;

/// The engine, ready to be instantiated in stores of `T`.
pub(crate) struct JsEngine<T: 'static> {
    pre: InstancePre<T>,
}

impl<T: State> JsEngine<T> {
    /// Links the module, which `guests/js-engine` has built and the caller has compiled.
    pub(crate) fn new(engine: &Engine, module: &Module) -> Result<Self> {
        let mut linker = Linker::new(engine);
        linker.func_wrap("env", "__rquickjs_host_now_us", |caller: Caller<'_, T>| caller.data().unix_us())?;
        linker.func_wrap("marram", "monotonic_us", |caller: Caller<'_, T>| caller.data().monotonic_us())?;
        linker.func_wrap("marram", "random", random)?;
        linker.func_wrap("marram", "panic", last_words)?;
        Ok(Self { pre: linker.instantiate_pre(module)? })
    }

    pub(super) fn pre(&self) -> &InstancePre<T> {
        &self.pre
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
