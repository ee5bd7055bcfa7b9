//! What the author of a module does: `lodestar modules new|check|dev`.

mod cargo;
mod check;
mod dev;
mod install;
mod new;
mod private;
mod sdk;
mod sources;
mod story;

use std::path::PathBuf;

pub(crate) use self::{
    check::{Check, build},
    dev::Dev,
    new::New,
};
use crate::error::{CliError, Result};

/// `lodestard`, beside this program or where the shell would find it.
fn lodestard() -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut places = std::env::split_paths(&path).map(|directory| directory.join("lodestard"));
    crate::daemon_executable().or_else(|| places.find(|place| place.is_file())).ok_or_else(|| {
        CliError::failed("lodestard lies neither beside this lodestar nor on the PATH")
            .help("install both in one directory")
    })
}
