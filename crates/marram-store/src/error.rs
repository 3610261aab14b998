//! What the store can fail with.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use marram_core::limits::EVENT_DATA_BYTES_MAX;
use marram_core::stream::{ConsumerId, StreamName};
use marram_core::{Digest, Failure, Kind, Name};

use crate::lost::RESTORE;
use crate::stream::Fullness;

/// Why the store did not do what it was asked to. Cheap to clone: everybody in a group that failed gets one.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process has the state directory.
    #[error("state directory {path:?} is in use by another process{pid}: stop that one, or choose another directory", path = .dir, pid = shown_pid(.pid))]
    InUse {
        /// The state directory.
        dir: PathBuf,
        /// Who says to have it.
        pid: Option<u32>,
    },
    /// The database was written by a later version.
    #[error(
        "{path:?} has schema version {found}, and this Marram knows {known}: install the newer Marram again, or restore a backup"
    )]
    NewerSchema {
        /// The database.
        path: PathBuf,
        /// What it says.
        found: i64,
        /// The newest that this code knows.
        known: i64,
    },
    /// The file is a database of some other program.
    #[error("{0:?} is not a Marram database: choose another state directory")]
    NotOurs(PathBuf),
    /// No space is left, or the database is at its largest size. Nothing of the write was kept.
    #[error("the disk is full, nothing was written: free some space and try again")]
    Full,
    /// The writer's queue is full. Nothing was written.
    #[error("the store is behind with writing: try again in a moment")]
    Busy,
    /// The store has been closed. Nothing was written.
    #[error("the store is closed")]
    Closed,
    /// No such app.
    #[error("there is no app \"{0}\" on this node: `marram apps` lists them")]
    NoApp(Name),
    /// No such revision, or it is no longer kept.
    #[error("app \"{app}\" has no revision {} any more", .revision.short())]
    NoRevision {
        /// The app.
        app: Name,
        /// What was asked for.
        revision: Digest,
    },
    /// There is nothing to roll back to.
    #[error("app \"{0}\" has no earlier revision to roll back to")]
    NothingEarlier(Name),
    /// A revision refers to a blob that is not here.
    #[error("the component {} of function \"{function}\" is not on this node: upload it first", .digest.short())]
    MissingBlob {
        /// The function.
        function: Name,
        /// Its component.
        digest: Digest,
    },
    /// A revision's digest belongs to other content.
    #[error("revision {} of app \"{app}\" was deployed before with another content", .revision.short())]
    OtherContent {
        /// The app.
        app: Name,
        /// The revision.
        revision: Digest,
    },
    /// No such blob.
    #[error("there is no blob {0}")]
    NoBlob(Digest),
    /// A blob is larger than it may be.
    #[error("the upload is larger than {0} bytes")]
    BlobTooLarge(u64),
    /// The bytes are not those that the digest names.
    #[error("the content has digest {found}, and not {expected}: it was damaged or altered")]
    WrongDigest {
        /// What was promised.
        expected: Digest,
        /// What the bytes have.
        found: Digest,
    },
    /// A sealed secret does not open.
    #[error(
        "secret \"{name}\" of app \"{app}\" cannot be opened: `secret.key` is not the key it was sealed with, or the stored row was altered. Set it again: marram secret set {app} {name}"
    )]
    Unsealable {
        /// The app.
        app: Name,
        /// The secret.
        name: String,
    },
    /// No such bucket of objects.
    #[error(
        "there is no bucket \"{0}\" on this node: create it first, with `marram blob buckets --create {0}` or in a function"
    )]
    NoBucket(Name),
    /// A content is not what its sender says.
    #[error("the content does not have the MD5 digest that came with it: it was damaged on its way")]
    WrongMd5,
    /// No such stream.
    #[error("there is no stream \"{0}\" on this node")]
    NoStream(StreamName),
    /// No such consumer, or it was removed.
    #[error("stream \"{stream}\" has no consumer \"{consumer}\"")]
    NoConsumer {
        /// The stream.
        stream: StreamName,
        /// What was asked for.
        consumer: ConsumerId,
    },
    /// The stream keeps as much as it may.
    #[error("stream \"{0}\" is full, and {1}")]
    StreamFull(StreamName, Fullness),
    /// An event's data is larger than it may be.
    #[error("the event has {0} bytes of data, more than {EVENT_DATA_BYTES_MAX}: store it as an object, and name that")]
    EventTooLarge(usize),
    /// What is there is not what the caller expects; the text says what, of which key.
    #[error("{0}")]
    Conflict(String),
    /// A value or a batch is larger than it may be; the text says which, and the limit.
    #[error("{0}")]
    TooLarge(String),
    /// As many as may be are open; the text says of what.
    #[error("{0}")]
    TooMany(String),
    /// What the database holds does not make sense: it was damaged, or a later version wrote it.
    #[error("the node's database is damaged: {0}")]
    Damaged(String),
    /// What was asked for is not valid; the text says why.
    #[error("{0}")]
    Invalid(String),
    /// A file could not be read or written.
    #[error("cannot {what}: {cause}")]
    Io {
        /// What was tried.
        what: String,
        /// Why it failed. The text has it already, so that it is no `source`, which would be shown a second time.
        cause: Arc<io::Error>,
    },
    /// The database failed. As for [`Self::Io`], the text has the cause.
    #[error("the node's database failed: {0}")]
    Database(Arc<rusqlite::Error>),
    /// SQLite finds in its file what it has not written there.
    #[error("the node's database is damaged ({0}): {RESTORE}; `marram doctor --state DIR` says what is wrong with it")]
    Corrupt(Arc<rusqlite::Error>),
    /// A bug: an operation panicked.
    #[error("a write to the store failed unexpectedly: {0}")]
    Panicked(String),
}

