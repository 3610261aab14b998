//! A loaded script as a memory: a module without code, whose memory the engine's code imports.
//!
//! Between two turns an instance of the engine is nothing but its memory. So a fresh instance becomes a loaded one by
//! starting with that: no parsing, no compiling, and wasmtime maps the pages copy-on-write, so that only those are copied
//! that a request writes to.
//!
//! It holds the function's secrets: it is in no file system, and goes where the process's memory goes.

use std::fs::File;

use wasm_encoder::{ConstExpr, DataSection, ExportKind, ExportSection, MemorySection, MemoryType};
use wasmtime::{AsContextMut, Engine, Instance, Memory, Module, Result};

use super::scatter::Scatter;

/// Pages of zeros are left out of a module.
const PAGE_BYTES: usize = 4096;
const WASM_PAGE_BYTES: usize = 64 << 10;

/// Bound to the engine's code: with other code it is garbage inside of the sandbox.
pub(crate) struct Image {
    module: Module,
    /// Only worth its while where each request gets an instance of its own.
    scatter: Option<Scatter>,
    /// Where messages go in, and how long they may be there.
    pub(super) inbound: (u32, usize),
}

impl Image {
    /// The engine's memory as it was built.
    pub(super) fn booted(module: Module) -> Self {
        Self { module, scatter: None, inbound: (0, 0) }
    }

    /// From what [`encode`] gave. `fresh` says that its instances serve one request each.
    pub(super) fn compile(engine: &Engine, module: &[u8], inbound: (u32, usize), fresh: bool) -> Result<Self> {
        let code = engine.precompile_module(module)?;
        Ok(Self { module: load(engine, &code)?, scatter: fresh.then(Scatter::default), inbound })
    }

    /// A memory of its own in this state.
    pub(super) async fn map<T: Send + 'static>(&self, mut store: impl AsContextMut<Data = T>) -> Result<Memory> {
        let instance = Instance::new_async(&mut store, &self.module, &[]).await?;
        let memory = instance.get_memory(&mut store, "memory");
        let memory = memory.ok_or_else(|| wasmtime::Error::msg("the engine has no memory"))?;
        if let Some(scatter) = &self.scatter {
            scatter.touch(memory.data_mut(&mut store));
        }
        Ok(memory)
    }

    /// Looks at a memory after a turn, for the instances to come.
    pub(super) fn learn(&self, memory: &[u8]) {
        if let Some(scatter) = &self.scatter {
            scatter.learn(memory);
        }
    }
}

/// A module that exports `memory`, as it is now.
pub(super) fn encode(memory: &[u8]) -> Vec<u8> {
    let mut memories = MemorySection::new();
    memories.memory(MemoryType {
        minimum: memory.len().div_ceil(WASM_PAGE_BYTES) as u64,
        maximum: None,
        memory64: false,
        shared: false,
        page_size_log2: None,
    });
    let mut exports = ExportSection::new();
    exports.export("memory", ExportKind::Memory, 0);
    let mut data = DataSection::new();
    for (at, bytes) in runs(memory) {
        // The memory is one of 32 bits: the bits are the address.
        data.active(0, &ConstExpr::i32_const((at as u32).cast_signed()), bytes.iter().copied());
    }
    let mut module = wasm_encoder::Module::new();
    module.section(&memories).section(&exports).section(&data);
    module.finish()
}

/// Pages that lie together and are not all zeros.
fn runs(memory: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let is_zero = |page: usize| memory[page * PAGE_BYTES..].iter().take(PAGE_BYTES).all(|byte| *byte == 0);
    let pages = memory.len().div_ceil(PAGE_BYTES);
    let mut next = 0;
    std::iter::from_fn(move || {
        let first = (next..pages).find(|page| !is_zero(*page))?;
        let end = (first..pages).find(|page| is_zero(*page)).unwrap_or(pages);
        next = end;
        let (at, end) = (first * PAGE_BYTES, (end * PAGE_BYTES).min(memory.len()));
        Some((at, &memory[at..end]))
    })
}

/// From a file without a name, which is mapped: there is one copy of it, whatever the number of instances.
#[allow(unsafe_code, reason = "the code was compiled by this process a moment ago")]
fn load(engine: &Engine, code: &[u8]) -> Result<Module> {
    // SAFETY: both are given what `Engine::precompile_module` has just made; the file is sealed.
    unsafe {
        match unnamed_file(code) {
            Ok(file) => Module::deserialize_open_file(engine, file),
            Err(error) => {
                tracing::debug!(%error, "a script's memory cannot be mapped from a file: it is kept twice");
                Module::deserialize(engine, code)
            }
        }
    }
}

/// A file in memory that nobody can change any more.
#[cfg(target_os = "linux")]
fn unnamed_file(bytes: &[u8]) -> std::io::Result<File> {
    use std::io::Write as _;

    use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};

    let mut file = File::from(memfd_create("marram-script", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?);
    file.write_all(bytes)?;
    fcntl_add_seals(&file, SealFlags::GROW | SealFlags::SHRINK | SealFlags::WRITE | SealFlags::SEAL)?;
    Ok(file)
}

#[cfg(not(target_os = "linux"))]
fn unnamed_file(_: &[u8]) -> std::io::Result<File> {
    Err(std::io::ErrorKind::Unsupported.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_memory_comes_back_as_it_was_and_nobody_else_sees_what_is_written() {
        let mut config = wasmtime::Config::new();
        config.allocation_strategy(wasmtime::PoolingAllocationConfig::new());
        let engine = Engine::new(&config).expect("there is room for a pool");
        let mut memory = vec![0; 3 * WASM_PAGE_BYTES];
        memory[5] = 1;
        memory[PAGE_BYTES..3 * PAGE_BYTES].fill(2);
        *memory.last_mut().expect("it is not empty") = 3;
        assert_eq!(
            runs(&memory).map(|(at, run)| (at, run.len())).collect::<Vec<_>>(),
            [(0, 3 * PAGE_BYTES), (memory.len() - PAGE_BYTES, PAGE_BYTES)]
        );
        let image = Image::compile(&engine, &encode(&memory), (16, 32), true).expect("it compiles");
        for _ in 0..3 {
            // A slot of the pool that another instance has used.
            let mut store = wasmtime::Store::new(&engine, ());
            let mapped = pollster(image.map(&mut store)).expect("it maps");
            assert!(mapped.data(&store) == memory);
            mapped.data_mut(&mut store).fill(9);
        }
    }

    fn pollster<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().expect("a runtime").block_on(future)
    }
}
