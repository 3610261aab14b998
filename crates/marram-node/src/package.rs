//! What is deployed, as a caller in this process hands it over.

use std::collections::BTreeMap;
use std::path::PathBuf;

use bytes::Bytes;

/// An app: the text of its manifest, and what each of its functions runs.
#[derive(Clone, Debug)]
pub struct Package {
    /// The text of `marram.toml`.
    pub manifest: String,
    /// By the function's name: every function of the manifest, and nothing else.
    pub components: BTreeMap<String, ComponentSource>,
}

/// Where the bytes of a component come from.
#[derive(Clone, Debug)]
pub enum ComponentSource {
    /// A file, which is copied into the node's store.
    Path(PathBuf),
    /// The bytes themselves.
    Bytes(Bytes),
}
