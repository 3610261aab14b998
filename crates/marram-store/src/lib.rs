//! The node's embedded store: one SQLite database, one writer, blobs as files named by their digest.
//!
//! Whatever is acknowledged here is on the disk: it survives `kill -9` and a power cut at any moment. The state directory
//! holds `node.db` (deployments, sealed secrets, keys, streams, what is said of objects), `blobs/sha256/…` (components, and the
//! contents of objects), `secret.key` and `cache.key`
//! (32 random bytes each, readable by the owner only) and `lock`.
//!
//! Reads take microseconds to a few milliseconds and block the calling thread; writes are asynchronous, and what belongs to
//! files ([`Blobs`]) blocks for as long as the disk takes: use a blocking thread for [`BlobUpload::finish`],
//! [`Blobs::collect`] and [`Store::check`].
//!
//! ```
//! use marram_core::{Digest, Name};
//! use marram_store::{Deployment, Store, StoreConfig};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let dir = tempfile::tempdir()?;
//! # let state_dir = dir.path();
//! # let now_unix_ns = 1_700_000_000_000_000_000;
//! let store = Store::open(&StoreConfig::new(state_dir))?;
//!
//! // A component, streamed in; the pin keeps it until it is deployed.
//! let mut upload = store.blobs().upload(1 << 20)?;
//! upload.write(b"\0asm...")?;
//! let pin = upload.finish(None)?;
//!
//! let (shop, price) = (Name::new("shop")?, Name::new("price")?);
//! let deployed = store
//!     .deploy(Deployment {
//!         app: shop.clone(),
//!         revision: Digest::of(b"manifest and components"),
//!         manifest: "manifest_version = 1".into(),
//!         components: [(price.clone(), pin.digest())].into(),
//!         kinds: [(price, "component-0.2".to_owned())].into(),
//!         at_unix_ns: now_unix_ns,
//!     })
//!     .await?;
//! assert_eq!(store.app(&shop)?.generation, deployed.generation);
//!
//! store.set_secret(&shop, "api_key", "s3cret".into(), now_unix_ns).await?;
//! assert_eq!(store.secrets(&shop)?["api_key"].expose(), "s3cret");
//! store.close();
//! # Ok(())
//! # }
//! ```

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod blob;
mod check;
mod collect;
mod deployment;
mod durable;
mod error;
mod key;
mod kv;
pub mod limits;
mod lock;
mod lost;
mod mqtt;
mod object;
mod read;
mod schema;
mod secret;
mod stream;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use marram_core::port::Clock;
use rusqlite::Connection;

pub use blob::{BlobPin, BlobUpload, Blobs, Collected};
pub use check::{Finding, check_state_dir};
pub use deployment::{App, Deployed, Deployment, Removed, Revision, RevisionSummary};
pub use error::StoreError;
pub use kv::{KeyCounts, Keys, KvMaintained};
pub use mqtt::StoreMqtt;
pub use object::Objects;
pub use schema::SCHEMA_VERSION;
pub use secret::{SecretName, SecretValue};
pub use stream::{Captures, Fullness, Maintained, StoreStreams};
pub use writer::{Ticket, Tx, Writer};

use read::Readers;
use secret::Sealer;

/// How a store is opened.
#[derive(Clone, Debug)]
pub struct StoreConfig {
    /// The state directory; made if it is not there.
    pub dir: PathBuf,
    /// Revisions of an app that are kept, the current one included; at least 1.
    pub revisions_kept: usize,
    /// Bytes of keys and values that are kept in memory; 0 keeps none.
    pub kv_cache_bytes: u64,
}

impl StoreConfig {
    /// The store in `dir`, with every default.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into(), revisions_kept: limits::REVISIONS_KEPT, kv_cache_bytes: limits::KV_CACHE_BYTES }
    }
}

/// The store of one node. While it lives, no other process can open the same state directory.
#[derive(Debug)]
pub struct Store {
    // The writer ends before the directory is let go: dropping the store stops it, whoever else refers to it.
    writer: Arc<Writer>,
    readers: Arc<Readers>,
    hub: Arc<stream::Hub>,
    kv: Arc<kv::Shared>,
    blobs: Arc<Blobs>,
    sealer: Arc<Sealer>,
    cache_key: key::Key,
    dir: PathBuf,
    revisions_kept: usize,
    /// Whether the pages of the database were looked through, or are too many for that.
    looked_through: Mutex<bool>,
    _lock: lock::StateLock,
}

