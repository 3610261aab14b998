//! The ahead-of-time cache: a component is compiled once, by this node, and mapped from a file after that.
//!
//! A file is native code, so it is believed only with its authentication code: a keyed BLAKE3 hash over the file's name
//! and content, under a key that this node made. Anything else is compiled again.

use std::fs;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::compiler::{Compiler, Input};
use crate::config::RuntimeConfig;
use crate::engines;
use crate::functions::FunctionsFile;
use crate::plain;
use anyhow::Context as _;
use marram_core::Digest;
use wasmtime::component::Component;
use wasmtime::{Engine, Module};

/// The file of single functions, beside the components.
const FUNCTIONS: &str = "functions";

/// Compiled code on disk, by digest of what it was compiled from.
pub(crate) struct Artifacts {
    engine: Engine,
    /// What the engine is called to the compiler.
    label: &'static str,
    compiler: Compiler,
    functions: Option<FunctionsFile>,
    dir: PathBuf,
    key: [u8; 32],
    /// Version, settings and processor: code of another engine is another file.
    compatibility: u64,
    /// One compilation at a time: it uses every core by itself.
    compiling: Mutex<()>,
}

impl Artifacts {
    pub(crate) fn open(engine: &Engine, label: &'static str, config: &RuntimeConfig) -> anyhow::Result<Self> {
        let dir = config.cache_dir.as_path();
        own_dir(dir).with_context(|| format!("the code cache {} cannot be made", dir.display()))?;
        let mut hasher = DefaultHasher::new();
        engine.precompile_compatibility_hash().hash(&mut hasher);
        Ok(Self {
            engine: engine.clone(),
            label,
            compiler: config.compiler.clone(),
            functions: config.keeps_functions.then(|| FunctionsFile::new(dir.join(FUNCTIONS), &config.cache_key)),
            dir: dir.to_owned(),
            key: config.cache_key,
            compatibility: hasher.finish(),
            compiling: Mutex::new(()),
        })
    }

    /// Which engine's code this is, in the names of its files.
    pub(crate) fn compatibility(&self) -> u64 {
        self.compatibility
    }

    /// The component of this digest, if it is in the cache. Blocks.
    pub(crate) fn cached_component(&self, digest: &Digest) -> Option<Component> {
        self.mapped(&self.file(digest, Input::Component.label()), map_component)
    }

    /// The component of this digest, from the cache, or compiled from `source` and kept. Blocks.
    pub(crate) fn component(
        &self,
        digest: &Digest,
        source: impl FnOnce() -> anyhow::Result<Vec<u8>>,
    ) -> anyhow::Result<Component> {
        self.artifact(digest, Input::Component, source, map_component, read_component)
    }

    /// The same for a core module: a language engine that comes with Marram.
    pub(crate) fn module(
        &self,
        digest: &Digest,
        source: impl FnOnce() -> anyhow::Result<Vec<u8>>,
    ) -> anyhow::Result<Module> {
        self.artifact(digest, Input::Module, source, map_module, read_module)
    }

    fn artifact<T>(
        &self,
        digest: &Digest,
        input: Input,
        source: impl FnOnce() -> anyhow::Result<Vec<u8>>,
        map: fn(&Engine, &Path) -> wasmtime::Result<T>,
        read: fn(&Engine, &[u8]) -> wasmtime::Result<T>,
    ) -> anyhow::Result<T> {
        let file = self.file(digest, input.label());
        if let Some(found) = self.mapped(&file, map) {
            return Ok(found);
        }
        let _turn = self.compiling.lock().unwrap_or_else(PoisonError::into_inner);
        // Somebody may have compiled it while this thread waited for its turn.
        if let Some(found) = self.mapped(&file, map) {
            return Ok(found);
        }
        // Those of a language engine would take all of the room, and it is compiled once.
        let functions = self.functions.as_ref().filter(|_| engines::all().all(|engine| engine.digest != *digest));
        if let Some(language) = engines::language_of(digest) {
            tracing::info!("compiling the {language} engine, once for this node: this takes a while");
        }
        let code = self.compiler.compile(&self.engine, self.label, input, &source()?, functions)?;
        self.keep(&file, &code);
        // The mapped file shares its pages with the page cache and gives them back when it is idle.
        self.mapped(&file, map).map_or_else(|| read(&self.engine, &code).map_err(plain), Ok)
    }

