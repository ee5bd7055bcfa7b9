//! The last two generations of each module, kept on disk, so that one can go back.

use std::{
    fs::{self, Permissions},
    io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::SystemTime,
};

use lodestar_platform::files;
use rustix::{
    fs::{CWD, RenameFlags, renameat_with},
    io::Errno,
};
use tempfile::TempDir;

use super::{Inspected, Package, install::AdmitError};

/// Number of generations of a module that are kept.
const KEPT: usize = 2;

/// Prefix of the folder of a generation that is not whole.
const HALF: &str = ".half-";

/// Returns the directory of a module's generations.
#[must_use]
pub fn generations(state_dir: &Path, module: &str) -> PathBuf {
    state_dir.join("generations").join(module)
}

/// A library that is written to disk, and not yet a generation to go back to: it has to run first.
/// Dropping it removes it.
#[derive(Debug)]
pub struct Candidate {
    module: String,
    directory: PathBuf,
    /// Folder that is not whole yet; `None` where the generation is kept already.
    half: Option<TempDir>,
}

/// Name of the file with the hashes of a kept generation's files, as `sha256sum -c` reads them.
const SUMS: &str = "SHA256SUMS";

/// Writes a library to disk, from the very bytes that will be mapped, with its manifest and the
/// defaults that it runs with, where as much space again stays free: a generation to go back to
/// must not take the last space that modules write to.
///
/// # Errors
///
/// When the disk does not take it; nothing is left of it then.
pub fn stage(state_dir: &Path, inspected: &Inspected) -> io::Result<Candidate> {
    let module = inspected.manifest.module.name.clone();
    let place = generations(state_dir, &module);
    let directory = place.join(&inspected.sha256);
    let sums = sums(&module, &inspected.sha256, inspected.defaults.as_deref());
    if files::read_text(&directory.join(SUMS)).is_ok_and(|kept| kept == sums) {
        return Ok(Candidate { module, directory, half: None });
    }
    fs::create_dir_all(&place)?;
    let bytes = fs::metadata(inspected.copy.path())?.len();
    if files::free_bytes(&place)? < 2 * bytes {
        return Err(Errno::NOSPC.into());
    }
    let half = tempfile::Builder::new().prefix(HALF).tempdir_in(&place)?;
    let library = half.path().join(format!("lib{module}.so"));
    fs::copy(inspected.copy.path(), &library)?;
    // The memory file that it comes from may be executed by all.
    fs::set_permissions(&library, Permissions::from_mode(0o600))?;
    let manifest = toml::to_string(&inspected.manifest).map_err(io::Error::other)?;
    fs::write(half.path().join("module.toml"), manifest)?;
    if let Some(defaults) = &inspected.defaults {
        fs::write(half.path().join("config.yaml"), defaults)?;
    }
    fs::write(half.path().join(SUMS), sums)?;
    Ok(Candidate { module, directory, half: Some(half) })
}

/// Lets a kept generation that was read be loaded, if it is what was kept: its folder is named
/// after the hash of its library, and its list holds that of its defaults.
///
/// # Errors
///
/// That it was modified.
pub fn expect_unmodified(state_dir: &Path, inspected: &Inspected) -> Result<(), AdmitError> {
    let name = &inspected.manifest.module.name;
    let package = Package::of(&inspected.path, name);
    let Some(sha256) = generation_of(state_dir, &package) else { return Ok(()) };
    let known = files::read_text(&package.directory.join(SUMS)).unwrap_or_default();
    if inspected.sha256 == sha256 && known == sums(name, &sha256, inspected.defaults.as_deref()) {
        return Ok(());
    }
    Err(AdmitError::Modified { directory: package.directory, module: name.clone() })
}

fn sums(module: &str, sha256: &str, defaults: Option<&str>) -> String {
    let defaults =
        defaults.map(|text| format!("{}  config.yaml\n", super::sha256(text.as_bytes())));
    format!("{sha256}  lib{module}.so\n{}", defaults.unwrap_or_default())
}

impl Candidate {
    /// Keeps the generation, since it runs. Beside it stays `way_back`, the hash of the one to go
    /// back to should it fail, or else the one that ran before it.
    ///
    /// # Errors
    ///
    /// When the file system fails; what was kept before is still there.
    pub fn keep(self, state_dir: &Path, way_back: Option<&str>) -> io::Result<()> {
        if let Some(half) = self.half {
            if self.directory.exists() {
                // The same library ran with other defaults. Those go with the half.
                renameat_with(CWD, half.path(), CWD, &self.directory, RenameFlags::EXCHANGE)?;
            } else {
                fs::rename(half.path(), &self.directory)?;
                // Its name is another one now.
                let _ = half.keep();
            }
        }
        fs::File::open(&self.directory)?.set_modified(SystemTime::now())?;
        let place = generations(state_dir, &self.module);
        let way_back = way_back.map(|sha256| place.join(sha256));
        let mut kept = kept_generations(state_dir, &self.module);
        kept.sort_by_key(|it| {
            (it.directory != self.directory, Some(&it.directory) != way_back.as_ref())
        });
        for old in kept.into_iter().skip(KEPT) {
            fs::remove_dir_all(&old.directory)?;
        }
        Ok(())
    }
}

