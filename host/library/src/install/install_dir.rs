//! The directory of installed modules, in which a module is put whole or not at all.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use lodestar_platform::state_dir::private_directory;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use tempfile::TempDir;

use super::Bundle;
use crate::Package;

/// The directories of installed modules: `STATE/modules`, and `STATE/incoming` beside it, on the
/// same file system and outside of the module path.
#[derive(Debug, Clone)]
pub struct InstallDir {
    incoming: PathBuf,
    modules: PathBuf,
}

/// A module that is written to disk whole, and not in its place yet. Dropping it removes it.
#[derive(Debug)]
pub struct Staged {
    /// Name and directory of the module.
    pub package: Package,
    is_put: bool,
}

impl InstallDir {
    /// Returns the directories below a state directory.
    #[must_use]
    pub fn of(state_dir: &Path) -> Self {
        Self { incoming: state_dir.join("incoming"), modules: state_dir.join("modules") }
    }

    /// Returns the directory of installed modules.
    #[must_use]
    pub fn modules(&self) -> &Path {
        &self.modules
    }

    /// Returns the package of a module, whether it is installed or not.
    #[must_use]
    pub fn package(&self, name: &str) -> Package {
        super::lock::package(&self.modules, name)
    }

    /// Returns whether a package is the one that was installed under its name, whatever path led to
    /// it: the module path may lead here through a link.
    #[must_use]
    pub fn holds(&self, package: &Package) -> bool {
        let place = self.package(&package.name).directory;
        let real = |path: &Path| path.canonicalize().ok();
        package.directory == place
            || real(&package.directory).is_some_and(|found| Some(found) == real(&place))
    }

    /// Removes all staged modules.
    pub(super) fn clear(&self) {
        // An error means that there is nothing, or shows when something is to be written there.
        let _ = fs::remove_dir_all(&self.incoming);
    }

    /// Removes the folder that is on the other side of a module's [`swap`](Self::swap).
    pub(super) fn clear_incoming(&self, name: &str) {
        // As above.
        let _ = fs::remove_dir_all(self.incoming.join(name));
    }

    /// Writes a module's files, readable by this user alone.
    ///
    /// # Errors
    ///
    /// When the disk does not take them; nothing is left of them then.
    pub fn stage(&self, bundle: &Bundle) -> io::Result<Staged> {
        private_directory(&self.incoming)?;
        self.clear_incoming(&bundle.name);
        let directory = self.incoming.join(&bundle.name);
        private_directory(&directory)?;
        let package = Package { name: bundle.name.clone(), directory };
        let staged = Staged { package, is_put: false };
        for (name, bytes) in bundle.files() {
            staged.write(&name, bytes)?;
        }
        Ok(staged)
    }

    /// Puts a staged module in its place in one step. The folder that was there before is then
    /// where this one was staged.
    ///
    /// # Errors
    ///
    /// When the file system cannot do that.
    pub(super) fn put(&self, mut staged: Staged) -> io::Result<()> {
        fs::File::open(&staged.package.directory)?.sync_all()?;
        staged.is_put = true;
        self.swap(&staged.package.name)
    }

    /// Exchanges the folder in a module's place and the one in `incoming` under its name, in one
    /// step; one of them may be missing.
    ///
    /// # Errors
    ///
    /// When the file system cannot do that.
    pub(super) fn swap(&self, name: &str) -> io::Result<()> {
        private_directory(&self.modules)?;
        private_directory(&self.incoming)?;
        let (place, other) = (self.modules.join(name), self.incoming.join(name));
        let is_there = |path: &Path| path.symlink_metadata().is_ok();
        let (from, to, flags) = match (is_there(&place), is_there(&other)) {
            (true, true) => (&other, &place, RenameFlags::EXCHANGE),
            (false, _) => (&other, &place, RenameFlags::NOREPLACE),
            (true, false) => (&place, &other, RenameFlags::NOREPLACE),
        };
        renameat_with(CWD, from, CWD, to, flags)?;
        fs::File::open(&self.modules)?.sync_all()?;
        fs::File::open(&self.incoming)?.sync_all()
    }

    /// Removes a module in one step. Returns whether there was one.
    ///
    /// # Errors
    ///
    /// When the file system cannot do that; it is still there then.
    pub fn take(&self, name: &str) -> io::Result<bool> {
        private_directory(&self.incoming)?;
        let away = TempDir::new_in(&self.incoming)?;
        match fs::rename(self.package(name).directory, away.path().join(name)) {
            Ok(()) => fs::File::open(&self.modules)?.sync_all().map(|()| true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }
}

impl Staged {
    /// Adds a file to the staged module.
    ///
    /// # Errors
    ///
    /// When the disk does not take it.
    pub fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let path = self.package.directory.join(name);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if !self.is_put {
            // What is left is removed at the next start.
            let _ = fs::remove_dir_all(&self.package.directory);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    fn bundle(library: &[u8]) -> Bundle {
        Bundle { name: "tiny".to_owned(), library: library.to_vec(), ..Bundle::default() }
    }

    fn files(directory: &Path) -> usize {
        fs::read_dir(directory).map_or(0, Iterator::count)
    }

    #[test]
    fn puts_replaces_and_takes_away() {
        let state = tempfile::tempdir().expect("a directory");
        let place = InstallDir::of(state.path());
        let library = place.package("tiny").library_path();
        for bytes in [&b"one"[..], b"two"] {
            let staged = place.stage(&bundle(bytes)).expect("it is writable");
            assert_ne!(fs::read(&library).ok().as_deref(), Some(bytes), "not before it is put");
            place.put(staged).expect("it is writable");
            assert_eq!(fs::read(&library).expect("it is there"), bytes);
        }
        place.swap("tiny").expect("both are there");
        assert_eq!(fs::read(&library).expect("it is there"), b"one");
        place.clear_incoming("tiny");
        place.swap("tiny").expect("one is there");
        assert!(!library.exists());
        place.swap("tiny").expect("one is there");
        assert!(place.swap("absent").is_err());
        drop(place.stage(&bundle(b"three")).expect("it is writable"));
        assert_eq!(files(&state.path().join("incoming")), 0, "nothing is left over");
        assert_eq!(fs::metadata(&library).expect("it is there").mode() & 0o777, 0o600);
        let directory = place.package("tiny").directory;
        assert_eq!(fs::metadata(&directory).expect("it is there").mode() & 0o777, 0o700);
        assert!(place.take("tiny").expect("it is there"));
        assert!(!place.take("tiny").expect("it is gone"));
        assert_eq!((files(place.modules()), files(&state.path().join("incoming"))), (0, 0));
    }

    #[test]
    fn a_link_in_its_place_is_replaced_and_not_followed() {
        let state = tempfile::tempdir().expect("a directory");
        let elsewhere = tempfile::tempdir().expect("a directory");
        let place = InstallDir::of(state.path());
        fs::create_dir(place.modules()).expect("it is new");
        let directory = place.package("tiny").directory;
        std::os::unix::fs::symlink(elsewhere.path(), &directory).expect("it is new");
        place.put(place.stage(&bundle(b"one")).expect("staged")).expect("it is put");
        assert!(!directory.is_symlink());
        place.clear_incoming("tiny");
        assert!(elsewhere.path().is_dir());
        assert_eq!(files(elsewhere.path()), 0);
    }
}
