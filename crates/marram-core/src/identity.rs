//! Which code runs: app, function, revision.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Digest, Name};

/// One function of one revision of an app: what a log line, a meter record and a metric are about.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct FunctionId {
    /// The app.
    pub app: Name,
    /// The function within the app.
    pub function: Name,
    /// Digest of manifest and components: the same content is the same revision.
    pub revision: Digest,
}

impl fmt::Display for FunctionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.app, self.function)
    }
}