fn shown_pid(pid: &Option<u32>) -> String {
    pid.map_or_else(String::new, |pid| format!(" (process {pid})"))
}

impl StoreError {
    /// Wraps an I/O error with what was tried; a full disk is told apart.
    pub(crate) fn io(verb: &str, path: &Path, source: io::Error) -> Self {
        match source.kind() {
            // The last is the limit on the size of files (RLIMIT_FSIZE).
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => Self::Full,
            _ => Self::Io { what: format!("{verb} {}", path.display()), cause: Arc::new(source) },
        }
    }
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(rusqlite::ErrorCode::DiskFull) => Self::Full,
            Some(rusqlite::ErrorCode::DatabaseCorrupt | rusqlite::ErrorCode::NotADatabase) => {
                Self::Corrupt(Arc::new(error))
            }
            _ => Self::Database(Arc::new(error)),
        }
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        let kind = match &error {
            StoreError::NoApp(_)
            | StoreError::NoRevision { .. }
            | StoreError::NoBlob(_)
            | StoreError::NoBucket(_)
            | StoreError::NoStream(_)
            | StoreError::NoConsumer { .. } => Kind::NotFound,
            StoreError::NothingEarlier(_) | StoreError::OtherContent { .. } | StoreError::Conflict(_) => Kind::Conflict,
            StoreError::MissingBlob { .. } | StoreError::WrongDigest { .. } | StoreError::Invalid(_) => Kind::Invalid,
            StoreError::BlobTooLarge(_) | StoreError::EventTooLarge(_) | StoreError::TooLarge(_) => Kind::BodyTooLarge,
            StoreError::WrongMd5 => Kind::BadRequest,
            StoreError::StreamFull(..) => Kind::StreamFull,
            StoreError::Busy | StoreError::TooMany(_) => Kind::Overloaded,
            StoreError::Closed => Kind::Draining,
            StoreError::Full => Kind::StorageFull,
            // Paths and causes go to the log; callers are told what they can do.
            StoreError::Io { .. }
            | StoreError::Database(_)
            | StoreError::Corrupt(_)
            | StoreError::Damaged(_)
            | StoreError::Panicked(_) => {
                return Self::new(Kind::Internal, "the node's store failed: its log says more").because(error);
            }
            StoreError::InUse { .. }
            | StoreError::NewerSchema { .. }
            | StoreError::NotOurs(_)
            | StoreError::Unsealable { .. } => Kind::Internal,
        };
        Self::new(kind, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_told_apart_wherever_it_shows() {
        for kind in [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded, io::ErrorKind::FileTooLarge] {
            let error = StoreError::io("write", "blobs/uploads/7".as_ref(), kind.into());
            assert!(matches!(error, StoreError::Full), "{error}");
        }
        let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_FULL);
        let failure = Failure::from(StoreError::from(rusqlite::Error::SqliteFailure(code, None)));
        assert_eq!((failure.kind(), failure.status().as_u16()), (Kind::StorageFull, 507));
        let other = StoreError::io("write", "blobs/uploads/7".as_ref(), io::ErrorKind::PermissionDenied.into());
        assert_eq!(Failure::from(other).kind(), Kind::Internal);
    }

    #[test]
    fn a_cause_is_said_once() {
        use std::error::Error as _;
        for code in [rusqlite::ffi::SQLITE_CORRUPT, rusqlite::ffi::SQLITE_NOTADB, rusqlite::ffi::SQLITE_IOERR] {
            let said = Some("what SQLite says".to_owned());
            let error = StoreError::from(rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(code), said));
            assert_eq!(error.to_string().matches("what SQLite says").count(), 1, "{error}");
            assert!(error.source().is_none(), "whoever shows the whole chain would show it again: {error}");
            assert_eq!(matches!(error, StoreError::Corrupt(_)), code != rusqlite::ffi::SQLITE_IOERR, "{error}");
        }
        let error = StoreError::io("read", "blobs/7".as_ref(), io::ErrorKind::PermissionDenied.into());
        assert!(error.source().is_none(), "{error}");
    }
}
