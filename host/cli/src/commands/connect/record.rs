//! Records of what was connected, a file for each tool: what undoing needs to know.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use lodestar_platform::{files as platform_files, state_dir};
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    edit::{EditError, Format, get, name},
    environment::Environment,
    files::{self, Source},
};
use crate::error::{CliError, Result};

/// Largest record that is read, in bytes.
const MAX_BYTES: u64 = 8 << 20;

/// Record of a connected tool.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Record {
    /// The time when it was connected.
    pub(super) written_at: String,
    /// The files that were edited.
    pub(super) files: Vec<FileRecord>,
}

/// Record of an edited file.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct FileRecord {
    pub(super) path: PathBuf,
    pub(super) format: Format,
    /// Hash of what was written.
    pub(super) written: String,
    /// The file as it was, as long as all of it is known.
    pub(super) before: Option<Before>,
    /// Directories that were made for it, outermost first.
    pub(super) made: Vec<PathBuf>,
    /// The values that were set, in their order.
    pub(super) settings: Vec<SettingRecord>,
}

/// A file before it was edited.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Before {
    /// No file.
    Absent,
    /// A file with this content.
    Kept {
        /// The copy.
        backup: PathBuf,
        /// Hash of the content.
        hash: String,
    },
}

/// Record of a value that was set.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct SettingRecord {
    pub(super) key: Vec<String>,
    pub(super) value: Value,
    /// Number of maps above it that were there before.
    pub(super) depth: usize,
    /// Text of the value that was there before.
    pub(super) before: Option<String>,
}

/// A text without what was set in it.
#[derive(Debug)]
pub(super) struct Undone {
    pub(super) text: String,
    /// Values that somebody changed since, which stay.
    pub(super) kept: Vec<String>,
    /// The file as it was before, if `text` is exactly that.
    pub(super) before: Option<Before>,
}

impl FileRecord {
    /// Returns the text of a file without what was set in it: as it was before, byte for byte, if
    /// nobody edited it since, and else without the values that still are as they were set.
    ///
    /// # Errors
    ///
    /// When the text cannot be edited.
    pub(super) fn undone(&self, source: &Source) -> Result<Undone, EditError> {
        if files::hash(&source.text) == self.written
            && let Some(before) = &self.before
            && let Some(text) = before.text()
        {
            return Ok(Undone { text, kept: Vec::new(), before: Some(before.clone()) });
        }
        let format = self.format;
        let (mut text, mut kept) = (source.text.clone(), Vec::new());
        for setting in self.settings.iter().rev() {
            let tree = format.tree(&text)?;
            match (get(&tree, &setting.key), &setting.before) {
                (Some(now), _) if *now != setting.value => kept.push(name(&setting.key)),
                (Some(_), Some(raw)) => text = format.restored(&text, &setting.key, raw)?,
                (Some(_), None) => text = format.removed(&text, &setting.key)?,
                (None, _) => {}
            }
            text = setting.without_empty_maps(format, text)?;
        }
        kept.reverse();
        Ok(Undone { text, kept, before: None })
    }
}

impl SettingRecord {
    /// Removes the maps that were made for this value, unless they hold something else by now.
    fn without_empty_maps(&self, format: Format, mut text: String) -> Result<String, EditError> {
        for depth in (self.depth + 1..self.key.len()).rev() {
            let tree = format.tree(&text)?;
            let map = get(&tree, &self.key[..depth]).and_then(Value::as_object);
            if map.is_some_and(serde_json::Map::is_empty) {
                text = format.removed(&text, &self.key[..depth])?;
            }
        }
        Ok(text)
    }
}

impl Before {
    /// Returns the content, if the copy still has it.
    fn text(&self) -> Option<String> {
        match self {
            Self::Absent => Some(String::new()),
            Self::Kept { backup, hash } => {
                let source = files::read(backup).ok().flatten()?;
                (files::hash(&source.text) == *hash).then_some(source.text)
            }
        }
    }
}

/// The records, while this process alone works with them.
#[derive(Debug)]
pub(super) struct Records {
    directory: PathBuf,
    _lock: File,
}

impl Records {
    /// Opens the records for changes.
    ///
    /// # Errors
    ///
    /// When their directory cannot be made, or another process works with them.
    pub(super) fn open(environment: &Environment) -> Result<Self> {
        let directory = environment.records()?;
        let failed = |error: io::Error| cannot_keep(&directory, &error);
        state_dir::private_directory(&directory).map_err(failed)?;
        let lock = File::open(&directory).map_err(failed)?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Err(rustix::io::Errno::WOULDBLOCK) => {
                Err(CliError::failed("another `lodestar connect` is at work")
                    .help("run this one again when it is done"))
            }
            // A file system without locks.
            Ok(()) | Err(_) => Ok(Self { directory, _lock: lock }),
        }
    }

    /// Reads the record of a tool.
    ///
    /// # Errors
    ///
    /// When it is damaged.
    pub(super) fn load(&self, tool: &str) -> Result<Option<Record>> {
        load(&self.directory, tool)
    }

    /// Replaces the record of a tool; one without files is removed.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub(super) fn store(&self, tool: &str, record: &Record) -> Result<()> {
        let path = place(&self.directory, tool);
        let failed = |error: io::Error| cannot_keep(&path, &error);
        if record.files.is_empty() {
            return match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(error)),
                _ => Ok(()),
            };
        }
        let text = serde_json::to_vec_pretty(record).map_err(|error| failed(error.into()))?;
        // Only its owner may read it, as it may hold what settings held.
        let mut file = tempfile::Builder::new()
            .prefix(".lodestar-")
            .tempfile_in(&self.directory)
            .map_err(failed)?;
        file.write_all(&text).and_then(|()| file.as_file().sync_all()).map_err(failed)?;
        file.persist(&path).map_err(|error| failed(error.error))?;
        Ok(())
    }
}

/// Reads the record of a tool without a lock.
///
/// # Errors
///
/// When it is damaged.
pub(super) fn peek(environment: &Environment, tool: &str) -> Result<Option<Record>> {
    load(&environment.records()?, tool)
}

fn place(directory: &Path, tool: &str) -> PathBuf {
    directory.join(format!("{tool}.json"))
}

fn load(directory: &Path, tool: &str) -> Result<Option<Record>> {
    let path = place(directory, tool);
    let damaged = |error: &dyn std::fmt::Display| {
        CliError::failed(format!("cannot read the record {}: {error}", path.display())).help(
            "move it away; the files as they were lie beside the settings, with names that end in \
             .before-lodestar",
        )
    };
    let bytes = match platform_files::read(&path, MAX_BYTES) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(damaged(&error)),
    };
    serde_json::from_slice(&bytes).map(Some).map_err(|error| damaged(&error))
}

fn cannot_keep(path: &Path, error: &io::Error) -> CliError {
    CliError::refused(format!("cannot keep a record at {}: {error}", path.display())).help(
        "make it writable for you, or name another directory with LODESTAR_STATE_DIR; nothing \
         was changed",
    )
}
