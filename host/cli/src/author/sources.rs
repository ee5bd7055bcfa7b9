//! Notifications about saved sources of a module.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use lodestar_platform::watch::Watch;
use notify::RecursiveMode;

/// Time within which changes are one save: editors save in several steps.
const SETTLE: Duration = Duration::from_millis(30);

/// Calls `saved` with the moment of each save of a source below `folder`.
///
/// # Errors
///
/// When the system has no more watches (`fs.inotify.max_user_watches`).
pub(crate) fn watch(
    folder: &Path,
    saved: impl Fn(Instant) + Send + 'static,
) -> notify::Result<Watch> {
    let root = folder.to_owned();
    let mut watch = Watch::new(SETTLE, move |path| is_source(&root, path), saved)?;
    watch.add(folder, RecursiveMode::NonRecursive)?;
    for inner in folders(folder) {
        watch.add(&inner, RecursiveMode::Recursive)?;
    }
    Ok(watch)
}

/// Returns the folders that may hold sources, without those that cargo writes.
fn folders(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let inner = entries.map(|entry| entry.path()).filter(|path| path.is_dir());
    inner.filter(|path| is_source(folder, path)).collect()
}

fn is_source(root: &Path, path: &Path) -> bool {
    let Ok(inner) = path.strip_prefix(root) else { return false };
    let mut parts = inner.iter().map(|part| part.to_string_lossy());
    let Some(first) = parts.next() else { return false };
    let is_hidden = std::iter::once(&first).chain(&parts.collect::<Vec<_>>()).any(|part| {
        part.starts_with('.') || part.ends_with('~') || part.ends_with(".swp") || part == "4913"
    });
    !is_hidden && !["target", "Cargo.lock"].contains(&&*first)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn knows_a_source() {
        let check = |path: &str, expected: bool| {
            assert_eq!(is_source(Path::new("/m"), Path::new(path)), expected, "{path}");
        };
        check("/m/src/lib.rs", true);
        check("/m/module.toml", true);
        check("/m/config.yaml", true);
        check("/m/migrations/0001.sql", true);
        check("/m", false);
        check("/m/Cargo.lock", false);
        check("/m/target/release/libm.so", false);
        check("/m/.git/index", false);
        check("/m/src/.lib.rs.swp", false);
        check("/m/src/lib.rs~", false);
        check("/n/src/lib.rs", false);
    }

    #[test]
    fn a_save_is_noticed_and_a_build_is_not() {
        let root = tempfile::tempdir().expect("a temporary directory");
        for folder in ["src", "target"] {
            std::fs::create_dir(root.path().join(folder)).expect("it is new");
        }
        let (sender, saves) = mpsc::channel();
        let saved = move |at| sender.send(at).expect("the test waits");
        let _watch = watch(root.path(), saved).expect("watches are left");
        let before = Instant::now();
        std::fs::write(root.path().join("target/x.rs"), "").expect("it is writable");
        std::fs::write(root.path().join("src/new"), "").expect("it is writable");
        std::fs::rename(root.path().join("src/new"), root.path().join("src/lib.rs"))
            .expect("it is ours");
        let at = saves.recv_timeout(Duration::from_secs(60)).expect("it is noticed");
        assert!(at >= before);
    }
}
