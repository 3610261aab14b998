//! What telemetry can fail with.

use std::path::PathBuf;
use std::sync::Arc;

use marram_core::{Failure, Kind};
use rusqlite::ErrorCode;

/// Why something could not be opened or asked for. Recording never fails: what cannot be kept is counted.
#[derive(Clone, Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The database was written by a later version.
    #[error(
        "{path:?} has schema version {found}, and this Marram knows {known}: install the newer Marram again, or move the file away"
    )]
    NewerSchema {
        /// The database.
        path: PathBuf,
        /// What it says.
        found: i64,
        /// The newest that this code knows.
        known: i64,
    },
    /// The database failed.
    #[error("the telemetry database failed: {0}")]
    Database(#[source] Arc<rusqlite::Error>),
    /// A file or a thread could not be made.
    #[error("telemetry cannot {what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// Why it failed.
        source: Arc<std::io::Error>,
    },
    /// A stored block does not read.
    #[error("a stored block of log lines is damaged: {0}")]
    Damaged(String),
}

impl TelemetryError {
    pub(crate) fn io(what: impl Into<String>, source: std::io::Error) -> Self {
        Self::Io { what: what.into(), source: Arc::new(source) }
    }

    /// Whether the disk is in the way, because it is full, say: the same may succeed later without anybody changing it.
    pub(crate) fn is_of_the_disk(&self) -> bool {
        match self {
            Self::Database(source) => matches!(
                source.sqlite_error_code(),
                Some(ErrorCode::DiskFull | ErrorCode::SystemIoFailure | ErrorCode::CannotOpen)
            ),
            Self::Io { source, .. } => {
                matches!(source.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded)
            }
            Self::NewerSchema { .. } | Self::Damaged(_) => false,
        }
    }
}

impl From<rusqlite::Error> for TelemetryError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Database(Arc::new(error))
    }
}

impl From<TelemetryError> for Failure {
    fn from(error: TelemetryError) -> Self {
        Self::new(Kind::Internal, "what was recorded cannot be read: the node's log says more").because(error)
    }
}
