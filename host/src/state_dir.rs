//! The state directory, and the lock that says which daemon has it.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Seek as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rustix::fs::{FlockOperation, flock};

/// The state directory of a daemon that runs. Dropping it gives it free.
#[derive(Debug)]
pub struct StateDir {
    path: PathBuf,
    _lock: File,
}

/// Why there is no state directory.
#[derive(Debug, thiserror::Error)]
pub enum StateDirError {
    /// Another daemon has it.
    #[error(
        "another lodestard ({holder}) uses {}; stop it, or give this one another --state-dir",
        .path.display()
    )]
    Taken {
        /// The directory.
        path: PathBuf,
        /// The process that has it.
        holder: String,
    },
    /// It cannot be made or written to.
    #[error(
        "cannot write to the state directory {}: {source}; make it writable for this user, or \
         give another --state-dir",
        .path.display()
    )]
    Unwritable {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl StateDir {
    /// Makes the directory where it is missing, and takes the lock.
    ///
    /// # Errors
    ///
    /// When it cannot be written to, or another daemon has it.
    pub fn open(path: &Path) -> Result<Self, StateDirError> {
        let unwritable = |source| StateDirError::Unwritable { path: path.to_owned(), source };
        private_directory(path).map_err(unwritable)?;
        let mut options = OpenOptions::new();
        let options = options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let mut lock = options.open(path.join("lock")).map_err(unwritable)?;
        if !take(&lock) {
            let mut holder = String::new();
            let read = lock.read_to_string(&mut holder);
            let holder = match read {
                Ok(_) if !holder.trim().is_empty() => format!("process {}", holder.trim()),
                _ => "process unknown".to_owned(),
            };
            return Err(StateDirError::Taken { path: path.to_owned(), holder });
        }
        let mut note = || -> io::Result<()> {
            lock.set_len(0)?;
            lock.rewind()?;
            write!(lock, "{}", std::process::id())
        };
        note().map_err(unwritable)?;
        Ok(Self { path: path.to_owned(), _lock: lock })
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// How long a lock is waited for: a daemon that was just killed still holds it while the kernel
/// takes it apart.
const PATIENCE: Duration = Duration::from_millis(1_500);

fn take(lock: &File) -> bool {
    let until = Instant::now() + PATIENCE;
    loop {
        if flock(lock, FlockOperation::NonBlockingLockExclusive).is_ok() {
            return true;
        }
        if Instant::now() >= until {
            return false;
        }
        std::thread::park_timeout(PATIENCE / 30);
    }
}

/// The directory of a module's own data.
#[must_use]
pub fn data_dir(state_dir: &Path, module: &str) -> PathBuf {
    state_dir.join("data").join(module)
}

/// Makes a directory that only its owner may enter, with its parents.
///
/// # Errors
///
/// When the system refuses.
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
    fn says_what_to_do_when_it_cannot_be_made() {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        let error = StateDir::open(&file.path().join("x")).expect_err("it is a file").to_string();
        assert!(error.contains("--state-dir"), "{error}");
    }
}
