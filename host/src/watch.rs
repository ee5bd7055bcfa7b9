//! Notices changes of the configuration file, however an editor makes them, and of libraries.

mod config;
mod libraries;
mod looking;
mod trouble;

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, channel},
    },
    time::{Duration, Instant},
};

use notify::{Event, RecommendedWatcher, RecursiveMode, Watcher as _};

use self::{config::ConfigWatch, libraries::LibraryWatch, looking::Looked};
use crate::{supervisor::Trouble, wake::WakeSender};

/// How often the daemon looks by itself while the system gives it no watcher.
pub const LOOK_EVERY: Duration = Duration::from_secs(30);

/// Watches as long as it lives.
#[derive(Debug)]
pub struct Watch {
    watcher: RecommendedWatcher,
    /// Why some change may not have been told, since somebody last asked.
    failure: Arc<Mutex<Option<notify::Error>>>,
}

impl Watch {
    /// Calls `settled` with the moment of the first of some changes, once nothing that `concerns`
    /// it has changed for as long as `quiet`. Sleeps without any clock while nothing changes.
    ///
    /// # Errors
    ///
    /// When the system has no more watchers (`fs.inotify.max_user_instances`).
    pub fn new(
        quiet: Duration,
        concerns: impl Fn(&Path) -> bool + Send + 'static,
        settled: impl FnMut(Instant) + Send + 'static,
    ) -> notify::Result<Self> {
        let (sender, changes) = channel();
        let failure = Arc::new(Mutex::new(None));
        let failed = Arc::clone(&failure);
        let watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            let is_change = match event {
                Ok(event) if event.kind.is_access() => false,
                // The kernel has forgotten some: anything may have changed.
                Ok(event) => event.need_rescan() || event.paths.iter().any(|path| concerns(path)),
                Err(error) => {
                    tracing::warn!(%error, "cannot watch for changes");
                    *failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                    false
                }
            };
            if is_change {
                // An error means that the watch ends.
                let _ = sender.send(Instant::now());
            }
        })?;
        let thread = std::thread::Builder::new().name("watch".to_owned());
        thread.spawn(move || tell(quiet, &changes, settled)).map_err(notify::Error::io)?;
        Ok(Self { watcher, failure })
    }

    /// Watches a directory, and with [`RecursiveMode::Recursive`] all below it.
    ///
    /// # Errors
    ///
    /// When it is not there, or the system has no more watches (`fs.inotify.max_user_watches`).
    pub fn add(&mut self, directory: &Path, mode: RecursiveMode) -> notify::Result<()> {
        self.watcher.watch(directory, mode)
    }

    /// Watches a directory no more; one that is gone is not watched anyway.
    fn remove(&mut self, directory: &Path) {
        let _ = self.watcher.unwatch(directory);
    }

    /// Why a change may not have been told, once.
    fn take_failure(&self) -> Option<notify::Error> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Tells of changes that have settled until the watch ends.
fn tell(quiet: Duration, changes: &Receiver<Instant>, mut settled: impl FnMut(Instant)) {
    while let Ok(first) = changes.recv() {
        while changes.recv_timeout(quiet).is_ok() {}
        settled(first);
    }
}

/// What is watched for the supervisor: the configuration file and the directories of libraries.
#[derive(Debug)]
pub struct Watches {
    path: PathBuf,
    wakes: WakeSender,
    config: Option<ConfigWatch>,
    libraries: Option<LibraryWatch>,
    /// Why not all is watched, and what was there when the daemon last looked by itself.
    blind: Option<(Trouble, Looked)>,
}

/// What changed without being told.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Changed {
    /// The configuration.
    pub config: bool,
    /// A library, or a directory of some.
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

    /// Looks whether what is watched is still what the paths lead to, and what changed without
    /// being told.
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

    /// The same for the configuration alone, whose links may lead elsewhere by now. Answers
    /// whether they do.
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

    /// The same for the directories of libraries alone. Answers whether one is new.
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

    /// Why the daemon has to look by itself, and what to do about it.
    #[must_use]
    pub fn trouble(&self) -> Option<Trouble> {
        self.blind.as_ref().map(|(trouble, _)| trouble.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_changes_at_once_are_told_once() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let (sender, told) = channel();
        let quiet = Duration::from_secs(1);
        let settled = move |first| sender.send(first).expect("the test waits");
        let mut watch = Watch::new(quiet, |_| true, settled).expect("watches are left");
        watch.add(directory.path(), RecursiveMode::NonRecursive).expect("it is there");
        let before = Instant::now();
        for number in 0..50 {
            std::fs::write(directory.path().join(number.to_string()), "x").expect("it is ours");
        }
        let first = told.recv_timeout(Duration::from_secs(10)).expect("they are told");
        // The thread may have come to it after the last write.
        let is_first = before <= first && first + quiet <= Instant::now();
        assert!(is_first, "the moment of the first change, not of the end of all");
        drop(watch);
        assert!(told.recv().is_err(), "it is told once, and the thread ends with the watch");
    }
}
