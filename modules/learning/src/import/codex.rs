//! Transcripts of Codex (`rollout-….jsonl`): one item of the conversation a line.

use module_sdk::events::ContentRole;
use serde_json::Value;

use super::{
    Lines, Take, jsonl,
    turns::{Turns, text_of},
};

/// Beginnings of what Codex itself puts into the place of a person's words.
const NOT_A_PERSON: [&str; 4] =
    ["<environment_context>", "<user_instructions>", "# AGENTS.md", "<turn_aborted>"];

/// Reads a transcript.
pub(super) fn read(lines: Lines<'_>, take: Take<'_>) -> module_sdk::Result<()> {
    Turns::of(lines, take, entry)
}

fn entry(turns: &mut Turns, number: u64, value: &Value, take: Take<'_>) -> module_sdk::Result<()> {
    let Some(payload) = value.get("payload") else { return Ok(()) };
    let text = |key: &str| payload.get(key).and_then(Value::as_str);
    match value.get("type").and_then(Value::as_str) {
        Some("session_meta") => turns.conversation = text("id").map(str::to_owned),
        Some("turn_context") => {
            turns.model = text("model").map(str::to_owned).or_else(|| turns.model.take());
        }
        Some("response_item") => {
            let at = value.get("timestamp").and_then(jsonl::time);
            item(turns, number, payload, at, take)?;
        }
        _ => {}
    }
    Ok(())
}

fn item(
    turns: &mut Turns,
    number: u64,
    payload: &Value,
    at: Option<i64>,
    take: Take<'_>,
) -> module_sdk::Result<()> {
    let text = |key: &str| payload.get(key).and_then(Value::as_str).unwrap_or_default();
    match text("type") {
        "message" => {
            let words = words(payload);
            match jsonl::role(text("role")) {
                Some(ContentRole::Assistant) => turns.answered(number, &words, at, None),
                Some(ContentRole::User) if !is_of_codex(&words) => {
                    turns.asked(ContentRole::User, words, take)?;
                }
                _ => {}
            }
        }
        "function_call" => turns.called(number, text("call_id"), text("name"), text("arguments")),
        "custom_tool_call" => turns.called(number, text("call_id"), text("name"), text("input")),
        "function_call_output" | "custom_tool_call_output" => {
            let output = payload.get("output");
            let inner = output.and_then(|it| it.get("content")).or(output);
            turns.returned(inner.and_then(Value::as_str).unwrap_or_default().to_owned());
        }
        _ => {}
    }
    Ok(())
}

fn is_of_codex(words: &str) -> bool {
    let words = words.trim_start();
    NOT_A_PERSON.iter().any(|begin| words.starts_with(begin))
}

fn words(payload: &Value) -> String {
    let parts = payload.get("content").and_then(Value::as_array);
    parts.map(|parts| text_of(parts)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::import::turns::turns_of;

    #[test]
    fn a_transcript_becomes_its_turns() {
        let text = include_str!("../../tests/transcripts/codex.jsonl");
        let all = turns_of(text, read);
        assert_eq!(all.len(), 1);
        let found = all[0].1.as_ref().expect("a turn");
        assert_eq!(found.conversation.as_deref(), Some("c1"));
        assert_eq!(found.model.as_deref(), Some("gpt-oss:20b"));
        let roles: Vec<&str> = found.messages.iter().map(|it| it.role.as_str()).collect();
        assert_eq!(roles, ["user", "assistant", "tool", "assistant"]);
        assert_eq!(found.messages[2].content, "a b");
    }
}
