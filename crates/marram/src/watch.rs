//! Waits for files to change: no polling, and a burst of changes is one.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use marram_core::Digest;
use notify::event::{AccessKind, AccessMode, ModifyKind};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::stale;

/// An editor writes a file in several steps, a checkout many files: it is over when nothing happens for this long.
const QUIET: Duration = Duration::from_millis(20);
/// Something that never is quiet must not hold a save back.
const BURST_MAX: Duration = Duration::from_millis(500);
/// Events on their way; the system's own queue is behind it, and tells when it overflows.
const EVENTS_QUEUED_MAX: usize = 1024;

/// What may have changed.
#[derive(Debug)]
pub(crate) enum Change {
    /// These files.
    Files(BTreeSet<PathBuf>),
    /// Too much at once to say what.
    Anything,
}

/// Changes that come close together.
struct Burst {
    paths: BTreeSet<PathBuf>,
    everything: bool,
    /// It is over then, unless more comes.
    quiet: Instant,
    /// It is over then, whatever comes.
    end: Instant,
}

/// Tells a file whose change means something.
pub(crate) type Matters = Box<dyn Fn(&Path) -> bool + Send + Sync>;

/// A watch on folders.
pub(crate) struct Watch {
    watcher: RecommendedWatcher,
    events: mpsc::Receiver<notify::Result<Event>>,
    folders: BTreeSet<PathBuf>,
    matters: Matters,
    /// Changes that are not over yet.
    burst: Option<Burst>,
    /// What each changed file was when it last was looked at: a build that writes the same source again changes nothing.
    seen: HashMap<PathBuf, Option<Digest>>,
}

impl Watch {
    /// A watch on nothing yet.
    pub(crate) fn new() -> anyhow::Result<Self> {
        let (sender, events) = mpsc::channel(EVENTS_QUEUED_MAX);
        // It is called on the watcher's own thread; when the receiver is gone, nobody waits for changes any more.
        let watcher = notify::recommended_watcher(move |event| drop(sender.blocking_send(event)));
        let watcher = watcher.context("the system cannot watch files")?;
        Ok(Self {
            watcher,
            events,
            folders: BTreeSet::new(),
            matters: Box::new(|_| false),
            burst: None,
            seen: HashMap::new(),
        })
    }

    /// Watches these folders (each without its subfolders) for files that matter, and nothing else.
    pub(crate) fn follow(&mut self, folders: BTreeSet<PathBuf>, matters: Matters) -> anyhow::Result<()> {
        self.matters = matters;
        for gone in self.folders.difference(&folders) {
            // A folder that was removed is no longer watched anyway.
            let _ = self.watcher.unwatch(gone);
        }
        for new in folders.difference(&self.folders) {
            self.watcher.watch(new, RecursiveMode::NonRecursive).with_context(|| {
                format!(
                    "cannot watch {}: if the system's limit is reached, raise fs.inotify.max_user_watches",
                    new.display()
                )
            })?;
        }
        self.folders = folders;
        Ok(())
    }

    /// Waits until something that matters has another content than before, and it is quiet again. Dropping the future
    /// loses nothing.
    pub(crate) async fn changed(&mut self) -> Change {
        loop {
            let event = match &self.burst {
                None => self.events.recv().await,
                Some(burst) => match tokio::time::timeout_at(burst.quiet.min(burst.end), self.events.recv()).await {
                    Ok(event) => event,
                    Err(_) => match self.end_burst() {
                        Some(change) => return change,
                        None => continue,
                    },
                },
            };
            // The watcher lives as long as this does, so its channel never ends; if it did, nothing would change.
            let Some(event) = event else { return std::future::pending().await };
            self.note(event);
        }
    }

    fn note(&mut self, event: notify::Result<Event>) {
        let (paths, everything) = match event {
            Ok(event) if event.need_rescan() => (Vec::new(), true),
            Ok(event) if is_change(event.kind) => (event.paths, false),
            Ok(_) => return,
            Err(_) => (Vec::new(), true),
        };
        // A folder that has just been made can have sources in it.
        let folder = |path: &Path| path.is_dir() && !stale::is_ignored(path);
        let paths: Vec<_> = paths.into_iter().filter(|path| (self.matters)(path) || folder(path)).collect();
        if paths.is_empty() && !everything {
            return;
        }
        let now = Instant::now();
        let burst = self.burst.get_or_insert_with(|| Burst {
            paths: BTreeSet::new(),
            everything: false,
            quiet: now,
            end: now + BURST_MAX,
        });
        burst.paths.extend(paths);
        burst.everything |= everything;
        burst.quiet = now + QUIET;
    }

    /// What the burst came to, if anything.
    fn end_burst(&mut self) -> Option<Change> {
        let mut burst = self.burst.take()?;
        if burst.everything {
            return Some(Change::Anything);
        }
        burst.paths.retain(|path| {
            let now = content(path);
            path.is_dir() || self.seen.insert(path.clone(), now) != Some(now)
        });
        (!burst.paths.is_empty()).then_some(Change::Files(burst.paths))
    }
}

const fn is_change(kind: EventKind) -> bool {
    match kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) | EventKind::Create(_) | EventKind::Remove(_) => true,
        EventKind::Modify(ModifyKind::Metadata(_)) | EventKind::Access(_) => false,
        EventKind::Modify(_) | EventKind::Any | EventKind::Other => true,
    }
}

/// `None` for what cannot be read: a removed file, or a folder.
fn content(path: &Path) -> Option<Digest> {
    std::fs::read(path).ok().map(|bytes| Digest::of(&bytes))
}
