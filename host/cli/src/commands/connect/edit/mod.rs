//! Edits of a tool's settings file, one value at a time, that leave every other byte as it is.
//!
//! An edit is proposed by the editor of the format and checked afterwards: what the text means
//! before and after is compared, and an edit that changes anything but the one value is refused.

mod json;
mod line_ends;
mod lines;
mod toml;

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Format of a settings file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Format {
    /// JSON, with comments and trailing commas.
    Json,
    /// TOML.
    Toml,
    /// YAML, the keys of the top level only.
    Yaml,
    /// Lines of `NAME=VALUE`.
    Env,
}

/// Path of a value: its keys from the top.
pub(super) type Key = [String];

/// Reason for not editing a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum EditError {
    /// The text does not have its format.
    Syntax {
        /// The line, from 1; 0 where it is not known.
        line: usize,
        /// The column, from 1.
        column: usize,
        /// The mistake, in words.
        message: String,
    },
    /// A value that has to hold others does not: the file itself where it has no name.
    NotAMap(String),
    /// The value cannot be changed without changing something else.
    Entangled(String),
}

impl EditError {
    /// Creates the error for what is wrong at a byte of a text.
    fn at(text: &str, byte: usize, message: impl Into<String>) -> Self {
        let before = text.get(..byte).unwrap_or(text);
        let line = before.matches('\n').count() + 1;
        let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
        Self::Syntax { line, column, message: message.into() }
    }
}

impl fmt::Display for EditError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Syntax { line: 0, message, .. } => f.write_str(message),
            Self::Syntax { line, column, message } => {
                write!(f, "line {line}, column {column}: {message}")
            }
            Self::NotAMap(name) if name.is_empty() => f.write_str("it is not a map of settings"),
            Self::NotAMap(name) => write!(f, "{name} is not a map of settings"),
            Self::Entangled(name) => {
                write!(f, "{name} cannot be changed without changing something else")
            }
        }
    }
}

impl std::error::Error for EditError {}

type Result<T, E = EditError> = std::result::Result<T, E>;

impl Format {
    /// Returns what a text means: a map.
    pub(super) fn tree(self, text: &str) -> Result<Value> {
        let text = plain(text);
        let tree = match self {
            Self::Json => json::tree(&text)?,
            Self::Toml => toml::tree(&text)?,
            Self::Yaml => lines::yaml_tree(&text)?,
            Self::Env => lines::env_tree(&text),
        };
        match tree {
            Value::Null => Ok(Value::Object(Map::new())),
            Value::Object(_) => Ok(tree),
            _ => Err(EditError::NotAMap(String::new())),
        }
    }

    /// Returns the text of a value as it stands in the file, for [`restored`](Self::restored).
    pub(super) fn raw(self, text: &str, key: &Key) -> Option<String> {
        let text = plain(text);
        match self {
            Self::Json => json::raw(&text, key),
            Self::Toml => toml::raw(&text, key),
            Self::Yaml | Self::Env => lines::raw(&text, key, self),
        }
    }

    /// Returns the text with a value set.
    pub(super) fn set(self, text: &str, key: &Key, value: &Value) -> Result<String> {
        let edited = edited(text, |text| match self {
            Self::Json => json::set(text, key, value),
            Self::Toml => toml::set(text, key, value),
            Self::Yaml | Self::Env => Ok(lines::set(text, key, value, self)),
        })?;
        let mut wanted = self.tree(text)?;
        put(&mut wanted, key, value.clone());
        self.checked(edited, key, &wanted)
    }

    /// Returns the text with a value as [`raw`](Self::raw) gave it.
    pub(super) fn restored(self, text: &str, key: &Key, raw: &str) -> Result<String> {
        let edited = edited(text, |text| match self {
            Self::Json => json::restored(text, key, raw),
            Self::Toml => toml::restored(text, key, raw),
            Self::Yaml | Self::Env => Ok(lines::restored(text, key, raw, self)),
        })?;
        let mut wanted = self.tree(text)?;
        match self.tree(&edited).ok().as_ref().and_then(|tree| get(tree, key)) {
            Some(value) => put(&mut wanted, key, value.clone()),
            None => return Err(EditError::Entangled(name(key))),
        }
        self.checked(edited, key, &wanted)
    }

