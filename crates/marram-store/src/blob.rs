//! Blobs: files named by the SHA-256 of their content, `blobs/sha256/ab/<64 hex digits>`.
//!
//! A name appears only once its content is complete and on the disk. Collecting garbage is safe beside uploads and deploys:
//! an upload ends with a [`BlobPin`], a deploy pins what it refers to until it is committed, and the collector looks at
//! pins and references together, under the lock that pinning takes.

use std::collections::{BTreeSet, HashMap};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use marram_core::Digest;
use sha2::{Digest as _, Sha256};

use crate::{StoreError, durable};

/// The blobs of a state directory.
#[derive(Debug)]
pub struct Blobs {
    digests: PathBuf,
    uploads: PathBuf,
    next_upload: AtomicU64,
    pins: Arc<Pins>,
    /// By the first byte of a digest: whether this process has made the name of the folder durable. One that is there may have
    /// been made a moment ago by somebody else, or by a process that ended before its sync.
    named: [AtomicBool; 256],
}

/// How often each digest is pinned. Whoever removes a file or gives it its name holds the lock.
type Pins = Mutex<HashMap<Digest, usize>>;

/// Keeps a blob from being collected for as long as it lives.
#[derive(Debug)]
pub struct BlobPin {
    digest: Digest,
    pins: Arc<Pins>,
}

/// A blob that is being written. Dropping it throws it away.
#[derive(Debug)]
pub struct BlobUpload {
    file: File,
    path: PathBuf,
    hasher: Sha256,
    bytes: u64,
    bytes_max: u64,
    blobs: Arc<Blobs>,
}

/// What [`crate::Store::collect_blobs`] removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Files.
    pub blobs: usize,
    /// Their bytes.
    pub bytes: u64,
}

impl Blobs {
    /// Opens the folder, and removes uploads that a crash cut short.
    pub(crate) fn open(dir: &Path) -> Result<Self, StoreError> {
        let blobs = Self::unopened(dir);
        for dir in [&blobs.digests, &blobs.uploads] {
            durable::create_dir(dir).map_err(|error| StoreError::io("make", dir, error))?;
        }
        for entry in entries(&blobs.uploads)? {
            durable::remove_if_there(&entry).map_err(|error| StoreError::io("remove", &entry, error))?;
        }
        Ok(blobs)
    }

    /// The folder as it is: for looking at a state directory that another process may be using.
    pub(crate) fn unopened(dir: &Path) -> Self {
        Self {
            digests: dir.join("sha256"),
            uploads: dir.join("uploads"),
            next_upload: AtomicU64::new(0),
            pins: Arc::default(),
            named: std::array::from_fn(|_| AtomicBool::new(false)),
        }
    }

    /// Whether the folder `dir` has no blob, or is not there.
    pub(crate) fn is_empty(dir: &Path) -> bool {
        let inside = |dir: &Path| std::fs::read_dir(dir).into_iter().flatten().flatten();
        !inside(&dir.join("sha256")).any(|first| inside(&first.path()).next().is_some())
    }

    /// Begins a blob of at most `bytes_max` bytes.
    pub fn upload(self: &Arc<Self>, bytes_max: u64) -> Result<BlobUpload, StoreError> {
        let path = self.uploads.join(self.next_upload.fetch_add(1, Ordering::Relaxed).to_string());
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        let file = file.map_err(|error| StoreError::io("create", &path, error))?;
        Ok(BlobUpload { file, path, hasher: Sha256::new(), bytes: 0, bytes_max, blobs: Arc::clone(self) })
    }

    /// Stores everything that `from` has, up to `bytes_max`.
    pub fn put(
        self: &Arc<Self>,
        mut from: impl Read,
        bytes_max: u64,
        expected: Option<Digest>,
    ) -> Result<BlobPin, StoreError> {
        let mut upload = self.upload(bytes_max)?;
        let mut chunk = vec![0; 64 << 10];
        loop {
            match from.read(&mut chunk) {
                Ok(0) => return upload.finish(expected),
                Ok(length) => upload.write(&chunk[..length])?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(StoreError::Io { what: "read the upload".into(), cause: Arc::new(error) }),
            }
        }
    }

    /// Where the blob is, whether or not it is there.
    #[must_use]
    pub fn path(&self, digest: &Digest) -> PathBuf {
        let hex = digest.hex();
        self.digests.join(&hex[..2]).join(hex)
    }

    /// Whether the blob is there. It may be collected a moment later: to rely on it, [`Blobs::pin`] it.
    #[must_use]
    pub fn has(&self, digest: &Digest) -> bool {
        self.path(digest).exists()
    }

