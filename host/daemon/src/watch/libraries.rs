//! The directories of libraries.

use std::{
    collections::HashMap,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use lodestar_platform::watch::Watch;
use notify::RecursiveMode;

use crate::wake::{Wake, WakeSender};

/// Time within which writes are one change: a library that is copied comes in several, and a
/// developer waits for it.
const LIBRARY_SETTLE: Duration = Duration::from_millis(30);

/// Watch on the directories of libraries.
#[derive(Debug)]
pub(super) struct LibraryWatch {
    watch: Watch,
    /// Watched directories, with device, inode and time of creation: a directory may be replaced,
    /// or a link to it turned.
    watched: HashMap<PathBuf, (u64, u64, Option<SystemTime>)>,
}

impl LibraryWatch {
    pub(super) fn new(wakes: WakeSender) -> notify::Result<Self> {
        let is_library = |path: &Path| path.extension().is_some_and(|extension| extension == "so");
        let watch = Watch::new(LIBRARY_SETTLE, is_library, move |_| {
            // An error means that the daemon is ending.
            let _ = wakes.send(Wake::LibraryChanged);
        })?;
        Ok(Self { watch, watched: HashMap::new() })
    }

    pub(super) const fn watch(&self) -> &Watch {
        &self.watch
    }

    /// Watches these directories as well, as far as they are there. Returns whether one of them is
    /// new.
    ///
    /// # Errors
    ///
    /// When the system has no more watches (`fs.inotify.max_user_watches`); told once of each.
    pub(super) fn add(&mut self, directories: Vec<PathBuf>) -> notify::Result<bool> {
        let mut result = Ok(false);
        for directory in directories {
            let Ok(metadata) = directory.metadata() else { continue };
            let identity = (metadata.dev(), metadata.ino(), metadata.created().ok());
            let before = self.watched.insert(directory.clone(), identity);
            if !metadata.is_dir() || before == Some(identity) {
                continue;
            }
            if before.is_some() {
                self.watch.remove(&directory);
            }
            let added = self.watch.add(&directory, RecursiveMode::Recursive);
            result = result.and_then(|_| added.map(|()| true));
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
            let wake = tokio::time::timeout(Duration::from_secs(60), wakes.recv()).await;
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

    #[tokio::test]
    async fn sees_libraries_behind_a_link_that_is_turned() {
        use std::os::unix::fs::symlink;
        let directory = tempfile::tempdir().expect("a temporary directory");
        let place = |name: &str| directory.path().join(name);
        for version in ["1", "2", "3"] {
            std::fs::create_dir_all(place(version).join("tiny")).expect("it is new");
        }
        symlink("1", place("modules")).expect("it is new");
        let (sender, mut wakes) = tokio::sync::mpsc::unbounded_channel();
        let mut watch = LibraryWatch::new(sender).expect("watches are left");
        let mut is_new = || watch.add(vec![place("modules")]).expect("watches are left");
        assert!(is_new() && !is_new());
        for version in ["2", "3", "1"] {
            symlink(version, place("turned")).expect("it is new");
            std::fs::rename(place("turned"), place("modules")).expect("it is ours");
            assert!(is_new() && !is_new());
            std::fs::write(place(version).join("tiny/libtiny.so"), "x").expect("it is ours");
            let wake = tokio::time::timeout(Duration::from_secs(60), wakes.recv()).await;
            assert!(matches!(wake, Ok(Some(Wake::LibraryChanged))), "{version}: {wake:?}");
            while wakes.try_recv().is_ok() {}
        }
    }
}
