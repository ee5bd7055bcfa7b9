//! Import: conversations from files that a person names.

mod claude_code;
mod codex;
mod jsonl;
mod lines;
mod turns;

use std::io::Read;

use schemars::JsonSchema;
use serde::Deserialize;
use thiserror::Error;

use crate::{
    example::Message,
    store::{NewExample, Origin, Signal, digest},
};

pub use lines::Lines;

/// Form of the files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// A conversation a line: `{"messages": […]}`, with `model` and `feedback` where known.
    Jsonl,
    /// Transcripts of Claude Code (`~/.claude/projects`).
    ClaudeCode,
    /// Transcripts of Codex (`~/.codex/sessions`).
    Codex,
}

impl Format {
    /// Returns the word by which a person names it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Jsonl => "jsonl",
            Self::ClaudeCode => "claude-code",
            Self::Codex => "codex",
        }
    }

    /// Returns the source of what its files hold.
    #[must_use]
    pub const fn origin(self) -> Origin {
        match self {
            Self::Jsonl => Origin::Jsonl,
            Self::ClaudeCode => Origin::ClaudeCode,
            Self::Codex => Origin::Codex,
        }
    }
}

/// Reason for which a line is left out. It shows none of the text.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum LineError {
    /// The line is no JSON; the number is that of the column.
    #[error("is no JSON, from column {0}")]
    NoJson(usize),
    /// The line is longer than a conversation is.
    #[error("is longer than {} MiB", lines::LONGEST >> 20)]
    TooLong,
    /// The line is no text.
    #[error("is no UTF-8")]
    NoText,
    /// The line is no object with messages.
    #[error("has no `messages`")]
    NoMessages,
    /// A message has a form that nobody knows.
    #[error(
        "has a message, number {0}, without a known `role` or with a `content` of another form"
    )]
    Message(usize),
    /// The last message is no answer.
    #[error("does not end with an answer of `assistant`")]
    NoAnswer,
    /// The answer stands alone.
    #[error("has no question before the answer")]
    NoQuestion,
    /// The feedback has a form that nobody knows.
    #[error("has `feedback` that is neither true, false, \"good\", \"bad\" nor from 0 to 1")]
    Feedback,
    /// The model has a form that nobody knows.
    #[error("has a `model` that is no text")]
    Model,
    /// The file ends in the middle of the line.
    #[error("is cut off")]
    Cut,
}

/// A conversation that was found in a file.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// Conversation, as the file names it.
    pub conversation: Option<String>,
    /// Id, as the file names it.
    pub id: Option<String>,
    /// Time of the answer, where it is known.
    pub at: Option<i64>,
    /// The model that answered.
    pub model: Option<String>,
    /// The messages, the answer last.
    pub messages: Vec<Message>,
    /// Tools that the model was offered.
    pub tools: Option<serde_json::Value>,
    /// Reason for the end of the answer.
    pub finish_reason: Option<String>,
    /// `true` when messages before it were left out.
    pub truncated: bool,
    /// Feedback that came along, from 0 to 1.
    pub feedback: Option<f64>,
}

/// Place in a file, for the reader of a report.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Skipped {
    /// The file.
    pub file: String,
    /// Number of the line, from 1; 0 for the file itself.
    pub line: u64,
    /// Fault of it.
    pub reason: String,
}

/// Takes what is found in a file, with the number of the line.
pub type Take<'a> = &'a mut dyn FnMut(u64, Result<Found, LineError>) -> module_sdk::Result<()>;

/// Reads one file, and gives each conversation and each bad line to `take`.
///
/// # Errors
///
/// When the file cannot be read on, or `take` ends it.
pub fn read(format: Format, file: &mut dyn Read, take: Take<'_>) -> module_sdk::Result<()> {
    let lines = Lines::new(file);
    match format {
        Format::Jsonl => jsonl::read(lines, take),
        Format::ClaudeCode => claude_code::read(lines, take),
        Format::Codex => codex::read(lines, take),
    }
}

/// Place and consent of the conversations of a file.
#[derive(Debug, Clone)]
pub struct Place<'a> {
    /// The project that they are kept for.
    pub project: &'a str,
    /// Id of the consent.
    pub consent: &'a str,
    /// The form of the file.
    pub format: Format,
    /// Name of the file.
    pub file: &'a str,
    /// Time of the import, in milliseconds since the Unix epoch.
    pub now: i64,
    /// Time of an answer that says none: that of the file.
    pub changed: i64,
}

impl Place<'_> {
    /// Returns the example that a conversation becomes. The same text in the same conversation has
    /// the same id, so that a file that is imported again, or under another name, adds nothing.
    #[must_use]
    pub fn example(&self, line: u64, found: Found) -> NewExample {
        // Written by us a moment ago from the same types: it cannot fail.
        let text = serde_json::to_vec(&found.messages).unwrap_or_default();
        let named = found.conversation.clone();
        let unique = found.id.as_deref().or(named.as_deref()).unwrap_or_default();
        let id = digest(&[b"import", self.project.as_bytes(), unique.as_bytes(), &text]);
        let id = id[..32].to_owned();
        let conversation = named.unwrap_or_else(|| format!("{}:{line}", self.file));
        let feedback = found.feedback.map(|rating| Signal {
            id: format!("import:{id}"),
            about: Some(id.clone()),
            origin: "person".to_owned(),
            at: self.now,
            rating: Some(rating),
            ..Signal::default()
        });
        NewExample {
            project: self.project.to_owned(),
            origin: self.format.origin(),
            dedupe_key: None,
            request_id: None,
            at: found.at.unwrap_or(self.changed).min(self.now),
            model: found.model,
            consent: self.consent.to_owned(),
            messages: found.messages,
            tools: found.tools,
            finish_reason: found.finish_reason,
            truncated: found.truncated,
            feedback,
            conversation,
            id,
        }
    }
}
