//! The language engines that come with Marram, inside the binary, compressed.

use std::sync::LazyLock;

use marram_core::{Digest, Failure, Kind};

/// The WebAssembly of a language engine.
pub(crate) struct LanguageEngine {
    compressed: &'static [u8],
    pub(crate) digest: Digest,
}

static JAVASCRIPT: LazyLock<LanguageEngine> = LazyLock::new(|| {
    LanguageEngine::new(
        include_bytes!(concat!(env!("OUT_DIR"), "/js.wasm.zst")),
        include_str!(concat!(env!("OUT_DIR"), "/js.digest")),
    )
});
static JAVASCRIPT_MEMORY: LazyLock<LanguageEngine> = LazyLock::new(|| {
    LanguageEngine::new(
        include_bytes!(concat!(env!("OUT_DIR"), "/js-memory.wasm.zst")),
        include_str!(concat!(env!("OUT_DIR"), "/js-memory.digest")),
    )
});
static PYTHON: LazyLock<LanguageEngine> = LazyLock::new(|| {
    LanguageEngine::new(
        include_bytes!(concat!(env!("OUT_DIR"), "/python.wasm.zst")),
        include_str!(concat!(env!("OUT_DIR"), "/python.digest")),
    )
});

/// The JavaScript engine's code, and the memory that it starts with.
pub(crate) fn javascript() -> Result<[&'static LanguageEngine; 2], Failure> {
    Ok([JAVASCRIPT.or_missing("JavaScript")?, JAVASCRIPT_MEMORY.or_missing("JavaScript")?])
}

/// The Python engine.
pub(crate) fn python() -> Result<&'static LanguageEngine, Failure> {
    PYTHON.or_missing("Python")
}

/// Every module and component in this build that a node compiles for itself.
pub(crate) fn all() -> impl Iterator<Item = &'static LanguageEngine> {
    [&*JAVASCRIPT, &*JAVASCRIPT_MEMORY, &*PYTHON].into_iter().filter(|engine| !engine.compressed.is_empty())
}

/// Whose engine this is. The memory that one starts with is compiled in no time, and is nobody's.
pub(crate) fn language_of(digest: &Digest) -> Option<&'static str> {
    let engines = [("JavaScript", &*JAVASCRIPT), ("Python", &*PYTHON)];
    engines.into_iter().find(|(_, engine)| engine.digest == *digest).map(|(language, _)| language)
}

/// Languages whose engine is in this build.
#[must_use]
pub fn available() -> Vec<&'static str> {
    [("javascript", &*JAVASCRIPT), ("python", &*PYTHON)]
        .into_iter()
        .filter(|(_, engine)| !engine.compressed.is_empty())
        .map(|(language, _)| language)
        .collect()
}

impl LanguageEngine {
    /// `digest` was taken when this was built.
    fn new(compressed: &'static [u8], digest: &str) -> Self {
        Self { compressed, digest: digest.parse().expect("build.rs writes digests as they are read") }
    }

    fn or_missing(&'static self, language: &str) -> Result<&'static Self, Failure> {
        if self.compressed.is_empty() {
            let message = format!(
                "this build of Marram has no {language} engine: build it with `make`, which makes the engines first"
            );
            return Err(Failure::new(Kind::Invalid, message));
        }
        Ok(self)
    }

    /// The engine's WebAssembly.
    pub(crate) fn bytes(&self) -> anyhow::Result<Vec<u8>> {
        Ok(zstd::decode_all(self.compressed)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_those_of_the_engines() {
        for engine in all() {
            assert_eq!(engine.digest, Digest::of(engine.compressed));
        }
    }

    #[test]
    fn an_engine_is_known_by_its_language_and_a_component_is_not_one() {
        let languages: Vec<_> = all().filter_map(|engine| language_of(&engine.digest)).collect();
        assert_eq!(languages.len(), available().len(), "once for each: {languages:?}");
        assert_eq!(language_of(&Digest::of(b"a component")), None);
    }
}