    /// Removes the code of what is not `kept`, and code of other engines than `engines`. Returns its bytes. Blocks. What is
    /// mapped stays mapped.
    pub(crate) fn collect(&self, engines: &[u64], kept: impl Fn(&Digest) -> bool) -> std::io::Result<u64> {
        let mut bytes = 0;
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            let name = entry.file_name();
            // Anything else in there is not ours to touch.
            let Some((digest, compatibility)) = name.to_str().and_then(whose) else { continue };
            let being_written = name.to_str().is_some_and(|name| name.ends_with(&partial_extension()));
            let whole = !name.to_str().is_some_and(|name| name.ends_with(".partial"));
            if being_written || (whole && engines.contains(&compatibility) && kept(&digest)) {
                continue;
            }
            let size = entry.metadata().map_or(0, |metadata| metadata.len());
            match fs::remove_file(entry.path()) {
                Ok(()) => bytes += size,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(bytes)
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

/// Of which component, and for which engine, a file of the cache is.
fn whose(name: &str) -> Option<(Digest, u64)> {
    let (hex, rest) = name.split_once('-')?;
    let (compatibility, _) = rest.split_once('.')?;
    Some((format!("sha256:{hex}").parse().ok()?, u64::from_str_radix(compatibility, 16).ok()?))
}

fn mac_file(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".mac");
    name.into()
}

/// What this process is writing; what another one left behind was cut short.
fn partial_extension() -> String {
    format!("{}.partial", std::process::id())
}

/// A reader sees the whole file or none. Not synced: after a power cut the authentication code says what is whole.
pub(crate) fn write_whole(file: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let partial = file.with_extension(partial_extension());
    let mut writing = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&partial)?;
    writing.write_all(bytes)?;
    fs::rename(&partial, file)
}

/// Makes a folder that is its owner's alone, also where an earlier version made it.
fn own_dir(dir: &Path) -> std::io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    if fs::metadata(dir)?.permissions().mode() & 0o077 > 0 {
        fs::set_permissions(dir, fs::Permissions::from_mode(0o700))?;
    }
    Ok(())
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

#[allow(unsafe_code, reason = "the code was compiled by this node")]
fn read_component(engine: &Engine, code: &[u8]) -> wasmtime::Result<Component> {
    // SAFETY: the bytes are what this process, or the child that it started for this, has just compiled.
    unsafe { Component::deserialize(engine, code) }
}

#[allow(unsafe_code, reason = "the code was compiled by this node")]
fn read_module(engine: &Engine, code: &[u8]) -> wasmtime::Result<Module> {
    // SAFETY: as for a component.
    unsafe { Module::deserialize(engine, code) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(dir: &Path, key: [u8; 32]) -> anyhow::Result<Artifacts> {
        Artifacts::open(&Engine::default(), "test", &RuntimeConfig::new(dir.to_owned(), key))
    }

    /// Whether the component of `digest` is compiled, and not taken from the cache.
    fn is_compiled(artifacts: &Artifacts, digest: &Digest) -> bool {
        let mut compiled = false;
        let found = artifacts.component(digest, || {
            compiled = true;
            Ok(b"(component)".to_vec())
        });
        assert!(found.is_ok());
        compiled
    }

    #[test]
    fn only_what_this_node_wrote_is_believed() {
        let dir = tempfile::tempdir().expect("a folder");
        let artifacts = open(dir.path(), [7; 32]).expect("it opens");
        let (one, two) = (Digest::of(b"one"), Digest::of(b"two"));
        assert!(is_compiled(&artifacts, &one) && !is_compiled(&artifacts, &one));
        let file = artifacts.file(&one, "component");
        let mut code = fs::read(&file).expect("it is there");
        // Code of one component in the place of another's, with its own authentication code.
        fs::copy(&file, artifacts.file(&two, "component")).expect("it can be written");
        fs::copy(mac_file(&file), mac_file(&artifacts.file(&two, "component"))).expect("it can be written");
        assert!(is_compiled(&artifacts, &two) && !is_compiled(&artifacts, &two));
        // One bit.
        let at = code.len() / 2;
        code[at] ^= 1;
        fs::write(&file, &code).expect("it can be written");
        assert!(is_compiled(&artifacts, &one) && !is_compiled(&artifacts, &one));
        fs::remove_file(mac_file(&file)).expect("it is there");
        assert!(is_compiled(&artifacts, &one));
        // What another node wrote.
        let other = open(dir.path(), [8; 32]).expect("it opens");
        assert!(is_compiled(&other, &one));
    }

    #[test]
    fn code_goes_with_its_component() {
        let dir = tempfile::tempdir().expect("a folder");
        let artifacts = open(dir.path(), [7; 32]).expect("it opens");
        let (kept, gone) = (Digest::of(b"kept"), Digest::of(b"gone"));
        for digest in [&kept, &gone] {
            artifacts.component(digest, || Ok(b"(component)".to_vec())).expect("it compiles");
        }
        let of_another_engine =
            artifacts.file(&kept, "component").with_file_name(format!("{}-00ff.component", kept.hex()));
        let left_by_a_crash = artifacts.file(&kept, "component").with_extension("0.partial");
        let not_ours = dir.path().join("README");
        for file in [&of_another_engine, &left_by_a_crash, &not_ours] {
            fs::write(file, "12345").expect("it can be written");
        }
        assert!(
            artifacts.collect(&[artifacts.compatibility], |digest| *digest == kept).expect("it can be removed") > 10
        );
        let files = fs::read_dir(dir.path()).expect("it lists").count();
        assert_eq!(files, 3, "code, its authentication code, and what is not ours");
        let again = artifacts.component(&kept, || anyhow::bail!("it is not compiled again"));
        assert!(again.is_ok() && not_ours.exists());
        assert_eq!(artifacts.collect(&[artifacts.compatibility], |_| true).expect("nothing to remove"), 0);
    }
}
