//! The reasons for which a library is not loaded.

use std::{io, path::PathBuf};

use super::{Difference, elf::ElfError};

/// Reason for which a library is not loaded, with the remedy.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The library cannot be read.
    #[error("cannot read {}: {}; is the module built and staged?", .0.display(), .1)]
    Read(PathBuf, #[source] io::Error),
    /// There is no space for the library's sealed copy.
    #[error("cannot copy {} into memory: {}; the machine is short of memory or of descriptors",
        .0.display(), .1)]
    Seal(PathBuf, #[source] io::Error),
    /// Somebody else could change the library.
    #[error("{} {}; it must be a file of root or of the daemon's user that others cannot write",
        .0.display(), .1)]
    Owner(PathBuf, String),
    /// The module's own defaults cannot be read.
    #[error("cannot read {}, the module's own defaults: {}; write it anew or remove it",
        .0.display(), .1)]
    Defaults(PathBuf, #[source] io::Error),
    /// The file is no library for this machine.
    #[error("{} {}", .0.display(), .1)]
    Elf(PathBuf, ElfError),
    /// The file is a library, but no module.
    #[error(
        "{} is no Lodestar module ({}); build it as a cdylib with module_sdk::export!",
        .0.display(), .1
    )]
    NoModule(PathBuf, String),
    /// The module's manifest cannot be used.
    #[error("{}: {}", .0.display(), .1)]
    Manifest(PathBuf, String),
    /// The library was built for another epoch of the ABI.
    #[error(
        "{} speaks ABI epoch {found} (SDK {sdk}), this host speaks epoch {host}; {}",
        .path.display(), remedy(*.found, *.host)
    )]
    Epoch {
        /// Path of the library.
        path: PathBuf,
        /// Epoch of the library.
        found: u32,
        /// Epoch of this host.
        host: u32,
        /// Version of the SDK that the library was built with.
        sdk: String,
    },
    /// A panic in the library would end the daemon.
    #[error(
        "{} is built with panic = \"abort\", so that a panic in it would end the daemon; \
         build it with panic = \"unwind\"",
        .0.display()
    )]
    AbortsOnPanic(PathBuf),
    /// The dynamic linker refuses the library.
    #[error("cannot map {}: {}", .0.display(), .1)]
    Map(PathBuf, String),
    /// Too many libraries are mapped.
    #[error(
        "restart needed: {resident} libraries are mapped, the most there may be; restart \
         lodestard, or set `unload: true` for modules that are reloaded often"
    )]
    RestartNeeded {
        /// Number of libraries that are mapped.
        resident: usize,
    },
    /// The types of the module are not those of the host.
    #[error(
        "{} does not fit this host: {}; rebuild it against SDK {}, or update the host",
        .path.display(), summary(.differences), .host_sdk
    )]
    Layout {
        /// Path of the library.
        path: PathBuf,
        /// Version of the SDK of this host.
        host_sdk: &'static str,
        /// Types that differ.
        differences: Vec<Difference>,
    },
}

impl LoadError {
    /// Returns whether the module and the host do not fit, rather than the file being broken.
    #[must_use]
    pub const fn is_incompatible(&self) -> bool {
        matches!(self, Self::Epoch { .. } | Self::Layout { .. } | Self::AbortsOnPanic(_))
    }
}

const fn remedy(found: u32, host: u32) -> &'static str {
    if found < host {
        "rebuild the module against this host's SDK"
    } else {
        "update the host, or rebuild the module against this host's SDK"
    }
}

fn summary(all: &[Difference]) -> String {
    let shown: Vec<String> = all.iter().take(3).map(ToString::to_string).collect();
    match all.len().saturating_sub(shown.len()) {
        0 => shown.join("; "),
        more => format!("{} (and {more} more)", shown.join("; ")),
    }
}
