//! Room on the disk that is kept for the counters: on a full disk it is given up, piece by piece,
//! so that cursors can be written down, and with them segments deleted. Events get none of it.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use rustix::{
    fs::{FallocateFlags, fallocate, fstatvfs, statvfs},
    io::Errno,
};

use lodestar_platform::files;

/// Largest part of a file system that is kept: one part of so many.
const PART_OF_DISK: u64 = 64;
/// Number of pieces in which the reserve is given up.
const PIECES: u64 = 32;
/// The smallest piece, in bytes.
const LEAST_PIECE: u64 = 16 << 10;

/// The file that takes the reserved space.
#[derive(Debug)]
pub(crate) struct Reserve {
    path: PathBuf,
    /// Size of the reserve while there is room, in bytes.
    bytes: u64,
    /// True when some of the reserve was given up.
    is_spent: AtomicBool,
    /// Lock held while the reserve is given up or taken back: the writer and the maintenance thread
    /// both do.
    changing: Mutex<()>,
}

impl Reserve {
    /// Reserves up to `most` bytes in `directory`. Where the file system cannot allocate room for a
    /// file beforehand, there is no reserve.
    pub(crate) fn open(directory: &Path, most: u64) -> Self {
        let path = directory.join("reserve");
        let disk = statvfs(directory).map_or(u64::MAX, |disk| disk.f_blocks * disk.f_frsize);
        let bytes = most.min(disk / PART_OF_DISK);
        let reserve =
            Self { path, bytes, is_spent: AtomicBool::new(false), changing: Mutex::default() };
        if let Err(error) = files::clear_irregular(&reserve.path).and_then(|()| reserve.fill()) {
            let path = reserve.path.display();
            tracing::warn!(%path, %error, "no room on the disk is kept for the ledger's counters");
        }
        reserve
    }

    /// Returns whether some of the reserve was given up, since the disk is full.
    pub(crate) fn is_spent(&self) -> bool {
        self.is_spent.load(Ordering::SeqCst)
    }

    /// Gives up a piece of the reserve; returns whether there was one.
    pub(crate) fn give_up(&self) -> bool {
        let _changing = self.changing();
        let given = || -> io::Result<bool> {
            let file = OpenOptions::new().write(true).open(&self.path)?;
            let bytes = file.metadata()?.len();
            let piece = (self.bytes / PIECES).max(LEAST_PIECE);
            file.set_len(bytes.saturating_sub(piece)).map(|()| bytes > 0)
        };
        let given = given().unwrap_or(false);
        if given && !self.is_spent.swap(true, Ordering::SeqCst) {
            let path = self.path.display();
            tracing::error!(%path, "the disk is full: the room that was kept goes to the counters");
        }
        given
    }

    /// Takes back what was given up, once there is room; returns whether the reserve is whole.
    pub(crate) fn is_full_again(&self) -> bool {
        let _changing = self.changing();
        let is_full = !self.is_spent() || self.fill().unwrap_or(false);
        if is_full {
            self.is_spent.store(false, Ordering::SeqCst);
        }
        is_full
    }

    fn changing(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fills the reserve up, where as much again stays free for others; returns whether it is
    /// whole.
    fn fill(&self) -> io::Result<bool> {
        let mut options = OpenOptions::new();
        let file = options.write(true).create(true).truncate(false).open(&self.path)?;
        let metadata = file.metadata()?;
        // A copy of it may be all holes.
        let missing = self.bytes.saturating_sub(metadata.blocks() * 512);
        if missing == 0 {
            return Ok(true);
        }
        let space = fstatvfs(&file)?;
        if space.f_bavail * space.f_frsize < 2 * missing {
            return Ok(false);
        }
        let taken = take(&file, self.bytes);
        // What was taken and does not count would be lost to everybody.
        taken.inspect_err(|_| drop(file.set_len(metadata.len()))).map(|()| true)
    }
}

fn take(file: &File, bytes: u64) -> io::Result<()> {
    loop {
        match fallocate(file, FallocateFlags::empty(), 0, bytes) {
            Err(Errno::INTR) => {}
            outcome => return Ok(outcome?),
        }
    }
}

/// Checks whether a write failed for want of room.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_given_up_piece_by_piece_and_taken_back() {
        let directory = tempfile::tempdir().expect("a directory");
        let reserve = Reserve::open(directory.path(), 1 << 20);
        let taken = || {
            let metadata = reserve.path.metadata().expect("it is there");
            (metadata.len(), metadata.blocks() * 512 >= metadata.len())
        };
        assert_eq!((taken(), reserve.is_spent()), ((1 << 20, true), false));
        assert!(reserve.give_up() && reserve.is_spent());
        assert_eq!(taken(), ((1 << 20) - (32 << 10), true));
        let pieces = (0..100).take_while(|_| reserve.give_up()).count();
        assert_eq!((pieces, taken().0), (31, 0));
        assert!(reserve.is_full_again() && !reserve.is_spent());
        assert_eq!(taken(), (1 << 20, true));
        // One from before is as good, and one that is all holes is none.
        assert!(!Reserve::open(directory.path(), 1 << 20).is_spent());
        let hole = File::create(&reserve.path).and_then(|file| file.set_len(1 << 20));
        hole.expect("it is ours");
        assert!(!Reserve::open(directory.path(), 1 << 20).is_spent());
        assert_eq!(taken(), (1 << 20, true));
        std::fs::remove_file(&reserve.path).expect("it is there");
        assert!(!reserve.give_up() && !reserve.is_spent(), "there is nothing to give");
        assert!(reserve.is_full_again());
    }
}
