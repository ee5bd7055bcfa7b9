//! Environment of the person whose tools are connected: home, variables, programs.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

use crate::error::{CliError, Result};

/// Lookup of environment variables.
type Lookup = Box<dyn Fn(&str) -> Option<OsString> + Send + Sync>;

/// Variables that say where files and programs are.
pub(super) struct Environment {
    lookup: Lookup,
}

impl Environment {
    /// Returns the environment of this process.
    pub(super) fn of_process() -> Self {
        Self::of(|name| std::env::var_os(name))
    }

    /// Creates an environment from a lookup of variables.
    pub(super) fn of(lookup: impl Fn(&str) -> Option<OsString> + Send + Sync + 'static) -> Self {
        Self { lookup: Box::new(lookup) }
    }

    /// Returns the path in a variable; an empty one counts as none.
    pub(super) fn path(&self, name: &str) -> Option<PathBuf> {
        let value = (self.lookup)(name).filter(|value| !value.is_empty())?;
        let path = PathBuf::from(value);
        Some(std::path::absolute(&path).unwrap_or(path))
    }

    /// Returns the home directory.
    ///
    /// # Errors
    ///
    /// When HOME is not set.
    pub(super) fn home(&self) -> Result<PathBuf> {
        self.path("HOME").ok_or_else(|| {
            CliError::failed("HOME is not set, so that the settings of tools cannot be found")
                .help("set it: `HOME=/home/NAME lodestar connect …`")
        })
    }

    /// Returns the directory in a variable, or one below the home directory.
    ///
    /// # Errors
    ///
    /// When neither is set.
    pub(super) fn directory(&self, name: &str, below_home: &str) -> Result<PathBuf> {
        match self.path(name) {
            Some(path) => Ok(path),
            None => Ok(self.home()?.join(below_home)),
        }
    }

    /// Returns the directory of the records of what was connected.
    ///
    /// # Errors
    ///
    /// When neither LODESTAR_STATE_DIR nor HOME is set.
    pub(super) fn records(&self) -> Result<PathBuf> {
        Ok(self.directory("LODESTAR_STATE_DIR", ".lodestar")?.join("connect"))
    }

    /// Returns where the first of these programs lies on the PATH.
    pub(super) fn program(&self, name: &str) -> Option<PathBuf> {
        use std::os::unix::fs::PermissionsExt as _;
        let is_program = |path: &Path| {
            let metadata = path.metadata().ok().filter(std::fs::Metadata::is_file);
            metadata.is_some_and(|metadata| metadata.permissions().mode() & 0o111 != 0)
        };
        let path = (self.lookup)("PATH")?;
        std::env::split_paths(&path).map(|folder| folder.join(name)).find(|path| is_program(path))
    }
}
