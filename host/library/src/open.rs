//! The mapping of a checked library, its root module, and its unmapping.
#![expect(unsafe_code, reason = "running foreign code is what loading means")]

use std::{
    mem::ManuallyDrop,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
};

use libloading::os::unix::{Library as Handle, RTLD_LOCAL, RTLD_NOW};
use lodestar_abi::{
    BuildInfo, ModuleRoot_Ref,
    abi_stable::library::{AbiHeaderRef, IsLayoutChecked, ROOT_MODULE_LOADER_NAME_WITH_NUL},
};
use module_sdk::manifest::Manifest;

use super::{Inspected, LoadError, layout, maps, pthread_hooks};

/// A mapped library whose types are ours. Dropped it stays mapped: code of it may be referred to
/// from anywhere. It is unmapped by [`LoadedLibraries::sweep`](super::LoadedLibraries::sweep).
pub struct Library {
    /// The inspected library. Not dropped while it is mapped: the linker knows it by the path of
    /// its copy, which no other library may get.
    inspected: ManuallyDrop<Inspected>,
    root: ModuleRoot_Ref,
    handle: ManuallyDrop<Handle>,
    /// True when a later generation runs in its place.
    replaced: AtomicBool,
    /// True when it was swept and stays mapped.
    retired: AtomicBool,
    /// True when it was logged that the library stays mapped.
    was_warned_of: AtomicBool,
    /// Threads of the host that run code of the library.
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// A library that could not be unmapped.
pub(super) enum StillMapped {
    /// The library may be used, or looked at again.
    Whole(Arc<Library>, &'static str),
    /// The linker has released the library, and the kernel still shows it.
    Lingering(Box<Lingering>),
}

/// A library that nobody can use and that is still mapped: a thread lives with values of it whose
/// destructors are its code. The linker unmaps it with another one, once that thread has ended.
#[derive(Debug)]
pub(super) struct Lingering {
    /// The inspected library. Its copy must not be another's while the linker knows it by its path.
    inspected: Inspected,
    mapped: maps::Mapped,
}

impl Lingering {
    pub(super) fn module(&self) -> &str {
        &self.inspected.manifest.module.name
    }

    pub(super) fn is_mapped(&self) -> bool {
        maps::is_mapped(&self.mapped)
    }
}

impl std::fmt::Debug for Library {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Library({}, {})", self.inspected.manifest.module.name, self.inspected.sha256)
    }
}

impl Library {
    /// Maps a library.
    ///
    /// # Errors
    ///
    /// When it cannot be mapped or its types do not fit this host.
    pub fn open(inspected: Inspected) -> Result<Self, LoadError> {
        let path = inspected.path.clone();
        // SAFETY: the constructors of the library run now. That is what the operator asked for by
        // putting it on the module path; the file is a whole ELF library for this machine.
        let handle = unsafe { Handle::open(Some(inspected.copy.path()), RTLD_NOW | RTLD_LOCAL) };
        let handle = handle.map_err(|error| LoadError::Map(path.clone(), whole(&error)))?;
        let root = find_root(&handle, &path)?;
        let handle = ManuallyDrop::new(handle);
        let inspected = ManuallyDrop::new(inspected);
        Ok(Self {
            inspected,
            root,
            handle,
            replaced: false.into(),
            retired: false.into(),
            was_warned_of: false.into(),
            threads: Mutex::default(),
        })
    }

    /// Adds a thread of the host that runs code of the library: it stays mapped until that thread
    /// has ended.
    pub fn run_by(&self, thread: JoinHandle<()>) {
        let mut threads = self.threads();
        join(threads.extract_if(.., |thread| thread.is_finished()));
        threads.push(thread);
    }

    /// Returns whether every thread of the host that ran code of the library has finished.
    pub(super) fn is_left_by_threads(&self) -> bool {
        self.threads().iter().all(JoinHandle::is_finished)
    }

    fn threads(&self) -> MutexGuard<'_, Vec<JoinHandle<()>>> {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes whether a later generation runs in its place.
    pub fn set_replaced(&self, replaced: bool) {
        self.replaced.store(replaced, Ordering::Release);
    }

    pub(super) fn is_replaced(&self) -> bool {
        self.replaced.load(Ordering::Acquire)
    }

    pub(super) fn is_retired(&self) -> bool {
        self.retired.load(Ordering::Acquire)
    }

    /// Returns whether this is the first time that it is logged to stay mapped.
    pub(super) fn warn_once(&self) -> bool {
        !self.was_warned_of.swap(true, Ordering::AcqRel)
    }

