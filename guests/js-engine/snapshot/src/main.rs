//! Boots the JavaScript engine once and writes it back as two modules: `js-engine-snapshot <module> <code> <memory>`.
//!
//! The memory as it is then is a module of its own, without code; the engine's code imports it. So a node makes a memory for
//! each script, which is mapped copy-on-write, and compiles the code once.

use std::ops::Range;

use wasm_encoder::reencode::{Reencode, RoundtripReencoder};
use wasm_encoder::{ExportKind, ExportSection, ImportSection, Module as Encoded, RawSection, SectionId};
use wasmparser::{Parser, Payload, ValType};
use wasmtime::error::Context;
use wasmtime::{Caller, Engine, Extern, Instance, Linker, Module, Result, Store, Val, bail};
use wasmtime_wizer::{InstanceState, SnapshotVal, Wizer};

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [input, code, memory] = arguments.as_slice() else {
        bail!("usage: js-engine-snapshot <module> <code> <memory>")
    };
    let wasm = std::fs::read(input).with_context(|| format!("reading {input}"))?;
    let parts = split(&snapshot(&wasm)?)?;
    for (file, bytes) in [(code, parts.code), (memory, parts.memory)] {
        Module::validate(&Engine::default(), &bytes).with_context(|| format!("what would be {file}"))?;
        std::fs::write(file, bytes).with_context(|| format!("writing {file}"))?;
    }
    Ok(())
}

struct Parts {
    code: Vec<u8>,
    memory: Vec<u8>,
}

/// The module's memory and what is in it, exported as `memory`, and the rest, which imports it as `marram` `memory`.
fn split(snapshot: &[u8]) -> Result<Parts> {
    let (mut code, mut memory) = (Encoded::new(), Encoded::new());
    let raw = |id: u8, range: Range<usize>| RawSection { id, data: &snapshot[range] };
    let mut memory_type = None;
    for payload in Parser::new(0).parse_all(snapshot) {
        if let Payload::MemorySection(memories) = payload? {
            let all: Vec<_> = memories.into_iter().collect::<Result<_, _>>()?;
            let [one] = all[..] else { bail!("the engine has {} memories", all.len()) };
            memory_type = Some(one);
        }
    }
    let Some(memory_type) = memory_type else { bail!("the engine has no memory") };
    for payload in Parser::new(0).parse_all(snapshot) {
        let payload = payload?;
        match &payload {
            Payload::ImportSection(section) => {
                let mut imports = ImportSection::new();
                let again = &mut RoundtripReencoder;
                again.parse_import_section(&mut imports, section.clone()).map_err(wasmtime::Error::new)?;
                imports.import("marram", "memory", again.memory_type(memory_type).map_err(wasmtime::Error::new)?);
                code.section(&imports);
            }
            Payload::MemorySection(section) => {
                memory.section(&raw(SectionId::Memory.into(), section.range()));
                let mut exports = ExportSection::new();
                exports.export("memory", ExportKind::Memory, 0);
                memory.section(&exports);
            }
            Payload::DataSection(section) => {
                memory.section(&raw(SectionId::Data.into(), section.range()));
            }
            Payload::DataCountSection { .. } => {}
            Payload::End(_) => break,
            _ => {
                if let Some((id, range)) = payload.as_section() {
                    code.section(&raw(id, range));
                }
            }
        }
    }
    Ok(Parts { code: code.finish(), memory: memory.finish() })
}

fn snapshot(wasm: &[u8]) -> Result<Vec<u8>> {
    let mut wizer = Wizer::new();
    wizer.init_func("marram_boot");
    let (context, instrumented) = wizer.instrument(wasm)?;
    let engine = Engine::default();
    let module = Module::new(&engine, &instrumented)?;
    let mut store = Store::new(&engine, ());
    let mut linker = Linker::new(&engine);
    imports(&mut linker)?;
    let instance = linker.instantiate(&mut store, &module)?;
    instance
        .get_typed_func::<(), ()>(&mut store, "marram_boot")
        .and_then(|boot| boot.call(&mut store, ()))
        .context("booting the engine")?;
    pollster::block_on(wizer.snapshot(&context, &mut Booted { store: &mut store, instance }))
}

/// Time stands still while booting, and there is no randomness: what would be frozen must not exist.
fn imports(linker: &mut Linker<()>) -> Result<()> {
    linker.func_wrap("env", "__rquickjs_host_now_us", || 0.0f64)?;
    linker.func_wrap("marram", "monotonic_us", || 0.0f64)?;
    linker.func_wrap("marram", "random", |_: u32, _: u32| -> Result<()> {
        Err(wasmtime::Error::msg("the prelude asks for randomness, which a snapshot would freeze"))
    })?;
    linker.func_wrap("marram", "panic", |mut caller: Caller<'_, ()>, ptr: u32, len: u32| {
        let Some(Extern::Memory(memory)) = caller.get_export("memory") else { return };
        let text = memory.data(&caller).get(ptr as usize..ptr as usize + len as usize).unwrap_or_default();
        eprintln!("js-engine: {}", String::from_utf8_lossy(text));
    })?;
    Ok(())
}

struct Booted<'a> {
    store: &'a mut Store<()>,
    instance: Instance,
}

impl InstanceState for Booted<'_> {
    async fn global_get(&mut self, name: &str, _: ValType) -> SnapshotVal {
        let global = self.instance.get_global(&mut *self.store, name).expect("the instrumented module exports it");
        match global.get(&mut *self.store) {
            Val::I32(value) => SnapshotVal::I32(value),
            Val::I64(value) => SnapshotVal::I64(value),
            Val::F32(value) => SnapshotVal::F32(value),
            Val::F64(value) => SnapshotVal::F64(value),
            other => panic!("the engine has no mutable global of the kind of {other:?}"),
        }
    }

    async fn memory_contents(&mut self, name: &str, contents: impl FnOnce(&[u8]) + Send) {
        let memory = self.instance.get_memory(&mut *self.store, name).expect("the instrumented module exports it");
        contents(memory.data(&*self.store));
    }
}
