//! The reading of a package's files: only plain files are read, and none without end.

use std::{
    fs::File,
    io::{self, Read as _, Write as _},
    panic,
    path::Path,
    sync::mpsc,
    thread,
};

use lodestar_platform::{file_trust, files};
use rustix::fs::{CWD, Mode, OFlags, openat};
use sha2::{Digest as _, Sha256};

use super::{LoadError, Package, in_hexadecimal, seal::SealedCopy};

/// Largest size of a library, in bytes: one of ours with debug information has a quarter.
pub const MAX_LIBRARY: u64 = 512 << 20;

/// Largest size of a module's own defaults, in bytes, as in an installed package.
const MAX_DEFAULTS: u64 = 256 << 10;

/// Number of bytes of a library that are read at once.
const PART: usize = 64 << 10;

/// Parts of a library that wait to be hashed, at most.
const PARTS: usize = 8;

/// A sealed copy of a library.
pub(super) struct Copied {
    pub(super) copy: SealedCopy,
    pub(super) sha256: String,
    /// Error for a file that others can write: they could run code as the daemon.
    pub(super) objection: Option<LoadError>,
}

/// Copies a library. The permissions checked are those of the very file that is read, wherever its
/// path leads meanwhile.
pub(super) fn copy(name: &str, path: &Path) -> Result<Copied, LoadError> {
    let (file, objection) = open(path)?;
    let sealed = |error| LoadError::Seal(path.to_owned(), error);
    let mut draft = SealedCopy::draft(name).map_err(|error| sealed(error.into()))?;
    let unread = |error| LoadError::Read(path.to_owned(), error);
    let sha256 = hashed_beside(|hash| {
        read_in_parts(file, unread, |part| {
            hash(part);
            draft.write_all(part).map_err(sealed)
        })
    })?;
    let copy = SealedCopy::seal(draft).map_err(|error| sealed(error.into()))?;
    Ok(Copied { copy, sha256, objection })
}

/// Returns the hash of a package's library on disk; `None` when it cannot be read, or is no plain
/// file.
#[must_use]
pub fn hash(package: &Package) -> Option<String> {
    let file = files::open(&package.library_path()).ok()?;
    let mut hash = Sha256::new();
    let read = read_in_parts(
        file,
        |error| error,
        |part| {
            hash.update(part);
            Ok(())
        },
    );
    read.ok().map(|()| in_hexadecimal(&hash.finalize()))
}

/// Returns the hash of the parts that `read` gives away. A second thread hashes them, which takes
/// as long as to copy them; where there is none to be had, this one does.
fn hashed_beside<E>(
    read: impl FnOnce(&mut dyn FnMut(&[u8])) -> Result<(), E>,
) -> Result<String, E> {
    let (filled, parts) = mpsc::sync_channel::<Vec<u8>>(PARTS);
    let (done, empty) = mpsc::channel::<Vec<u8>>();
    thread::scope(|scope| {
        let hashing = move || {
            let mut hash = Sha256::new();
            for part in parts {
                hash.update(&part);
                // Nobody fills it once more at the end.
                let _ = done.send(part);
            }
            hash
        };
        let beside = thread::Builder::new().name("hash".to_owned()).spawn_scoped(scope, hashing);
        let mut own = beside.is_err().then(Sha256::new);
        let read = read(&mut |part| match &mut own {
            Some(hash) => hash.update(part),
            None => {
                let mut copy = empty.try_recv().unwrap_or_else(|_| Vec::with_capacity(PART));
                copy.clear();
                copy.extend_from_slice(part);
                // An error means that the thread panicked, which `join` tells.
                let _ = filled.send(copy);
            }
        });
        drop(filled);
        let hash = match (beside, own) {
            (Ok(beside), _) => beside.join().unwrap_or_else(|cause| panic::resume_unwind(cause)),
            (Err(_), own) => own.unwrap_or_default(),
        };
        read.map(|()| in_hexadecimal(&hash.finalize()))
    })
}

/// Reads a module's own defaults; `None` where there are none. A file that is there and cannot be
/// read is an error: without its defaults the module would behave differently.
pub(super) fn defaults(path: &Path) -> Result<Option<String>, LoadError> {
    match files::read(path, MAX_DEFAULTS).and_then(files::text) {
        Ok(text) => Ok(Some(text)),
        // A link that leads nowhere is there.
        Err(error) if error.kind() == io::ErrorKind::NotFound && !path.is_symlink() => Ok(None),
        Err(error) => Err(LoadError::Defaults(path.to_owned(), error)),
    }
}

/// Checks that nobody else can write a module's own defaults: they are part of its configuration.
pub(super) fn expect_ours(path: &Path) -> Result<(), LoadError> {
    match file_trust::on_the_way(path, file_trust::Also::OwnGroup) {
        Some(exposed) => Err(objection(&exposed)),
        None => Ok(()),
    }
}

fn objection(exposed: &file_trust::Exposed) -> LoadError {
    let what = format!("{}; {}", exposed.stranger, exposed.remedy());
    LoadError::Owner(exposed.path.clone(), what)
}

