//! Settings files of tools: read with care, replaced in one step.

use std::{
    fs::{self, File, Metadata, OpenOptions, Permissions},
    io::{self, Write as _},
    os::unix::fs::{
        DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
    },
    path::{Path, PathBuf},
};

use lodestar_platform::files;
use sha2::{Digest as _, Sha256};
use tempfile::NamedTempFile;

use crate::error::{CliError, Result};

/// Largest settings file that is edited, in bytes.
const MAX_BYTES: u64 = 4 << 20;

/// Ending of the name of a backup.
const BACKUP: &str = "before-lodestar";

/// Most backups of one file.
const MOST_BACKUPS: usize = 100;

/// A settings file that is there.
#[derive(Debug)]
pub(super) struct Source {
    /// The file that the path leads to.
    target: PathBuf,
    metadata: Metadata,
    pub(super) text: String,
}

/// Reads a settings file; `None` where there is none.
///
/// # Errors
///
/// When it cannot be read, is too large, is not text, or is a link that leads nowhere.
pub(super) fn read(path: &Path) -> Result<Option<Source>> {
    let failed = |error: &io::Error| {
        CliError::refused(format!("cannot read {}: {error}", path.display()))
            .help("make it a readable text file, or move it away")
    };
    match path.symlink_metadata() {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(&error)),
    }
    let target = path.canonicalize().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => {
            CliError::refused(format!("{} is a link that leads nowhere", path.display()))
                .help("make the file that it names, or remove the link")
        }
        _ => failed(&error),
    })?;
    let bytes = files::read(&target, MAX_BYTES).map_err(|error| failed(&error))?;
    let metadata = target.metadata().map_err(|error| failed(&error))?;
    let text = files::text(bytes).map_err(|error| failed(&error))?;
    Ok(Some(Source { target, metadata, text }))
}

/// Returns the hash of a text, as the records keep it.
pub(super) fn hash(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A new content of a file, written beside it and not yet in its place. Dropped, it leaves nothing
/// behind.
#[derive(Debug)]
pub(super) struct Prepared {
    target: PathBuf,
    /// The text that it replaces.
    replaces: Option<String>,
    file: Option<NamedTempFile>,
    /// Directories that were made for it, outermost first.
    pub(super) made: Vec<PathBuf>,
}

impl Prepared {
    /// Writes a text beside the file that it is to replace, with its mode and owner.
    ///
    /// # Errors
    ///
    /// When the file is read-only, or there is no room or right for a new one.
    pub(super) fn new(path: &Path, source: Option<&Source>, text: &str) -> Result<Self> {
        if let Some(source) = source {
            expect_writable(path, source)?;
        }
        let target = source.map_or(path, |source| source.target.as_path());
        let directory = target.parent().unwrap_or(Path::new("/"));
        let mut prepared = Self {
            target: target.to_owned(),
            replaces: source.map(|source| source.text.clone()),
            file: None,
            made: Vec::new(),
        };
        let failed = |error: io::Error| cannot_write(path, &error);
        prepared.make(directory).map_err(failed)?;
        let mut file = tempfile::Builder::new()
            .prefix(".lodestar-")
            .suffix(".partial")
            .tempfile_in(directory)
            .map_err(failed)?;
        file.write_all(text.as_bytes()).map_err(failed)?;
        if let Some(source) = source {
            keep_owner(file.as_file(), &source.metadata).map_err(failed)?;
        }
        file.as_file().sync_all().map_err(failed)?;
        prepared.file = Some(file);
        Ok(prepared)
    }

    /// Makes a directory and those above it.
    fn make(&mut self, directory: &Path) -> io::Result<()> {
        let missing: Vec<&Path> =
            directory.ancestors().take_while(|it| it.symlink_metadata().is_err()).collect();
        for directory in missing.into_iter().rev() {
            fs::DirBuilder::new().mode(0o700).create(directory)?;
            self.made.push(directory.to_owned());
        }
        Ok(())
    }

    /// Puts the text in its place, unless the file changed since it was read.
    ///
    /// # Errors
    ///
    /// When it changed, or the system refuses.
    pub(super) fn commit(mut self) -> Result<()> {
        let failed = |error: io::Error| cannot_write(&self.target, &error);
        let Some(file) = self.file.take() else { return Ok(()) };
        match &self.replaces {
            Some(before) => {
                let now = files::read(&self.target, MAX_BYTES).map_err(failed)?;
                if now != before.as_bytes() {
                    return Err(changed(&self.target));
                }
                file.persist(&self.target).map_err(|error| failed(error.error))?;
            }
            None => {
                let placed = file.persist_noclobber(&self.target);
                placed.map_err(|error| match error.error.kind() {
                    io::ErrorKind::AlreadyExists => changed(&self.target),
                    _ => failed(error.error),
                })?;
            }
        }
        Ok(())
    }
}

impl Drop for Prepared {
    fn drop(&mut self) {
        drop(self.file.take());
        remove_empty(&self.made);
    }
}

/// Removes directories that are empty, the innermost first.
pub(super) fn remove_empty(directories: &[PathBuf]) {
    for directory in directories.iter().rev() {
        // One that is in use stays.
        drop(fs::remove_dir(directory));
    }
}

/// Copies a file beside its path under a name that is free, and returns the name.
///
/// # Errors
///
/// When the system refuses.
pub(super) fn back_up(path: &Path, source: &Source) -> Result<PathBuf> {
    let failed = |error: io::Error| cannot_write(path, &error);
    for number in 0..MOST_BACKUPS {
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{BACKUP}"));
        if number > 0 {
            name.push(format!(".{number}"));
        }
        let backup = path.with_file_name(name);
        let mut options = OpenOptions::new();
        let mut file = match options.write(true).create_new(true).mode(0o600).open(&backup) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
            opened => opened.map_err(failed)?,
        };
        let written = file
            .write_all(source.text.as_bytes())
            .and_then(|()| keep_owner(&file, &source.metadata))
            .and_then(|()| file.sync_all());
        if let Err(error) = written {
            drop(fs::remove_file(&backup));
            return Err(failed(error));
        }
        return Ok(backup);
    }
    let message = format!("there are {MOST_BACKUPS} backups of {} already", path.display());
    Err(CliError::refused(message).help(format!("remove those that end in .{BACKUP}.NUMBER")))
}

