//! One realm of JavaScript: a store, and an instance of the engine in it.

use std::sync::Arc;

use marram_core::Failure;
use marram_js_abi::{Code, Load, Loaded, ScriptError, decode, encode, unpack};
use wasmtime::{Extern, Memory, Result, Store, TypedFunc, WasmParams, WasmResults};

use super::engine::{JsEngine, State};
use super::image::{self, Image};

/// A function's script and what it may see.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Script<'a> {
    /// The file's name, as the developer knows it.
    pub(crate) file: &'a str,
    pub(crate) code: Code<'a>,
    /// The properties of `env`.
    pub(crate) env: &'a [(&'a str, &'a str)],
    /// What `env` offers besides ([`marram_js_abi::Load::granted`]).
    pub(crate) granted: &'a [&'a str],
    /// JavaScript throws "out of memory" past this; less than the store's own limit, which ends the instance.
    pub(crate) memory_bytes_max: u32,
}

/// An instance of the engine. A trap leaves it unusable.
pub(crate) struct JsInstance<T: 'static> {
    store: Store<T>,
    exports: Exports,
    image: Arc<Image>,
    /// Where messages go in, and how long they may be there.
    inbound: (u32, usize),
}

struct Exports {
    memory: Memory,
    alloc: TypedFunc<u32, u32>,
    load: TypedFunc<(u32, u32), u64>,
    turn: TypedFunc<(u32, u32), u64>,
}

impl Exports {
    async fn of<T: State>(store: &mut Store<T>, engine: &JsEngine<T>, image: &Image) -> Result<Self> {
        let (memory, [alloc, load, turn]) = engine.instantiate(store, image).await?;
        Ok(Self { memory, alloc: typed(store, &alloc)?, load: typed(store, &load)?, turn: typed(store, &turn)? })
    }
}

fn typed<T, P: WasmParams, R: WasmResults>(store: &Store<T>, export: &Extern) -> Result<TypedFunc<P, R>> {
    let Extern::Func(function) = export else { wasmtime::bail!("the engine exports no function") };
    function.typed(store)
}

impl<T: State> JsInstance<T> {
    /// Instantiates the engine, in the state of an image, in a store that has its limits set.
    pub(crate) async fn start(
        mut store: Store<T>,
        engine: &JsEngine<T>,
        image: &Arc<Image>,
    ) -> std::result::Result<Self, Failure> {
        match Exports::of(&mut store, engine, image).await {
            Ok(exports) => Ok(Self { store, exports, image: Arc::clone(image), inbound: image.inbound }),
            Err(error) => Err(store.data().failure(error)),
        }
    }

    /// The caller's side of the store: limits, clocks.
    pub(crate) fn state(&self) -> &T {
        self.store.data()
    }

    /// Evaluates the script. Answers with its compiled form, empty when it came compiled, or with what is wrong with it.
    pub(crate) async fn load(&mut self, script: &Script<'_>) -> Result<std::result::Result<Vec<u8>, ScriptError>> {
        let message = encode(&Load {
            file: script.file,
            code: script.code,
            env: script.env.to_vec(),
            granted: script.granted.to_vec(),
            memory_bytes_max: script.memory_bytes_max,
        });
        let load = self.exports.load.clone();
        let loaded = self.ask(&load, &message).await?;
        Ok(match decode::<Loaded<'_>>(self.answer(loaded)?).map_err(malformed)? {
            Loaded::Ready { compiled } => Ok(compiled.to_vec()),
            Loaded::Refused(error) => Err(error),
        })
    }

    /// Hands over a batch of events, gives back the batch of actions.
    pub(crate) async fn turn(&mut self, events: &[u8]) -> Result<&[u8]> {
        let turn = self.exports.turn.clone();
        let answer = self.ask(&turn, events).await?;
        self.image.learn(self.exports.memory.data(&self.store));
        self.answer(answer)
    }

    /// Calls an export with a message; what it gives back says where the answer is.
    async fn ask(&mut self, export: &TypedFunc<(u32, u32), u64>, message: &[u8]) -> Result<u64> {
        if self.inbound.1 < message.len() {
            let len = u32::try_from(message.len())?;
            self.inbound = (self.exports.alloc.call_async(&mut self.store, len).await?, message.len());
        }
        self.exports.memory.write(&mut self.store, self.inbound.0 as usize, message)?;
        export.call_async(&mut self.store, (self.inbound.0, message.len() as u32)).await
    }

    fn answer(&self, packed: u64) -> Result<&[u8]> {
        let (ptr, len) = unpack(packed);
        let memory = self.exports.memory.data(&self.store);
        let answer = (ptr as usize).checked_add(len as usize).and_then(|end| memory.get(ptr as usize..end));
        answer.ok_or_else(|| wasmtime::Error::msg("the engine's answer lies outside of its memory"))
    }

    /// What others start with to be where this one is, `fresh` if for one request each. It has to be between two turns.
    /// Blocks for some milliseconds, and for others that do the same: it takes a few times the memory.
    pub(crate) fn capture(self, engine: &JsEngine<T>, fresh: bool) -> Result<Image> {
        let _turn = engine.capturing();
        let (module, inbound) = (image::encode(self.exports.memory.data(&self.store)), self.inbound);
        drop(self);
        Image::compile(engine.engine(), &module, inbound, fresh)
    }
}

pub(super) fn malformed(error: marram_js_abi::Malformed) -> wasmtime::Error {
    wasmtime::Error::msg(format!(
        "the engine's answer cannot be read ({error}): it was built from other sources than this binary"
    ))
}
