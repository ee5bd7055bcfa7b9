//! The tools that can be connected, a file each.

mod aider;
mod claude_code;
mod codex;
mod gemini;
mod opencode;

use std::path::PathBuf;

use serde::Serialize;
use serde_json::Value;

use super::{edit::Format, environment::Environment};
use crate::error::Result;

/// A tool that can report to `ingest` or ask the router.
pub(super) trait Tool: Sync {
    /// Returns the word on the command line.
    fn id(&self) -> &'static str;

    /// Returns the name that people know.
    fn name(&self) -> &'static str;

    /// Returns the name of the program.
    fn program(&self) -> &'static str;

    /// Returns the tool's settings files with what is to stand in them.
    ///
    /// # Errors
    ///
    /// When their place is not known.
    fn settings(&self, environment: &Environment, wish: &Wish) -> Result<Vec<FileSettings>>;

    /// Returns what a person has to know or do besides.
    fn notes(&self, environment: &Environment, wish: &Wish) -> Vec<String>;
}

/// All tools, as the list shows them.
pub(super) static ALL: [&dyn Tool; 5] =
    [&claude_code::ClaudeCode, &codex::Codex, &gemini::Gemini, &opencode::Opencode, &aider::Aider];

/// Returns the tool of a word.
pub(super) fn find(id: &str) -> Option<&'static dyn Tool> {
    ALL.iter().copied().find(|tool| tool.id() == id)
}

/// Connections that are asked for.
#[derive(Debug, Clone)]
pub(super) struct Wish {
    /// URL of `ingest`, without a path.
    pub(super) ingest: String,
    /// URL of the router, without a path, if the tool is to know it.
    pub(super) router: Option<String>,
    /// `true` if the router takes the place of what the tool asks by itself.
    pub(super) is_default: bool,
    /// Name of the project that requests are counted for.
    pub(super) project: Option<String>,
}

/// A settings file and what is to stand in it.
#[derive(Debug)]
pub(super) struct FileSettings {
    pub(super) path: PathBuf,
    pub(super) format: Format,
    pub(super) settings: Vec<Setting>,
}

/// A value of a settings file.
#[derive(Debug)]
pub(super) struct Setting {
    pub(super) key: Vec<String>,
    pub(super) value: Wanted,
    pub(super) part: Part,
}

/// Wanted value of a setting.
#[derive(Debug)]
pub(super) enum Wanted {
    /// A value of its own.
    Exactly(Value),
    /// A text that lists this item, among others of the person.
    Listing {
        /// The item: a name, a sign and a value.
        item: String,
        /// The sign between name and value.
        assigns: char,
        /// The sign between items.
        separator: char,
    },
}

/// Part of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Part {
    /// Reports to `ingest`.
    Telemetry,
    /// Requests to the router.
    Router,
    /// The project's name.
    Project,
}

impl Setting {
    /// Creates a setting; its key is written with `/` between its words.
    fn new(part: Part, key: &str, value: impl Into<Value>) -> Self {
        Self { key: words(key), value: Wanted::Exactly(value.into()), part }
    }

    /// Creates a setting that names the project in a list such as `name=value,name=value`.
    fn listing(key: &str, item: String, assigns: char, separator: char) -> Self {
        let value = Wanted::Listing { item, assigns, separator };
        Self { key: words(key), value, part: Part::Project }
    }
}

fn words(key: &str) -> Vec<String> {
    key.split('/').map(str::to_owned).collect()
}

impl Wanted {
    /// Returns the value to write where `present` stands now.
    pub(super) fn beside(&self, present: Option<&Value>) -> Value {
        let (item, assigns, separator) = match self {
            Self::Exactly(value) => return value.clone(),
            Self::Listing { item, assigns, separator } => (item, *assigns, *separator),
        };
        let name =
            |item: &str| item.split(assigns).next().unwrap_or_default().trim().to_ascii_lowercase();
        let present = present.and_then(Value::as_str).unwrap_or_default();
        let others = present.split(separator).filter(|other| !other.trim().is_empty());
        if others.clone().any(|other| other.trim() == item) {
            return Value::from(present);
        }
        let others = others.filter(|other| name(other) != name(item));
        let items: Vec<&str> = others.chain([item.as_str()]).collect();
        Value::from(items.join(&separator.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_project_joins_what_a_list_has() {
        let setting = Setting::listing("a", "p=x".to_owned(), '=', ',');
        let check = |present: &str, expected: &str| {
            let present = Value::from(present);
            assert_eq!(setting.value.beside(Some(&present)), expected, "{present}");
        };
        check("", "p=x");
        check("a=1", "a=1,p=x");
        check("a=1, p=x ,b=2", "a=1, p=x ,b=2");
        check("P=y,a=1", "a=1,p=x");
        assert_eq!(setting.value.beside(None), "p=x");
        assert_eq!(setting.value.beside(Some(&Value::from(3))), "p=x");
    }

    #[test]
    fn each_tool_has_a_word_of_its_own() {
        for tool in ALL {
            assert_eq!(find(tool.id()).map(|found| found.name()), Some(tool.name()));
        }
        assert!(find("claude").is_none());
    }
}
