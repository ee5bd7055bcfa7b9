//! The configuration file, wherever its links lead.

use std::{
    collections::{HashMap, HashSet},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use lodestar_platform::files;
use lodestar_platform::watch::Watch;
use notify::{ErrorKind, RecursiveMode};

use crate::wake::{Wake, WakeSender};

/// Time within which writes are one change: editors write a file in several steps.
const SETTLE: Duration = Duration::from_millis(100);

/// Watch on the directory of a file, and on those of every link on the way to it: an editor that
/// replaces a file by renaming, or a link that is turned, leaves a watch of the file itself behind
/// on what is no longer there.
#[derive(Debug)]
pub(super) struct ConfigWatch {
    path: PathBuf,
    watch: Watch,
    /// Paths of which a change matters: the file, the links and the directories that are watched.
    decisive: Arc<Mutex<HashSet<PathBuf>>>,
    /// Watched directories, with device and inode: another one may come into the place of one.
    watched: HashMap<PathBuf, (u64, u64)>,
}

impl ConfigWatch {
    pub(super) fn new(path: &Path, wakes: WakeSender) -> notify::Result<Self> {
        let decisive = Arc::new(Mutex::new(HashSet::new()));
        let known = Arc::clone(&decisive);
        let matters = move |changed: &Path| {
            known.lock().unwrap_or_else(PoisonError::into_inner).contains(changed)
        };
        let watch = Watch::new(SETTLE, matters, move |_| {
            // An error means that the daemon is ending.
            let _ = wakes.send(Wake::ConfigChanged);
        })?;
        let mut config = Self { path: path.to_owned(), watch, decisive, watched: HashMap::new() };
        config.refresh().map(|_| config)
    }

    pub(super) const fn watch(&self) -> &Watch {
        &self.watch
    }

    /// Watches what the path leads through by now, and nothing else. Returns whether that is
    /// something else than before.
    pub(super) fn refresh(&mut self) -> notify::Result<bool> {
        let places = files::places(&self.path);
        let links = places.iter().filter(|place| place.is_symlink());
        let mut decisive: HashSet<PathBuf> = links.chain(places.last()).cloned().collect();
        let directories = decisive.iter().filter_map(|place| {
            let directory = place.parent()?;
            let metadata = directory.metadata().ok()?;
            Some((directory.to_owned(), (metadata.dev(), metadata.ino())))
        });
        let wanted: HashMap<PathBuf, (u64, u64)> = directories.collect();
        decisive.extend(wanted.keys().cloned());
        let mut known = self.decisive.lock().unwrap_or_else(PoisonError::into_inner);
        let mut moved = *known != decisive;
        *known = decisive;
        drop(known);
        let gone = self.watched.extract_if(|directory, it| wanted.get(directory) != Some(&*it));
        for (directory, _) in gone {
            moved = true;
            self.watch.remove(&directory);
        }
        for (directory, identity) in wanted {
            if self.watched.contains_key(&directory) {
                continue;
            }
            match self.watch.add(&directory, RecursiveMode::NonRecursive) {
                // It went at this moment: the next look finds what came in its place.
                Err(error) if matches!(error.kind, ErrorKind::PathNotFound) => {}
                added => {
                    added?;
                    self.watched.insert(directory, identity);
                }
            }
            moved = true;
        }
        Ok(moved)
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

    use super::*;

    /// A watched file that can be seen to change, again and again.
    struct Seen {
        watch: ConfigWatch,
        wakes: UnboundedReceiver<Wake>,
    }

    impl Seen {
        fn new(file: &Path) -> Self {
            let (sender, wakes) = unbounded_channel();
            Self { watch: ConfigWatch::new(file, sender).expect("watches are left"), wakes }
        }

        /// Makes a change, expects that it is reported, and does what the daemon does then.
        async fn by(&mut self, change: impl FnOnce()) {
            change();
            let wake = tokio::time::timeout(Duration::from_secs(60), self.wakes.recv()).await;
            assert!(matches!(wake, Ok(Some(Wake::ConfigChanged))), "{wake:?}");
            self.watch.refresh().expect("watches are left");
            // The rest of this change.
            while self.wakes.try_recv().is_ok() {}
        }
    }

    fn replace(file: &Path) {
        let new = file.with_extension("new");
        fs::write(&new, "modules: {}\n").expect("it is writable");
        fs::rename(&new, file).expect("it is ours");
    }

    fn turn(link: &Path, target: &str) {
        let new = link.with_file_name("turned");
        symlink(target, &new).expect("it is new");
        fs::rename(&new, link).expect("it is ours");
    }

    #[tokio::test]
    async fn sees_every_write_and_replacement() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let file = directory.path().join("modules.yaml");
        fs::write(&file, "modules:\n").expect("it is writable");
        let mut seen = Seen::new(&file);
        for _ in 0..2 {
            seen.by(|| fs::write(&file, "modules: {}\n").expect("it is writable")).await;
            seen.by(|| replace(&file)).await;
        }
        seen.by(|| fs::remove_file(&file).expect("it is ours")).await;
        seen.by(|| fs::write(&file, "modules:\n").expect("it is writable")).await;
    }

    /// As Kubernetes publishes a volume: a new directory, and one link turned to it.
    #[tokio::test]
    async fn sees_every_turn_of_a_link_to_a_directory() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let place = |name: &str| directory.path().join(name);
        let publish = |version: &str| {
            fs::create_dir(place(version)).expect("it is new");
            fs::write(place(version).join("modules.yaml"), version).expect("it is writable");
            turn(&place("..data"), version);
        };
        publish("..1");
        symlink("..data/modules.yaml", place("modules.yaml")).expect("it is new");
        let mut seen = Seen::new(&place("modules.yaml"));
        for (before, version) in [("..1", "..2"), ("..2", "..3"), ("..3", "..4")] {
            seen.by(|| {
                publish(version);
                fs::remove_dir_all(place(before)).expect("it is ours");
            })
            .await;
            seen.by(|| replace(&place(version).join("modules.yaml"))).await;
            assert_eq!(seen.watch.watched.len(), 2, "{:?}", seen.watch.watched);
        }
    }

    /// As managers of dotfiles do: a link in the home, and a link there again.
    #[tokio::test]
    async fn sees_changes_at_every_link_of_a_chain() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let place = |name: &str| directory.path().join(name);
        for folder in ["home", "dots", "store", "store/1", "store/2"] {
            fs::create_dir(place(folder)).expect("it is new");
        }
        for file in ["store/1/m.yaml", "store/2/m.yaml"] {
            fs::write(place(file), "modules:\n").expect("it is writable");
        }
        symlink("../dots/m.yaml", place("home/m.yaml")).expect("it is new");
        symlink("../store/1/m.yaml", place("dots/m.yaml")).expect("it is new");
        let mut seen = Seen::new(&place("home/m.yaml"));
        for version in ["2", "1", "2"] {
            seen.by(|| turn(&place("dots/m.yaml"), &format!("../store/{version}/m.yaml"))).await;
            seen.by(|| replace(&place(&format!("store/{version}/m.yaml")))).await;
            seen.by(|| turn(&place("home/m.yaml"), "../dots/m.yaml")).await;
        }
        // A link that leads nowhere for a while.
        seen.by(|| turn(&place("dots/m.yaml"), "../store/3/m.yaml")).await;
        seen.by(|| fs::create_dir(place("store/3")).expect("it is new")).await;
        seen.by(|| fs::write(place("store/3/m.yaml"), "modules:\n").expect("it is new")).await;
    }

    #[test]
    fn notices_another_directory_in_the_place() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let place = |name: &str| directory.path().join(name);
        fs::create_dir(place("etc")).expect("it is new");
        fs::write(place("etc/m.yaml"), "").expect("it is writable");
        let mut seen = Seen::new(&place("etc/m.yaml"));
        let refresh = |seen: &mut Seen| seen.watch.refresh().expect("watches are left");
        assert!(!refresh(&mut seen), "nothing has moved");
        fs::rename(place("etc"), place("old")).expect("it is ours");
        fs::create_dir(place("etc")).expect("it is gone");
        fs::write(place("etc/m.yaml"), "").expect("it is writable");
        assert!(refresh(&mut seen) && !refresh(&mut seen));
    }
}
