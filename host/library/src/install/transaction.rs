//! The transaction of an install: what is put in place is uncommitted until it has proved good, and
//! what lay there before comes back where it has not.
//!
//! 1. [`begin`] notes the new entry under `coming` in the lock, then exchanges the staged folder
//!    and the one in the module's place.
//! 2. [`commit`] makes the entry the module's own and removes the previous folder; [`roll_back`]
//!    exchanges both again, drops the entry, and removes the new folder.
//! 3. [`recover`] rolls back at a start what a kill left uncommitted: an install that nobody was
//!    told to have worked has not happened.
//!
//! Each step is one rename, so that whatever a kill leaves is whole. Which of the two folders lies
//! in the place is told by [`RECORD`]: an upgrade may bring the same library once more.

use std::{io, path::Path};

use lodestar_platform::files;

use super::{InstallDir, Lock, Locked, RecoverError, Staged};
use crate::Package;

/// Name of the file with the lock's entry that a folder was installed with, in the folder itself.
const RECORD: &str = "installed.toml";

/// Puts a module in its place, uncommitted.
///
/// # Errors
///
/// When the disk or its file system does not take it; what lay there before lies there then.
pub fn begin(state_dir: &Path, staged: Staged, locked: &Locked) -> io::Result<()> {
    let name = staged.package.name.clone();
    let record = toml::to_string(locked).map_err(io::Error::other)?;
    staged.write(RECORD, record.as_bytes())?;
    step();
    let mut lock = Lock::read(state_dir).map_err(io::Error::other)?;
    lock.coming.insert(name.clone(), locked.clone());
    lock.write(state_dir)?;
    step();
    let put = InstallDir::of(state_dir).put(staged);
    step();
    if put.is_err() {
        roll_back(state_dir, &name)?;
    }
    put
}

/// Commits an install: what was put in place stays.
///
/// # Errors
///
/// When the disk does not take the lock; the install is uncommitted as before then.
pub fn commit(state_dir: &Path, name: &str) -> io::Result<()> {
    let mut lock = Lock::read(state_dir).map_err(io::Error::other)?;
    let Some(locked) = lock.coming.remove(name) else { return Ok(()) };
    lock.modules.insert(name.to_owned(), locked);
    lock.write(state_dir)?;
    step();
    InstallDir::of(state_dir).clear_incoming(name);
    step();
    Ok(())
}

/// Rolls an install back: what lay there before comes back. Does nothing where no install is
/// uncommitted.
///
/// # Errors
///
/// When the disk does not take it; [`recover`] ends what was begun then.
pub fn roll_back(state_dir: &Path, name: &str) -> io::Result<()> {
    let mut lock = Lock::read(state_dir).map_err(io::Error::other)?;
    let Some(locked) = lock.coming.remove(name) else { return Ok(()) };
    let place = InstallDir::of(state_dir);
    if recorded(&place.package(name)).as_ref() == Some(&locked) {
        place.swap(name)?;
        step();
    }
    lock.write(state_dir)?;
    step();
    place.clear_incoming(name);
    step();
    Ok(())
}

/// Rolls back installs that a kill left uncommitted, and removes what it left half written. Returns
/// the names of the modules.
///
/// # Errors
///
/// When the lock cannot be read, or the disk does not take what is to be done.
pub fn recover(state_dir: &Path) -> Result<Vec<String>, RecoverError> {
    let lock = Lock::read(state_dir)?;
    let names: Vec<String> = lock.coming.into_keys().collect();
    for name in &names {
        roll_back(state_dir, name)
            .map_err(|source| RecoverError::Undo { module: name.clone(), source })?;
    }
    InstallDir::of(state_dir).clear();
    Ok(names)
}

/// Reads the entry that a folder was installed with.
fn recorded(package: &Package) -> Option<Locked> {
    let text = files::read_text(&package.directory.join(RECORD)).ok()?;
    toml::from_str(&text).ok()
}

/// Marks a point at which something on the disk has changed and a kill may come. The tests look at
/// what it would leave.
#[cfg(not(test))]
const fn step() {}

#[cfg(test)]
use tests::step;

#[cfg(test)]
mod tests {
    use std::{cell::RefCell, fs, path::PathBuf};

    use super::*;
    use crate::{install::Bundle, sha256};

    thread_local! {
        /// Function that is called at every step.
        static AT_STEP: RefCell<Option<Box<dyn FnMut()>>> = const { RefCell::new(None) };
    }

    pub(super) fn step() {
        AT_STEP.with_borrow_mut(|at_step| {
            if let Some(at_step) = at_step {
                at_step();
            }
        });
    }

    fn bundle(version: &str) -> Bundle {
        Bundle {
            name: "tiny".to_owned(),
            library: b"the same code".to_vec(),
            signature: (version == "signed").then(|| b"signature".to_vec()),
            config: Some(format!("version: {version}\n").into_bytes()),
            config_signature: None,
        }
    }