    /// Keeps the blob while the pin lives; `None` if it is not there.
    pub fn pin(&self, digest: Digest) -> Result<Option<BlobPin>, StoreError> {
        let mut pins = lock(&self.pins);
        let path = self.path(&digest);
        match File::open(&path) {
            // A blob that somebody asks for again is as good as new: its time of grace starts over. Best effort: a file
            // system that cannot say when a file was changed only collects it earlier.
            Ok(file) => drop(file.set_modified(SystemTime::now())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(StoreError::io("open", &path, error)),
        }
        *pins.entry(digest).or_default() += 1;
        drop(pins);
        Ok(Some(BlobPin { digest, pins: Arc::clone(&self.pins) }))
    }

    /// Reads all of the blob, and fails unless its content is what its name says.
    pub fn check(&self, digest: &Digest) -> Result<(), StoreError> {
        let found = self.digest_of(digest)?;
        if found == *digest { Ok(()) } else { Err(StoreError::WrongDigest { expected: *digest, found }) }
    }

    /// The digest that the content has, whatever its name says.
    pub(crate) fn digest_of(&self, digest: &Digest) -> Result<Digest, StoreError> {
        let mut file = self.open_file(digest)?;
        let (mut hasher, mut chunk) = (Sha256::new(), vec![0; 64 << 10]);
        loop {
            let length = file.read(&mut chunk).map_err(|error| StoreError::io("read", &self.path(digest), error))?;
            if length == 0 {
                return Ok(Digest::from_bytes(hasher.finalize().into()));
            }
            hasher.update(&chunk[..length]);
        }
    }

    /// Keeps blobs that a committed row refers to. The caller looks at the row again afterwards: if it is still there, the
    /// blobs were never without either, and stay.
    pub(crate) fn pin_referenced(&self, digests: impl IntoIterator<Item = Digest>) -> Vec<BlobPin> {
        let mut pins = lock(&self.pins);
        let pin = |digest| {
            *pins.entry(digest).or_default() += 1;
            BlobPin { digest, pins: Arc::clone(&self.pins) }
        };
        digests.into_iter().map(pin).collect()
    }

    /// Opens the blob. Its content is not checked again; [`Blobs::read`] does.
    pub fn open_file(&self, digest: &Digest) -> Result<File, StoreError> {
        let path = self.path(digest);
        File::open(&path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => StoreError::NoBlob(*digest),
            _ => StoreError::io("open", &path, error),
        })
    }

    /// The whole blob, after its content was checked against the digest.
    pub fn read(&self, digest: &Digest) -> Result<Vec<u8>, StoreError> {
        let mut bytes = Vec::new();
        let read = self.open_file(digest)?.read_to_end(&mut bytes);
        read.map_err(|error| StoreError::io("read", &self.path(digest), error))?;
        let found = Digest::of(&bytes);
        if found == *digest { Ok(bytes) } else { Err(StoreError::WrongDigest { expected: *digest, found }) }
    }

    /// Removes a blob whoever refers to it, and says whether it was there. A pinned blob stays.
    pub fn remove(&self, digest: &Digest) -> Result<bool, StoreError> {
        let pins = lock(&self.pins);
        if pins.contains_key(digest) {
            return Err(StoreError::Invalid(format!("blob {digest} is being used: try again later")));
        }
        let path = self.path(digest);
        durable::remove_if_there(&path).map_err(|error| StoreError::io("remove", &path, error))
    }

    /// Every blob that is here.
    pub fn list(&self) -> Result<Vec<Digest>, StoreError> {
        let mut found = Vec::new();
        for dir in entries(&self.digests)? {
            for path in entries(&dir)? {
                let hex = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
                // Anything else in there is not ours to touch.
                found.extend(format!("sha256:{hex}").parse::<Digest>());
            }
        }
        found.sort_unstable();
        Ok(found)
    }

