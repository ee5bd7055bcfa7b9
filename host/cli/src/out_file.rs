//! The file that a stream is written to: whole at the end, or not there.

use std::{
    fs::{self, File},
    io::{self, BufWriter, Write as _},
    path::{Path, PathBuf},
};

use tempfile::NamedTempFile;

use crate::error::{CliError, Result};

/// A file that is being written. Dropped before [`finish`](Self::finish) it leaves nothing behind.
#[derive(Debug)]
pub(crate) struct OutFile {
    path: PathBuf,
    target: Target,
    force: bool,
}

#[derive(Debug)]
enum Target {
    /// A private file beside the real one, which is renamed at the end.
    Beside(BufWriter<NamedTempFile>),
    /// A device or a pipe, which cannot be replaced.
    Direct(BufWriter<File>),
}

impl OutFile {
    /// Creates a file, readable by its owner only.
    ///
    /// # Errors
    ///
    /// When there is such a file and `force` is not set, or it cannot be made.
    pub(crate) fn create(path: &Path, force: bool) -> Result<Self> {
        let existing = fs::metadata(path).ok();
        if existing.as_ref().is_some_and(fs::Metadata::is_dir) {
            return Err(CliError::usage(format!("{} is a directory", path.display()))
                .help("name a file in it"));
        }
        if existing.as_ref().is_some_and(|metadata| !metadata.is_file()) {
            let file = File::options().write(true).open(path).map_err(|e| cannot(path, &e))?;
            let target = Target::Direct(BufWriter::new(file));
            return Ok(Self { path: path.to_owned(), target, force });
        }
        if existing.is_some() && !force {
            return Err(is_there(path));
        }
        // A link keeps pointing to the file that is replaced.
        let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let directory = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let file = tempfile::Builder::new()
            .prefix(".lodestar-")
            .suffix(".partial")
            .tempfile_in(directory)
            .map_err(|error| cannot_in(directory, &path, &error))?;
        Ok(Self { path, target: Target::Beside(BufWriter::new(file)), force })
    }

    /// Writes a piece of the stream.
    ///
    /// # Errors
    ///
    /// When the disk is full or fails; a closed pipe ends quietly.
    pub(crate) fn write(&mut self, text: &str) -> Result<()> {
        let result = match &mut self.target {
            Target::Beside(file) => file.write_all(text.as_bytes()),
            Target::Direct(file) => file.write_all(text.as_bytes()),
        };
        result.map_err(|error| cannot(&self.path, &error))
    }

    /// Puts the file in its place.
    ///
    /// # Errors
    ///
    /// When the last of it cannot be written, or somebody else made such a file meanwhile.
    pub(crate) fn finish(self) -> Result<()> {
        let failed = |error: io::Error| cannot(&self.path, &error);
        match self.target {
            Target::Direct(mut file) => file.flush().map_err(failed),
            Target::Beside(file) => {
                let file = file.into_inner().map_err(|error| failed(error.into_error()))?;
                file.as_file().sync_all().map_err(failed)?;
                let placed = if self.force {
                    file.persist(&self.path)
                } else {
                    file.persist_noclobber(&self.path)
                };
                match placed {
                    Ok(_) => Ok(()),
                    Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => {
                        Err(is_there(&self.path))
                    }
                    Err(error) => Err(failed(error.error)),
                }
            }
        }
    }
}

fn is_there(path: &Path) -> CliError {
    CliError::refused(format!("{} is there already", path.display()))
        .help("name another file, or overwrite it with --force")
}

/// Creates the error for the temporary file in `directory`. It names `path` instead, as the user
/// does.
fn cannot_in(directory: &Path, path: &Path, error: &io::Error) -> CliError {
    let (directory, path) = (directory.display(), path.display());
    match error.kind() {
        io::ErrorKind::NotFound => {
            CliError::failed(format!("cannot write {path}: there is no directory {directory}"))
                .help(format!("make it with `mkdir -p {directory}`, or name another place"))
        }
        kind => CliError::failed(format!("cannot write {path}: {kind} in {directory}"))
            .help("name a place that you may write, with enough space, with --out"),
    }
}

fn cannot(path: &Path, error: &io::Error) -> CliError {
    if error.kind() == io::ErrorKind::BrokenPipe {
        return CliError::ReaderGone;
    }
    CliError::failed(format!("cannot write {}: {error}", path.display()))
        .help("name a place that you may write, with enough space, with --out")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn names(directory: &Path) -> Vec<String> {
        let entries = fs::read_dir(directory).expect("a directory").flatten();
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn is_private_and_appears_whole() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("export.csv");
        let mut out = OutFile::create(&path, false).expect("it is new");
        out.write("a,b\n").expect("it writes");
        assert!(!path.exists());
        out.finish().expect("it is placed");
        assert_eq!(fs::read_to_string(&path).expect("it is there"), "a,b\n");
        let mode = fs::metadata(&path).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(names(directory.path()), ["export.csv"]);
    }

    #[test]
    fn leaves_nothing_behind_when_dropped() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut out = OutFile::create(&directory.path().join("x"), false).expect("it is new");
        out.write(&"half".repeat(10_000)).expect("it writes");
        drop(out);
        assert!(names(directory.path()).is_empty());
    }

    #[test]
    fn overwrites_only_when_forced() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("x");
        let late = OutFile::create(&path, false).expect("it is new");
        fs::write(&path, "mine").expect("a file");
        for error in [
            OutFile::create(&path, false).expect_err("it is there"),
            late.finish().expect_err("it is there"),
        ] {
            assert_eq!(error.failure().expect("a failure").exit, 4);
        }
        assert_eq!(fs::read_to_string(&path).expect("it is there"), "mine");
        let link = directory.path().join("link");
        std::os::unix::fs::symlink(&path, &link).expect("a link");
        let mut out = OutFile::create(&link, true).expect("it may");
        out.write("new").expect("it writes");
        out.finish().expect("it is placed");
        assert_eq!(fs::read_to_string(&path).expect("it is there"), "new");
        assert!(link.is_symlink());
    }

    #[test]
    fn refuses_directories_and_writes_to_devices() {
        let directory = tempfile::tempdir().expect("a directory");
        let error = OutFile::create(directory.path(), true).expect_err("no file");
        assert_eq!(error.failure().expect("a failure").exit, 2);
        let missing = directory.path().join("no");
        let error = OutFile::create(&missing.join("such.csv"), false).expect_err("no way");
        let failure = error.failure().expect("a failure");
        assert_eq!(failure.exit, 1);
        let expected = format!(
            "cannot write {}: there is no directory {}",
            missing.join("such.csv").display(),
            missing.display()
        );
        assert_eq!(failure.message, expected);
        assert!(failure.help.as_deref().is_some_and(|help| help.contains("mkdir -p")));
        let mut out = OutFile::create(Path::new("/dev/null"), false).expect("a device");
        out.write("gone").expect("it writes");
        out.finish().expect("it ends");
        assert!(!fs::metadata("/dev/null").expect("it is there").is_file());
    }
}
