//! What a node decides about its runtime.

use std::path::PathBuf;
use std::time::Duration;

use crate::Compiler;

/// Settings of a [`crate::Runtime`].
#[derive(Clone, Debug)]
pub struct RuntimeConfig {
    /// Folder of the ahead-of-time compiled code. It can be deleted at any time: what is missing is compiled again.
    pub cache_dir: PathBuf,
    /// Authenticates the files in it: a forged one would be native code of somebody else's.
    pub cache_key: [u8; 32],
    /// Instances alive at the same time, of all functions together. Address space is set aside for each.
    pub instances_max: u32,
    /// How long a function's code stays mapped after its last run.
    pub code_idle: Duration,
    /// Where code is compiled.
    pub compiler: Compiler,
    /// Whether a [`Compiler::Child`] keeps every function that it has compiled, so that a component which differs little
    /// compiles in a fraction of the time. For who changes one all the time; it costs time and disk on the first.
    pub keeps_functions: bool,
    /// Certificates (DER) of authorities that outbound TLS trusts besides the public ones.
    pub extra_roots: Vec<Vec<u8>>,
}

impl RuntimeConfig {
    /// The usual settings, with the code cache in `cache_dir`.
    #[must_use]
    pub fn new(cache_dir: PathBuf, cache_key: [u8; 32]) -> Self {
        Self {
            cache_dir,
            cache_key,
            instances_max: 1_000,
            code_idle: Duration::from_secs(10),
            compiler: Compiler::Here,
            keeps_functions: false,
            extra_roots: Vec::new(),
        }
    }
}
