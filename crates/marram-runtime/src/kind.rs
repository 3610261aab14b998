//! What a function's file is, told from its first bytes, its name, and what it exports.

use marram_core::limits::COMPONENT_BYTES_MAX;
use marram_core::manifest::InstancePolicy;
use marram_core::{Failure, Kind as FailureKind};
use wasmtime::Engine;
use wasmtime::component::Component;

use crate::watch;

/// How a function runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A component that exports `wasi:http/incoming-handler@0.2`.
    Component02,
    /// A component that exports `wasi:http/handler@0.3`.
    Component03,
    /// A component that exports `wasi:keyvalue/watcher` and no HTTP handler. Beside a handler it may export a watcher, too.
    Watcher,
    /// JavaScript source, on the engine that comes with Marram.
    JavaScript,
    /// Python source, on the engine that comes with Marram.
    Python,
}

impl Kind {
    /// The kind as the admin API names it.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Component02 => "component-0.2",
            Self::Component03 => "component-0.3",
            Self::Watcher => "watcher",
            Self::JavaScript => "javascript",
            Self::Python => "python",
        }
    }

    /// The kind of this label.
    #[must_use]
    pub fn of_label(label: &str) -> Option<Self> {
        let all = [Self::Component02, Self::Component03, Self::Watcher, Self::JavaScript, Self::Python];
        all.into_iter().find(|kind| kind.label() == label)
    }

    /// How its instances are used if the manifest does not say.
    #[must_use]
    pub const fn default_policy(self) -> InstancePolicy {
        match self {
            Self::Component02 | Self::Watcher => InstancePolicy::FRESH,
            Self::Component03 | Self::JavaScript => InstancePolicy::SHARED,
            Self::Python => InstancePolicy::SERIAL,
        }
    }
}

/// What a file is before it is compiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FileKind {
    Component,
    JavaScript,
    Python,
}

impl FileKind {
    /// By the extension of the manifest's `component`.
    pub(crate) fn of_name(name: &str) -> Self {
        match name.rsplit_once('.').map(|(_, extension)| extension) {
            Some("js" | "mjs") => Self::JavaScript,
            Some("py") => Self::Python,
            _ => Self::Component,
        }
    }
}

/// Refuses what cannot be a component, saying what it is instead.
pub(crate) fn check_component_bytes(bytes: &[u8]) -> Result<(), Failure> {
    let refuse = |message: String| Err(Failure::new(FailureKind::Invalid, message));
    if bytes.is_empty() {
        return refuse("the component is empty (0 bytes): build it first".into());
    }
    if bytes.len() > COMPONENT_BYTES_MAX {
        return refuse(format!(
            "the component has {} bytes, more than {COMPONENT_BYTES_MAX}: build it optimised and stripped",
            bytes.len()
        ));
    }
    match bytes {
        [0, b'a', b's', b'm', 0x0d, 0, 1, 0, ..] => Ok(()),
        [0, b'a', b's', b'm', 1, 0, 0, 0, ..] => refuse(
            "this is a core WebAssembly module, not a component: build for wasm32-wasip2, or wrap it with `wasm-tools component new`".into(),
        ),
        [0, b'a', b's', b'm', ..] => refuse("this is WebAssembly of a version that is not known: build it again with a current toolchain".into()),
        _ => check_text(bytes),
    }
}

/// The text form of a component is fine; any other text is not.
fn check_text(bytes: &[u8]) -> Result<(), Failure> {
    let refuse = |message: String| Err(Failure::new(FailureKind::Invalid, message));
    let Ok(text) = std::str::from_utf8(bytes) else {
        return refuse("this is not WebAssembly: it does not begin with `\\0asm`".into());
    };
    let mut code = text.lines().map(str::trim_start).filter(|line| !line.is_empty() && !line.starts_with(";;"));
    match code.next() {
        Some(first) if first.starts_with("(component") => Ok(()),
        Some(first) if first.starts_with("(module") => refuse(
            "this is the text of a core module, not of a component: wrap it in `(component …)`, or build for wasm32-wasip2".into(),
        ),
        first => {
            let begins: String = first.unwrap_or("").chars().take(40).collect();
            refuse(format!("this is text and not WebAssembly (it begins with {begins:?}): name the built .wasm file as the component, or a .js or .py source"))
        }
    }
}

/// Which standard a compiled component follows.
pub(crate) fn of_component(engine: &Engine, component: &Component) -> Result<Kind, Failure> {
    let names: Vec<String> = component.component_type().exports(engine).map(|(name, _)| name.to_owned()).collect();
    if names.iter().any(|name| name.starts_with("wasi:http/handler@0.3.")) {
        return Ok(Kind::Component03);
    }
    if names.iter().any(|name| name.starts_with("wasi:http/incoming-handler@0.2.")) {
        return Ok(Kind::Component02);
    }
    if watch::draft(component).is_some() {
        return Ok(Kind::Watcher);
    }
    let exports = if names.is_empty() { "nothing".to_owned() } else { names.join(", ") };
    let hint = if names.iter().any(|name| name.starts_with("wasi:cli/run@")) {
        "; it is a command: make it an HTTP handler (a library that exports the interface)"
    } else if names.iter().any(|name| name.contains(":messaging/")) {
        "; messages come to the HTTP handler, as events"
    } else {
        ""
    };
    Err(Failure::new(
        FailureKind::Invalid,
        format!(
            "the component exports {exports}, and a function has to export wasi:http/incoming-handler@0.2 or wasi:http/handler@0.3, or wasi:keyvalue/watcher for changes of keys{hint}"
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(bytes: &[u8], part: &str) {
        let error = check_component_bytes(bytes).expect_err("it was taken");
        assert!(error.message().contains(part), "{part:?} is not in {error}");
    }

    #[test]
    fn what_is_not_a_component_is_named() {
        check(b"", "is empty");
        check(b"\0asm\x01\0\0\0", "core WebAssembly module");
        check(b"\0asm\xff\0\0\0", "a version that is not known");
        check(b"\x7fELF\x02\xff\xfe", "does not begin with");
        check(b"hello", "begins with \"hello\"");
        check(b";; a comment\n(module)", "text of a core module");
        assert!(check_component_bytes(b";; a comment\n  (component)").is_ok());
        assert!(check_component_bytes(b"\0asm\x0d\0\x01\0").is_ok());
    }

    #[test]
    fn a_label_names_its_kind() {
        for kind in [Kind::Component02, Kind::Component03, Kind::Watcher, Kind::JavaScript, Kind::Python] {
            assert_eq!(Kind::of_label(kind.label()), Some(kind));
        }
        assert_eq!(Kind::of_label("component"), None);
    }

    #[test]
    fn the_extension_decides_about_source() {
        assert_eq!(FileKind::of_name("src/index.js"), FileKind::JavaScript);
        assert_eq!(FileKind::of_name("app.py"), FileKind::Python);
        assert_eq!(FileKind::of_name("target/x.wasm"), FileKind::Component);
        assert_eq!(FileKind::of_name("hello.wat"), FileKind::Component);
    }
}
