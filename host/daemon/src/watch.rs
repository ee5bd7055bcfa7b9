//! Notices changes of the configuration file, however an editor makes them, and of libraries.

mod config;
mod libraries;
mod looking;
mod trouble;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use lodestar_platform::{Trouble, watch::Watch};

use self::{config::ConfigWatch, libraries::LibraryWatch, looking::Looked};
use crate::wake::WakeSender;

/// Time between two checks of the daemon by itself while the system gives it no watcher.
pub const LOOK_EVERY: Duration = Duration::from_secs(30);

/// Watches of the supervisor: on the configuration file and the directories of libraries.
#[derive(Debug)]
pub struct Watches {
    path: PathBuf,
    wakes: WakeSender,
    config: Option<ConfigWatch>,
    libraries: Option<LibraryWatch>,
    /// Reason why not all is watched, and the files when the daemon last looked by itself.
    blind: Option<(Trouble, Looked)>,
}

/// Changes that were found without a notification.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Changed {
    /// `true` when the configuration changed.
    pub config: bool,
    /// `true` when a library, or a directory of some, changed.
    pub libraries: bool,
}

impl Watches {
    /// Watches the file at `path`, and directories with modules, as far as they are there. Where
    /// the system gives no watcher, [`refresh`](Self::refresh) looks by itself.
    #[must_use]
    pub fn new(path: &Path, directories: Vec<PathBuf>, wakes: WakeSender) -> Self {
        let path = path.to_owned();
        let mut watches = Self { path, wakes, config: None, libraries: None, blind: None };
        watches.set_up(directories);
        watches
    }

    fn set_up(&mut self, directories: Vec<PathBuf>) {
        let looked = Looked::now(&self.path, &directories);
        let config = ConfigWatch::new(&self.path, self.wakes.clone());
        let libraries = LibraryWatch::new(self.wakes.clone());
        let mut failures = Vec::new();
        self.config = config.map_err(|error| failures.push(error)).ok();
        self.libraries = libraries.map_err(|error| failures.push(error)).ok();
        let added = self.libraries.as_mut().map(|libraries| libraries.add(directories));
        failures.extend(added.and_then(Result::err));
        self.blind = failures.first().map(|error| (trouble::of(error), looked));
    }

    /// Checks whether what is watched is still what the paths lead to, and returns what changed
    /// without a notification.
    pub fn refresh(&mut self, directories: Vec<PathBuf>) -> Changed {
        if let Some((_, looked)) = &self.blind {
            if !looked.is_due() {
                return Changed::default();
            }
            let before = looked.clone();
            self.set_up(directories.clone());
            return before.changed(&Looked::now(&self.path, &directories));
        }
        let config = self.refresh_config();
        let libraries = self.refresh_libraries(directories.clone());
        let watches = [
            self.config.as_ref().map(ConfigWatch::watch),
            self.libraries.as_ref().map(LibraryWatch::watch),
        ];
        let failure = watches.into_iter().flatten().find_map(Watch::take_failure);
        if let Some(error) = failure {
            self.be_blind(&error, &directories);
        }
        // What came before is not known.
        let is_blind = self.blind.is_some();
        Changed { config: config || is_blind, libraries: libraries || is_blind }
    }

    /// Refreshes the watch of the configuration alone, whose links may lead elsewhere by now.
    /// Returns whether they do.
    pub fn refresh_config(&mut self) -> bool {
        match self.config.as_mut().map(ConfigWatch::refresh) {
            Some(Ok(moved)) => moved,
            Some(Err(error)) => {
                self.be_blind(&error, &[]);
                true
            }
            None => false,
        }
    }

    /// Refreshes the watches of the directories of libraries alone. Returns whether one is new.
    pub fn refresh_libraries(&mut self, directories: Vec<PathBuf>) -> bool {
        match self.libraries.as_mut().map(|libraries| libraries.add(directories.clone())) {
            Some(Ok(is_new)) => is_new,
            Some(Err(error)) => {
                self.be_blind(&error, &directories);
                true
            }
            None => false,
        }
    }

    fn be_blind(&mut self, error: &notify::Error, directories: &[PathBuf]) {
        let looked = Looked::now(&self.path, directories);
        self.blind.get_or_insert((trouble::of(error), looked));
    }

    /// Returns the reason why the daemon has to look by itself, and the remedy.
    #[must_use]
    pub fn trouble(&self) -> Option<Trouble> {
        self.blind.as_ref().map(|(trouble, _)| trouble.clone())
    }
}
