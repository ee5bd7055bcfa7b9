//! The comparison of `STATE/modules` with what was installed.

use std::{fmt, fs, io, path::Path};

use lodestar_api::Verified;
use lodestar_platform::{file_trust, files};

use super::{InstallDir, Keys, Lock, Locked, error::FilesError};
use crate::{MAX_LIBRARY, Package};

/// Compares every installed module, or the one named `only`, with the lock. `probe` checks whether
/// a library fits this host; only unmodified ones are probed, since that runs their code.
#[must_use]
pub fn verify<E: fmt::Display>(
    lock: &Lock,
    place: &InstallDir,
    keys: &Keys,
    only: Option<&str>,
    probe: impl Fn(&Package) -> Result<(), E>,
) -> Vec<Verified> {
    let wanted = lock.modules.keys().filter(|name| only.is_none_or(|only| only == *name));
    let packages = wanted.map(|name| place.package(name));
    packages
        .filter_map(|package| Some(one(&package, lock.lying_in(&package)?, keys, &probe)))
        .collect()
}

fn one<E: fmt::Display>(
    package: &Package,
    locked: &Locked,
    keys: &Keys,
    probe: &impl Fn(&Package) -> Result<(), E>,
) -> Verified {
    let mut problems = Vec::new();
    let mut word = |ok: &str, bad: &str, problem: Option<String>| match problem {
        None => ok.to_owned(),
        Some(problem) => {
            problems.push(problem);
            bad.to_owned()
        }
    };
    let modified = locked.modified(package).map(|what| {
        format!("{what} since it was installed; install it again, or find out who did that")
    });
    let intact = modified.is_none();
    let hash = word("ok", "modified", modified);
    let signer = locked.signer.as_deref().unwrap_or("unsigned");
    let signature = word(signer, "bad", signature(package, locked, keys));
    let files = word("ok", "open", in_words(files(&package.directory)));
    let abi = match intact {
        true => word("ok", "unfit", in_words(probe(package))),
        false => "not asked".to_owned(),
    };
    Verified {
        name: package.name.clone(),
        version: locked.version.clone(),
        sha256: locked.sha256.clone(),
        signer: locked.signer.clone(),
        source: locked.source.clone(),
        installed_at: locked.installed_at.clone(),
        hash,
        signature,
        abi,
        files,
        ok: problems.is_empty(),
        problems,
    }
}

fn in_words(result: Result<(), impl fmt::Display>) -> Option<String> {
    result.err().map(|error| error.to_string())
}

/// Returns what is wrong with the signature of a module that was installed with one.
fn signature(package: &Package, locked: &Locked, keys: &Keys) -> Option<String> {
    let (Some(signer), Some(key)) = (&locked.signer, &locked.key) else { return None };
    if !keys.trusts(key) {
        let place = keys.directory().display();
        return Some(format!(
            "its signer {signer} is no longer trusted: the key is not in {place}; it runs as an \
             unsigned module"
        ));
    }
    let library = package.library_path();
    let bytes = files::read(&library, MAX_LIBRARY).unwrap_or_default();
    let signature = library.with_extension("so.minisig");
    let signature = files::read(&signature, files::MAX_TEXT).ok();
    match keys.check(&bytes, signature.as_deref()) {
        Ok(Some(signed)) if signed.key == *key => None,
        Ok(_) => Some(format!("its signature by {signer} is gone; install it again")),
        Err(reason) => Some(format!("{reason}; install it again")),
    }
}

/// Checks that only trusted accounts can write a module's files, and that none is a link.
fn files(directory: &Path) -> Result<(), FilesError> {
    let failed = |error: io::Error| FilesError::Unreadable(directory.to_owned(), error);
    let mut paths = vec![directory.to_owned()];
    for entry in fs::read_dir(directory).map_err(failed)? {
        paths.push(entry.map_err(failed)?.path());
    }
    for path in paths {
        let metadata = path.symlink_metadata().map_err(failed)?;
        if metadata.is_symlink() {
            return Err(FilesError::Link(path));
        }
        if let Some(stranger) = file_trust::of(&path, &metadata, file_trust::Also::Nobody) {
            return Err(FilesError::Open(path, stranger));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::{install::Bundle, sha256};

    #[test]
    fn finds_what_is_not_as_it_was() {
        let state = tempfile::tempdir().expect("a directory");
        let place = InstallDir::of(state.path());
        let bundle =
            Bundle { name: "tiny".to_owned(), library: b"one".to_vec(), ..Bundle::default() };
        drop(place.stage(&bundle).map(|staged| place.put(staged)).expect("staged"));
        let mut lock = Lock::default();
        let mut locked = Locked {
            version: "0.1.0".to_owned(),
            sha256: sha256(b"one"),
            config_sha256: None,
            signer: None,
            key: None,
            source: "/tmp/tiny".to_owned(),
            installed_at: "2026-11-21T00:00:00Z".to_owned(),
        };
        lock.modules.insert("tiny".to_owned(), locked.clone());
        let keys = Keys::default();
        let look = |lock: &Lock, abi: Result<(), String>| {
            let found = verify(lock, &place, &keys, None, |_| abi.clone());
            found.into_iter().next().expect("it is in the lock")
        };
        let good = look(&lock, Ok(()));
        let words = |it: &Verified| {
            [&it.hash, &it.signature, &it.abi, &it.files].map(|word| word.as_str().to_owned())
        };
        assert!(good.ok, "{good:?}");
        assert_eq!(words(&good), ["ok", "unsigned", "ok", "ok"]);
        assert!(verify(&lock, &place, &keys, Some("other"), |_| Ok::<_, String>(())).is_empty());
        let unfit = look(&lock, Err("it speaks epoch 2".to_owned()));
        assert_eq!((words(&unfit)[2].as_str(), unfit.ok), ("unfit", false));

        let library = place.package("tiny").library_path();
        fs::set_permissions(&library, fs::Permissions::from_mode(0o620)).expect("it is ours");
        assert_eq!(words(&look(&lock, Ok(())))[3], "open");
        fs::set_permissions(&library, fs::Permissions::from_mode(0o600)).expect("it is ours");
        std::os::unix::fs::symlink("/etc/hostname", library.with_extension("x")).expect("new");
        assert!(look(&lock, Ok(())).problems[0].contains("symbolic link"));
        fs::remove_file(library.with_extension("x")).expect("it is there");

        fs::write(&library, "two").expect("it is ours");
        let swapped = verify(&lock, &place, &keys, None, |_| -> Result<(), String> {
            panic!("its code must not run")
        });
        assert_eq!(words(&swapped[0]), ["modified", "unsigned", "not asked", "ok"]);
        fs::write(&library, "one").expect("it is ours");
        (locked.signer, locked.key) = (Some("acme".to_owned()), Some("RWQ".to_owned()));
        lock.modules.insert("tiny".to_owned(), locked);
        let untrusted = look(&lock, Ok(()));
        assert!(untrusted.problems[0].contains("no longer trusted"), "{untrusted:?}");
    }
}
