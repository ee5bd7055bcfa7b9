//! Files that a person asks a command to read: what `x-files` says in the schema of its arguments,
//! and what was typed.

use std::path::PathBuf;

use module_transcripts::Tool;
use serde_json::Value;

use crate::error::{CliError, Result};

/// The word that stands for all tools.
const ALL: &str = "all";

/// Rule of a schema for the argument that is the path of files: a list of endings, or
/// `{"endings": ["jsonl"], "tools": "ARGUMENT", "known": "COMMAND"}`.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct FilesRule {
    /// Endings of the names that count in a folder; all where there are none.
    endings: Vec<String>,
    /// The argument that names the tool whose files are read where no path is given.
    pub(crate) tools: Option<String>,
    /// The command that is asked beforehand which files it has read as they are.
    pub(crate) known: Option<String>,
}

/// Files that a person asks for.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct AskedFiles {
    pub(crate) from: Origin,
    pub(crate) endings: Vec<String>,
    /// `true` where databases are sent as rows: the command knows tools.
    pub(crate) rows: bool,
    pub(crate) known: Option<String>,
}

/// Origin of files that are asked for.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Origin {
    /// A file, a folder or standard input; written by the tool that was named, if one was.
    Path(PathBuf, Option<Tool>),
    /// The places of tools.
    Tools(Vec<Tool>),
}

/// The argument that names a tool: what was typed, and all that it may be, where that is limited.
#[derive(Debug, Default)]
pub(crate) struct ToolArgument {
    pub(crate) word: Option<String>,
    pub(crate) choices: Option<Vec<String>>,
}

impl FilesRule {
    /// Reads the value of `x-files`.
    pub(crate) fn read(value: &Value) -> Self {
        let endings = value.as_array().or_else(|| value.get("endings")?.as_array());
        let endings = endings.into_iter().flatten().filter_map(Value::as_str);
        let name = |key: &str| value.get(key).and_then(Value::as_str).map(str::to_owned);
        Self {
            endings: endings.map(str::to_owned).collect(),
            tools: name("tools"),
            known: name("known"),
        }
    }

    /// Returns what is asked for with a path, or with the name of a tool; `None` where a command
    /// that knows no tools has no path.
    pub(crate) fn ask(
        &self,
        path: Option<PathBuf>,
        tool: &ToolArgument,
    ) -> Result<Option<AskedFiles>> {
        let from = match path {
            Some(path) => Origin::Path(path, tool.of_path()?),
            None if self.tools.is_some() => Origin::Tools(tool.tools()?),
            None => return Ok(None),
        };
        Ok(Some(AskedFiles {
            from,
            endings: self.endings.clone(),
            rows: self.tools.is_some(),
            known: self.known.clone(),
        }))
    }
}

impl ToolArgument {
    /// Returns the tools whose places are searched.
    fn tools(&self) -> Result<Vec<Tool>> {
        match self.word.as_deref() {
            None | Some(ALL) => Ok(self.all()),
            Some(word) => match Tool::from_name(word) {
                Some(tool) => Ok(vec![tool]),
                None => Err(CliError::usage(format!(
                    "`{word}` is no tool whose files have a place of their own"
                ))
                .help(format!("name a path behind it, or one of {}", self.listed()))),
            },
        }
    }

    /// Returns the tool that was named beside a path. Where a word stands for something else, the
    /// command says which words it takes.
    fn of_path(&self) -> Result<Option<Tool>> {
        let Some(word) = self.word.as_deref().filter(|word| *word != ALL) else { return Ok(None) };
        match Tool::from_name(word) {
            None if self.choices.is_none() => {
                Err(CliError::usage(format!("`{word}` is no tool that is known"))
                    .help(format!("the tools are {}", self.listed())))
            }
            tool => Ok(tool),
        }
    }

