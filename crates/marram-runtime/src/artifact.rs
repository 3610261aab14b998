//! The ahead-of-time cache: a component is compiled once, by this node, and mapped from a file after that.
//!
//! A file is native code, so it is believed only with its authentication code: a keyed BLAKE3 hash over the file's name
//! and content, under a key that this node made. Anything else is compiled again.

use std::fs;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::plain;
use anyhow::Context as _;
use marram_core::Digest;
use wasmtime::component::Component;
use wasmtime::{Engine, Module};

/// Compiled code on disk, by digest of what it was compiled from.
pub(crate) struct Artifacts {
    engine: Engine,
    dir: PathBuf,
    key: [u8; 32],
    /// Version, settings and processor: code of another engine is another file.
    compatibility: u64,
    /// One compilation at a time: it uses every core by itself.
    compiling: Mutex<()>,
}

impl Artifacts {
    pub(crate) fn open(engine: &Engine, dir: &Path, key: [u8; 32]) -> anyhow::Result<Self> {
        fs::create_dir_all(dir).with_context(|| format!("the code cache {} cannot be made", dir.display()))?;
        let mut hasher = DefaultHasher::new();
        engine.precompile_compatibility_hash().hash(&mut hasher);
        Ok(Self {
            engine: engine.clone(),
            dir: dir.to_owned(),
            key,
            compatibility: hasher.finish(),
            compiling: Mutex::new(()),
        })
    }

    /// The component of this digest, from the cache, or compiled from `source` and kept. Blocks.
    pub(crate) fn component(
        &self,
        digest: &Digest,
        source: impl FnOnce() -> anyhow::Result<Vec<u8>>,
    ) -> anyhow::Result<Component> {
        let file = self.file(digest, "component");
        if let Some(component) = self.mapped(&file, map_component) {
            return Ok(component);
        }
        let _turn = self.compiling.lock().unwrap_or_else(PoisonError::into_inner);
        // Somebody may have compiled it while this thread waited for its turn.
        if let Some(component) = self.mapped(&file, map_component) {
            return Ok(component);
        }
        let component = Component::new(&self.engine, source()?).map_err(plain)?;
        self.keep(&file, &component.serialize().map_err(plain)?);
        // The mapped file shares its pages with the page cache and gives them back when it is idle.
        Ok(self.mapped(&file, map_component).unwrap_or(component))
    }

    /// The same for a core module: a language engine that comes with Marram.
    pub(crate) fn module(
        &self,
        digest: &Digest,
        source: impl FnOnce() -> anyhow::Result<Vec<u8>>,
    ) -> anyhow::Result<Module> {
        let file = self.file(digest, "module");
        if let Some(module) = self.mapped(&file, map_module) {
            return Ok(module);
        }
        let _turn = self.compiling.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(module) = self.mapped(&file, map_module) {
            return Ok(module);
        }
        let module = Module::new(&self.engine, source()?).map_err(plain)?;
        self.keep(&file, &module.serialize().map_err(plain)?);
        Ok(self.mapped(&file, map_module).unwrap_or(module))
    }

    fn file(&self, digest: &Digest, kind: &str) -> PathBuf {
        self.dir.join(format!("{}-{:016x}.{kind}", digest.hex(), self.compatibility))
    }

    /// Checks a file of the cache and maps it. `None` if it is not there, or not what this node wrote.
    fn mapped<T>(&self, file: &Path, map: fn(&Engine, &Path) -> wasmtime::Result<T>) -> Option<T> {
        let code = fs::read(file).ok()?;
        let mac = fs::read(mac_file(file)).unwrap_or_default();
        let expected = self.mac(file, &code);
        if <[u8; 32]>::try_from(mac.as_slice()).map(blake3::Hash::from_bytes).ok() != Some(expected) {
            tracing::warn!(file = %file.display(), "a file of the code cache is not what this node wrote: compiling again");
            return None;
        }
        map(&self.engine, file)
            .inspect_err(|error| tracing::warn!(file = %file.display(), %error, "a file of the code cache cannot be used: compiling again"))
            .ok()
    }

    /// Writes a file and then its authentication code. A cache that cannot be written costs time and nothing else.
    fn keep(&self, file: &Path, code: &[u8]) {
        let written =
            write_whole(file, code).and_then(|()| write_whole(&mac_file(file), self.mac(file, code).as_bytes()));
        if let Err(error) = written {
            tracing::warn!(file = %file.display(), %error, "the code cache cannot be written: this will be compiled again");
        }
    }

    fn mac(&self, file: &Path, code: &[u8]) -> blake3::Hash {
        let name = file.file_name().map(|name| name.as_encoded_bytes()).unwrap_or_default();
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        hasher.update(&(name.len() as u64).to_le_bytes()).update(name).update(code);
        hasher.finalize()
    }
}

fn mac_file(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".mac");
    name.into()
}

/// A reader sees the whole file or none. Not synced: after a power cut the authentication code says what is whole.
fn write_whole(file: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let partial = file.with_extension(format!("{}.partial", std::process::id()));
    fs::File::create(&partial)?.write_all(bytes)?;
    fs::rename(&partial, file)
}

#[allow(unsafe_code, reason = "the file was compiled and authenticated by this node")]
fn map_component(engine: &Engine, file: &Path) -> wasmtime::Result<Component> {
    // SAFETY: the caller has checked the file's authentication code, so that it is what `Component::serialize` gave.
    unsafe { Component::deserialize_file(engine, file) }
}

#[allow(unsafe_code, reason = "the file was compiled and authenticated by this node")]
fn map_module(engine: &Engine, file: &Path) -> wasmtime::Result<Module> {
    // SAFETY: the caller has checked the file's authentication code, so that it is what `Module::serialize` gave.
    unsafe { Module::deserialize_file(engine, file) }
}
