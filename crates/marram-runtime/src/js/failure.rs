//! How a request to a JavaScript function fails.

use std::sync::Arc;

use marram_js_abi::ScriptError;

/// Cheap to copy: when an instance dies, every request in it fails with the same.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum JsFailure {
    /// JavaScript threw, or will never answer.
    #[error("{}: {}", .0.name, .0.message)]
    Threw(Arc<ScriptError>),
    /// The instance was stopped by a limit, or trapped.
    #[error("the JavaScript engine stopped: {0:#}")]
    Trapped(Arc<wasmtime::Error>),
    /// The instance was closed while the request was in it.
    #[error("the instance was closed")]
    Closed,
}

impl JsFailure {
    pub(super) fn threw(error: ScriptError) -> Self {
        Self::Threw(Arc::new(error))
    }

    pub(super) fn trapped(error: wasmtime::Error) -> Self {
        Self::Trapped(Arc::new(error))
    }
}