impl Store {
    /// Opens the store, making what is missing and migrating what is old.
    ///
    /// Fails if another process has the directory, if the database is of a newer version, if it is lost and what a node has
    /// beside it is not, or if a table or a key file is damaged at its beginning. A database with another damage is read as far as it goes, and
    /// nothing is written to it ([`Store::damage`]); one of more than [`limits::CHECKED_AT_OPEN_MAX`] is looked through by
    /// [`Store::check_pages`] only.
    pub fn open(config: &StoreConfig) -> Result<Self, StoreError> {
        let dir = config.dir.as_path();
        if dir.is_file() {
            let text = format!("{} is a file and cannot be the state folder: choose another folder", dir.display());
            return Err(StoreError::Invalid(text));
        }
        durable::create_dir(dir).map_err(|error| StoreError::io("make", dir, error))?;
        let lock = lock::StateLock::take(dir)?;
        let database = database_path(dir);
        lost::refuse(dir, &database)?;
        let opened = open_database(&database).map_err(|error| lost::explain(dir, &database, error))?;
        let Database { connection, is_looked_through, damage } = opened;
        let sealer = Arc::new(Sealer::new(&key::load_or_create(&dir.join("secret.key"))?));
        let cache_key = key::load_or_create(&dir.join("cache.key"))?;
        let readers = Arc::new(Readers::new(database));
        let blobs = Arc::new(Blobs::open(&dir.join("blobs"))?);
        let hub = stream::Hub::new();
        let ledger = stream::Ledger::load(&connection, Arc::clone(&hub))?;
        let kv = kv::Shared::open(&connection, Arc::clone(&hub), config.kv_cache_bytes)?;
        let writer = Arc::new(Writer::start(Tx::new(connection, ledger, Arc::clone(&readers)))?);
        let looked_through = Mutex::new(is_looked_through);
        if let Some(why) = damage {
            writer.refuse(why.into());
        }
        // The names of the database, its log and the keys are durable before anything is acknowledged.
        durable::sync_parent(&dir.join("lock")).map_err(|error| StoreError::io("sync", dir, error))?;
        let revisions_kept = config.revisions_kept.max(1);
        let dir = dir.to_owned();
        Ok(Self {
            writer,
            readers,
            hub,
            kv,
            blobs,
            sealer,
            cache_key,
            dir,
            revisions_kept,
            looked_through,
            _lock: lock,
        })
    }

    /// The state directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The files named by digest.
    #[must_use]
    pub fn blobs(&self) -> &Arc<Blobs> {
        &self.blobs
    }

    /// The writer, for others that keep tables in this database.
    #[must_use]
    pub fn writer(&self) -> &Writer {
        &self.writer
    }

    /// The keys. `clock` is the time of day by which they expire and are stamped; every handle shares one cache.
    #[must_use]
    pub fn kv(&self, clock: Arc<dyn Clock>) -> Keys {
        Keys::new(Arc::clone(&self.kv), clock, Arc::clone(&self.writer), Arc::clone(&self.readers))
    }

    /// The key with which this node authenticates the code that it compiled. It differs on every node and never leaves it.
    #[must_use]
    pub fn cache_key(&self) -> [u8; 32] {
        *self.cache_key
    }

    /// Whether the disk is full: changes are refused, but for those that take something away.
    #[must_use]
    pub fn is_full(&self) -> bool {
        writer::is_short(self.readers.path())
    }

    /// What is damaged of the database, if that was found when it was opened or by [`Store::check_pages`]. Every change is refused
    /// then: what would be acknowledged might be lost.
    #[must_use]
    pub fn damage(&self) -> Option<Arc<str>> {
        self.writer.refused()
    }

    /// Commits what has queued and takes no more. Blocks until that is done. Dropping the store does the same.
    pub fn close(&self) {
        self.writer.stop();
        self.hub.close();
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.close();
    }
}

/// A database that was opened for writing, of this version.
struct Database {
    connection: Connection,
    /// Whether all of its pages were.
    is_looked_through: bool,
    /// What is wrong with them.
    damage: Option<String>,
}

/// Before a database is changed, it is looked through.
fn open_database(path: &Path) -> Result<Database, StoreError> {
    let mut connection = schema::open_writer(path)?;
    let is_earlier = schema::is_earlier(&connection)?;
    // That comes once with a new version, and may take longer.
    let looked_through_max = if is_earlier { limits::CHECKED_AT_START_MAX } else { limits::CHECKED_AT_OPEN_MAX };
    let is_small = size(path) <= looked_through_max;
    let looked = if is_small { check::damage_of(&connection) } else { Ok(None) };
    // Without a change, a look that fails is tried again later.
    let is_looked_through = is_small && looked.is_ok();
    let damage = if is_earlier { looked? } else { looked.unwrap_or_default() };
    if is_earlier {
        damage.clone().map_or(Ok(()), |why| Err(StoreError::Damaged(why)))?;
        schema::migrate(&mut connection)?;
    }
    schema::read_beginnings(&connection)?;
    Ok(Database { connection, is_looked_through, damage })
}

/// 0 of a file that is not there.
fn size(file: &Path) -> u64 {
    file.metadata().map_or(0, |file| file.len())
}

fn database_path(dir: &Path) -> PathBuf {
    dir.join("node.db")
}
