//! The configuration: the file that it is read from, and what of it runs.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError, RwLock},
};

use lodestar_api::{Problem, ProblemCode};
use lodestar_config::{self as config, Config, ConfigErrors, Layers};

/// The configuration that runs, and the file.
#[derive(Debug)]
pub(crate) struct ConfigStore {
    path: PathBuf,
    /// What lies above and below the file.
    pub(crate) layers: Layers,
    running: RwLock<Arc<Config>>,
    /// The one of the start: some sections are read only then.
    pub(super) of_start: Arc<Config>,
    /// Why the file as it lies on the disk is not the configuration that runs.
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

    /// Returns why the file as it lies on the disk was refused; `None` when it is what runs.
    pub(super) fn error(&self) -> Option<String> {
        self.error.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes whether the file was taken.
    pub(super) fn note(&self, refused: Option<&ConfigErrors>) {
        let error = refused.map(|errors| match errors.as_slice() {
            [only] => only.to_string(),
            [first, rest @ ..] => format!("{first} (and {} more)", rest.len()),
            [] => errors.to_string(),
        });
        *self.error.lock().unwrap_or_else(PoisonError::into_inner) = error;
    }

    /// Reads the file as it lies on the disk, if nobody else can write it and it was saved whole.
    pub(super) fn load(&self) -> Result<Config, ConfigErrors> {
        let config = self.load_own_edit()?;
        config.expect_whole(&self.running())?;
        Ok(config)
    }

    /// Reads it after the daemon has written it, so that it is whole: without the section of the
    /// last module it may hold nothing below `modules:`.
    pub(super) fn load_own_edit(&self) -> Result<Config, ConfigErrors> {
        config::expect_ours(&self.path)?;
        Config::load(&self.path, &self.layers)
    }

    /// Returns whether the file on the disk is another one than what runs.
    pub(super) fn is_changed(&self) -> bool {
        self.load().map_or(true, |on_disk| on_disk.text != self.running().text)
    }

    /// Returns the file as it lies there, checked as when it is taken: an edit of one that holds
    /// nothing, as a full disk leaves it, would switch off all that it no longer names.
    pub(super) fn text_to_edit(&self) -> Result<String, Problem> {
        self.load().map(|config| config.text).map_err(|errors| correct_first(&errors))
    }

    /// Writes the file, unless it would have errors: a file with errors elsewhere stays as it is.
    pub(super) fn write(&self, before: &str, after: &str) -> Result<(), Problem> {
        let parsed = Config::parse(after, &self.path, &self.layers);
        parsed.map_err(|errors| correct_first(&errors))?;
        config::write_atomically(&self.path, before, after).map_err(|error| {
            Problem::new(ProblemCode::Refused, error.to_string())
                .help("edit the file by hand; the daemon takes it when it is saved")
        })
    }
}

/// Returns the answer to whoever has the file edited although it has errors.
pub(super) fn correct_first(errors: &ConfigErrors) -> Problem {
    Problem::new(ProblemCode::Invalid, errors.to_string())
        .help("correct the file first; `lodestar config check` shows every error")
}