    /// Removes what nobody pins or refers to and is older than `grace`. `referenced` looks a digest up; `keep` takes those out of the
    /// candidates that are referred to nevertheless.
    pub(crate) fn collect(
        &self,
        grace: Duration,
        referenced: impl Fn(&Digest) -> Result<bool, StoreError>,
        keep: impl FnOnce(&mut BTreeSet<Digest>) -> Result<(), StoreError>,
    ) -> Result<Collected, StoreError> {
        let born_before = SystemTime::now().checked_sub(grace).unwrap_or(SystemTime::UNIX_EPOCH);
        let mut candidates = BTreeSet::new();
        for digest in self.list()? {
            if self.bytes_of_old(&digest, born_before).is_some() && !self.is_pinned(&digest) && !referenced(&digest)? {
                candidates.insert(digest);
            }
        }
        if !candidates.is_empty() {
            keep(&mut candidates)?;
        }
        let mut collected = Collected::default();
        for digest in candidates {
            // One blob a time, so that a deploy waits for one query and one unlink at most. Whoever pinned this blob and
            // let go has committed its reference by now; whoever comes after us finds the file gone.
            let pins = lock(&self.pins);
            let Some(bytes) = self.bytes_of_old(&digest, born_before) else { continue };
            if pins.contains_key(&digest) || referenced(&digest)? {
                continue;
            }
            let path = self.path(&digest);
            if durable::remove_if_there(&path).map_err(|error| StoreError::io("remove", &path, error))? {
                collected.blobs += 1;
                collected.bytes += bytes;
            }
        }
        Ok(collected)
    }

    /// The size of a blob that is there and was last written or pinned before.
    fn bytes_of_old(&self, digest: &Digest, born_before: SystemTime) -> Option<u64> {
        let metadata = self.path(digest).metadata().ok()?;
        let young = metadata.modified().is_ok_and(|modified| modified > born_before);
        (!young).then_some(metadata.len())
    }

    fn is_pinned(&self, digest: &Digest) -> bool {
        lock(&self.pins).contains_key(digest)
    }

    /// Gives a complete file its name, pinned.
    fn publish(&self, from: &Path, digest: Digest) -> Result<BlobPin, StoreError> {
        let path = self.path(&digest);
        let folder = self.digests.join(&digest.hex()[..2]);
        let named = &self.named[usize::from(digest.as_bytes()[0])];
        durable::create_dir(&folder).map_err(|error| StoreError::io("make", &folder, error))?;
        let mut pins = lock(&self.pins);
        std::fs::rename(from, &path).map_err(|error| StoreError::io("name", &path, error))?;
        *pins.entry(digest).or_default() += 1;
        drop(pins);
        let pin = BlobPin { digest, pins: Arc::clone(&self.pins) };
        durable::sync_parent(&path).map_err(|error| StoreError::io("sync", &folder, error))?;
        if !named.load(Ordering::Acquire) {
            durable::sync_parent(&folder).map_err(|error| StoreError::io("sync", &self.digests, error))?;
            named.store(true, Ordering::Release);
        }
        Ok(pin)
    }
}

impl BlobUpload {
    /// Adds bytes; fails past the limit.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.bytes += bytes.len() as u64;
        if self.bytes > self.bytes_max {
            return Err(StoreError::BlobTooLarge(self.bytes_max));
        }
        self.hasher.update(bytes);
        self.file.write_all(bytes).map_err(|error| StoreError::io("write", &self.path, error))
    }

    /// Makes the blob durable under its digest. Fails if the digest is not the expected one. Blocks for the disk.
    pub fn finish(self, expected: Option<Digest>) -> Result<BlobPin, StoreError> {
        let found = Digest::from_bytes(self.hasher.clone().finalize().into());
        if let Some(expected) = expected.filter(|expected| *expected != found) {
            return Err(StoreError::WrongDigest { expected, found });
        }
        self.file.sync_all().map_err(|error| StoreError::io("sync", &self.path, error))?;
        self.blobs.publish(&self.path, found)
    }
}

impl Drop for BlobUpload {
    fn drop(&mut self) {
        // Not there any more if it was finished. What cannot be removed now is removed at the next start.
        let _ = durable::remove_if_there(&self.path);
    }
}

impl BlobPin {
    /// Which blob this keeps.
    #[must_use]
    pub const fn digest(&self) -> Digest {
        self.digest
    }
}

impl Drop for BlobPin {
    fn drop(&mut self) {
        let mut pins = lock(&self.pins);
        if let Some(count) = pins.get_mut(&self.digest) {
            *count -= 1;
            if *count == 0 {
                pins.remove(&self.digest);
            }
        }
    }
}

fn lock(pins: &Pins) -> MutexGuard<'_, HashMap<Digest, usize>> {
    pins.lock().unwrap_or_else(PoisonError::into_inner)
}

fn entries(dir: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let read = || std::fs::read_dir(dir)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>();
    match read() {
        // A stray file among the folders is not ours.
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => Ok(Vec::new()),
        result => result.map_err(|error| StoreError::io("list", dir, error)),
    }
}
