//! What is written down of installed modules: by one at a time.

use std::{
    io,
    path::PathBuf,
    sync::{Mutex, MutexGuard, PoisonError},
};

use lodestar_api::{Problem, ProblemCode};
use lodestar_library::install::{self, Lock, Locked, RecoverError, Staged};

use super::installs::on_disk;
use crate::install_lock::{InstallLock, InstallLocks};

/// The lock of installed modules, and who changes it.
#[derive(Debug)]
pub(super) struct Installer {
    state_dir: PathBuf,
    /// Held by whoever writes down what is installed.
    writing: Mutex<()>,
    /// The modules that are being installed or removed.
    install_locks: InstallLocks,
}

impl Installer {
    pub(super) fn of(state_dir: PathBuf) -> Self {
        Self { state_dir, writing: Mutex::default(), install_locks: InstallLocks::default() }
    }

    /// Takes the turn at a module.
    pub(super) fn install_lock(&self, module: &str) -> Result<InstallLock, Problem> {
        self.install_locks.take(module)
    }

    /// Reads the lock.
    pub(super) fn lock(&self) -> Result<Lock, Problem> {
        Lock::read(&self.state_dir)
            .map_err(|error| Problem::new(ProblemCode::Failed, error.to_string()))
    }

    /// Puts a module in its place, on trial.
    pub(super) fn begin(&self, staged: Staged, locked: &Locked) -> io::Result<()> {
        let _writing = self.writing();
        install::begin(&self.state_dir, staged, locked)
    }

    /// Ends a trial: what was put in its place stays.
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

    /// Ends a trial: what lay there before comes back.
    pub(super) fn undo(&self, module: &str) -> io::Result<()> {
        let _writing = self.writing();
        install::roll_back(&self.state_dir, module)
    }

    /// Undoes the trials that the end of the daemon before left without a verdict; returns their
    /// modules.
    pub(super) fn recover(&self) -> Result<Vec<String>, RecoverError> {
        let _writing = self.writing();
        install::recover(&self.state_dir)
    }

    /// Takes a module out of the lock.
    pub(super) fn forget(&self, module: &str) -> io::Result<()> {
        let _writing = self.writing();
        let mut lock = self.lock().map_err(|problem| io::Error::other(problem.detail))?;
        if lock.modules.remove(module).is_some() { lock.write(&self.state_dir) } else { Ok(()) }
    }

    fn writing(&self) -> MutexGuard<'_, ()> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