    /// Reclaims the thread-local keys of a library that stays mapped and is never used again,
    /// unless a thread of it lives, which may end later.
    pub(super) fn retire(&self) {
        join(self.threads().drain(..));
        let Some(mapped) = self.mapped() else {
            self.retired.store(true, Ordering::Release);
            return;
        };
        if pthread_hooks::threads_in(&mapped.range) == 0 {
            self.retired.store(true, Ordering::Release);
            pthread_hooks::reclaim_keys(&mapped.range);
        }
    }

    /// Unmaps a library of which no code runs; returns how many thread-local keys it had.
    pub(super) fn unmap(self) -> Result<usize, StillMapped> {
        let keep = |library: Self, for_good: bool, reason| {
            library.retired.store(for_good, Ordering::Release);
            Err(StillMapped::Whole(Arc::new(library), reason))
        };
        // Its own destructors of the threads' values have run when they are joined.
        join(self.threads().drain(..));
        let Some(mapped) = self.mapped() else {
            return keep(self, true, "where it is mapped cannot be found out");
        };
        if pthread_hooks::threads_in(&mapped.range) > 0 {
            return keep(self, false, "a thread that it started is alive");
        }
        if pthread_hooks::handles_a_signal(&mapped.range) {
            return keep(self, true, "it handles a signal");
        }
        let keys = pthread_hooks::reclaim_keys(&mapped.range);
        let Self { inspected, handle, .. } = self;
        let inspected = ManuallyDrop::into_inner(inspected);
        // An error is seen below: it is still mapped then.
        let _ = ManuallyDrop::into_inner(handle).close();
        if maps::is_mapped(&mapped) {
            return Err(StillMapped::Lingering(Box::new(Lingering { inspected, mapped })));
        }
        Ok(keys)
    }

    /// Returns the range at which the library is mapped.
    fn mapped(&self) -> Option<maps::Mapped> {
        let describe = self.root.describe() as *const () as usize;
        maps::at(describe)
    }

    /// Returns the root module, which the library exports.
    #[must_use]
    pub const fn root(&self) -> ModuleRoot_Ref {
        self.root
    }

    /// Returns the hash of the library's bytes.
    #[must_use]
    pub fn sha256(&self) -> &str {
        &self.inspected.sha256
    }

    /// Returns a path at which the very bytes that are mapped can be read.
    #[must_use]
    pub fn sealed(&self) -> PathBuf {
        self.inspected.copy.path().into()
    }

    /// Returns the manifest of the module.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.inspected.manifest
    }

    /// Returns the build information of the library.
    #[must_use]
    pub fn build(&self) -> &BuildInfo {
        &self.inspected.build
    }

    /// Returns the path that the library was read from.
    #[must_use]
    pub fn path(&self) -> &PathBuf {
        &self.inspected.path
    }
}

/// Waits until threads that are at their end have ended.
fn join(threads: impl Iterator<Item = JoinHandle<()>>) {
    for thread in threads {
        if thread.join().is_err() {
            tracing::error!("a thread that ran a module's code ended by a panic of the host");
        }
    }
}

fn find_root(handle: &Handle, path: &Path) -> Result<ModuleRoot_Ref, LoadError> {
    let no_module = |reason: String| LoadError::NoModule(path.to_owned(), reason);
    // SAFETY: the symbol, where it exists, is the header that `export!` wrote; `upgrade` below
    // checks its magic and the C ABI before anything else of it is read.
    let header = unsafe {
        handle
            .get::<AbiHeaderRef>(ROOT_MODULE_LOADER_NAME_WITH_NUL.as_bytes())
            .map(|symbol| *symbol)
    };
    let header = header.map_err(|error| no_module(whole(&error)))?;
    let header = header.upgrade().map_err(|error| no_module(first_line(&error.to_string())))?;
    let IsLayoutChecked::Yes(module_layout) = header.root_mod_consts().layout() else {
        return Err(no_module("the library hides the layout of its types".to_owned()));
    };
    let differences = layout::differences(module_layout);
    if !differences.is_empty() {
        let host_sdk = env!("CARGO_PKG_VERSION");
        return Err(LoadError::Layout { path: path.to_owned(), host_sdk, differences });
    }
    // SAFETY: the layout of the root module has just been compared with ours.
    unsafe { header.unchecked_layout::<ModuleRoot_Ref>() }
        .map_err(|error| no_module(first_line(&error.to_string())))
}

fn first_line(text: &str) -> String {
    text.lines()
        .map(str::trim)
        .find(|line| !line.is_empty())
        .unwrap_or("no reason given")
        .to_owned()
}

/// Returns the whole message of an error: `libloading` keeps what the linker said in its source.
fn whole(error: &libloading::Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
