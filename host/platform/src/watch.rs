//! Watching of directories for changes that have settled.

use std::{
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, channel},
    },
    time::{Duration, Instant},
};

use notify::{
    Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _,
    event::{AccessKind, AccessMode, ModifyKind},
};

/// Time after the last write until a file that stays open counts as settled.
const WRITING: Duration = Duration::from_secs(5);

/// Kind of a change in a watched directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// A file was written; the writer may go on.
    Written,
    /// A written file was closed.
    Closed,
    /// Any other change, such as the replacement of a file.
    Changed,
}

impl Step {
    /// Converts an event; `None` if it changes nothing.
    fn of(kind: EventKind) -> Option<Self> {
        match kind {
            EventKind::Modify(ModifyKind::Data(_)) => Some(Self::Written),
            EventKind::Access(AccessKind::Close(AccessMode::Write)) => Some(Self::Closed),
            EventKind::Access(_) => None,
            _ => Some(Self::Changed),
        }
    }

    /// Returns the time without further changes until a change has settled.
    fn settles_in(self, quiet: Duration) -> Duration {
        if self == Self::Written { quiet.max(WRITING) } else { quiet }
    }
}

/// A watch, which ends when it is dropped.
#[derive(Debug)]
pub struct Watch {
    watcher: RecommendedWatcher,
    /// Last error that may have hidden a change, until it is taken.
    failure: Arc<Mutex<Option<notify::Error>>>,
}

impl Watch {
    /// Calls `settled` with the time of the first of some changes, once no path that `concerns`
    /// accepts has changed for `quiet`, and every written file is closed again or was left alone
    /// for 5 s. Needs no timer while nothing changes.
    ///
    /// # Errors
    ///
    /// Returns an error if the system has no more watchers (`fs.inotify.max_user_instances`).
    pub fn new(
        quiet: Duration,
        concerns: impl Fn(&Path) -> bool + Send + 'static,
        settled: impl FnMut(Instant) + Send + 'static,
    ) -> notify::Result<Self> {
        let (sender, changes) = channel();
        let failure = Arc::new(Mutex::new(None));
        let failed = Arc::clone(&failure);
        let watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            let step = match event {
                // The kernel has forgotten some: anything may have changed.
                Ok(event) if event.need_rescan() => Some(Step::Changed),
                Ok(event) if event.paths.iter().any(|path| concerns(path)) => Step::of(event.kind),
                Ok(_) => None,
                Err(error) => {
                    tracing::warn!(%error, "cannot watch for changes");
                    *failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                    None
                }
            };
            if let Some(step) = step {
                // An error means that the watch ends.
                let _ = sender.send((Instant::now(), step));
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
    /// Returns an error if it is missing, or the system has no more watches
    /// (`fs.inotify.max_user_watches`).
    pub fn add(&mut self, directory: &Path, mode: RecursiveMode) -> notify::Result<()> {
        self.watcher.watch(directory, mode)
    }

    /// Stops watching a directory, if it still exists.
    pub fn remove(&mut self, directory: &Path) {
        let _ = self.watcher.unwatch(directory);
    }

    /// Takes the last error that may have hidden a change.
    pub fn take_failure(&self) -> Option<notify::Error> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Reports settled changes until the watch ends.
fn tell(quiet: Duration, changes: &Receiver<(Instant, Step)>, mut settled: impl FnMut(Instant)) {
    while let Ok((first, mut step)) = changes.recv() {
        if step == Step::Closed {
            // Nothing was written into it.
            continue;
        }
        while let Ok((_, next)) = changes.recv_timeout(step.settles_in(quiet)) {
            step = next;
        }
        settled(first);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_being_written_is_waited_for() {
        use std::io::Write as _;
        let directory = tempfile::tempdir().expect("a temporary directory");
        let (sender, steps) = channel();
        let seen = move |event: notify::Result<Event>| {
            let step = event.ok().and_then(|event| Step::of(event.kind));
            step.map(|step| sender.send(step));
        };
        let mut watcher = notify::recommended_watcher(seen).expect("watches are left");
        watcher.watch(directory.path(), RecursiveMode::NonRecursive).expect("it is there");
        let wait_for = |wanted: Step| {
            while steps.recv_timeout(Duration::from_secs(60)).expect("it is told") != wanted {}
        };
        let path = directory.path().join("modules.yaml");
        let mut file = std::fs::File::create(&path).expect("it is writable");
        wait_for(Step::Changed);
        for part in ["modules:\n", "  ingest:\n"] {
            file.write_all(part.as_bytes()).expect("it is writable");
            wait_for(Step::Written);
        }
        drop(file);
        wait_for(Step::Closed);
        std::fs::rename(&path, directory.path().join("other")).expect("it is ours");
        wait_for(Step::Changed);
        let quiet = Duration::from_millis(100);
        assert_eq!(Step::Written.settles_in(quiet), WRITING);
        for settled in [Step::Closed, Step::Changed] {
            assert_eq!(settled.settles_in(quiet), quiet);
        }
    }

    #[test]
    fn what_is_closed_without_a_change_is_not_told() {
        let (sender, changes) = channel();
        let at = Instant::now();
        for step in [Step::Closed, Step::Changed, Step::Written, Step::Closed, Step::Closed] {
            sender.send((at, step)).expect("it is open");
        }
        drop(sender);
        let mut told = 0;
        tell(Duration::ZERO, &changes, |_| told += 1);
        assert_eq!(told, 1);
    }

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
        let first = told.recv_timeout(Duration::from_secs(60)).expect("they are told");
        // The thread may have come to it after the last write.
        let is_first = before <= first && first + quiet <= Instant::now();
        assert!(is_first, "the moment of the first change, not of the end of all");
        drop(watch);
        assert!(told.recv().is_err(), "it is told once, and the thread ends with the watch");
    }
}
