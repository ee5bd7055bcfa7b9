//! Plan of a connection: all that changes, found out before anything is written.

use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::Value;

use super::{
    edit::{EditError, Format, get, name},
    files::{self, Source},
    record::{Before, FileRecord, Record, SettingRecord},
    tools::{FileSettings, Part, Wanted},
};
use crate::error::{CliError, Result};

/// Planned change of a settings file.
#[derive(Debug)]
pub(super) struct FilePlan {
    pub(super) path: PathBuf,
    pub(super) format: Format,
    pub(super) source: Option<Source>,
    /// The text to write; `None` where the file is as it should be.
    pub(super) text: Option<String>,
    pub(super) changes: Vec<Change>,
    /// The file without the connection, if it is known byte for byte.
    pub(super) before: Option<Before>,
    /// `true` if an earlier run edited the file.
    pub(super) is_recorded: bool,
    /// Directories that an earlier run made.
    pub(super) made: Vec<PathBuf>,
    settings: Vec<SettingRecord>,
}

/// Planned change of a value.
#[derive(Debug, Clone)]
pub(super) struct Change {
    pub(super) key: Vec<String>,
    pub(super) part: Part,
    pub(super) value: Value,
    /// The part of the value that is ours: the rest of a list may hold what is secret.
    pub(super) own: Value,
    pub(super) present: Option<Value>,
}

/// Kind of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kind {
    /// The value is not there yet.
    New,
    /// The value is there already.
    Same,
    /// Another value is there.
    Replaces,
}

impl Change {
    pub(super) fn kind(&self) -> Kind {
        match &self.present {
            None => Kind::New,
            Some(present) if *present == self.value => Kind::Same,
            Some(_) => Kind::Replaces,
        }
    }

    pub(super) fn name(&self) -> String {
        name(&self.key)
    }
}

impl FilePlan {
    /// Plans the change of a settings file, beside what an earlier run recorded of it.
    ///
    /// # Errors
    ///
    /// When the file cannot be read or edited.
    pub(super) fn new(wanted: &FileSettings, earlier: Option<&Record>) -> Result<Self> {
        let source = files::read(&wanted.path)?;
        let recorded = earlier.into_iter().flat_map(|record| &record.files);
        let recorded = recorded.into_iter().find(|file| file.path == wanted.path);
        let cannot = |error: EditError| cannot_edit(&wanted.path, &error);
        let present = source.as_ref().map_or("", |source| source.text.as_str());
        let changes = changes(wanted, present).map_err(cannot)?;
        let mut plan = Self {
            path: wanted.path.clone(),
            format: wanted.format,
            text: None,
            before: None,
            is_recorded: recorded.is_some(),
            made: recorded.map_or_else(Vec::new, |recorded| recorded.made.clone()),
            settings: Vec::new(),
            changes,
            source,
        };
        if !plan.is_done(wanted, recorded) {
            plan.edit(wanted, recorded).map_err(cannot)?;
        }
        Ok(plan)
    }

    /// Returns whether the file has what is wanted, and nothing of an earlier run besides.
    fn is_done(&self, wanted: &FileSettings, recorded: Option<&FileRecord>) -> bool {
        let is_wanted = |set: &SettingRecord| {
            wanted.settings.iter().any(|setting| {
                let value = setting.value.beside(Some(&set.value));
                let below = set.key.strip_prefix(setting.key.as_slice());
                below.is_some_and(|below| get(&value, below) == Some(&set.value))
            })
        };
        self.changes.iter().all(|change| change.kind() == Kind::Same)
            && recorded.is_none_or(|recorded| recorded.settings.iter().all(is_wanted))
    }

    /// Makes the new text: the file without an earlier connection, and then with this one.
    fn edit(
        &mut self,
        wanted: &FileSettings,
        recorded: Option<&FileRecord>,
    ) -> Result<(), EditError> {
        let mut text = match (&self.source, recorded) {
            (Some(source), Some(recorded)) => {
                let undone = recorded.undone(source)?;
                self.before = undone.before;
                undone.text
            }
            (Some(source), None) => source.text.clone(),
            (None, _) => {
                self.before = Some(Before::Absent);
                String::new()
            }
        };
        for change in changes(wanted, &text)? {
            if change.kind() == Kind::Same {
                continue;
            }
            let tree = self.format.tree(&text)?;
            let above = 1..change.key.len();
            let depth = above.take_while(|depth| get(&tree, &change.key[..*depth]).is_some());
            self.settings.push(SettingRecord {
                depth: depth.count(),
                before: self.format.raw(&text, &change.key),
                key: change.key.clone(),
                value: change.value.clone(),
            });
            text = self.format.set(&text, &change.key, &change.value)?;
        }
        self.text = Some(text);
        Ok(())
    }

    /// Returns the record of the file once its text is written.
    pub(super) fn record(&self, text: &str) -> FileRecord {
        FileRecord {
            path: self.path.clone(),
            format: self.format,
            written: files::hash(text),
            before: self.before.clone(),
            made: self.made.clone(),
            settings: self.settings.clone(),
        }
    }
}

/// Compares what is wanted with a text.
fn changes(wanted: &FileSettings, text: &str) -> Result<Vec<Change>, EditError> {
    let tree = wanted.format.tree(text)?;
    let mut changes = Vec::new();
    for setting in &wanted.settings {
        let present = get(&tree, &setting.key);
        let value = setting.value.beside(present);
        let mut key = setting.key.clone();
        match &setting.value {
            Wanted::Exactly(_) => {
                compare(&mut key, value, present, setting.part, &mut changes);
            }
            Wanted::Listing { item, .. } => changes.push(Change {
                key,
                part: setting.part,
                value,
                own: Value::from(item.as_str()),
                present: present.cloned(),
            }),
        }
    }
    Ok(changes)
}

/// Compares a value with the present one: a map that has the same keys and more keeps the others.
fn compare(
    key: &mut Vec<String>,
    value: Value,
    present: Option<&Value>,
    part: Part,
    changes: &mut Vec<Change>,
) {
    let present_map = present.and_then(Value::as_object);
    if let (Value::Object(map), Some(present)) = (&value, present_map)
        && map.keys().any(|word| present.contains_key(word))
    {
        for (word, value) in map {
            key.push(word.clone());
            compare(key, value.clone(), present.get(word), part, changes);
            key.pop();
        }
        return;
    }
    let own = value.clone();
    changes.push(Change { key: key.clone(), part, value, own, present: present.cloned() });
}

/// Creates the error for a settings file that cannot be edited.
pub(super) fn cannot_edit(path: &Path, error: &EditError) -> CliError {
    let help = match error {
        EditError::Syntax { .. } => "mend it there, and run this again; nothing was changed",
        EditError::NotAMap(_) => "make it a map of settings, or move it away; nothing was changed",
        EditError::Entangled(_) => "edit it by hand; nothing was changed",
    };
    let path = path.display();
    let message = match error {
        EditError::Syntax { line, column, message } if *line > 0 => {
            format!("{path}:{line}:{column}: {message}")
        }
        error => format!("{path}: {error}"),
    };
    CliError::refused(message).help(help)
}
