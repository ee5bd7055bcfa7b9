//! Store of the configuration: its file, and the version of it that runs.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError, RwLock},
};

use lodestar_api::{Problem, ProblemCode};
use lodestar_config::{self as config, Config, ConfigErrors, Layers};

/// The configuration that runs, and the file that it was read from.
#[derive(Debug)]
pub(crate) struct ConfigStore {
    path: PathBuf,
    /// The environment and the `--set` options, which override the file.
    pub(crate) layers: Layers,
    running: RwLock<Arc<Config>>,
    /// The configuration of the start: some sections are read only then.
    pub(super) of_start: Arc<Config>,
    /// Error of the file on the disk; `None` while the file is the configuration that runs.
    error: Mutex<Option<String>>,
}

impl ConfigStore {
    pub(super) fn new(path: PathBuf, layers: Layers, config: Config) -> Self {
        let config = Arc::new(config);
        let (running, error) = (RwLock::new(config.clone()), Mutex::default());
        Self { path, layers, running, of_start: config, error }
    }

    /// Returns the configuration that runs.
    pub(super) fn running(&self) -> Arc<Config> {
        self.running.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set(&self, config: Config) {
        *self.running.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(config);
    }

    /// Returns the error for which the file on the disk was refused; `None` when it was not.
    pub(super) fn error(&self) -> Option<String> {
        self.error.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes that the file was refused with these errors, or that it was applied.
    pub(super) fn note(&self, refused: Option<&ConfigErrors>) {
        let error = refused.map(|errors| match errors.as_slice() {
            [only] => only.to_string(),
            [first, rest @ ..] => format!("{first} (and {} more)", rest.len()),
            [] => errors.to_string(),
        });
        *self.error.lock().unwrap_or_else(PoisonError::into_inner) = error;
    }

    /// Reads the file on the disk, if nobody else can write it and it was saved completely.
    pub(super) fn load(&self) -> Result<Config, ConfigErrors> {
        let config = self.load_own_edit()?;
        config.expect_whole(&self.running())?;
        Ok(config)
    }

    /// Reads the file after the daemon has written it. Such a file is complete even with nothing
    /// below `modules:`, since its last section may have been removed.
    pub(super) fn load_own_edit(&self) -> Result<Config, ConfigErrors> {
        config::expect_ours(&self.path)?;
        Config::load(&self.path, &self.layers)
    }

    /// Returns whether the file on the disk differs from the configuration that runs.
    pub(super) fn is_changed(&self) -> bool {
        self.load().map_or(true, |on_disk| on_disk.text != self.running().text)
    }

    /// Returns the text of the file for an edit, with the checks of [`Self::load`]: an edit of an
    /// empty file, as a full disk leaves it, would disable every module that it no longer names.
    pub(super) fn text_to_edit(&self) -> Result<String, Problem> {
        self.load().map(|config| config.text).map_err(|errors| correct_first(&errors))
    }

    /// Writes the edited file. Refuses where it would have errors, also elsewhere than in the edit.
    pub(super) fn write(&self, before: &str, after: &str) -> Result<(), Problem> {
        let parsed = Config::parse(after, &self.path, &self.layers);
        parsed.map_err(|errors| correct_first(&errors))?;
        config::write_atomically(&self.path, before, after).map_err(|error| {
            Problem::new(ProblemCode::Refused, error.to_string())
                .help("edit the file by hand; the daemon takes it when it is saved")
        })
    }
}

/// Returns the answer to a request for an edit of a file that has errors.
pub(super) fn correct_first(errors: &ConfigErrors) -> Problem {
    Problem::new(ProblemCode::Invalid, errors.to_string())
        .help("correct the file first; `lodestar config check` shows every error")
}
