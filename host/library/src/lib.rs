//! The way from a file to a root module that may be called: read, hash, seal, check, map, check
//! again.
//!
//! What is mapped is a sealed copy of the very bytes that were hashed and checked, so that a file
//! that is swapped or overwritten meanwhile changes nothing (adr/0003).

mod checks;
mod elf;
mod error;
mod files;
mod generations;
pub mod install;
mod layout;
mod loaded_libraries;
mod maps;
mod open;
mod pthread_hooks;
mod seal;

use std::{
    os::fd::{BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use lodestar_abi::{BuildInfo, EPOCH};
use module_sdk::manifest::Manifest;
use sha2::{Digest as _, Sha256};

pub use checks::{CHECKS, Check, Verdict, check_all};
pub use error::LoadError;
use files::Copied;
pub use files::{MAX_LIBRARY, hash};
pub use generations::{
    Candidate, clear_half_written, expect_unmodified, find_generation, generation_of, generations,
    kept_generations, stage,
};
pub use layout::Difference;
pub use loaded_libraries::LoadedLibraries;
pub use open::Library;
pub use pthread_hooks::{Working, work_for, workers, works_for};
use seal::SealedCopy;

/// A module's directory on the module path: `lib<name>.so`, `module.toml`, `config.yaml`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Package {
    /// Name of the module, which is the directory's.
    pub name: String,
    /// Path of the directory.
    pub directory: PathBuf,
}

impl Package {
    /// Returns the package that a library file belongs to.
    #[must_use]
    pub fn of(library: &Path, name: &str) -> Self {
        let directory = library.parent().unwrap_or_else(|| Path::new("")).to_owned();
        Self { name: name.to_owned(), directory }
    }

    /// Returns the path of the library file.
    #[must_use]
    pub fn library_path(&self) -> PathBuf {
        self.directory.join(format!("lib{}.so", self.name))
    }

    /// Reads the text of the module's `config.yaml`, its own defaults; `None` when it has none.
    ///
    /// # Errors
    ///
    /// When what lies there is no regular file of text, or too large.
    pub fn defaults(&self) -> Result<Option<String>, LoadError> {
        files::defaults(&self.directory.join("config.yaml"))
    }
}

/// Finds a module on the module path. The first directory that has it wins.
#[must_use]
pub fn find(module_path: &[PathBuf], name: &str) -> Option<Package> {
    module_path
        .iter()
        .map(|directory| Package { name: name.to_owned(), directory: directory.join(name) })
        .find(|package| package.directory.is_dir())
}

/// Returns every module on the module path, by name.
#[must_use]
pub fn list(module_path: &[PathBuf]) -> Vec<Package> {
    let mut packages: Vec<Package> = Vec::new();
    for directory in module_path {
        for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let known = packages.iter().any(|package| package.name == name);
            if !known && module_sdk::manifest::valid_name(&name) && entry.path().is_dir() {
                packages.push(Package { name, directory: entry.path() });
            }
        }
    }
    packages.sort_by(|a, b| a.name.cmp(&b.name));
    packages
}

/// A library whose bytes are read and checked, but not mapped: no instruction of it has run.
#[derive(Debug)]
pub struct Inspected {
    /// Path that the library was read from.
    pub path: PathBuf,
    /// Hash of the library, lower-case hexadecimal.
    pub sha256: String,
    /// Build information of the library.
    pub build: BuildInfo,
    /// Manifest, from the library itself.
    pub manifest: Manifest,
    /// Text of the `config.yaml` that lay beside the library.
    pub defaults: Option<String>,
    copy: SealedCopy,
}

impl Inspected {
    /// Returns the descriptor of the sealed copy.
    #[must_use]
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.copy.descriptor()
    }

    /// Takes over a sealed copy that another process has inspected: `path` is where that process
    /// read it from, `sha256` its hash.
    ///
    /// # Errors
    ///
    /// When it can still be changed, or is no module.
    pub fn adopt(copy: OwnedFd, name: &str, path: &Path, sha256: &str) -> Result<Self, LoadError> {
        let copy = SealedCopy::adopt(copy)
            .map_err(|error| LoadError::Read(path.to_owned(), error.into()))?;
        let bytes = copy.bytes().map_err(|error| LoadError::Read(path.to_owned(), error))?;
        let (build, manifest) = examine(&bytes, name, path)?;
        let (path, sha256) = (path.to_owned(), sha256.to_owned());
        // Its settings were worked out by the process that read it.
        Ok(Self { path, sha256, build, manifest, defaults: None, copy })
    }
}

/// Reads and checks a module's library without mapping it.
///
/// # Errors
///
/// When there is no such file, others may write to it, it is no ELF library for this machine, it
/// is truncated, no Lodestar module, of another ABI epoch, or built to abort on panic, or its own
/// defaults cannot be read.
pub fn inspect(package: &Package) -> Result<Inspected, LoadError> {
    let path = package.library_path();
    let Copied { copy, sha256, objection } = files::copy(&package.name, &path)?;
    objection.map_or(Ok(()), Err)?;
    files::expect_ours(&package.directory.join("config.yaml"))?;
    let bytes = copy.bytes().map_err(|error| LoadError::Seal(path.clone(), error))?;
    let (build, manifest) = examine(&bytes, &package.name, &path)?;
    Ok(Inspected { path, sha256, build, manifest, defaults: package.defaults()?, copy })
}

