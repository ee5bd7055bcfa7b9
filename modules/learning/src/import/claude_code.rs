//! Transcripts of Claude Code: one JSON object a line, one line for each part of a message.

use module_sdk::events::ContentRole;
use serde_json::Value;

use super::{
    Lines, Take, jsonl,
    turns::{Turns, text_of},
};

/// Reads a transcript.
pub(super) fn read(lines: Lines<'_>, take: Take<'_>) -> module_sdk::Result<()> {
    Turns::of(lines, take, entry)
}

fn entry(turns: &mut Turns, number: u64, value: &Value, take: Take<'_>) -> module_sdk::Result<()> {
    let is = |key: &str| value.get(key).and_then(Value::as_bool) == Some(true);
    // What a sub-agent did, and notes of the tool itself, are no part of the conversation.
    if is("isSidechain") || is("isMeta") || is("isCompactSummary") {
        return Ok(());
    }
    let text = |value: &Value, key: &str| value.get(key).and_then(Value::as_str).map(str::to_owned);
    let Some(message) = value.get("message") else { return Ok(()) };
    if turns.conversation.is_none() {
        turns.conversation = text(value, "sessionId");
    }
    match value.get("type").and_then(Value::as_str) {
        Some("user") => asked(turns, message, take),
        Some("assistant") => {
            // It stands for an answer that no model gave, such as an error of the API.
            let model = text(message, "model").filter(|model| model != "<synthetic>");
            if model.is_none() || is("isApiErrorMessage") {
                return Ok(());
            }
            turns.model = model;
            let at = value.get("timestamp").and_then(jsonl::time);
            answered(turns, number, message, at);
            Ok(())
        }
        _ => Ok(()),
    }
}

fn asked(turns: &mut Turns, message: &Value, take: Take<'_>) -> module_sdk::Result<()> {
    let parts = match message.get("content") {
        Some(Value::String(text)) => return turns.asked(ContentRole::User, text.clone(), take),
        Some(Value::Array(parts)) => parts,
        _ => return Ok(()),
    };
    for part in parts {
        match part.get("type").and_then(Value::as_str) {
            Some("text") => turns.asked(ContentRole::User, words(part.get("text")), take)?,
            Some("tool_result") => turns.returned(words(part.get("content"))),
            _ => {}
        }
    }
    Ok(())
}

fn answered(turns: &mut Turns, number: u64, message: &Value, at: Option<i64>) {
    let reason = message.get("stop_reason").and_then(Value::as_str).map(str::to_owned);
    let parts = message.get("content").and_then(Value::as_array);
    for part in parts.into_iter().flatten() {
        let text = |key: &str| part.get(key).and_then(Value::as_str).unwrap_or_default();
        match text("type") {
            "text" => turns.answered(number, text("text"), at, reason.clone()),
            "tool_use" => {
                let arguments = part.get("input").map(ToString::to_string).unwrap_or_default();
                turns.called(number, text("id"), text("name"), &arguments);
            }
            _ => {}
        }
    }
}

/// Returns the words of a content: a text, or the texts of its parts.
fn words(content: Option<&Value>) -> String {
    match content {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(parts)) => text_of(parts),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::import::{LineError, turns::turns_of};

    #[test]
    fn a_transcript_becomes_its_turns() {
        let text = include_str!("../../tests/transcripts/claude_code.jsonl");
        let all = turns_of(text, read);
        assert_eq!(all.len(), 2);
        assert_eq!(all[0], (9, Err(LineError::NoJson(2))));
        let (line, found) = (all[1].0, all[1].1.as_ref().expect("a turn"));
        assert_eq!((line, found.conversation.as_deref()), (8, Some("s1")));
        let roles: Vec<&str> = found.messages.iter().map(|it| it.role.as_str()).collect();
        assert_eq!(roles, ["user", "assistant", "tool", "assistant"]);
        assert_eq!(found.messages[2].content, "code");
        assert_eq!(found.finish_reason.as_deref(), Some("end_turn"));
        assert_eq!(found.at, Some(1_793_527_205_000));
    }
}