/// Removes the folders that a kill left half written.
pub fn clear_half_written(state_dir: &Path) {
    let modules = fs::read_dir(state_dir.join("generations")).into_iter().flatten().flatten();
    let entries = modules.filter_map(|module| fs::read_dir(module.path()).ok()).flatten().flatten();
    for entry in entries.filter(|it| it.file_name().to_string_lossy().starts_with(HALF)) {
        // An error shows when something is to be written there.
        let _ = fs::remove_dir_all(entry.path());
    }
}

/// Returns the generations of a module that are kept, the one that ran last first.
#[must_use]
pub fn kept_generations(state_dir: &Path, module: &str) -> Vec<Package> {
    let mut found: Vec<(SystemTime, Package)> = fs::read_dir(generations(state_dir, module))
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| !entry.file_name().to_string_lossy().starts_with('.'))
        .filter_map(|entry| {
            let modified = entry.metadata().ok()?.modified().ok()?;
            Some((modified, Package { name: module.to_owned(), directory: entry.path() }))
        })
        .collect();
    found.sort_by_key(|(modified, _)| std::cmp::Reverse(*modified));
    found.into_iter().map(|(_, package)| package).collect()
}

/// Returns the hash that a kept generation must have, the name of its folder; `None` for a package
/// that is no kept generation, whatever path led to it.
#[must_use]
pub fn generation_of(state_dir: &Path, package: &Package) -> Option<String> {
    let place = generations(state_dir, &package.name);
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let directory = real(&package.directory);
    let is_kept = directory.parent() == Some(&real(&place));
    is_kept.then(|| directory.file_name().unwrap_or_default().to_string_lossy().into_owned())
}

/// Finds the kept generation with this hash.
#[must_use]
pub fn find_generation(state_dir: &Path, module: &str, sha256: &str) -> Option<Package> {
    let directory = generations(state_dir, module).join(sha256);
    directory.is_dir().then(|| Package { name: module.to_owned(), directory })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_kill_left_goes_and_what_is_kept_stays() {
        let state = tempfile::tempdir().expect("a directory");
        let place = generations(state.path(), "tiny");
        clear_half_written(state.path());
        for folder in [".half-a1b2", "ab12", "cd34"] {
            fs::create_dir_all(place.join(folder)).expect("it is new");
        }
        fs::write(place.join(".half-a1b2/libtiny.so"), "half").expect("it is writable");
        assert_eq!(
            kept_generations(state.path(), "tiny").len(),
            2,
            "half of one is none to go back to"
        );
        clear_half_written(state.path());
        assert!(!place.join(".half-a1b2").exists());
        assert_eq!(kept_generations(state.path(), "tiny").len(), 2);
    }

    #[test]
    fn two_stay_and_a_candidate_that_is_not_kept_goes() {
        let state = tempfile::tempdir().expect("a directory");
        let place = generations(state.path(), "tiny");
        fs::create_dir_all(&place).expect("it is new");
        let candidate = |sha256: &str| {
            let half = tempfile::Builder::new().prefix(HALF).tempdir_in(&place);
            let half = Some(half.expect("it is writable"));
            Candidate { module: "tiny".to_owned(), directory: place.join(sha256), half }
        };
        for sha256 in ["1", "2", "3"] {
            candidate(sha256).keep(state.path(), None).expect("it is writable");
        }
        drop(candidate("4"));
        let names = || -> Vec<String> {
            let kept = kept_generations(state.path(), "tiny").into_iter();
            kept.map(|it| it.directory.file_name().unwrap_or_default().display().to_string())
                .collect()
        };
        assert_eq!(names(), ["3", "2"]);
        // One that runs again is the newest again.
        let again = Candidate { module: "tiny".to_owned(), directory: place.join("2"), half: None };
        again.keep(state.path(), None).expect("it is there");
        assert_eq!(names(), ["2", "3"]);
        // The one before was no good one, and is the one that goes.
        candidate("5").keep(state.path(), Some("3")).expect("it is writable");
        assert_eq!(names(), ["5", "3"]);
        assert_eq!(fs::read_dir(&place).expect("it is there").count(), 2, "nothing half is left");
    }
}
