//! The libraries that are mapped, and how one of them leaves.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Inspected, Library, LoadError, open::Kept};

/// How many libraries may be mapped at once. Each one that was replaced costs 0.6 to 2.4 MiB of
/// address space, a tenth of it memory, for as long as the daemon runs.
const BUDGET: usize = 64;

/// The libraries that are mapped. One that was replaced is retired: it stays mapped, since nothing
/// proves that no pointer into it is left, unless its module is configured with `unload: true`.
#[derive(Debug, Default)]
pub struct Shelf {
    mapped: Mutex<Vec<Arc<Library>>>,
}

impl Shelf {
    /// Maps a library. Unless it must be `fresh`, the same bytes that are mapped already will do.
    ///
    /// # Errors
    ///
    /// When it cannot be mapped, its types do not fit this host, or the daemon must be restarted
    /// before more can be mapped.
    pub fn open(&self, inspected: Inspected, fresh: bool) -> Result<Arc<Library>, LoadError> {
        if !fresh && let Some(library) = self.mapped(&inspected.sha256) {
            return Ok(library);
        }
        let resident = self.lock().len();
        if resident >= BUDGET {
            return Err(LoadError::RestartNeeded { resident });
        }
        // The lock is not held: a constructor of a library may take its time.
        let library = Arc::new(Library::open(inspected)?);
        self.lock().push(library.clone());
        Ok(library)
    }

    /// The newest mapped library with this hash that was not replaced.
    #[must_use]
    pub fn mapped(&self, sha256: &str) -> Option<Arc<Library>> {
        let mapped = self.lock();
        let usable = mapped.iter().rev().filter(|library| !library.is_replaced());
        usable.into_iter().find(|library| library.sha256() == sha256).cloned()
    }

    /// How many libraries of a module are mapped.
    #[must_use]
    pub fn resident_of(&self, module: &str) -> usize {
        let mapped = self.lock();
        mapped.iter().filter(|library| library.manifest().module.name == module).count()
    }

    /// Deals with every library that was replaced and that nobody holds any more: takes its
    /// thread-local keys back, and unmaps it if `unload` says so of its module and nothing speaks
    /// against it. Called when the threads that ran it have been joined.
    pub fn sweep(&self, unload: impl Fn(&str) -> bool) {
        let mut kept = Vec::new();
        for library in self.left_behind() {
            let module = library.manifest().module.name.clone();
            match Arc::into_inner(library) {
                Some(library) if unload(&module) => match library.unmap() {
                    Ok(keys) => tracing::debug!(module, keys, "unmapped a library"),
                    Err(Kept { library, reason }) => {
                        tracing::warn!(module, reason, "an old library stays mapped");
                        kept.extend(library);
                    }
                },
                Some(library) => {
                    library.retire();
                    kept.push(Arc::new(library));
                }
                None => {}
            }
        }
        self.lock().extend(kept);
    }

    /// Takes the replaced libraries out that nobody else holds, those that were dealt with before
    /// excepted.
    fn left_behind(&self) -> Vec<Arc<Library>> {
        let mut mapped = self.lock();
        let is_left = |library: &mut Arc<Library>| {
            library.is_replaced() && !library.is_retired() && Arc::strong_count(library) == 1
        };
        mapped.extract_if(.., is_left).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Library>>> {
        self.mapped.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
