//! Who changes what is installed of a module: one at a time, from the first check to the verdict.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
};

use lodestar_api::{Problem, ProblemCode};

/// The modules that are being installed or removed.
#[derive(Debug, Clone, Default)]
pub(crate) struct InstallLocks(Arc<Mutex<HashSet<String>>>);

/// A module that nobody else installs or removes as long as this is held.
#[derive(Debug)]
pub struct InstallLock {
    install_locks: InstallLocks,
    pub(crate) module: String,
}

impl InstallLocks {
    /// Takes the turn at a module.
    ///
    /// # Errors
    ///
    /// When it is being installed or removed.
    pub(crate) fn take(&self, module: &str) -> Result<InstallLock, Problem> {
        if self.lock().insert(module.to_owned()) {
            return Ok(InstallLock { install_locks: self.clone(), module: module.to_owned() });
        }
        let what = format!("{module} is being installed or removed at this moment");
        Err(Problem::new(ProblemCode::Busy, what).help("try it again when that has ended"))
    }

    /// Returns whether a module is being installed or removed.
    pub(crate) fn is_taken(&self, module: &str) -> bool {
        self.lock().contains(module)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashSet<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for InstallLock {
    fn drop(&mut self) {
        self.install_locks.lock().remove(&self.module);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_has_one_at_a_time() {
        let install_locks = InstallLocks::default();
        let install_lock = install_locks.take("tiny").expect("it is free");
        let problem = install_locks.take("tiny").expect_err("it is taken");
        assert_eq!(problem.code, ProblemCode::Busy);
        assert!(install_locks.is_taken("tiny"));
        assert!(install_locks.take("other").is_ok());
        drop(install_lock);
        assert!(install_locks.take("tiny").is_ok());
    }
}
