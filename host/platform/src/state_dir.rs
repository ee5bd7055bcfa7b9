//! The state directory, and the lock that assigns it to one daemon.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Seek as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rustix::{
    fs::{FlockOperation, flock, fstat, major, minor},
    io::Errno,
};

use crate::{
    file_trust::{self, Also, Exposed},
    files,
};

/// The state directory of a running daemon. Dropping it releases the lock.
#[derive(Debug)]
pub struct StateDir {
    path: PathBuf,
    /// The locked directory, which cannot be deleted while it has entries.
    _directory: File,
    /// The locked file `lock` in it, which holds the process id of the owner.
    _lock: File,
}

/// Reason for not getting the state directory.
#[derive(Debug, thiserror::Error)]
pub enum StateDirError {
    /// Another daemon uses it.
    #[error(
        "another lodestard ({holder}) uses {}; stop it, or give this one another --state-dir",
        .path.display()
    )]
    Taken {
        /// The directory.
        path: PathBuf,
        /// The process that uses it.
        holder: String,
    },
    /// Another account can write to it.
    #[error(
        "{exposed}, who could change what lodestard keeps in its state directory; {}",
        .exposed.remedy()
    )]
    Exposed {
        /// The place that the account can write.
        exposed: Exposed,
    },
    /// The directory cannot be created or written.
    #[error(
        "cannot write to the state directory {}: {source}; make it writable for this user, or \
         give another --state-dir",
        .path.display()
    )]
    Unwritable {
        /// The directory.
        path: PathBuf,
        /// Error of the system.
        source: io::Error,
    },
}

impl StateDir {
    /// Creates the directory if it is missing, and takes the lock.
    ///
    /// # Errors
    ///
    /// Returns an error if it cannot be written, others can write to it, or another daemon uses it.
    pub fn open(path: &Path) -> Result<Self, StateDirError> {
        let unwritable = |source| StateDirError::Unwritable { path: path.to_owned(), source };
        private_directory(path).map_err(unwritable)?;
        if let Some(exposed) = file_trust::on_the_way(path, Also::OwnGroup) {
            return Err(StateDirError::Exposed { exposed });
        }
        let taken = |file: &File| {
            let holder = holder(path, file).map_or("unknown".to_owned(), |it| it.to_string());
            let holder = format!("process {holder}");
            StateDirError::Taken { path: path.to_owned(), holder }
        };
        // Who deletes the file `lock` gives nothing free.
        let directory = File::open(path).map_err(unwritable)?;
        if !take(&directory) {
            return Err(taken(&directory));
        }
        let file = path.join("lock");
        files::clear_irregular(&file).map_err(unwritable)?;
        let mut options = OpenOptions::new();
        let options = options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let mut lock = options.open(&file).map_err(unwritable)?;
        if !take(&lock) {
            return Err(taken(&lock));
        }
        let mut note = || -> io::Result<()> {
            lock.set_len(0)?;
            lock.rewind()?;
            write!(lock, "{}", std::process::id())
        };
        note().map_err(unwritable)?;
        Ok(Self { path: path.to_owned(), _directory: directory, _lock: lock })
    }

    /// Returns the path of the directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Maximum wait for a lock: a daemon that was just killed still holds it while the kernel cleans
/// up.
const PATIENCE: Duration = Duration::from_millis(1_500);

/// Locks a file, or returns `false` if another process has it. On a file system without locks of
/// directories (NFS), the file `lock` decides.
fn take(file: &File) -> bool {
    let until = Instant::now() + PATIENCE;
    loop {
        match flock(file, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK | Errno::INTR) => {}
            Ok(()) | Err(_) => return true,
        }
        if Instant::now() >= until {
            return false;
        }
        std::thread::park_timeout(PATIENCE / 30);
    }
}

/// Returns the process that has the lock: as written in the file, or else as the kernel knows.
fn holder(state_dir: &Path, locked: &File) -> Option<u32> {
    let written = files::read_text(&state_dir.join("lock")).ok();
    let written = written.and_then(|text| text.trim().parse().ok());
    written.or_else(|| {
        let it = fstat(locked).ok()?;
        // `1: FLOCK  ADVISORY  WRITE 4711 fd:01:131 0 EOF` (proc_locks(5)).
        let place = format!("{:02x}:{:02x}:{}", major(it.st_dev), minor(it.st_dev), it.st_ino);
        let locks = files::read_text(Path::new("/proc/locks")).ok()?;
        let mut lines = locks.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let line = lines.find(|fields| fields.get(5) == Some(&place.as_str()))?;
        line.get(4)?.parse().ok()
    })
}

/// Returns the directory of a module's own data.
#[must_use]
pub fn data_dir(state_dir: &Path, module: &str) -> PathBuf {
    state_dir.join("data").join(module)
}

/// Creates a directory that only its owner may enter, with its parents.
///
/// # Errors
///
/// Returns an error if the system refuses.
pub fn private_directory(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_daemon_has_it() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("state");
        let first = StateDir::open(&path).expect("it is free");
        let error = StateDir::open(&path).expect_err("it is taken").to_string();
        assert!(error.contains(&format!("process {}", std::process::id())), "{error}");
        drop(first);
        StateDir::open(&path).expect("it is free again");
    }

    #[test]
    fn a_deleted_lock_gives_nothing_free() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("state");
        let first = StateDir::open(&path).expect("it is free");
        let holder = format!("process {}", std::process::id());
        for replaced in [false, true] {
            fs::remove_file(path.join("lock")).expect("it is ours");
            if replaced {
                fs::write(path.join("lock"), "").expect("it is ours");
            }
            let error = StateDir::open(&path).expect_err("it is taken").to_string();
            assert!(error.contains(&holder), "the kernel knows: {error}");
            fs::write(path.join("lock"), "").expect("it is ours");
        }
        drop(first);
        fs::remove_file(path.join("lock")).expect("it is ours");
        rustix::fs::mkfifoat(rustix::fs::CWD, path.join("lock"), rustix::fs::Mode::RUSR)
            .expect("it is gone");
        StateDir::open(&path).expect("it is free again");
    }

    #[test]
    fn what_others_can_write_is_not_used() {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("above/state");
        drop(StateDir::open(&path).expect("it is free"));
        for place in [path.as_path(), path.parent().expect("it has one")] {
            let set = |mode| fs::set_permissions(place, fs::Permissions::from_mode(mode));
            set(0o777).expect("it is ours");
            let error = StateDir::open(&path).expect_err("others can write").to_string();
            assert!(error.contains("(mode 777)") && error.contains("`chmod o-w "), "{error}");
            assert!(error.ends_with(&format!("{}`", place.display())), "{error}");
            set(0o700).expect("it is ours");
        }
        StateDir::open(&path).expect("it is mended");
    }

    #[test]
    fn says_what_to_do_when_it_cannot_be_made() {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        let error = StateDir::open(&file.path().join("x")).expect_err("it is a file").to_string();
        assert!(error.contains("--state-dir"), "{error}");
    }
}
