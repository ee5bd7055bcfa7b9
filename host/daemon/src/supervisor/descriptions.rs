//! Descriptions of libraries, cached by the hash of the library: the commands of a module that does
//! not run are known without loading it each time.

use std::{
    collections::HashMap,
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use lodestar_library::{Package, inspect};
use lodestar_platform::{files, state_dir::private_directory};
use module_sdk::{Description, manifest::Manifest};
use serde::{Deserialize, Serialize};

use super::{Probe, error::ProbeError};

/// Number of descriptions that are kept on the disk. A module under development adds one with each
/// build.
const KEPT: usize = 64;

/// Largest size of a description on the disk, in bytes.
const MAX_BYTES: u64 = 16 << 20;

/// Descriptions of all libraries that were asked.
#[derive(Debug)]
pub(super) struct Descriptions {
    /// `STATE/cache/descriptions`, one file per hash.
    directory: PathBuf,
    seen: Mutex<Seen>,
}

/// Descriptions by library file, valid while the file is the same. `None` for a library that cannot
/// be asked.
type Seen = HashMap<PathBuf, (Stamp, Option<Arc<Described>>)>;

/// Manifest and description of a library.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Described {
    /// Version of the host that asked: another version may ask for more.
    host: String,
    pub(super) manifest: Manifest,
    pub(super) description: Description,
}

/// Identity of a state of a file: device, inode, size and time of the last change.
type Stamp = (u64, u64, u64, i64, i64);

impl Descriptions {
    /// Opens the descriptions below a state directory, which need not exist yet.
    pub(super) fn below(state_dir: &Path) -> Self {
        Self { directory: state_dir.join("cache/descriptions"), seen: Mutex::default() }
    }

    /// Returns the description of a library: from memory, from the disk, or from the library in a
    /// process of its own, whose start the call then waits for. `None` where the library cannot be
    /// asked.
    pub(super) fn of(
        &self,
        package: &Package,
        ask: impl Fn(&Package) -> Result<Probe, ProbeError>,
    ) -> Option<Arc<Described>> {
        let path = package.library_path();
        let stamp = stamp(&path)?;
        if let Some((known, described)) = self.seen().get(&path)
            && *known == stamp
        {
            return described.clone();
        }
        let described = self.kept_or_asked(package, ask).map(Arc::new);
        self.seen().insert(path, (stamp, described.clone()));
        described
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn kept_or_asked(
        &self,
        package: &Package,
        ask: impl Fn(&Package) -> Result<Probe, ProbeError>,
    ) -> Option<Described> {
        let sha256 = inspect(package).ok()?.sha256;
        let file = self.directory.join(format!("{sha256}.json"));
        if let Some(kept) = read(&file) {
            return Some(kept);
        }
        let answer = ask(package)
            .inspect_err(|error| {
                let (module, reason) = (package.name.as_str(), error.to_string());
                tracing::warn!(module, reason, "the module cannot be asked for its commands");
            })
            .ok()?;
        let described = Described {
            host: env!("CARGO_PKG_VERSION").to_owned(),
            manifest: answer.manifest,
            description: answer.description,
        };
        if let Err(error) = self.keep(&file, &described) {
            tracing::debug!(%error, path = %file.display(), "a description cannot be kept");
        }
        Some(described)
    }

    fn keep(&self, file: &Path, described: &Described) -> io::Result<()> {
        if let Some(cache) = self.directory.parent() {
            private_directory(cache)?;
        }
        private_directory(&self.directory)?;
        self.make_room()?;
        // For this user alone, and whole or not at all.
        let mut new = tempfile::NamedTempFile::new_in(&self.directory)?;
        serde_json::to_writer(&mut new, described)?;
        new.persist(file)?;
        Ok(())
    }

    /// Deletes the oldest descriptions where there are too many.
    fn make_room(&self) -> io::Result<()> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.directory)?.flatten() {
            if let Ok(changed) = entry.metadata().and_then(|metadata| metadata.modified()) {
                files.push((changed, entry.path()));
            }
        }
        files.sort();
        let surplus = (files.len() + 1).saturating_sub(KEPT);
        files[..surplus].iter().try_for_each(|(_, path)| fs::remove_file(path))
    }
}

/// Reads a description from the disk. Returns `None` where there is none of this version of the
/// host.
fn read(file: &Path) -> Option<Described> {
    let described: Described = serde_json::from_slice(&files::read(file, MAX_BYTES).ok()?).ok()?;
    (described.host == env!("CARGO_PKG_VERSION")).then_some(described)
}

fn stamp(path: &Path) -> Option<Stamp> {
    let it = fs::metadata(path).ok()?;
    Some((it.dev(), it.ino(), it.size(), it.mtime(), it.mtime_nsec()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn described(host: &str) -> Described {
        let manifest = "[module]\nname = \"tiny\"\nversion = \"0.1.0\"\ndescription = \"d\"\n\n\
                        [abi]\nepoch = 1\n";
        let description = serde_json::json!({"sdk_version": "1", "subscriptions": [],
            "timers": [], "commands": [], "config_schema": {}});
        Described {
            host: host.to_owned(),
            manifest: Manifest::parse(manifest).expect("it is valid"),
            description: serde_json::from_value(description).expect("it is a description"),
        }
    }

    #[test]
    fn an_answer_is_kept_for_this_user_and_this_host() {
        let state = tempfile::tempdir().expect("a directory");
        let descriptions = Descriptions::below(state.path());
        let file = descriptions.directory.join("abc.json");
        assert!(read(&file).is_none());
        descriptions.keep(&file, &described(env!("CARGO_PKG_VERSION"))).expect("it is kept");
        assert_eq!(read(&file).expect("it is there").manifest.module.name, "tiny");
        let mode = fs::metadata(&file).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        descriptions.keep(&file, &described("0.0.1")).expect("it is kept");
        assert!(read(&file).is_none(), "of another host");
        fs::write(&file, "{\"host").expect("it is ours");
        assert!(read(&file).is_none(), "torn");
    }

    #[test]
    fn the_oldest_make_room() {
        let state = tempfile::tempdir().expect("a directory");
        let descriptions = Descriptions::below(state.path());
        for number in 0..KEPT + 5 {
            let file = descriptions.directory.join(format!("{number}.json"));
            descriptions.keep(&file, &described("1")).expect("it is kept");
            let past = std::time::UNIX_EPOCH + std::time::Duration::from_secs(number as u64);
            let file = fs::File::options().write(true).open(file).expect("it is ours");
            file.set_modified(past).expect("it is ours");
        }
        let kept = |number: usize| descriptions.directory.join(format!("{number}.json")).exists();
        assert_eq!(fs::read_dir(&descriptions.directory).expect("it is ours").count(), KEPT);
        assert!(!kept(0) && !kept(4) && kept(5) && kept(KEPT + 4));
    }
}
