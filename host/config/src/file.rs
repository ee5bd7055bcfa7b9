//! Reading and writing of the file.

use std::{
    fmt, fs, io,
    io::Write as _,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use lodestar_platform::{
    file_trust::{self, Also},
    files,
};
use tempfile::NamedTempFile;

use super::{DEFAULT, error::ConfigError, tree::MAX_BYTES};

/// Checks that nobody else can write a file, nor replace it or the target of its link: whoever can
/// do so decides what the daemon runs.
///
/// # Errors
///
/// Returns the place that is open to others, and the command that closes it.
pub fn expect_ours(path: &Path) -> Result<(), ConfigError> {
    let Some(exposed) = file_trust::on_the_way(path, Also::OwnGroup) else { return Ok(()) };
    let itself = exposed.path == path;
    let what = if itself { exposed.stranger.to_string() } else { exposed.to_string() };
    let message = format!("{what}, who would decide what lodestard runs");
    Err(ConfigError::of_file(path, message, exposed.remedy()))
}

/// Reads a text of at most 256 KiB.
pub(super) fn read(path: &Path) -> Result<String, ConfigError> {
    let bytes = files::read(path, MAX_BYTES as u64).map_err(|error| match error.kind() {
        io::ErrorKind::InvalidInput => {
            let hint = "name a file such as modules.yaml with --config";
            ConfigError::of_file(path, "is not a regular file", hint)
        }
        io::ErrorKind::FileTooLarge => {
            let message = format!("is larger than {MAX_BYTES} bytes");
            ConfigError::of_file(path, message, "is it the right file?")
        }
        _ => ConfigError::read(path, &error),
    })?;
    String::from_utf8(bytes).map_err(|error| {
        let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let count = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let last = valid.rsplit(|byte| *byte == b'\n').next().unwrap_or_default();
        let lines = valid.iter().filter(|byte| **byte == b'\n').count();
        let mut error = ConfigError::of_file(path, "is not UTF-8 text", "save it as UTF-8");
        error.line = u32::try_from(lines).unwrap_or(u32::MAX).saturating_add(1);
        error.column = count(last).saturating_add(1);
        error
    })
}

/// Reason for not writing a file, which stays unchanged.
#[derive(Debug)]
#[non_exhaustive]
pub enum WriteError {
    /// Somebody else changed the file since it was read: read it again, and repeat the edit.
    Changed(PathBuf),
    /// The file system returned an error.
    Io {
        /// The file.
        path: PathBuf,
        /// The error of the file system.
        source: io::Error,
    },
}

impl fmt::Display for WriteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Changed(path) => {
                write!(f, "{} was changed by somebody else meanwhile; try again", path.display())
            }
            Self::Io { path, source } => {
                write!(f, "{} cannot be written: {source}", path.display())?;
                match source.kind() {
                    io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => f
                        .write_str(
                            "; make its directory writable for the user who runs lodestard, or \
                             edit the file by hand",
                        ),
                    io::ErrorKind::StorageFull => f.write_str("; make room on its file system"),
                    _ => Ok(()),
                }
            }
        }
    }
}

impl std::error::Error for WriteError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Changed(_) => None,
            Self::Io { source, .. } => Some(source),
        }
    }
}

/// Replaces the text of a file that was read as `before`: a reader sees the old text or the new
/// one, also after a power cut. Mode and owner stay; of a symbolic link, the target is replaced.
///
/// # Errors
///
/// Returns [`WriteError::Changed`] if the file no longer holds `before`.
pub fn write_atomically(path: &Path, before: &str, after: &str) -> Result<(), WriteError> {
    let failed = |source| WriteError::Io { path: path.to_owned(), source };
    let target = fs::canonicalize(path).map_err(failed)?;
    let metadata = fs::metadata(&target).map_err(failed)?;
    let mut file = temporary_beside(&target).map_err(failed)?;
    file.write_all(after.as_bytes()).map_err(failed)?;
    keep_owner(&file, &metadata).map_err(failed)?;
    file.as_file().sync_all().map_err(failed)?;
    // One that is longer than what was read is another one as well.
    if files::read(&target, before.len() as u64).ok().as_deref() != Some(before.as_bytes()) {
        return Err(WriteError::Changed(path.to_owned()));
    }
    file.persist(&target).map_err(|error| failed(error.error))?;
    sync_directory(&target).map_err(failed)
}

/// Writes the shipped configuration, readable for its owner alone, and its directory, if there is
/// no file. Returns whether the file was written.
///
/// # Errors
///
/// Returns an error if the file system does.
pub fn write_default(path: &Path) -> Result<bool, WriteError> {
    let failed = |source| WriteError::Io { path: path.to_owned(), source };
    if path.symlink_metadata().is_ok() {
        return Ok(false);
    }
    if let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty()) {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(failed)?;
    }
    let mut file = temporary_beside(path).map_err(failed)?;
    file.write_all(DEFAULT.as_bytes()).map_err(failed)?;
    file.as_file().sync_all().map_err(failed)?;
    match file.persist_noclobber(path) {
        Ok(_) => sync_directory(path).map_err(failed).map(|()| true),
        Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(failed(error.error)),
    }
}

