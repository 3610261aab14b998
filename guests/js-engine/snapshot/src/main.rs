//! Boots the JavaScript engine once and writes the module back with its memory as it is then:
//! `js-engine-snapshot <module> <snapshot>`.

use wasmparser::ValType;
use wasmtime::error::Context;
use wasmtime::{Caller, Engine, Extern, Instance, Linker, Module, Result, Store, Val, bail};
use wasmtime_wizer::{InstanceState, SnapshotVal, Wizer};

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [input, output] = arguments.as_slice() else { bail!("usage: js-engine-snapshot <module> <snapshot>") };
    let wasm = std::fs::read(input).with_context(|| format!("reading {input}"))?;
    let snapshot = snapshot(&wasm)?;
    std::fs::write(output, snapshot).with_context(|| format!("writing {output}"))
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