    fn locked(bundle: &Bundle, source: &str) -> Locked {
        Locked {
            version: "0.1.0".to_owned(),
            sha256: sha256(&bundle.library),
            config_sha256: bundle.config.as_deref().map(sha256),
            signer: None,
            key: None,
            source: source.to_owned(),
            installed_at: "2026-11-21T00:00:00Z".to_owned(),
        }
    }

    fn put(state: &Path, version: &str) {
        let bundle = bundle(version);
        let staged = InstallDir::of(state).stage(&bundle).expect("it is writable");
        begin(state, staged, &locked(&bundle, version)).expect("it is writable");
    }

    /// Returns every file that counts, with its bytes.
    fn files(state: &Path) -> Vec<(PathBuf, Vec<u8>)> {
        let mut found = Vec::new();
        let mut folders = vec![state.to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).expect("it is there").flatten() {
                let path = entry.path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    let inner = path.strip_prefix(state).expect("it lies there").to_owned();
                    found.push((inner, fs::read(&path).expect("it is readable")));
                }
            }
        }
        found.sort();
        found
    }

    fn copy(from: &Path) -> tempfile::TempDir {
        let to = tempfile::tempdir().expect("a directory");
        for (path, bytes) in files(from) {
            let path = to.path().join(path);
            fs::create_dir_all(path.parent().expect("it lies in one")).expect("it is writable");
            fs::write(path, bytes).expect("it is writable");
        }
        to
    }

    /// Returns what a start finds, one state for a kill after each step of `act`.
    fn found_after_each_step(state: &Path, act: impl FnOnce()) -> Vec<Vec<(PathBuf, Vec<u8>)>> {
        let snapshots = std::rc::Rc::<RefCell<Vec<tempfile::TempDir>>>::default();
        let (taken, looked_at) = (snapshots.clone(), state.to_owned());
        let at_step = Box::new(move || taken.borrow_mut().push(copy(&looked_at)));
        AT_STEP.set(Some(at_step));
        act();
        AT_STEP.set(None);
        let snapshots = snapshots.take();
        let found = snapshots.iter().map(|snapshot| {
            recover(snapshot.path()).expect("it is writable");
            let again = recover(snapshot.path()).expect("it is writable");
            assert!(again.is_empty(), "once is enough");
            files(snapshot.path())
        });
        found.collect()
    }

    #[test]
    fn a_kill_after_any_step_leaves_the_old_until_the_new_is_kept() {
        // The second is the same library with other defaults, the third the same files but one.
        for (first, second) in [(None, "a"), (Some("a"), "b"), (Some("unsigned"), "signed")] {
            let state = tempfile::tempdir().expect("a directory");
            if let Some(first) = first {
                put(state.path(), first);
                commit(state.path(), "tiny").expect("it is writable");
            }
            // A lock is there after the first start of all.
            let lock = Lock::read(state.path()).expect("it is whole");
            lock.write(state.path()).expect("it is writable");
            let old = files(state.path());
            let begun = found_after_each_step(state.path(), || put(state.path(), second));
            assert_eq!(begun.len(), 3);
            assert!(begun.iter().all(|found| *found == old), "{second}: {begun:#?}");

            let undone = found_after_each_step(state.path(), || {
                roll_back(state.path(), "tiny").expect("it is writable");
            });
            assert_eq!(undone.len(), 3);
            assert!(undone.iter().all(|found| *found == old), "{second}: {undone:#?}");
            assert_eq!(files(state.path()), old, "{second}");

            put(state.path(), second);
            let kept = found_after_each_step(state.path(), || {
                commit(state.path(), "tiny").expect("it is writable");
            });
            let new = files(state.path());
            assert_ne!(new, old);
            assert_eq!(kept.len(), 2);
            assert!(kept.iter().all(|found| *found == new), "{second}: {kept:#?}");
            let lock = Lock::read(state.path()).expect("it is whole");
            let package = InstallDir::of(state.path()).package("tiny");
            assert_eq!(lock.modules["tiny"].source, second);
            assert_eq!(lock.modules["tiny"].modified(&package), None);
        }
    }

    #[test]
    fn what_cannot_be_put_changes_nothing() {
        let state = tempfile::tempdir().expect("a directory");
        put(state.path(), "a");
        commit(state.path(), "tiny").expect("it is writable");
        let old = files(state.path());
        let bundle = bundle("b");
        let staged = InstallDir::of(state.path()).stage(&bundle).expect("it is writable");
        let mut folder = Some(staged.package.directory.clone());
        AT_STEP.set(Some(Box::new(move || drop(folder.take().map(fs::remove_dir_all)))));
        begin(state.path(), staged, &locked(&bundle, "b")).expect_err("it is gone");
        AT_STEP.set(None);
        assert_eq!(files(state.path()), old);
        commit(state.path(), "tiny").expect("nothing is on trial");
        assert_eq!(files(state.path()), old);
    }
}
