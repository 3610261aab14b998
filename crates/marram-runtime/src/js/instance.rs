//! One realm of JavaScript: a store, and the exports of the engine in it.

use marram_js_abi::{Code, Load, Loaded, ScriptError, decode, encode, unpack};
use wasmtime::{Memory, Result, Store, TypedFunc, ensure};

use super::engine::{Imports, JsEngine};
use super::image::Image;

/// A function's script and what it may see.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Script<'a> {
    /// The file's name, as the developer knows it.
    pub(crate) file: &'a str,
    pub(crate) code: Code<'a>,
    /// The properties of `env`.
    pub(crate) env: &'a [(&'a str, &'a str)],
    /// JavaScript throws "out of memory" past this; less than the store's own limit, which ends the instance.
    pub(crate) memory_bytes_max: u32,
}

/// An instance of the engine. A trap leaves it unusable.
pub(crate) struct JsInstance<T: 'static> {
    store: Store<T>,
    memory: Memory,
    alloc: TypedFunc<u32, u32>,
    load: TypedFunc<(u32, u32), u64>,
    turn: TypedFunc<(u32, u32), u64>,
    /// Where messages go in, and how long they may be there.
    inbound: (u32, usize),
}

impl<T: Imports> JsInstance<T> {
    /// Instantiates the engine in a store that has its limits set.
    pub(crate) async fn start(mut store: Store<T>, engine: &JsEngine<T>) -> Result<Self> {
        let instance = engine.pre().instantiate_async(&mut store).await?;
        let memory = instance
            .get_memory(&mut store, "memory")
            .ok_or_else(|| wasmtime::Error::msg("the engine has no memory"))?;
        Ok(Self {
            alloc: instance.get_typed_func(&mut store, "marram_alloc")?,
            load: instance.get_typed_func(&mut store, "marram_load")?,
            turn: instance.get_typed_func(&mut store, "marram_turn")?,
            store,
            memory,
            inbound: (0, 0),
        })
    }

    /// The caller's side of the store: limits, clocks.
    pub(crate) fn store(&mut self) -> &mut Store<T> {
        &mut self.store
    }

    /// Evaluates the script. Answers with its compiled form, empty when it came compiled, or with what is wrong with it.
    pub(crate) async fn load(&mut self, script: &Script<'_>) -> Result<std::result::Result<Vec<u8>, ScriptError>> {
        let message = encode(&Load {
            file: script.file,
            code: script.code,
            env: script.env.to_vec(),
            memory_bytes_max: script.memory_bytes_max,
        });
        let load = self.load.clone();
        let loaded = self.call(&load, &message).await?;
        Ok(match decode::<Loaded<'_>>(loaded).map_err(malformed)? {
            Loaded::Ready { compiled } => Ok(compiled.to_vec()),
            Loaded::Refused(error) => Err(error),
        })
    }

    /// Hands over a batch of events, gives back the batch of actions.
    pub(crate) async fn turn(&mut self, events: &[u8]) -> Result<&[u8]> {
        let turn = self.turn.clone();
        self.call(&turn, events).await
    }

    async fn call(&mut self, export: &TypedFunc<(u32, u32), u64>, message: &[u8]) -> Result<&[u8]> {
        if self.inbound.1 < message.len() {
            let len = u32::try_from(message.len())?;
            self.inbound = (self.alloc.call_async(&mut self.store, len).await?, message.len());
        }
        self.memory.write(&mut self.store, self.inbound.0 as usize, message)?;
        let answer = export.call_async(&mut self.store, (self.inbound.0, message.len() as u32)).await?;
        let (ptr, len) = unpack(answer);
        let end = ptr as usize + len as usize;
        ensure!(end <= self.memory.data_size(&self.store), "the engine's answer lies outside of its memory");
        Ok(&self.memory.data(&self.store)[ptr as usize..end])
    }

    /// What this instance's memory holds beyond the engine's snapshot: see [`Image`].
    pub(crate) fn capture(&mut self, fresh: &mut Self) -> Image {
        Image::between(fresh.memory.data(&fresh.store), self.memory.data(&self.store), self.inbound)
    }

    /// Puts a fresh instance into the state that was captured.
    pub(crate) async fn restore(&mut self, image: &Image) -> Result<()> {
        let missing = image.memory_bytes.saturating_sub(self.memory.data_size(&self.store));
        if missing > 0 {
            self.memory.grow_async(&mut self.store, missing.div_ceil(64 << 10) as u64).await?;
        }
        image.write(self.memory.data_mut(&mut self.store));
        self.inbound = image.inbound;
        Ok(())
    }
}

pub(super) fn malformed(error: marram_js_abi::Malformed) -> wasmtime::Error {
    wasmtime::Error::msg(format!("the engine's answer cannot be read ({error}): it was built from other sources than this binary"))
}
