//! Watches directories for changes that have settled.

use std::{
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, channel},
    },
    time::{Duration, Instant},
};

use notify::{Event, RecommendedWatcher, RecursiveMode, Watcher as _};

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
    pub fn remove(&mut self, directory: &Path) {
        let _ = self.watcher.unwatch(directory);
    }

    /// Why a change may not have been told, once.
    pub fn take_failure(&self) -> Option<notify::Error> {
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
