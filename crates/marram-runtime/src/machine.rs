//! An engine with what is linked for it and the code that was compiled for it. A runtime has two (docs/adr/0016).

use anyhow::Context as _;
use wasmtime::component::{Component, Linker};
use wasmtime::{Engine, Module};

use marram_core::Digest;

use crate::artifact::Artifacts;
use crate::capability;
use crate::config::RuntimeConfig;
use crate::engine::{self, Allocation, Calls};
use crate::state::GuestState;

/// The machinery of one engine.
pub(crate) struct Machine {
    pub(crate) engine: Engine,
    pub(crate) allocation: Allocation,
    pub(crate) linker: Linker<GuestState>,
    /// With what only an engine that comes with Marram may import.
    pub(crate) engine_linker: Linker<GuestState>,
    pub(crate) artifacts: Artifacts,
}

/// Both of them.
pub(crate) struct Machines {
    /// For what calls one function at a time: components of 0.2, and the language engines. A call costs a fifth less here.
    pub(crate) plain: Machine,
    /// For what may suspend in the middle of a call while others go on: components of 0.3.
    pub(crate) concurrent: Machine,
}

impl Machine {
    fn new(calls: Calls, config: &RuntimeConfig) -> anyhow::Result<Self> {
        let (engine, allocation) = engine::build(config.instances_max, calls)?;
        let mut linker = Linker::new(&engine);
        capability::link(&mut linker, calls).map_err(crate::plain)?;
        let mut engine_linker = linker.clone();
        capability::link_engine(&mut engine_linker).map_err(crate::plain)?;
        let artifacts = Artifacts::open(&engine, engine::label(allocation, calls), config)?;
        Ok(Self { engine, allocation, linker, engine_linker, artifacts })
    }
}

impl Machines {
    pub(crate) fn new(config: &RuntimeConfig) -> anyhow::Result<Self> {
        let new = |calls| Machine::new(calls, config).context("the WebAssembly engine cannot start");
        Ok(Self { plain: new(Calls::OneAtATime)?, concurrent: new(Calls::Concurrent)? })
    }

    /// The component of this digest with the machine that runs it: from the cache, or compiled from `source`. Blocks.
    ///
    /// Nobody says which machine a component needs. The plain one refuses what it cannot run while it parses, before it
    /// compiles anything; what is wrong for both is told by the other.
    pub(crate) fn component(
        &self,
        digest: &Digest,
        source: impl FnOnce() -> anyhow::Result<Vec<u8>>,
    ) -> anyhow::Result<(Component, &Machine)> {
        for machine in [&self.plain, &self.concurrent] {
            if let Some(component) = machine.artifacts.cached_component(digest) {
                return Ok((component, machine));
            }
        }
        let bytes = source()?;
        match self.plain.artifacts.component(digest, || Ok(bytes.clone())) {
            Ok(component) => Ok((component, &self.plain)),
            Err(_) => Ok((self.concurrent.artifacts.component(digest, || Ok(bytes))?, &self.concurrent)),
        }
    }

    /// A language engine that is a core module.
    pub(crate) fn module(
        &self,
        digest: &Digest,
        source: impl FnOnce() -> anyhow::Result<Vec<u8>>,
    ) -> anyhow::Result<Module> {
        self.plain.artifacts.module(digest, source)
    }

    /// Both engines, for the tick.
    pub(crate) fn engines(&self) -> [Engine; 2] {
        [self.plain.engine.clone(), self.concurrent.engine.clone()]
    }

    /// Removes compiled code whose component is not `kept`, and returns its bytes. Blocks for as long as the disk takes.
    pub(crate) fn collect(&self, kept: impl Fn(&Digest) -> bool) -> std::io::Result<u64> {
        let engines = [self.plain.artifacts.compatibility(), self.concurrent.artifacts.compatibility()];
        self.plain.artifacts.collect(&engines, kept)
    }
}
