//! The components that tests run.

use std::path::{Path, PathBuf};

/// The file of a built guest, in `$MARRAM_GUESTS` or else in `target/guests` of the repository: of `hello-p2` its
/// component, of `hello.wat` that text.
///
/// # Panics
/// If it is not there, with the command that builds it.
#[must_use]
pub fn guest(name: &str) -> PathBuf {
    let folder = std::env::var_os("MARRAM_GUESTS")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/guests"), PathBuf::from);
    let file = folder.join(if name.contains('.') { name.to_owned() } else { format!("{name}.wasm") });
    assert!(file.is_file(), "the guest {} is not there: build it with `make guests`", file.display());
    file
}
