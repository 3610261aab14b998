//! The node's own keys: 32 random bytes each, in files that only the owner can read.

use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use zeroize::Zeroizing;

use crate::{StoreError, durable};

/// A key in memory; wiped when dropped.
pub(crate) type Key = Zeroizing<[u8; 32]>;

/// Reads the key file, or makes it if it is not there yet.
pub(crate) fn load_or_create(path: &Path) -> Result<Key, StoreError> {
    match load(path) {
        Err(StoreError::Io { cause, .. }) if cause.kind() == io::ErrorKind::NotFound => {}
        result => return result,
    }
    let mut key = Key::default();
    getrandom::fill(key.as_mut_slice())
        .map_err(|error| StoreError::io("draw randomness for", path, io::Error::other(error.to_string())))?;
    durable::create_private(path, key.as_slice()).map_err(|error| StoreError::io("create", path, error))?;
    Ok(key)
}

/// Reads the key file; fails if it is not there, damaged, or open to others.
pub(crate) fn load(path: &Path) -> Result<Key, StoreError> {
    let bytes = Zeroizing::new(std::fs::read(path).map_err(|error| StoreError::io("read", path, error))?);
    let mode = std::fs::metadata(path).map_err(|error| StoreError::io("read", path, error))?.permissions().mode();
    if mode & 0o077 != 0 {
        return Err(StoreError::Invalid(format!(
            "{} can be read by others (mode {:o}): run `chmod 600` on it, and replace it if others may have read it",
            path.display(),
            mode & 0o777
        )));
    }
    let mut key = Key::default();
    if bytes.len() != key.len() {
        let message =
            format!("{} has {} bytes and not {}: restore it from a backup", path.display(), bytes.len(), key.len());
        return Err(StoreError::Invalid(message));
    }
    key.copy_from_slice(&bytes);
    Ok(key)
}
