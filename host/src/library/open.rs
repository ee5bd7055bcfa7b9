//! Mapping a checked library and finding its root module.
#![expect(unsafe_code, reason = "running foreign code is what loading means")]

use std::path::{Path, PathBuf};

use libloading::os::unix::{Library as Handle, RTLD_LOCAL, RTLD_NOW};
use lodestar_abi::{
    BuildInfo, ModuleRoot_Ref,
    abi_stable::library::{AbiHeaderRef, IsLayoutChecked, ROOT_MODULE_LOADER_NAME_WITH_NUL},
};
use module_sdk::manifest::Manifest;

use super::{Inspected, LoadError, layout};

/// A mapped library whose types are ours. It stays mapped as long as the daemon runs: code of it
/// may be referred to from thread-local destructors, and nothing proves that it is not.
pub struct Library {
    inspected: Inspected,
    root: ModuleRoot_Ref,
}

impl std::fmt::Debug for Library {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Library({}, {})", self.inspected.manifest.module.name, self.inspected.sha256)
    }
}

impl Library {
    pub(super) fn open(inspected: Inspected) -> Result<Self, LoadError> {
        let path = inspected.path.clone();
        // SAFETY: the constructors of the library run now. That is what the operator asked for by
        // putting it on the module path; the file is a whole ELF library for this machine.
        let handle = unsafe { Handle::open(Some(inspected.copy.path()), RTLD_NOW | RTLD_LOCAL) };
        let handle = handle.map_err(|error| LoadError::Map(path.clone(), whole(&error)))?;
        let root = find_root(&handle, &path)?;
        // Never unmapped, see the type's description.
        std::mem::forget(handle);
        Ok(Self { inspected, root })
    }

    /// What the library exports.
    #[must_use]
    pub const fn root(&self) -> ModuleRoot_Ref {
        self.root
    }

    /// The hash of its bytes.
    #[must_use]
    pub fn sha256(&self) -> &str {
        &self.inspected.sha256
    }

    /// Its manifest.
    #[must_use]
    pub const fn manifest(&self) -> &Manifest {
        &self.inspected.manifest
    }

    /// How it was built.
    #[must_use]
    pub const fn build(&self) -> &BuildInfo {
        &self.inspected.build
    }

    /// Where it was read from.
    #[must_use]
    pub const fn path(&self) -> &PathBuf {
        &self.inspected.path
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

/// `libloading` keeps what the linker said in the source of its error.
fn whole(error: &libloading::Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
