//! Tools for the author of a module: builds, sources, and a daemon of its own.

pub(crate) mod cargo;
pub(crate) mod install;
pub(crate) mod private;
pub(crate) mod sdk;
pub(crate) mod sources;

use std::path::PathBuf;

use crate::error::{CliError, Result};

/// Finds `lodestard` beside this program or on the `PATH`.
pub(crate) fn lodestard() -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut places = std::env::split_paths(&path).map(|directory| directory.join("lodestard"));
    crate::daemon_executable().or_else(|| places.find(|place| place.is_file())).ok_or_else(|| {
        CliError::failed("lodestard lies neither beside this lodestar nor on the PATH")
            .help("install both in one directory")
    })
}
