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
    /// The last write found none, or there is less than the file would hold.
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
        let reserve = database.with_extension("reserve");
        let mut room = Self { reserve, held: false, full: false, tight: false, looked: None, relieved: None };
        let blocks = std::fs::metadata(&room.reserve).map_or(0, |file| file.blocks() * 512);
        room.held = blocks >= RESERVE_BYTES;
        room.hold();
        room
    }

    /// Whether only what takes something away is to be tried without a look.
    pub(super) fn is_short(&mut self, now: Instant) -> bool {
        if self.looked.is_none_or(|at| now.saturating_duration_since(at) >= LOOK_EVERY) {
            self.looked = Some(now);
            // Who cannot say leaves it to the writes to find out.
            let free = statvfs(self.reserve.with_file_name(".")).map_or(u64::MAX, |disk| disk.f_bavail * disk.f_frsize);
            self.tight = free < ROOM_BYTES_MIN;
            self.full = free < RESERVE_BYTES;
        }
        self.full || !self.held
    }

    /// Whether the log is to be kept short.
    pub(super) const fn is_tight(&self) -> bool {
        self.tight || self.full
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

    /// A write has found room.
    pub(super) const fn found(&mut self) {
        self.full = false;
    }

    /// A write has found none. Says whether copying the log may help: not if that was just done.
    pub(super) fn missed(&mut self, now: Instant) -> bool {
        self.full = true;
        self.looked = Some(now);
        let again = self.relieved.is_none_or(|at| now.saturating_duration_since(at) >= LOOK_EVERY);
        if again {
            self.relieved = Some(now);
        }
        again
    }
}

/// Whether there is so little room on the disk of this database that what adds something is refused.
pub(crate) fn is_short(database: &Path) -> bool {
    let free = statvfs(database).map_or(u64::MAX, |disk| disk.f_bavail * disk.f_frsize);
    free < RESERVE_BYTES
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
