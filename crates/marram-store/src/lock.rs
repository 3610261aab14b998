//! One process a state directory.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use crate::StoreError;

/// Holds the state directory for as long as it lives. The kernel lets go of it when the process ends, however it ends.
#[derive(Debug)]
pub(crate) struct StateLock {
    file: File,
}

impl Drop for StateLock {
    /// A lock belongs to the open file, and a process that another thread is just starting has that file open too until
    /// it is replaced by its program: closing alone would leave the directory locked for so long.
    fn drop(&mut self) {
        let _ = self.file.unlock();
    }
}

impl StateLock {
    pub(crate) fn take(dir: &Path) -> Result<Self, StoreError> {
        let path = dir.join("lock");
        let io = |verb: &'static str| {
            let path = path.clone();
            move |error| StoreError::io(verb, &path, error)
        };
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let mut file = options.open(&path).map_err(io("open"))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut pid = String::new();
                // Whoever has it wrote its process id; without one the message is still clear.
                let _ = file.take(16).read_to_string(&mut pid);
                return Err(StoreError::InUse { dir: dir.into(), pid: pid.trim().parse().ok() });
            }
            Err(TryLockError::Error(error)) => return Err(io("lock")(error)),
        }
        // It is only for the message of who comes second, and a full disk must not keep a node from starting.
        let _ = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| writeln!(file, "{}", std::process::id()));
        Ok(Self { file })
    }
}
