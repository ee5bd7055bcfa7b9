//! Notices changes of the configuration file, however an editor makes them, and of libraries.

use std::{
    collections::HashMap,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::mpsc::{Receiver, channel},
    time::{Duration, Instant, SystemTime},
};

use notify::{Event, RecommendedWatcher, RecursiveMode, Watcher as _};

use crate::wake::{Wake, WakeSender};

/// Editors write a file in several steps; what comes within this time is one change.
const SETTLE: Duration = Duration::from_millis(100);

/// A library that is copied comes in several writes as well; a developer waits for it.
const LIBRARY_SETTLE: Duration = Duration::from_millis(30);

/// Watches as long as it lives.
#[derive(Debug)]
pub struct Watch(RecommendedWatcher);

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
        let watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            let is_change = match event {
                Ok(event) if event.kind.is_access() => false,
                // The kernel has forgotten some: anything may have changed.
                Ok(event) => event.need_rescan() || event.paths.iter().any(|path| concerns(path)),
                Err(error) => {
                    tracing::warn!(%error, "cannot watch for changes");
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
        Ok(Self(watcher))
    }

    /// Watches a directory, and with [`RecursiveMode::Recursive`] all below it.
    ///
    /// # Errors
    ///
    /// When it is not there, or the system has no more watches (`fs.inotify.max_user_watches`).
    pub fn add(&mut self, directory: &Path, mode: RecursiveMode) -> notify::Result<()> {
        self.0.watch(directory, mode)
    }
}

/// Tells of changes that have settled until the watch ends.
fn tell(quiet: Duration, changes: &Receiver<Instant>, mut settled: impl FnMut(Instant)) {
    while let Ok(first) = changes.recv() {
        while changes.recv_timeout(quiet).is_ok() {}
        settled(first);
    }
}

/// Watches the directory of a file, and that of the file it links to: an editor that replaces a
/// file by renaming leaves a watch of the file itself behind on what is no longer there.
///
/// # Errors
///
/// When the system has no more watches (`fs.inotify.max_user_watches`).
pub fn watch_config(path: &Path, wakes: WakeSender) -> notify::Result<Watch> {
    let path = std::path::absolute(path)?;
    let mut files = vec![path.clone()];
    if let Ok(target) = path.canonicalize()
        && target != path
    {
        files.push(target);
    }
    let mut directories: Vec<PathBuf> =
        files.iter().filter_map(|file| file.parent().map(Path::to_owned)).collect();
    directories.dedup();
    let is_ours = move |changed: &Path| files.iter().any(|file| file == changed);
    let mut watch = Watch::new(SETTLE, is_ours, move |_| {
        // An error means that the daemon is ending.
        let _ = wakes.send(Wake::ConfigChanged);
    })?;
    for directory in directories {
        watch.add(&directory, RecursiveMode::NonRecursive)?;
    }
    Ok(watch)
}

/// Watches directories with modules, as far as they are there.
///
/// # Errors
///
/// When the system has no more watches (`fs.inotify.max_user_watches`).
pub fn watch_libraries(
    directories: Vec<PathBuf>,
    wakes: WakeSender,
) -> notify::Result<LibraryWatch> {
    let mut watch = LibraryWatch::new(wakes)?;
    watch.add(directories)?;
    Ok(watch)
}

/// Watches the directories of libraries.
#[derive(Debug)]
pub struct LibraryWatch {
    watch: Watch,
    /// What is watched, with its inode and since when that is one: a directory may be replaced.
    watched: HashMap<PathBuf, (u64, Option<SystemTime>)>,
}

impl LibraryWatch {
    fn new(wakes: WakeSender) -> notify::Result<Self> {
        let is_library = |path: &Path| path.extension().is_some_and(|extension| extension == "so");
        let watch = Watch::new(LIBRARY_SETTLE, is_library, move |_| {
            // An error means that the daemon is ending.
            let _ = wakes.send(Wake::LibraryChanged);
        })?;
        Ok(Self { watch, watched: HashMap::new() })
    }

    /// Watches these as well, as far as they are there. Answers whether one of them is new.
    ///
    /// # Errors
    ///
    /// When the system has no more watches (`fs.inotify.max_user_watches`); told once of each.
    pub fn add(&mut self, directories: Vec<PathBuf>) -> notify::Result<bool> {
        let mut is_new = false;
        for directory in directories {
            let Ok(metadata) = directory.metadata() else { continue };
            let identity = (metadata.ino(), metadata.created().ok());
            let before = self.watched.insert(directory.clone(), identity);
            if metadata.is_dir() && before != Some(identity) {
                is_new = true;
                self.watch.add(&directory, RecursiveMode::Recursive)?;
            }
        }
        Ok(is_new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn changes_by(change: impl FnOnce(&Path)) {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let file = directory.path().join("modules.yaml");
        std::fs::write(&file, "modules:\n").expect("it is writable");
        let (sender, mut wakes) = tokio::sync::mpsc::unbounded_channel();
        let _watch = watch_config(&file, sender).expect("watches are left");
        change(&file);
        let wake = tokio::time::timeout(Duration::from_secs(10), wakes.recv()).await;
        assert!(matches!(wake, Ok(Some(Wake::ConfigChanged))), "{wake:?}");
    }

    #[tokio::test]
    async fn sees_a_library_that_is_replaced() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let module = directory.path().join("tiny");
        std::fs::create_dir(&module).expect("it is new");
        let (sender, mut wakes) = tokio::sync::mpsc::unbounded_channel();
        let late = directory.path().with_extension("late");
        let watched = [directory.path().to_owned(), late.clone()];
        let mut watch = LibraryWatch::new(sender).expect("watches are left");
        assert!(watch.add(watched.to_vec()).expect("watches are left"));
        assert!(!watch.add(watched.to_vec()).expect("watches are left"), "none is new");
        let mut replaced_in = async |folder: &Path| {
            std::fs::write(folder.join("new"), "bytes").expect("it is writable");
            std::fs::rename(folder.join("new"), folder.join("libtiny.so")).expect("it is ours");
            let wake = tokio::time::timeout(Duration::from_secs(10), wakes.recv()).await;
            assert!(matches!(wake, Ok(Some(Wake::LibraryChanged))), "{wake:?}");
        };
        replaced_in(&module).await;
        // One that comes later, and another one in its place.
        for _ in 0..2 {
            std::fs::create_dir(&late).expect("it is new");
            assert!(watch.add(watched.to_vec()).expect("watches are left"));
            replaced_in(&late).await;
            let elsewhere = tempfile::tempdir().expect("a temporary directory");
            std::fs::rename(&late, elsewhere.path().join("moved")).expect("it is ours");
        }
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
        let first = told.recv_timeout(Duration::from_secs(10)).expect("they are told");
        // The thread may have come to it after the last write.
        let is_first = before <= first && first + quiet <= Instant::now();
        assert!(is_first, "the moment of the first change, not of the end of all");
        drop(watch);
        assert!(told.recv().is_err(), "it is told once, and the thread ends with the watch");
    }

    #[tokio::test]
    async fn sees_a_write_and_a_replacement() {
        changes_by(|file| std::fs::write(file, "modules: {}\n").expect("it is writable")).await;
        changes_by(|file| {
            let new = file.with_extension("new");
            std::fs::write(&new, "modules: {}\n").expect("it is writable");
            std::fs::rename(&new, file).expect("it is ours");
        })
        .await;
    }
}
