//! The last two generations of each module, kept on disk, so that one can go back.

use std::{
    fs::{self, Permissions},
    io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::SystemTime,
};

use super::{Library, Package};

/// How many generations of a module are kept.
const KEPT: usize = 2;

/// Where a module's generations are kept.
fn place(state_dir: &Path, module: &str) -> PathBuf {
    state_dir.join("generations").join(module)
}

/// Keeps a library that runs, from the very bytes that are mapped, with the files beside it. The
/// newest two of a module stay.
///
/// # Errors
///
/// When the disk does not take it; what was kept before is still there.
pub fn keep(state_dir: &Path, library: &Library) -> io::Result<()> {
    let module = &library.manifest().module.name;
    let place = place(state_dir, module);
    let directory = place.join(library.sha256());
    let target = Package { name: module.clone(), directory: directory.clone() };
    if !directory.is_dir() {
        fs::create_dir_all(&place)?;
        let half = tempfile::Builder::new().prefix(".half-").tempdir_in(&place)?;
        let file = target.library_path();
        let name = file.file_name().unwrap_or(file.as_os_str());
        fs::copy(library.sealed(), half.path().join(name))?;
        // The memory file that it comes from may be executed by all.
        fs::set_permissions(half.path().join(name), Permissions::from_mode(0o600))?;
        let from = library.path().parent().unwrap_or_else(|| Path::new(""));
        for beside in ["module.toml", "config.yaml"] {
            if from.join(beside).is_file() {
                fs::copy(from.join(beside), half.path().join(beside))?;
            }
        }
        fs::rename(half.keep(), &directory)?;
    }
    fs::File::open(&directory)?.set_modified(SystemTime::now())?;
    for old in kept(state_dir, module).into_iter().skip(KEPT) {
        fs::remove_dir_all(&old.directory)?;
    }
    Ok(())
}

/// The generations of a module that are kept, the one that ran last first.
#[must_use]
pub fn kept(state_dir: &Path, module: &str) -> Vec<Package> {
    let mut found: Vec<(SystemTime, Package)> = fs::read_dir(place(state_dir, module))
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

/// The kept generation with this hash.
#[must_use]
pub fn kept_with(state_dir: &Path, module: &str, sha256: &str) -> Option<Package> {
    let directory = place(state_dir, module).join(sha256);
    directory.is_dir().then(|| Package { name: module.to_owned(), directory })
}