    /// Returns the text without a value.
    pub(super) fn removed(self, text: &str, key: &Key) -> Result<String> {
        let mut wanted = self.tree(text)?;
        if !take(&mut wanted, key) {
            return Ok(text.to_owned());
        }
        let edited = edited(text, |text| match self {
            Self::Json => json::removed(text, key),
            Self::Toml => toml::removed(text, key),
            Self::Yaml | Self::Env => Ok(lines::removed(text, key, self)),
        })?;
        // A table that only its tables told of is gone with the last of them.
        for depth in (1..key.len()).rev() {
            let is_empty = get(&wanted, &key[..depth]).and_then(Value::as_object);
            if self.tree(&edited)? == wanted || !is_empty.is_some_and(Map::is_empty) {
                break;
            }
            take(&mut wanted, &key[..depth]);
        }
        self.checked(edited, key, &wanted)
    }

    /// Returns whether a text says nothing at all.
    pub(super) fn is_empty(self, text: &str) -> bool {
        let text = plain(text);
        let text = text.trim();
        text.is_empty() || (self == Self::Json && text == "{}")
    }

    fn checked(self, edited: String, key: &Key, wanted: &Value) -> Result<String> {
        match self.tree(&edited) {
            Ok(tree) if tree == *wanted => Ok(edited),
            _ => Err(EditError::Entangled(name(key))),
        }
    }
}

/// Returns the name of a value, as people write it.
pub(super) fn name(key: &Key) -> String {
    key.join(".")
}

/// Returns a value of a tree.
pub(super) fn get<'a>(tree: &'a Value, key: &Key) -> Option<&'a Value> {
    key.iter().try_fold(tree, |value, key| value.get(key))
}

/// Sets a value of a tree and makes the maps above it.
fn put(tree: &mut Value, key: &Key, value: Value) {
    let Some((first, rest)) = key.split_first() else {
        *tree = value;
        return;
    };
    if !tree.is_object() {
        *tree = Value::Object(Map::new());
    }
    if let Value::Object(map) = tree {
        put(map.entry(first.clone()).or_insert(Value::Null), rest, value);
    }
}

/// Removes a value of a tree; `false` where there is none.
fn take(tree: &mut Value, key: &Key) -> bool {
    let Some((last, above)) = key.split_last() else { return false };
    let mut map = tree;
    for key in above {
        match map.get_mut(key) {
            Some(next) => map = next,
            None => return false,
        }
    }
    map.as_object_mut().is_some_and(|map| map.remove(last).is_some())
}

/// Returns a text as the editors see it: without a byte order mark, and with plain line ends.
fn plain(text: &str) -> String {
    text.strip_prefix('\u{feff}').unwrap_or(text).replace("\r\n", "\n")
}

/// Edits a text and keeps its byte order mark and its line ends.
fn edited(text: &str, edit: impl FnOnce(&str) -> Result<String>) -> Result<String> {
    let body = text.strip_prefix('\u{feff}');
    let (mark, body) = body.map_or(("", text), |body| ("\u{feff}", body));
    let edited = edit(&plain(body))?;
    Ok(format!("{mark}{}", line_ends::kept(body, &edited)))
}

/// Returns a text with the part `range` replaced.
fn spliced(text: &str, range: std::ops::Range<usize>, by: &str) -> String {
    [&text[..range.start], by, &text[range.end..]].concat()
}

/// Returns the blank beginning of the line that holds a byte.
fn indent_at(text: &str, byte: usize) -> &str {
    let line = &text[text[..byte].rfind('\n').map_or(0, |end| end + 1)..];
    &line[..line.len() - line.trim_start_matches([' ', '\t']).len()]
}

#[cfg(test)]
mod tests;
