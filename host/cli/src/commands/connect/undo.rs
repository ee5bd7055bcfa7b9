//! Taking a connection out again.

use std::{fs, path::PathBuf};

use serde::Serialize;

use super::{
    environment::Environment,
    files::{self, Prepared},
    plan::cannot_edit,
    record::{self, Before, FileRecord, Records},
    tools::Tool,
};
use crate::error::{CliError, Result};

/// Result for a settings file.
#[derive(Debug, Serialize)]
pub(super) struct UndoneFile {
    pub(super) path: PathBuf,
    pub(super) outcome: Outcome,
    /// Values that somebody changed since they were set, and that stay.
    pub(super) kept: Vec<String>,
    /// The copy that stays beside it.
    pub(super) backup: Option<PathBuf>,
}

/// Outcome of taking settings out of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Outcome {
    /// The file is as it was before, byte for byte.
    Restored,
    /// Others edited it meanwhile: the settings are out, their edits are in.
    Edited,
    /// The file was made by the connection, and is gone.
    Removed,
    /// There was nothing of the connection in it.
    Unchanged,
    /// The file is not there any more.
    Gone,
}

/// Takes out what was written for a tool.
///
/// # Errors
///
/// When nothing was, or a file cannot be read, edited or written.
pub(super) fn undo(environment: &Environment, tool: &dyn Tool) -> Result<Vec<UndoneFile>> {
    if record::peek(environment, tool.id())?.is_none() {
        return Err(nothing(tool));
    }
    let records = Records::open(environment)?;
    let mut record = records.load(tool.id())?.ok_or_else(|| nothing(tool))?;
    let mut undone = Vec::new();
    while let Some(file) = record.files.last() {
        undone.push(take_out(file)?);
        record.files.pop();
        records.store(tool.id(), &record)?;
    }
    Ok(undone)
}

fn nothing(tool: &dyn Tool) -> CliError {
    let message = format!("{} was not connected by this command", tool.name());
    CliError::failed(message).help(format!(
        "nothing was changed; `lodestar connect {}` shows the settings that could stand in its \
         file",
        tool.id()
    ))
}

/// Takes out what was written into a file.
///
/// # Errors
///
/// When it cannot be read, edited or written.
pub(super) fn take_out(file: &FileRecord) -> Result<UndoneFile> {
    let copy = match &file.before {
        Some(Before::Kept { backup, .. }) => Some(backup.clone()),
        Some(Before::Absent) | None => None,
    };
    let done = |outcome, kept| UndoneFile {
        path: file.path.clone(),
        outcome,
        kept,
        backup: copy.clone().filter(|copy| copy.is_file()),
    };
    let Some(source) = files::read(&file.path)? else {
        files::remove_empty(&file.made);
        return Ok(done(Outcome::Gone, Vec::new()));
    };
    let undone = file.undone(&source).map_err(|error| cannot_edit(&file.path, &error))?;
    let is_made = file.before == Some(Before::Absent);
    if is_made && (undone.before.is_some() || file.format.is_empty(&undone.text)) {
        files::remove(&file.path, &source)?;
        files::remove_empty(&file.made);
        return Ok(done(Outcome::Removed, Vec::new()));
    }
    let is_as_before = match &file.before {
        Some(Before::Kept { hash, .. }) => files::hash(&undone.text) == *hash,
        Some(Before::Absent) | None => false,
    };
    let is_same = undone.text == source.text;
    if !is_same {
        Prepared::new(&file.path, Some(&source), &undone.text)?.commit()?;
    }
    if is_as_before && let Some(copy) = &copy {
        // The file is what the copy is.
        drop(fs::remove_file(copy));
    }
    let outcome = match (is_as_before, is_same) {
        (_, true) => Outcome::Unchanged,
        (true, false) => Outcome::Restored,
        (false, false) => Outcome::Edited,
    };
    Ok(done(outcome, undone.kept))
}
