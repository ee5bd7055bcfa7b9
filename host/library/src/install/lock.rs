//! The lock file `STATE/modules.lock`: the hashes of each installed module's files, and their
//! source.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use lodestar_platform::files;
use serde::{Deserialize, Serialize};

use super::{AdmitError, LockError};
use crate::{LoadError, Package, hash, sha256};

const HEAD: &str = "# Written by lodestard: the modules that were installed, and their hashes.\n\
                    # `lodestar modules verify` compares them with what lies on the disk.\n\n";

/// Content of the lock file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lock {
    /// Installed modules by name.
    #[serde(default)]
    pub modules: BTreeMap<String, Locked>,
    /// Modules whose install is not yet committed, by name: written before they are put in place,
    /// and removed by commit or roll-back. See [`begin`](super::begin).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub coming: BTreeMap<String, Locked>,
}

/// An installed module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Locked {
    /// Version of the module.
    pub version: String,
    /// Hash of its library, lower-case hexadecimal.
    pub sha256: String,
    /// Hash of its `config.yaml`, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_sha256: Option<String>,
    /// Name of the trusted key that signed it; without it the module is unsigned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signer: Option<String>,
    /// Trusted key that signed it, base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Source that it was installed from, as the installer named it.
    pub source: String,
    /// Time of the install, RFC 3339, UTC.
    pub installed_at: String,
}

/// Message for a module that is not as it was installed.
pub const MODIFIED: &str = "was modified since it was installed";

impl Lock {
    /// Reads the lock of a state directory; it is empty before the first install.
    ///
    /// # Errors
    ///
    /// When it cannot be read. It is never guessed at.
    pub fn read(state_dir: &Path) -> Result<Self, LockError> {
        let path = path(state_dir);
        let text = match files::read_trusted(&path, files::MAX_TEXT).and_then(files::text) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(LockError::Unreadable(path, error)),
        };
        toml::from_str(&text).map_err(|error| LockError::Damaged(path, Box::new(error)))
    }

    /// Writes the lock so that a kill leaves the old or the new one.
    ///
    /// # Errors
    ///
    /// When the disk does not take it.
    pub fn write(&self, state_dir: &Path) -> io::Result<()> {
        let text = toml::to_string(self).map_err(io::Error::other)?;
        let mut file = tempfile::Builder::new().prefix(".modules.lock.").tempfile_in(state_dir)?;
        file.write_all(HEAD.as_bytes())?;
        file.write_all(text.as_bytes())?;
        file.as_file().sync_all()?;
        file.persist(path(state_dir)).map_err(|error| error.error)?;
        fs::File::open(state_dir)?.sync_all()
    }

    /// Returns the entry of the module that lies in `package`: the one whose install is not yet
    /// committed, or the installed one.
    #[must_use]
    pub fn lying_in(&self, package: &Package) -> Option<&Locked> {
        let on_trial = self.coming.get(&package.name).filter(|it| it.modified(package).is_none());
        on_trial.or_else(|| self.modules.get(&package.name))
    }

    /// Returns the entry of a module whose library has this hash: the installed one, or the one
    /// whose install is not yet committed.
    #[must_use]
    pub fn of_bytes(&self, module: &str, sha256: &str) -> Option<&Locked> {
        let known = [self.modules.get(module), self.coming.get(module)];
        known.into_iter().flatten().find(|locked| locked.sha256 == sha256)
    }

    /// Lets what lies in `package` be loaded, if it is what was installed. Its library has the hash
    /// `sha256`, its `config.yaml` the hash `config_sha256`.
    ///
    /// # Errors
    ///
    /// When it is not.
    pub fn admit(
        &self,
        package: &Package,
        sha256: &str,
        config_sha256: Option<&str>,
    ) -> Result<(), AdmitError> {
        let name = &package.name;
        let known = [self.modules.get(name), self.coming.get(name)];
        let mut known = known.into_iter().flatten().peekable();
        if known.peek().is_none() {
            return Ok(());
        }
        if known.any(|it| it.sha256 == sha256 && it.config_sha256.as_deref() == config_sha256) {
            return Ok(());
        }
        let directory = package.directory.clone();
        Err(AdmitError::Installed { directory, module: name.clone() })
    }
}

impl Locked {
    /// Returns which file is not as it was installed.
    #[must_use]
    pub fn modified(&self, package: &Package) -> Option<&'static str> {
        match hash(package) {
            None => Some("its library is missing"),
            Some(sha256) if sha256 != self.sha256 => Some("its library was modified"),
            Some(_) if !config_hash(package).is_ok_and(|it| it == self.config_sha256) => {
                Some("its config.yaml was modified")
            }
            Some(_) => None,
        }
    }
}

/// Returns the package of an installed module.
pub(super) fn package(modules: &Path, name: &str) -> Package {
    Package { name: name.to_owned(), directory: modules.join(name) }
}

fn config_hash(package: &Package) -> Result<Option<String>, LoadError> {
    Ok(package.defaults()?.map(|text| sha256(text.as_bytes())))
}

fn path(state_dir: &Path) -> PathBuf {
    state_dir.join("modules.lock")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn locked(library: &[u8]) -> Locked {
        Locked {
            version: "0.1.0".to_owned(),
            sha256: sha256(library),
            config_sha256: None,
            signer: None,
            key: None,
            source: "/tmp/tiny".to_owned(),
            installed_at: "2026-11-21T00:00:00Z".to_owned(),
        }
    }

    #[test]
    fn survives_the_disk_and_is_never_guessed() {
        let state = tempfile::tempdir().expect("a directory");
        assert_eq!(Lock::read(state.path()).expect("there is none"), Lock::default());
        let mut lock = Lock::default();
        lock.modules.insert("tiny".to_owned(), locked(b"one"));
        lock.coming.insert("tiny".to_owned(), locked(b"two"));
        lock.write(state.path()).expect("it is writable");
        assert_eq!(Lock::read(state.path()).expect("it is whole"), lock);
        fs::write(path(state.path()), "modules = 5").expect("it is writable");
        let error = Lock::read(state.path()).expect_err("damaged").to_string();
        assert!(error.contains("is damaged"), "{error}");
    }

    #[test]
    fn what_is_on_trial_counts_where_it_lies() {
        let modules = tempfile::tempdir().expect("a directory");
        let tiny = package(modules.path(), "tiny");
        fs::create_dir(&tiny.directory).expect("it is new");
        let mut lock = Lock::default();
        lock.modules.insert("tiny".to_owned(), locked(b"old"));
        lock.coming.insert("tiny".to_owned(), locked(b"new"));
        for there in [&b"old"[..], b"new"] {
            fs::write(tiny.library_path(), there).expect("it is writable");
            assert!(lock.admit(&tiny, &sha256(there), None).is_ok(), "while it is on trial");
            assert_eq!(lock.lying_in(&tiny), Some(&locked(there)));
        }
    }

    #[test]
    fn only_what_was_installed_is_loaded() {
        let tiny = package(Path::new("/m"), "tiny");
        let mut lock = Lock::default();
        assert!(lock.admit(&tiny, "any", None).is_ok(), "nobody installed it");
        lock.modules.insert("tiny".to_owned(), locked(b"one"));
        assert!(lock.admit(&tiny, &sha256(b"one"), None).is_ok());
        let reason = lock.admit(&tiny, &sha256(b"two"), None).expect_err("it differs");
        assert!(reason.to_string().contains("modified since it was installed"), "{reason}");
        assert!(lock.admit(&tiny, &sha256(b"one"), Some("ab")).is_err(), "its defaults differ");
    }
}
