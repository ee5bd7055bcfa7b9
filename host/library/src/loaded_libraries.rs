//! The libraries that are mapped, and their unloading.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{
    Inspected, Library, LoadError,
    open::{Lingering, StillMapped},
};

/// Number of libraries that may be mapped at once. Each one that was replaced costs 0.6 to 2.4 MiB
/// of address space, a tenth of it memory, for as long as the daemon runs.
const BUDGET: usize = 64;

/// Set of the libraries that are mapped. One that was replaced is retired: it stays mapped, since
/// nothing proves that no pointer into it is left, unless its module is configured with
/// `unload: true`.
#[derive(Debug, Default)]
pub struct LoadedLibraries {
    table: Mutex<LibraryTable>,
}

#[derive(Debug, Default)]
struct LibraryTable {
    mapped: Vec<Arc<Library>>,
    lingering: Vec<Lingering>,
    /// Modules of the libraries that a sweep is working on; they may still be mapped.
    in_hand: Vec<String>,
}

impl LoadedLibraries {
    /// Maps a library. Unless it must be `fresh`, a library of the same bytes that is mapped
    /// already is returned.
    ///
    /// # Errors
    ///
    /// When it cannot be mapped, its types do not fit this host, or the daemon must be restarted
    /// before more can be mapped.
    pub fn open(&self, inspected: Inspected, fresh: bool) -> Result<Arc<Library>, LoadError> {
        if !fresh && let Some(library) = self.mapped(&inspected.sha256) {
            return Ok(library);
        }
        let resident = self.lock().count(|_| true);
        if resident >= BUDGET {
            return Err(LoadError::RestartNeeded { resident });
        }
        // The lock is not held: a constructor of a library may take its time.
        let library = Arc::new(Library::open(inspected)?);
        let mut table = self.lock();
        if !fresh {
            // There is no generation before it that it could give way to: what was mapped of the
            // module was stopped, or never started.
            let module = &library.manifest().module.name;
            let others = table.mapped.iter().filter(|it| it.manifest().module.name == *module);
            others.for_each(|other| other.set_replaced(true));
        }
        table.mapped.push(library.clone());
        Ok(library)
    }

    /// Returns the newest mapped library with this hash that was not replaced.
    #[must_use]
    pub fn mapped(&self, sha256: &str) -> Option<Arc<Library>> {
        let table = self.lock();
        let usable = table.mapped.iter().rev().filter(|library| !library.is_replaced());
        usable.into_iter().find(|library| library.sha256() == sha256).cloned()
    }

    /// Returns the number of libraries of a module that are mapped.
    #[must_use]
    pub fn resident_of(&self, module: &str) -> usize {
        self.lock().count(|name| name == module)
    }

    /// Returns whether a [`sweep`](Self::sweep) may find something to do.
    #[must_use]
    pub fn have_left_behind(&self) -> bool {
        let table = self.lock();
        let is_left = |library: &Arc<Library>| library.is_replaced() && !library.is_retired();
        !table.lingering.is_empty() || table.mapped.iter().any(is_left)
    }

    /// Handles every library that was replaced and that nobody uses any more: reclaims its
    /// thread-local keys, and unmaps it if `unload` returns true for its module and nothing
    /// prevents it. Called when the threads that ran it have been joined.
    pub fn sweep(&self, unload: impl Fn(&str) -> bool) {
        let mut kept = LibraryTable::default();
        let (left_behind, modules) = self.take_left_behind();
        for (library, module) in left_behind.into_iter().zip(&modules) {
            match Arc::into_inner(library) {
                Some(library) if unload(module) => match library.unmap() {
                    Ok(keys) => tracing::debug!(module, keys, "unmapped a library"),
                    Err(stays) => kept.keep(module, stays),
                },
                Some(library) => {
                    library.retire();
                    kept.mapped.push(Arc::new(library));
                }
                None => {}
            }
        }
        let mut table = self.lock();
        table.mapped.extend(kept.mapped);
        table.lingering.extend(kept.lingering);
        table.lingering.retain(Lingering::is_mapped);
        for module in modules {
            if let Some(position) = table.in_hand.iter().position(|it| *it == module) {
                table.in_hand.swap_remove(position);
            }
        }
    }

    /// Removes the replaced libraries that nobody else uses, except those handled before; returns
    /// them and their modules.
    fn take_left_behind(&self) -> (Vec<Arc<Library>>, Vec<String>) {
        let mut table = self.lock();
        let is_left = |library: &mut Arc<Library>| {
            library.is_replaced()
                && !library.is_retired()
                && Arc::strong_count(library) == 1
                && library.is_left_by_threads()
        };
        let libraries: Vec<_> = table.mapped.extract_if(.., is_left).collect();
        let modules = libraries.iter().map(|library| library.manifest().module.name.clone());
        let modules: Vec<String> = modules.collect();
        table.in_hand.extend(modules.iter().cloned());
        (libraries, modules)
    }

    fn lock(&self) -> MutexGuard<'_, LibraryTable> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LibraryTable {
    /// Counts the mapped libraries of the modules with these names.
    fn count(&self, of: impl Fn(&str) -> bool) -> usize {
        let mapped = self.mapped.iter().map(|library| library.manifest().module.name.as_str());
        let lingering = self.lingering.iter().map(Lingering::module);
        let in_hand = self.in_hand.iter().map(String::as_str);
        mapped.chain(lingering).chain(in_hand).filter(|name| of(name)).count()
    }

    fn keep(&mut self, module: &str, stays: StillMapped) {
        let reason = match stays {
            StillMapped::Whole(library, reason) => {
                let is_news = library.warn_once();
                self.mapped.push(library);
                if !is_news {
                    return;
                }
                reason
            }
            StillMapped::Lingering(library) => {
                self.lingering.push(*library);
                "a thread lives that has values of it"
            }
        };
        tracing::warn!(module, reason, "an old library stays mapped");
    }
}