/// Removes a settings file that the connection made.
///
/// # Errors
///
/// When it changed since it was read, or the system refuses.
pub(super) fn remove(path: &Path, source: &Source) -> Result<()> {
    let failed = |error: io::Error| cannot_write(path, &error);
    if files::read(&source.target, MAX_BYTES).map_err(failed)? != source.text.as_bytes() {
        return Err(changed(path));
    }
    fs::remove_file(path).map_err(failed)
}

/// Gives a file the mode and the owner of another one.
fn keep_owner(file: &File, of: &Metadata) -> io::Result<()> {
    let now = file.metadata()?;
    if (now.uid(), now.gid()) != (of.uid(), of.gid()) {
        std::os::unix::fs::fchown(file, Some(of.uid()), Some(of.gid()))?;
    }
    file.set_permissions(Permissions::from_mode(of.mode() & 0o7777))
}

/// Checks that a file may be written: who made it read-only did not want it edited.
fn expect_writable(path: &Path, source: &Source) -> Result<()> {
    let is_writable = source.metadata.mode() & 0o222 != 0
        && rustix::fs::access(&source.target, rustix::fs::Access::WRITE_OK).is_ok();
    if is_writable {
        return Ok(());
    }
    let target = source.target.display();
    let message = format!("{} is read-only", path.display());
    Err(CliError::refused(message).help(format!(
        "make it writable with `chmod u+w {target}`, or write the settings where the file comes \
         from"
    )))
}

fn cannot_write(path: &Path, error: &io::Error) -> CliError {
    CliError::refused(format!("cannot write {}: {error}", path.display()))
        .help("make its directory writable for you, with space left; nothing was changed")
}

fn changed(path: &Path) -> CliError {
    CliError::failed(format!("{} was changed meanwhile", path.display()))
        .help("run the command again; nothing was changed")
}