    /// Returns all tools that the command takes.
    fn all(&self) -> Vec<Tool> {
        let takes = |tool: &Tool| {
            self.choices.as_ref().is_none_or(|choices| choices.iter().any(|it| it == tool.name()))
        };
        Tool::ALL.iter().copied().filter(takes).collect()
    }

    fn listed(&self) -> String {
        let names: Vec<&str> = self.all().iter().map(|tool| tool.name()).collect();
        names.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn tool(word: Option<&str>, choices: Option<&[&str]>) -> ToolArgument {
        ToolArgument {
            word: word.map(str::to_owned),
            choices: choices.map(|names| names.iter().map(|name| (*name).to_owned()).collect()),
        }
    }

    fn rule() -> FilesRule {
        FilesRule::read(&json!({"endings": ["jsonl"], "tools": "tool", "known": "import-known"}))
    }

    fn refusal(asked: Result<Option<AskedFiles>>) -> (String, String) {
        let error = asked.expect_err("it is refused");
        let failure = error.failure().expect("a failure");
        assert_eq!(failure.exit, crate::exit_codes::USAGE);
        (failure.message.clone(), failure.help.clone().unwrap_or_default())
    }

    #[test]
    fn a_list_of_endings_is_the_short_form() {
        let short = FilesRule::read(&json!(["jsonl", "txt"]));
        let long = FilesRule::read(&json!({"endings": ["jsonl", "txt"]}));
        assert_eq!(short, long);
        assert!(short.tools.is_none() && short.known.is_none());
        let none = ToolArgument::default();
        let asked = short.ask(Some("a".into()), &none).expect("it is right").expect("a path");
        assert_eq!(asked.from, Origin::Path("a".into(), None));
        assert!(!asked.rows);
        assert_eq!(short.ask(None, &none).expect("it is right"), None);
    }

    #[test]
    fn without_a_path_the_places_of_tools_are_meant() {
        let from = |argument: &ToolArgument| {
            rule().ask(None, argument).expect("it is right").expect("some").from
        };
        assert_eq!(from(&tool(Some("codex"), None)), Origin::Tools(vec![Tool::Codex]));
        for word in [None, Some("all")] {
            assert_eq!(from(&tool(word, None)), Origin::Tools(Tool::ALL.to_vec()));
            let some = tool(word, Some(&["jsonl", "codex", "claude-code", "all"]));
            assert_eq!(from(&some), Origin::Tools(vec![Tool::ClaudeCode, Tool::Codex]));
        }
        let (message, help) = refusal(rule().ask(None, &tool(Some("~/x"), None)));
        assert_eq!(message, "`~/x` is no tool whose files have a place of their own");
        assert!(help.starts_with("name a path behind it, or one of claude-code, codex"), "{help}");
        let jsonl = tool(Some("jsonl"), Some(&["jsonl", "codex"]));
        let (_, help) = refusal(rule().ask(None, &jsonl));
        assert_eq!(help, "name a path behind it, or one of codex");
    }

    #[test]
    fn with_a_path_the_tool_is_what_was_named() {
        let from = |word, choices| {
            let asked = rule().ask(Some("a".into()), &tool(word, choices));
            asked.map(|asked| asked.expect("a path").from)
        };
        let path = |tool| Origin::Path("a".into(), tool);
        assert_eq!(from(Some("pi"), None).expect("it is right"), path(Some(Tool::Pi)));
        assert_eq!(from(Some("all"), None).expect("it is right"), path(None));
        assert_eq!(from(None, None).expect("it is right"), path(None));
        let jsonl: Option<&[&str]> = Some(&["jsonl"]);
        assert_eq!(from(Some("jsonl"), jsonl).expect("it is right"), path(None));
        let (message, help) = refusal(rule().ask(Some("a".into()), &tool(Some("vim"), None)));
        assert_eq!(message, "`vim` is no tool that is known");
        assert!(help.starts_with("the tools are claude-code, "), "{help}");
    }
}
