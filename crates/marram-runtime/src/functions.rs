//! Compiled functions of earlier compilations, for who compiles nearly the same again: `marram up`, after each save.
//!
//! Cranelift finds a function by a hash of its code and of every setting, so that what is found is what it would make. The
//! file is native code, so it is believed only with its authentication code, as the code cache is ([`crate::artifact`]).

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use wasmtime::CacheStore;

use crate::artifact::write_whole;

/// What is kept of earlier compilations. An HTTP function in Rust has about 1 MB.
const KEPT_BYTES_MAX: usize = 16 << 20;
const MAC_BYTES: usize = 32;

/// Sets the key of this file apart from that of the code cache, which it is made from.
const KEY_CONTEXT: &str = "marram 2026-11-27 compiled functions";

/// Where compiled functions are kept, and the key of the file's authentication code.
#[derive(Clone)]
pub(crate) struct FunctionsFile {
    pub(crate) path: PathBuf,
    pub(crate) key: [u8; 32],
}

impl FunctionsFile {
    /// `cache_key` is that of the code cache.
    pub(crate) fn new(path: PathBuf, cache_key: &[u8; 32]) -> Self {
        Self { path, key: blake3::derive_key(KEY_CONTEXT, cache_key) }
    }
}

/// The functions of a file, and those that are compiled now.
#[derive(Debug, Default)]
pub(crate) struct Functions {
    old: HashMap<Box<[u8]>, Old>,
    compiled: Mutex<HashMap<Vec<u8>, Vec<u8>>>,
}

#[derive(Debug)]
struct Old {
    code: Box<[u8]>,
    used: AtomicBool,
}

impl FunctionsFile {
    /// What is in the file: nothing, if it is not what this node wrote.
    pub(crate) fn read(&self) -> Functions {
        let Ok(file) = fs::read(&self.path) else { return Functions::default() };
        let Some((mac, bytes)) = file.split_first_chunk::<MAC_BYTES>() else { return Functions::default() };
        if blake3::keyed_hash(&self.key, bytes) != *mac {
            return Functions::default();
        }
        let entries: Vec<(&[u8], &[u8])> = postcard::from_bytes(bytes).unwrap_or_default();
        let old = |(key, code): (&[u8], &[u8])| (key.into(), Old { code: code.into(), used: AtomicBool::new(false) });
        Functions { old: entries.into_iter().map(old).collect(), compiled: Mutex::default() }
    }

    /// Keeps what was used, and of the rest what there is room for.
    pub(crate) fn write(&self, functions: &Functions) -> std::io::Result<()> {
        let new = functions.compiled();
        if new.is_empty() {
            return Ok(());
        }
        let was_used = |used| functions.old.iter().filter(move |(_, old)| old.used.load(Ordering::Relaxed) == used);
        let old = was_used(true).chain(was_used(false)).map(|(key, old)| (&**key, &*old.code));
        let mut bytes = 0;
        let kept: Vec<(&[u8], &[u8])> = new
            .iter()
            .map(|(key, code)| (key.as_slice(), code.as_slice()))
            .chain(old)
            .take_while(|(key, code)| {
                bytes += key.len() + code.len();
                bytes <= KEPT_BYTES_MAX
            })
            .collect();
        let kept = postcard::to_allocvec(&kept).map_err(std::io::Error::other)?;
        let mac = blake3::keyed_hash(&self.key, &kept);
        write_whole(&self.path, &[mac.as_bytes().as_slice(), &kept].concat())
    }
}

impl Functions {
    fn compiled(&self) -> std::sync::MutexGuard<'_, HashMap<Vec<u8>, Vec<u8>>> {
        self.compiled.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl CacheStore for Functions {
    fn get(&self, key: &[u8]) -> Option<Cow<'_, [u8]>> {
        let old = self.old.get(key)?;
        old.used.store(true, Ordering::Relaxed);
        Some(Cow::Borrowed(&old.code))
    }

    fn insert(&self, key: &[u8], code: Vec<u8>) -> bool {
        self.compiled().insert(key.to_vec(), code);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_used_stays_and_only_what_this_node_wrote_is_believed() {
        let dir = tempfile::tempdir().expect("a folder");
        let file = FunctionsFile { path: dir.path().join("functions"), key: [7; 32] };
        let large = vec![1; KEPT_BYTES_MAX / 2];
        let first = file.read();
        for key in [b"used", b"idle"] {
            assert!(first.get(key).is_none());
            first.insert(key, large[..large.len() - 8].to_vec());
        }
        file.write(&first).expect("it can be written");
        let second = file.read();
        assert_eq!(second.get(b"used").as_deref(), Some(&large[8..]));
        second.insert(b"more", vec![2; 100]);
        file.write(&second).expect("it can be written");
        let third = file.read();
        assert!(third.get(b"used").is_some() && third.get(b"more").is_some() && third.get(b"idle").is_none());
        assert!(FunctionsFile { key: [8; 32], ..file.clone() }.read().get(b"used").is_none(), "another node's");
        let mut bytes = fs::read(&file.path).expect("it is there");
        bytes[100] ^= 1;
        fs::write(&file.path, bytes).expect("it can be written");
        assert!(file.read().get(b"used").is_none());
    }
}
