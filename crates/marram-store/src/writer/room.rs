//! Room on the disk for taking things away.
//!
//! Deleting writes too: what changes goes into the log first, and from there into the database, before any of it can be used
//! again. A disk that the node itself has filled up could never be emptied. So a file beside the database holds some room, and
//! gives it to what takes something away, and to nothing else. What adds something is refused until that file is whole again.
//! While there is little room the log is copied and cut early: then the file is enough for what is in it.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FallocateFlags, fallocate, statvfs};

use crate::limits::{RESERVE_BYTES, ROOM_BYTES_MIN};

/// How long what was found of the disk is believed.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How much room there is.
#[derive(Debug)]
pub(super) struct Room {
    /// The file that holds some.
    reserve: PathBuf,
    held: bool,
    /// Says how many bytes of the disk with this path are free.
    free: fn(&Path) -> u64,
    /// The last write that adds something found none. The disk need not say so: there are quotas and limits on files.
    missed: bool,
    /// There is less than the file would hold.
    full: bool,
    /// There is little.
    tight: bool,
    looked: Option<Instant>,
    /// When the log was last copied for want of room.
    relieved: Option<Instant>,
}

impl Room {
    /// Of the disk of this database. That no room can be held is known from then on, and fails nothing.
    pub(super) fn new(database: &Path) -> Self {
        Self::on(database, free)
    }

    fn on(database: &Path, free: fn(&Path) -> u64) -> Self {
        let reserve = database.with_extension("reserve");
        let (held, missed, full, tight, looked, relieved) = (false, false, false, false, None, None);
        let mut room = Self { reserve, held, free, missed, full, tight, looked, relieved };
        let blocks = std::fs::metadata(&room.reserve).map_or(0, |file| file.blocks() * 512);
        room.held = blocks >= RESERVE_BYTES;
        room.hold();
        room
    }

    /// Whether only what takes something away is to be tried without a look. Where there is little, each group looks: what it takes
    /// away would be refused with the rest if the room had gone since the last look.
    pub(super) fn is_short(&mut self, now: Instant) -> bool {
        if self.tight || self.looked.is_none_or(|at| now.saturating_duration_since(at) >= LOOK_EVERY) {
            self.looked = Some(now);
            let free = (self.free)(&self.reserve.with_file_name("."));
            self.tight = free < ROOM_BYTES_MIN;
            self.full = free < RESERVE_BYTES;
        }
        self.missed || self.full || !self.held
    }

    /// Whether the log is to be kept short.
    pub(super) const fn is_tight(&self) -> bool {
        self.tight || self.full || self.missed
    }

    /// Holds room, if there is enough. Says whether it does.
    pub(super) fn hold(&mut self) -> bool {
        if !self.held {
            self.held = make(&self.reserve).is_ok();
            if !self.held {
                let _ = std::fs::remove_file(&self.reserve);
            }
        }
        self.held
    }

    /// Gives the room to who asks next.
    pub(super) fn give(&mut self) {
        let _ = std::fs::remove_file(&self.reserve);
        self.held = false;
    }

    /// A write has found room. How much there is says the next look.
    pub(super) const fn found(&mut self) {
        self.missed = false;
        self.looked = None;
    }

    /// A write has found none. Says whether copying the log may help: not if that was just done.
    pub(super) fn missed(&mut self, now: Instant) -> bool {
        self.missed = true;
        let again = self.relieved.is_none_or(|at| now.saturating_duration_since(at) >= LOOK_EVERY);
        if again {
            self.relieved = Some(now);
        }
        again
    }
}

/// Whether there is so little room on the disk of this database that what adds something is refused.
pub(crate) fn is_short(database: &Path) -> bool {
    free(database) < RESERVE_BYTES
}

/// Who cannot say leaves it to the writes to find out.
fn free(path: &Path) -> u64 {
    statvfs(path).map_or(u64::MAX, |disk| disk.f_bavail * disk.f_frsize)
}

fn make(path: &Path) -> io::Result<()> {
    let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    match fallocate(&file, FallocateFlags::empty(), 0, RESERVE_BYTES) {
        Ok(()) => Ok(()),
        Err(rustix::io::Errno::OPNOTSUPP) => fill(&file),
        Err(error) => Err(error.into()),
    }
}

/// Where a file system cannot reserve, zeros take the room.
fn fill(mut file: &File) -> io::Result<()> {
    io::copy(&mut io::Read::take(io::repeat(0), RESERVE_BYTES), &mut file)?;
    file.sync_data()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::cell::Cell;

    use super::*;

    thread_local!(static FREE: Cell<u64> = const { Cell::new(u64::MAX) });

    fn room(dir: &tempfile::TempDir) -> Room {
        Room::on(&dir.path().join("node.db"), |_| FREE.get())
    }

    #[test]
    fn a_disk_that_is_nearly_full_is_looked_at_each_time() {
        let dir = tempfile::tempdir().unwrap();
        let (mut room, now) = (room(&dir), Instant::now());
        assert!(!room.is_short(now));
        FREE.set(ROOM_BYTES_MIN - 1);
        assert!(!room.is_short(now) && !room.is_tight(), "it was just looked at");
        assert!(!room.is_short(now + LOOK_EVERY) && room.is_tight());
        FREE.set(RESERVE_BYTES - 1);
        assert!(room.is_short(now + LOOK_EVERY));
        FREE.set(RESERVE_BYTES);
        assert!(!room.is_short(now + LOOK_EVERY));
    }

    #[test]
    fn a_small_write_that_finds_room_does_not_make_some() {
        let dir = tempfile::tempdir().unwrap();
        let (mut room, now) = (room(&dir), Instant::now());
        FREE.set(80 << 10);
        assert!(room.is_short(now));
        room.missed(now);
        room.found();
        assert!(room.is_short(now), "what takes something away still needs what is held for it");
    }

    /// As with a quota, or a limit on the size of files.
    #[test]
    fn what_found_no_room_is_believed_until_something_finds_some() {
        let dir = tempfile::tempdir().unwrap();
        let (mut room, now) = (room(&dir), Instant::now());
        room.missed(now);
        assert!(room.is_short(now + 10 * LOOK_EVERY));
        room.found();
        assert!(!room.is_short(now + 10 * LOOK_EVERY));
    }
}