fn temporary_beside(path: &Path) -> io::Result<NamedTempFile> {
    tempfile::Builder::new().prefix(".modules.yaml.").tempfile_in(directory_of(path))
}

fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Gives the new file the owner, group and mode of the old one. Only root may give a file away:
/// otherwise it keeps our owner, and a group other than the old one gets the access of others.
fn keep_owner(file: &NamedTempFile, old: &fs::Metadata) -> io::Result<()> {
    let owner = Some(rustix::fs::Uid::from_raw(old.uid()));
    let group = Some(rustix::fs::Gid::from_raw(old.gid()));
    let chown = |owner, group| rustix::fs::fchown(file.as_file(), owner, group);
    let grouped = chown(owner, group).or_else(|_| chown(None, group)).is_ok();
    let mode = if grouped { old.mode() & 0o777 } else { mode_for_another_group(old.mode()) };
    file.as_file().set_permissions(fs::Permissions::from_mode(mode))
}

const fn mode_for_another_group(mode: u32) -> u32 {
    mode & 0o707 | (mode & 0o007) << 3
}

fn sync_directory(path: &Path) -> io::Result<()> {
    fs::File::open(directory_of(path))?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).expect("it is there").mode() & 0o7777
    }

    #[test]
    fn writes_through_a_link_and_keeps_the_mode() {
        let directory = tempfile::tempdir().expect("a directory");
        let (real, link) = (directory.path().join("real.yaml"), directory.path().join("link.yaml"));
        fs::write(&real, "old").expect("written");
        fs::set_permissions(&real, fs::Permissions::from_mode(0o640)).expect("set");
        std::os::unix::fs::symlink("real.yaml", &link).expect("linked");
        write_atomically(&link, "old", "new").expect("it works");
        assert_eq!(fs::read_to_string(&real).expect("read"), "new");
        assert_eq!(mode(&real), 0o640);
        assert!(fs::symlink_metadata(&link).expect("it is there").is_symlink());
        assert_eq!(
            fs::read_dir(directory.path()).expect("read").count(),
            2,
            "nothing is left over"
        );
    }

    #[test]
    fn another_group_may_what_others_might() {
        for (old, new) in [(0o100_644, 0o644), (0o640, 0o600), (0o600, 0o600), (0o664, 0o644)] {
            assert_eq!(mode_for_another_group(old), new, "{old:o}");
        }
    }

    #[test]
    fn refuses_to_overwrite_what_it_did_not_read() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("m.yaml");
        fs::write(&path, "somebody else's").expect("written");
        let error = write_atomically(&path, "old", "new").expect_err("it changed");
        assert!(matches!(error, WriteError::Changed(_)), "{error}");
        assert_eq!(fs::read_to_string(&path).expect("read"), "somebody else's");
        assert_eq!(
            fs::read_dir(directory.path()).expect("read").count(),
            1,
            "nothing is left over"
        );
        let missing = directory.path().join("missing.yaml");
        let error = write_atomically(&missing, "", "new").expect_err("it is missing").to_string();
        assert!(error.contains("missing.yaml cannot be written"), "{error}");
    }

    #[test]
    fn writes_the_default_once() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("deep/er/modules.yaml");
        assert!(write_default(&path).expect("it works"));
        assert_eq!(read(&path).expect("read"), DEFAULT);
        assert_eq!((mode(&path), mode(&directory.path().join("deep"))), (0o600, 0o700));
        fs::write(&path, "mine").expect("written");
        assert!(!write_default(&path).expect("it works"));
        assert_eq!(read(&path).expect("read"), "mine");
    }

    #[test]
    fn says_why_a_file_cannot_be_read() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("m.yaml");
        let check = |expected: &str| {
            let error = read(&path).expect_err(expected).to_string();
            assert!(error.contains(expected), "{error}");
        };
        check("a lodestard that starts without one writes the default");
        fs::write(&path, b"a: 1\nb: \xff\n").expect("written");
        check("m.yaml:2:4: is not UTF-8 text");
        fs::write(&path, vec![b'x'; MAX_BYTES + 1]).expect("written");
        check("is larger than 262144 bytes");
        fs::remove_file(&path).expect("removed");
        fs::create_dir(&path).expect("made");
        check("is not a regular file");
        fs::remove_dir(&path).expect("removed");
        rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::RUSR).expect("made");
        check("is not a regular file");
    }
}
