//! Disk usage of a module, measured so that the module cannot hide any of it.

use std::{
    collections::HashSet,
    ffi::{CStr, CString},
    fs,
    io::ErrorKind,
    os::{fd::OwnedFd, unix::fs::MetadataExt as _},
    path::Path,
    rc::Rc,
};

use crate::process_stats::{is_ending, threads};
use rustix::{
    fs::{AtFlags, CWD, FileType, Mode, OFlags, RawDir, Stat, fstat, openat, statat},
    io::Errno,
    process::geteuid,
};

/// Smallest number of bytes that a file counts for.
const SMALLEST: u64 = 512;

/// Deepest nesting of directories. As many are open at once.
const DEEPEST: usize = 128;

/// Number of bytes of a directory that are read at once.
const BUFFER: usize = 1 << 15;

/// Reason why the disk usage cannot be measured. No file name is given: the module chose it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unseen {
    #[error("a directory in its data directory cannot be read")]
    Directory,
    #[error("directories lie more than {DEEPEST} deep in its data directory")]
    TooDeep,
    #[error("what one of its processes has open cannot be seen")]
    Process,
}

/// Returns the bytes that a directory takes on its disk. It is walked by descriptors, since the
/// length of a path is limited.
///
/// # Errors
///
/// When a directory that belongs to the daemon's user, as which modules run, cannot be read.
/// Directories of other users are not made by the module.
pub(super) fn size(directory: &Path) -> Result<u64, Unseen> {
    let mut walk = Walk::default();
    if let Some(root) = open(CWD, directory)? {
        walk.list(root, 1)?;
    }
    while let Some(Found { within, name, depth }) = walk.left.pop() {
        if depth > DEEPEST {
            return Err(Unseen::TooDeep);
        }
        if let Some(directory) = open(&within, name.as_c_str())? {
            walk.list(directory, depth)?;
        }
    }
    Ok(walk.bytes)
}

/// A directory that is still to be walked.
#[derive(Debug)]
struct Found {
    within: Rc<OwnedFd>,
    name: CString,
    depth: usize,
}

#[derive(Debug, Default)]
struct Walk {
    left: Vec<Found>,
    linked_twice: HashSet<(u64, u64)>,
    bytes: u64,
}

impl Walk {
    fn list(&mut self, directory: OwnedFd, depth: usize) -> Result<(), Unseen> {
        let directory = Rc::new(directory);
        let mut buffer = Vec::with_capacity(BUFFER);
        let mut entries = RawDir::new(&*directory, buffer.spare_capacity_mut());
        // An error means that it was removed meanwhile, or that the disk fails.
        while let Some(Ok(entry)) = entries.next() {
            let name = entry.file_name();
            if [c".", c".."].contains(&name) {
                continue;
            }
            // The size of a link itself, not of its target.
            match statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => self.add(&directory, name, depth, &stat),
                Err(Errno::ACCESS) if fstat(&directory).is_ok_and(|it| is_own(&it)) => {
                    return Err(Unseen::Directory);
                }
                Err(_) => {}
            }
        }
        Ok(())
    }

    fn add(&mut self, within: &Rc<OwnedFd>, name: &CStr, depth: usize, stat: &Stat) {
        let is_directory = FileType::from_raw_mode(stat.st_mode).is_dir();
        if is_directory {
            let (within, name) = (within.clone(), name.to_owned());
            self.left.push(Found { within, name, depth: depth + 1 });
        }
        let mut is_first = || self.linked_twice.insert((stat.st_dev, stat.st_ino));
        if is_directory || stat.st_nlink < 2 || is_first() {
            self.bytes += taken(stat.st_blocks.unsigned_abs());
        }
    }
}

/// Opens a directory to be listed; `None` where it is gone, or the daemon cannot open it for
/// another reason.
fn open(
    within: impl std::os::fd::AsFd,
    name: impl rustix::path::Arg + Copy,
) -> Result<Option<OwnedFd>, Unseen> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match openat(&within, name, flags, Mode::empty()) {
        Ok(directory) => Ok(Some(directory)),
        Err(Errno::ACCESS) => match statat(&within, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if is_own(&stat) => Err(Unseen::Directory),
            _ => Ok(None),
        },
        Err(_) => Ok(None),
    }
}

fn is_own(stat: &Stat) -> bool {
    stat.st_uid == geteuid().as_raw()
}

fn taken(blocks: u64) -> u64 {
    (blocks * 512).max(SMALLEST)
}