/// Reads a file to its end. Blocks of a library's size, allocated and freed on one thread after
/// another, would stay with the allocator: 40 MiB of them after 300 reloads.
fn read_in_parts<E>(
    mut file: File,
    unread: impl Fn(io::Error) -> E,
    mut take: impl FnMut(&[u8]) -> Result<(), E>,
) -> Result<(), E> {
    let (mut part, mut total) = ([0; PART], 0);
    loop {
        match file.read(&mut part) {
            Ok(0) => return Ok(()),
            Ok(count) => {
                total += count as u64;
                if total > MAX_LIBRARY {
                    return Err(unread(too_large()));
                }
                take(&part[..count])?;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(unread(error)),
        }
    }
}

fn too_large() -> io::Error {
    let what = format!("it has more than {MAX_LIBRARY} bytes; build it without debug information");
    io::Error::new(io::ErrorKind::FileTooLarge, what)
}

/// Opens the file of a library, and returns an error beside it where others can write it.
fn open(path: &Path) -> Result<(File, Option<LoadError>), LoadError> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let flags = OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let folder = openat(CWD, directory, flags | OFlags::PATH | OFlags::DIRECTORY, Mode::empty())
        .map_err(|error| not_opened(directory, error.into()))?;
    // A pipe without a writer would hold this up.
    let flags = flags | OFlags::RDONLY | OFlags::NONBLOCK;
    let file = openat(&folder, path.file_name().unwrap_or_default(), flags, Mode::empty())
        .map_err(|error| not_opened(path, error.into()))?;
    let unread = |place: &Path| {
        let place = place.to_owned();
        move |error| LoadError::Read(place, error)
    };
    let file = File::from(file);
    let metadata = file.metadata().map_err(unread(path))?;
    if !metadata.is_file() {
        return Err(LoadError::Owner(path.to_owned(), "is no regular file".to_owned()));
    }
    let of_folder = File::from(folder).metadata().map_err(unread(directory))?;
    let opened = [(directory, of_folder), (path, metadata)]
        .into_iter()
        .find_map(|place| file_trust::opened(place.0, &place.1, file_trust::Also::OwnGroup));
    // Who can write above could put another folder there.
    let exposed = opened.or_else(|| file_trust::above(directory, file_trust::Also::OwnGroup));
    Ok((file, exposed.as_ref().map(objection)))
}

/// Returns the error for something that could not be opened without following a link.
fn not_opened(place: &Path, error: io::Error) -> LoadError {
    if place.is_symlink() {
        let reason = "is a symbolic link, which could be turned elsewhere between check and load";
        return LoadError::Owner(place.to_owned(), reason.to_owned());
    }
    LoadError::Read(place.to_owned(), error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_of_any_length_has_the_hash_of_its_bytes() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("libtiny.so");
        for length in [0, 1, PART - 1, PART, PART + 1, (PARTS + 4) * PART + 7] {
            let bytes: Vec<u8> = (0..length).map(|at| (at / 3 + at / PART) as u8).collect();
            std::fs::write(&path, &bytes).expect("it is writable");
            let Copied { copy, sha256, .. } = copy("tiny", &path).expect("it is ours");
            assert_eq!(std::fs::read(copy.path()).expect("it is readable"), bytes, "{length}");
            assert_eq!(sha256, super::super::sha256(&bytes), "{length}");
        }
    }

    #[test]
    fn what_is_no_plain_file_is_not_waited_for() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let package = Package { name: "tiny".to_owned(), directory: directory.path().to_owned() };
        let (library, config) = (package.library_path(), directory.path().join("config.yaml"));
        let mode = Mode::RUSR | Mode::WUSR;
        for path in [&library, &config] {
            rustix::fs::mkfifoat(CWD, path, mode).expect("it is new");
        }
        let refused = |what: &str| {
            let error = package.defaults().expect_err("it is refused").to_string();
            assert!(error.contains("config.yaml") && error.contains(what), "{error}");
            assert!(error.contains("; write it anew or remove it"), "{error}");
        };
        assert_eq!(hash(&package), None);
        refused("it is not a regular file but a pipe");
        assert!(copy("tiny", &library).is_err());
        for path in [&library, &config] {
            std::fs::remove_file(path).expect("it is ours");
            std::os::unix::fs::symlink("/dev/zero", path).expect("it is gone");
        }
        assert_eq!(hash(&package), None);
        refused("it is not a regular file but a device");
        std::fs::remove_file(&config).expect("it is ours");
        std::os::unix::fs::symlink("gone", &config).expect("it is gone");
        refused("No such file");
        for path in [&library, &config] {
            std::fs::remove_file(path).expect("it is ours");
            std::fs::write(path, "a: 1").expect("it is gone");
        }
        assert_eq!(hash(&package), Some(super::super::sha256(b"a: 1")));
        assert_eq!(package.defaults().expect("it is one").as_deref(), Some("a: 1"));
        let long = vec![b' '; usize::try_from(MAX_DEFAULTS).expect("it is small") + 1];
        std::fs::write(&config, long).expect("it is ours");
        refused("it has more than 262144 bytes");
        std::fs::write(&config, b"a: \xff").expect("it is ours");
        refused("it is not UTF-8 text");
        std::fs::remove_file(&config).expect("it is ours");
        std::fs::create_dir(&config).expect("it is gone");
        refused("it is not a regular file but a directory");
        std::fs::remove_dir(&config).expect("it is ours");
        assert_eq!(package.defaults().expect("there are none"), None);
        File::create(&library).and_then(|it| it.set_len(MAX_LIBRARY + 1)).expect("a hole");
        assert_eq!(hash(&package), None);
    }
}
