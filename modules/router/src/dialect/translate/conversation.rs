//! The text of a conversation, whatever its dialect.

use module_sdk::events::{ContentMessage, ContentRole};

use super::{
    TranslateError, chat, gemini,
    ir::{Block, Role},
    json::Json,
    messages, ollama, order, read_request, responses,
    stream::{Delta, StreamReader},
};
use crate::dialect::{
    Dialect,
    said::{Said, call_text},
};

/// Returns the messages of a request. Images and reasoning are left out.
pub(crate) fn conversation(
    dialect: Dialect,
    body: &[u8],
) -> Result<Vec<ContentMessage>, TranslateError> {
    let mut request = read_request(dialect, dialect, Json::parse(body)?)?;
    order::settle(&mut request);
    let mut told = Vec::new();
    for part in request.system {
        say(&mut told, ContentRole::System, &part);
    }
    for turn in request.turns {
        let role = match turn.role {
            Role::System => ContentRole::System,
            Role::User => ContentRole::User,
            Role::Assistant => ContentRole::Assistant,
        };
        for block in turn.blocks {
            match block {
                Block::Text(text) | Block::Refusal(text) => say(&mut told, role, &text),
                Block::ToolUse { name, arguments, .. } => {
                    say(&mut told, role, &call_text(&name, &arguments.into_text()));
                }
                Block::ToolResult { content, .. } => {
                    let text = |block: &Block<'_>| match block {
                        Block::Text(text) => Some(text.to_string()),
                        _ => None,
                    };
                    let parts: Vec<String> = content.iter().filter_map(text).collect();
                    say(&mut told, ContentRole::Tool, &parts.join("\n"));
                }
                Block::Thinking { .. } | Block::Image(_) | Block::File { .. } => {}
            }
        }
    }
    Ok(told)
}

fn say(told: &mut Vec<ContentMessage>, role: ContentRole, text: &str) {
    if !text.is_empty() {
        told.push(ContentMessage { role, text: text.to_owned() });
    }
}

/// Reader of the text of a stream.
pub(crate) struct StreamText {
    reader: Box<dyn StreamReader>,
    /// Keys of the calls so far, in their order.
    calls: Vec<u64>,
}

impl std::fmt::Debug for StreamText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StreamText").field("calls", &self.calls.len()).finish_non_exhaustive()
    }
}

impl StreamText {
    /// Returns a reader of streams of a dialect; `None` where there is none for it.
    pub(crate) fn new(dialect: Dialect) -> Option<Self> {
        let reader: Box<dyn StreamReader> = match dialect {
            Dialect::Chat => Box::new(chat::Reader::new("")),
            Dialect::Responses => Box::new(responses::Reader::default()),
            Dialect::Messages => Box::new(messages::Reader::default()),
            Dialect::Gemini => Box::new(gemini::Reader::new("")),
            Dialect::OllamaChat => Box::new(ollama::Reader::new("")),
            _ => return None,
        };
        Some(Self { reader, calls: Vec::new() })
    }

    /// Adds what an event says. One that cannot be read says nothing.
    pub(crate) fn event(&mut self, name: Option<&str>, data: &[u8], said: &mut Said) {
        let mut deltas = Vec::new();
        if data.trim_ascii().is_empty() || self.reader.read(name, data, &mut deltas).is_err() {
            return;
        }
        for delta in deltas {
            match delta {
                Delta::Text(text) | Delta::Refusal(text) => said.push(&text),
                Delta::Call { key, name, .. } => {
                    self.calls.push(key);
                    said.call(&name);
                }
                Delta::Arguments { key, text } => {
                    if let Some(at) = self.calls.iter().position(|it| *it == key) {
                        said.arguments(at, &text);
                    }
                }
                _ => {}
            }
        }
    }
}