/// Returns the bytes of files that were removed from a directory while these processes have them
/// open. Each thread is checked: it may have a descriptor table of its own.
///
/// # Errors
///
/// When a process that still runs prevents others from reading its open files.
pub(super) fn size_of_unlinked(directory: &Path, processes: &[u32]) -> Result<u64, Unseen> {
    let mut seen = HashSet::new();
    let mut size = 0;
    for process in processes {
        for thread in threads(*process) {
            size += unlinked_of(directory, *process, thread, &mut seen)?;
        }
    }
    Ok(size)
}

fn unlinked_of(
    directory: &Path,
    process: u32,
    thread: u32,
    seen: &mut HashSet<(u64, u64)>,
) -> Result<u64, Unseen> {
    let mut size = 0;
    let judge = |error: std::io::Error| match error.kind() {
        // Nobody may look into a process that is about to end either.
        ErrorKind::PermissionDenied if !is_ending(process, thread) => Err(Unseen::Process),
        _ => Ok(()),
    };
    let files = match fs::read_dir(format!("/proc/{process}/task/{thread}/fd")) {
        Ok(files) => files,
        Err(error) => return judge(error).map(|()| 0),
    };
    for place in files.flatten().map(|entry| entry.path()) {
        match fs::read_link(&place) {
            Ok(target) if !target.starts_with(directory) => continue,
            // A file whose path is too long may lie there.
            Ok(_) | Err(_) => {}
        }
        match fs::metadata(&place) {
            Ok(it) if it.is_file() && it.nlink() == 0 && seen.insert((it.dev(), it.ino())) => {
                size += taken(it.blocks());
            }
            Ok(_) => {}
            Err(error) => judge(error)?,
        }
    }
    Ok(size)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use rustix::fs::mkdirat;

    use super::*;

    #[test]
    fn measures_what_files_take() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path();
        let size = || size(path).expect("nothing is hidden");
        fs::create_dir(path.join("deep")).expect("it is new");
        let empty = size();
        fs::write(path.join("deep/file"), vec![7; 1 << 20]).expect("it is writable");
        let full = size();
        assert!((1 << 20..1 << 21).contains(&(full - empty)), "{full} - {empty}");
        fs::hard_link(path.join("deep/file"), path.join("again")).expect("it is writable");
        symlink("/usr", path.join("link")).expect("it is writable");
        assert!(size() < full + (1 << 16), "once, and not where a link leads");
        let open = fs::File::open(path.join("again")).expect("it is there");
        fs::remove_file(path.join("again")).expect("it is ours");
        fs::remove_file(path.join("deep/file")).expect("it is ours");
        assert!(size() < empty + (1 << 16));
        let real = path.canonicalize().expect("it is there");
        let unlinked = || size_of_unlinked(&real, &[std::process::id()]);
        assert!(unlinked().expect("it is ours") >= 1 << 20, "it is still there");
        drop(open);
        assert_eq!(unlinked(), Ok(0));
        assert_eq!(size_of_unlinked(&real, &[u32::MAX]), Ok(0), "it is gone");
    }

    /// Creates directories in each other; returns the innermost.
    fn nest(path: &Path, name: &str, depth: usize) -> OwnedFd {
        let mut within = open(CWD, path).expect("it is ours").expect("it is there");
        for _ in 0..depth {
            mkdirat(&within, name, Mode::RWXU).expect("it is new");
            within = open(&within, name).expect("it is ours").expect("it is there");
        }
        within
    }

    #[test]
    fn a_path_that_is_too_long_hides_nothing() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().canonicalize().expect("it is there");
        let innermost = nest(&path, &"x".repeat(200), 40);
        let flags = OFlags::CREATE | OFlags::WRONLY;
        let file = openat(&innermost, "file", flags, Mode::RUSR | Mode::WUSR);
        let file = file.expect("it is writable");
        let mut bytes = &vec![7; 1 << 20][..];
        while !bytes.is_empty() {
            let written = rustix::io::write(&file, bytes).expect("it is writable");
            bytes = &bytes[written..];
        }
        assert!(size(&path).expect("nothing is hidden") >= 1 << 20);
        rustix::fs::unlinkat(&innermost, "file", AtFlags::empty()).expect("it is ours");
        assert!(size(&path).expect("nothing is hidden") < 1 << 20);
        let unlinked = size_of_unlinked(&path, &[std::process::id()]);
        assert!(unlinked.expect("it is ours") >= 1 << 20);
    }

    #[test]
    fn directories_lie_only_so_deep_in_each_other() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let innermost = nest(directory.path(), "x", DEEPEST - 1);
        assert!(size(directory.path()).is_ok());
        mkdirat(&innermost, "x", Mode::RWXU).expect("it is new");
        assert_eq!(size(directory.path()), Err(Unseen::TooDeep));
    }
}
