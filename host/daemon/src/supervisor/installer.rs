//! Access to the lock file of installed modules, one writer at a time.

use std::{
    io,
    path::PathBuf,
    sync::{Mutex, MutexGuard, PoisonError},
};

use lodestar_api::{Problem, ProblemCode};
use lodestar_library::install::{self, Lock, Locked, RecoverError, Staged};

use super::installs::on_disk;
use crate::install_lock::{InstallLock, InstallLocks};

/// The lock file of installed modules, and the locks that guard its changes.
#[derive(Debug)]
pub(super) struct Installer {
    state_dir: PathBuf,
    /// Mutex that is held while the lock file or the installed files change.
    writing: Mutex<()>,
    /// Install locks of the modules that are being installed or removed.
    install_locks: InstallLocks,
}

impl Installer {
    pub(super) fn of(state_dir: PathBuf) -> Self {
        Self { state_dir, writing: Mutex::default(), install_locks: InstallLocks::default() }
    }

    /// Takes the install lock of a module.
    pub(super) fn install_lock(&self, module: &str) -> Result<InstallLock, Problem> {
        self.install_locks.take(module)
    }

    /// Returns whether a module is being installed or removed.
    pub(super) fn is_changing(&self, module: &str) -> bool {
        self.install_locks.is_taken(module)
    }

    /// Reads the lock file.
    pub(super) fn lock(&self) -> Result<Lock, Problem> {
        Lock::read(&self.state_dir)
            .map_err(|error| Problem::new(ProblemCode::Failed, error.to_string()))
    }

    /// Begins a transaction: puts a staged module in place.
    pub(super) fn begin(&self, staged: Staged, locked: &Locked) -> io::Result<()> {
        let _writing = self.writing();
        install::begin(&self.state_dir, staged, locked)
    }

    /// Commits a transaction: the module that was put in place stays.
    pub(super) fn keep(&self, module: &str) -> Result<(), Problem> {
        let _writing = self.writing();
        let state_dir = &self.state_dir;
        install::commit(state_dir, module).map_err(|error| on_disk(state_dir, &error))?;
        let lock = self.lock()?;
        let Some(locked) = lock.modules.get(module) else { return Ok(()) };
        tracing::info!(
            module,
            version = locked.version,
            sha256 = locked.sha256,
            signer = locked.signer.as_deref().unwrap_or("unsigned"),
            "a module was installed"
        );
        Ok(())
    }

    /// Rolls a transaction back: the module before is restored.
    pub(super) fn undo(&self, module: &str) -> io::Result<()> {
        let _writing = self.writing();
        install::roll_back(&self.state_dir, module)
    }

    /// Rolls back the transactions that the last run of the daemon left undecided. Returns their
    /// modules.
    pub(super) fn recover(&self) -> Result<Vec<String>, RecoverError> {
        let _writing = self.writing();
        install::recover(&self.state_dir)
    }

    /// Removes a module from the lock file.
    pub(super) fn forget(&self, module: &str) -> io::Result<()> {
        let _writing = self.writing();
        let mut lock = self.lock().map_err(|problem| io::Error::other(problem.detail))?;
        if lock.modules.remove(module).is_some() { lock.write(&self.state_dir) } else { Ok(()) }
    }

    fn writing(&self) -> MutexGuard<'_, ()> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