/// Checks the bytes of a library, and returns its build information and manifest.
fn examine(bytes: &[u8], name: &str, path: &Path) -> Result<(BuildInfo, Manifest), LoadError> {
    let contents = elf::check(bytes).map_err(|reason| LoadError::Elf(path.to_owned(), reason))?;
    let build = BuildInfo::from_bytes(contents.build_info)
        .map_err(|error| LoadError::NoModule(path.to_owned(), error.to_string()))?;
    if build.epoch != EPOCH {
        return Err(LoadError::Epoch {
            path: path.to_owned(),
            found: build.epoch,
            host: EPOCH,
            sdk: build.sdk_version(),
        });
    }
    if build.panic_unwind == 0 {
        return Err(LoadError::AbortsOnPanic(path.to_owned()));
    }
    let text = String::from_utf8_lossy(contents.manifest);
    let manifest = Manifest::parse(&text)
        .map_err(|error| LoadError::Manifest(path.to_owned(), error.to_string()))?;
    if manifest.module.name != name {
        let message = format!(
            "the library calls itself {:?}, but its directory is {:?}",
            manifest.module.name, name
        );
        return Err(LoadError::Manifest(path.to_owned(), message));
    }
    other_epoch(&build, &manifest)
        .map_or(Ok(()), |what| Err(LoadError::Manifest(path.to_owned(), what)))?;
    Ok((build, manifest))
}

/// Returns what is wrong with the epoch in a manifest: it must be the one that the library was
/// built with, or a reader of `module.toml` alone is misled.
fn other_epoch(build: &BuildInfo, manifest: &Manifest) -> Option<String> {
    let (told, built) = (manifest.abi.epoch, build.epoch);
    (told != built).then(|| {
        format!(
            "module.toml says `epoch = {told}`, the library speaks epoch {built}; write \
             `epoch = {built}` below [abi] and build it again"
        )
    })
}

/// Returns the manifest that is embedded in the bytes of a library; `None` where there is none.
#[must_use]
pub fn manifest_of(bytes: &[u8]) -> Option<Manifest> {
    let contents = elf::check(bytes).ok()?;
    Manifest::parse(&String::from_utf8_lossy(contents.manifest)).ok()
}

/// Returns the hash of some bytes, lower-case hexadecimal.
#[must_use]
pub fn sha256(bytes: &[u8]) -> String {
    in_hexadecimal(&Sha256::digest(bytes))
}

/// Returns bytes as lower-case hexadecimal digits.
#[must_use]
pub fn in_hexadecimal(hash: &[u8]) -> String {
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(files: &[(&str, &[u8])]) -> (tempfile::TempDir, Package) {
        let root = tempfile::tempdir().expect("a temporary directory");
        let directory = root.path().join("tiny");
        std::fs::create_dir(&directory).expect("it is new");
        for (name, bytes) in files {
            std::fs::write(directory.join(name), bytes).expect("it is writable");
        }
        (root, Package { name: "tiny".to_owned(), directory })
    }

    fn refusal(files: &[(&str, &[u8])]) -> String {
        let (_root, package) = package(files);
        inspect(&package).expect_err("it is no module").to_string()
    }

    #[test]
    fn says_why_a_file_is_no_module() {
        let check = |files: &[(&str, &[u8])], part: &str| {
            let message = refusal(files);
            assert!(message.contains(part), "{message} should contain {part}");
        };
        check(&[], "libtiny.so");
        check(&[("libtiny.so", b"")], "empty");
        check(&[("libtiny.so", b"#!/bin/sh\necho a text with the name of a library\n")], "no ELF");
        check(&[("libtiny.so", b"\x7fELF\x02\x01\x01")], "truncated");
    }

    #[test]
    fn refuses_what_others_may_write_and_links() {
        use std::os::unix::fs::PermissionsExt as _;
        let (_root, package) = package(&[("libtiny.so", b"x")]);
        let path = package.library_path();
        let mode = std::fs::Permissions::from_mode(0o666);
        std::fs::set_permissions(&path, mode).expect("it is ours");
        let message = inspect(&package).expect_err("anyone may write to it").to_string();
        assert!(message.contains("written by others"), "{message}");
        std::fs::remove_file(&path).expect("it is ours");
        std::os::unix::fs::symlink("/etc/hostname", &path).expect("it is ours");
        let message = inspect(&package).expect_err("it is a link").to_string();
        assert!(message.contains("symbolic link"), "{message}");
        std::fs::remove_file(&path).expect("it is ours");
        std::fs::create_dir(&path).expect("it is ours");
        let message = inspect(&package).expect_err("it is a folder").to_string();
        assert!(message.contains("is no regular file"), "{message}");
        let directory = package.directory.with_file_name("linked");
        std::os::unix::fs::symlink(&package.directory, &directory).expect("it is ours");
        let linked = Package { name: "tiny".to_owned(), directory };
        let message = inspect(&linked).expect_err("its folder is a link").to_string();
        assert!(message.contains("linked is a symbolic link"), "{message}");
    }

    #[test]
    fn finds_modules_in_the_order_of_the_path() {
        let (first, _) = package(&[]);
        let (second, _) = package(&[]);
        let path = [first.path().to_owned(), second.path().to_owned()];
        let found = find(&path, "tiny").expect("both have it");
        assert!(found.directory.starts_with(first.path()));
        assert_eq!(list(&path).len(), 1);
        assert_eq!(find(&path, "absent"), None);
    }
}
