//! Notices changes of the configuration file, however an editor makes them, and of libraries.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use notify_debouncer_full::{
    DebounceEventResult, Debouncer, RecommendedCache, new_debouncer,
    notify::{self, RecommendedWatcher, RecursiveMode},
};

use crate::wake::{Wake, WakeSender};

/// Editors write a file in several steps; what comes within this time is one change.
const SETTLE: Duration = Duration::from_millis(100);

/// A library that is copied comes in several writes as well; a developer waits for it.
const LIBRARY_SETTLE: Duration = Duration::from_millis(30);

/// Watches as long as it lives.
#[derive(Debug)]
pub struct Watch {
    _debouncer: Debouncer<RecommendedWatcher, RecommendedCache>,
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
    let watched = files.clone();
    let on_change = move |result: DebounceEventResult| match result {
        Ok(events) => {
            let touched = events
                .iter()
                .filter(|event| !event.kind.is_access())
                .flat_map(|event| &event.paths)
                .any(|changed| watched.contains(changed));
            if touched {
                // An error means that the daemon is ending.
                let _ = wakes.send(Wake::ConfigChanged);
            }
        }
        Err(errors) => {
            for error in errors {
                tracing::warn!(%error, "cannot watch the configuration file");
            }
        }
    };
    let mut debouncer = new_debouncer(SETTLE, None, on_change)?;
    let mut directories: Vec<PathBuf> =
        files.iter().filter_map(|file| file.parent().map(Path::to_owned)).collect();
    directories.dedup();
    for directory in directories {
        debouncer.watch(&directory, RecursiveMode::NonRecursive)?;
    }
    Ok(Watch { _debouncer: debouncer })
}

/// Watches directories with modules, as far as they are there.
///
/// # Errors
///
/// When the system has no more watches (`fs.inotify.max_user_watches`).
pub fn watch_libraries(directories: &[PathBuf], wakes: WakeSender) -> notify::Result<Watch> {
    let on_change = move |result: DebounceEventResult| {
        let events = result.unwrap_or_default();
        let is_library =
            |path: &PathBuf| path.extension().is_some_and(|extension| extension == "so");
        let mut changes = events.iter().filter(|event| !event.kind.is_access());
        if changes.any(|event| event.paths.iter().any(is_library)) {
            // An error means that the daemon is ending.
            let _ = wakes.send(Wake::LibraryChanged);
        }
    };
    let mut debouncer = new_debouncer(LIBRARY_SETTLE, None, on_change)?;
    for directory in directories.iter().filter(|directory| directory.is_dir()) {
        debouncer.watch(directory, RecursiveMode::Recursive)?;
    }
    Ok(Watch { _debouncer: debouncer })
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
        let watched = [directory.path().to_owned(), directory.path().join("absent")];
        let _watch = watch_libraries(&watched, sender).expect("watches are left");
        std::fs::write(module.join("new"), "bytes").expect("it is writable");
        std::fs::rename(module.join("new"), module.join("libtiny.so")).expect("it is ours");
        let wake = tokio::time::timeout(Duration::from_secs(10), wakes.recv()).await;
        assert!(matches!(wake, Ok(Some(Wake::LibraryChanged))), "{wake:?}");
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
