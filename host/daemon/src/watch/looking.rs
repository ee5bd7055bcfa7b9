//! The comparison of files, for a daemon that has to look for changes by itself.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::Instant,
};

use lodestar_platform::files;

use super::{Changed, LOOK_EVERY};

/// The files at some moment.
#[derive(Debug, Clone)]
pub(super) struct Looked {
    at: Instant,
    config: Vec<Found>,
    libraries: Vec<Found>,
}

/// Path with device, inode and the time of the last change of its content, mode or owner; of a
/// directory without the time.
type Found = (PathBuf, Option<(u64, u64, i64, i64)>);

impl Looked {
    /// Reads the state of all files that decide the configuration and the libraries.
    pub(super) fn now(config: &Path, directories: &[PathBuf]) -> Self {
        let at = Instant::now();
        let config = files::places(config).into_iter().map(found).collect();
        let libraries = directories.iter().flat_map(|directory| libraries(directory));
        let mut libraries: Vec<Found> = libraries.map(found).collect();
        libraries.sort();
        Self { at, config, libraries }
    }

    /// Returns whether it is time to look again.
    pub(super) fn is_due(&self) -> bool {
        self.at.elapsed() >= LOOK_EVERY
    }

    /// Returns what has changed until `after`.
    pub(super) fn changed(&self, after: &Self) -> Changed {
        let (config, libraries) = (self.config != after.config, self.libraries != after.libraries);
        Changed { config, libraries }
    }
}

fn found(place: PathBuf) -> Found {
    let stamp = place.symlink_metadata().ok().map(|it| {
        let changed = if it.is_dir() { (0, 0) } else { (it.ctime(), it.ctime_nsec()) };
        (it.dev(), it.ino(), changed.0, changed.1)
    });
    (place, stamp)
}

/// Returns the libraries in a directory of modules, or in that of one.
fn libraries(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let places = entries.map(|entry| {
        let (path, name) = (entry.path(), entry.file_name());
        match path.extension() {
            Some(extension) if extension == "so" => path,
            _ => path.join(format!("lib{}.so", name.to_string_lossy())),
        }
    });
    places.collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn tells_what_changed() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let place = |name: &str| directory.path().join(name);
        for folder in ["1", "2", "modules", "modules/tiny"] {
            fs::create_dir(place(folder)).expect("it is new");
        }
        fs::write(place("1/m.yaml"), "").expect("it is writable");
        fs::write(place("2/m.yaml"), "").expect("it is writable");
        symlink("1", place("data")).expect("it is new");
        let look =
            || Looked::now(&place("data/m.yaml"), &[place("modules"), place("modules/tiny")]);
        let mut before = look();
        let mut changed = |what: &str, change: &dyn Fn(), config: bool, libraries: bool| {
            change();
            let after = look();
            assert_eq!(before.changed(&after), Changed { config, libraries }, "{what}");
            before = after;
        };
        changed("nothing", &|| {}, false, false);
        let beside = || fs::write(place("1/other"), "").expect("it is writable");
        changed("another file", &beside, false, false);
        let turn = || {
            symlink("2", place("turned")).expect("it is new");
            fs::rename(place("turned"), place("data")).expect("it is ours");
        };
        changed("a link", &turn, true, false);
        let replace = || {
            fs::write(place("2/new"), "").expect("it is writable");
            fs::rename(place("2/new"), place("2/m.yaml")).expect("it is ours");
        };
        changed("the file", &replace, true, false);
        let library = || fs::write(place("modules/tiny/libtiny.so"), "").expect("it is writable");
        changed("a library", &library, false, true);
        let gone = || fs::remove_dir_all(place("modules")).expect("it is ours");
        changed("no library", &gone, false, true);
    }
}
