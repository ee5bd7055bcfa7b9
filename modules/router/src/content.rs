//! `llm.request.content`: the text of requests and answers, where the operator wants it.
//!
//! The host publishes it only with `privacy.full_logging` and for projects in
//! `privacy.full_logging_projects`, and says so where it refuses. Here nothing is read of a text
//! for which nobody waits, or whose project was refused before: both settings hold as long as the
//! daemon runs.

use std::{
    collections::HashSet,
    sync::{PoisonError, RwLock},
};

use bytes::Bytes;
use module_sdk::{
    ErrorKind, EventType as _, Host,
    events::{ContentMessage, ContentRole, LlmRequestCompleted, LlmRequestContent},
};
use serde_json::Value;

use crate::dialect::{
    Dialect,
    said::{Said, call_text},
    translate,
};

/// Most of a request's text in an event, in bytes of JSON. What was said last is kept.
const LARGEST_REQUEST: usize = 640 * 1024;

/// Most of an answer's text in an event, in bytes of JSON.
const LARGEST_ANSWER: usize = 256 * 1024;

/// Projects that are remembered as refused, at most; then nobody else's text is offered.
const MOST_REFUSED: usize = 1_000;

/// Publisher of the text of requests.
#[derive(Debug)]
pub(crate) struct Contents {
    host: Host,
    /// Projects whose text the host does not publish.
    refused: RwLock<HashSet<String>>,
}

/// Request whose text is wanted. Its `Debug` shows its size, never its text.
pub(crate) struct RequestText {
    /// Id of the request.
    pub id: String,
    /// Dialect of the client.
    pub dialect: Dialect,
    /// Body of the request.
    pub body: Bytes,
}

impl std::fmt::Debug for RequestText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RequestText({:?}, {} bytes)", self.dialect, self.body.len())
    }
}

impl Contents {
    /// Creates a publisher.
    pub(crate) fn new(host: &Host) -> Self {
        Self { host: host.clone(), refused: RwLock::default() }
    }

    /// Returns whether the text of requests of a project is wanted.
    pub(crate) fn is_wanted(&self, project: Option<&str>) -> bool {
        let Some(project) = project else { return false };
        let refused = self.refused.read().unwrap_or_else(PoisonError::into_inner);
        let may_be = refused.len() < MOST_REFUSED && !refused.contains(project);
        drop(refused);
        may_be && self.host.wanted(LlmRequestContent::TOPIC)
    }

    /// Publishes the text of a request that was answered. Returns whether that was taken.
    pub(crate) fn publish(
        &self,
        event: &LlmRequestCompleted,
        asked: &RequestText,
        said: Option<&Said>,
    ) -> bool {
        let Some(project) = &event.project else { return false };
        let (request, is_cut) = request(asked);
        let (answer, is_answer_cut) = said.map(answer).unwrap_or_default();
        let content = LlmRequestContent {
            schema: 1,
            dedupe_key: event.dedupe_key.clone(),
            project: project.clone(),
            request_id: Some(asked.id.clone()),
            at: event.ended_at,
            session_id: event.session_id.clone(),
            model: event.response_model.clone().or_else(|| event.routed_model.clone()),
            request,
            answer,
            truncated: is_cut || is_answer_cut,
        };
        match self.host.emit(&content) {
            Ok(()) => true,
            Err(error) if error.kind() == ErrorKind::Unavailable => {
                tracing::debug!(%error, "the text of a request is not published");
                false
            }
            Err(_) => {
                // The host has logged what to write where.
                let mut refused = self.refused.write().unwrap_or_else(PoisonError::into_inner);
                refused.insert(project.clone());
                false
            }
        }
    }
}

/// Returns the messages of a request, and whether something was left out.
fn request(asked: &RequestText) -> (Vec<ContentMessage>, bool) {
    let messages = match asked.dialect {
        Dialect::Completions => prompts(&asked.body),
        dialect => translate::conversation(dialect, &asked.body).unwrap_or_default(),
    };
    let (mut kept, mut room, mut is_cut) = (Vec::new(), LARGEST_REQUEST, false);
    for mut message in messages.into_iter().rev() {
        let from = end_within(&message.text, &mut room);
        if from > 0 {
            is_cut = true;
            message.text.drain(..from);
        }
        if message.text.is_empty() {
            is_cut = true;
            break;
        }
        kept.push(message);
    }
    kept.reverse();
    (kept, is_cut)
}

fn prompts(body: &[u8]) -> Vec<ContentMessage> {
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    let texts = match &body["prompt"] {
        Value::String(text) => vec![text.clone()],
        Value::Array(list) => list.iter().filter_map(|it| it.as_str()).map(str::to_owned).collect(),
        _ => Vec::new(),
    };
    let message = |text| ContentMessage { role: ContentRole::User, text };
    texts.into_iter().map(message).collect()
}

/// Returns the messages of an answer, and whether something was left out.
fn answer(said: &Said) -> (Vec<ContentMessage>, bool) {
    let calls = said.calls.iter().map(|(name, arguments)| call_text(name, arguments));
    let texts = [said.text.clone()].into_iter().chain(calls).filter(|text| !text.is_empty());
    let (mut kept, mut room, mut is_cut) = (Vec::new(), LARGEST_ANSWER, said.is_cut);
    for mut text in texts {
        let end = begin_within(&text, &mut room);
        is_cut |= end < text.len();
        text.truncate(end);
        if !text.is_empty() {
            kept.push(ContentMessage { role: ContentRole::Assistant, text });
        }
    }
    (kept, is_cut)
}

/// Returns the bytes that a character takes in JSON.
const fn in_json(c: char) -> usize {
    match c {
        '"' | '\\' | '\n' | '\r' | '\t' | '\u{8}' | '\u{c}' => 2,
        '\0'..='\u{1f}' => 6,
        _ => c.len_utf8(),
    }
}

/// Returns the beginning of the end of a text for which there is room, and takes it.
fn end_within(text: &str, room: &mut usize) -> usize {
    for (at, c) in text.char_indices().rev() {
        match room.checked_sub(in_json(c)) {
            Some(left) => *room = left,
            None => {
                *room = 0;
                return at + c.len_utf8();
            }
        }
    }
    0
}

/// Returns the end of the beginning of a text for which there is room, and takes it.
fn begin_within(text: &str, room: &mut usize) -> usize {
    for (at, c) in text.char_indices() {
        match room.checked_sub(in_json(c)) {
            Some(left) => *room = left,
            None => {
                *room = 0;
                return at;
            }
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn asked(dialect: Dialect, body: &Value) -> RequestText {
        RequestText { id: "1".to_owned(), dialect, body: body.to_string().into() }
    }

    fn shown(messages: &[ContentMessage]) -> Vec<(&str, &str)> {
        messages.iter().map(|it| (it.role.as_str(), it.text.as_str())).collect()
    }

    #[test]
    fn a_conversation_is_told_in_every_dialect() {
        let check = |dialect, body: Value, expected: &[(&str, &str)]| {
            let (messages, is_cut) = request(&asked(dialect, &body));
            assert_eq!((shown(&messages).as_slice(), is_cut), (expected, false), "{dialect:?}");
        };
        let all = [("system", "be brief"), ("user", "hello")];
        check(
            Dialect::Chat,
            json!({"messages": [{"role": "system", "content": "be brief"},
                {"role": "user", "content": [{"type": "text", "text": "hello"}]}]}),
            &all,
        );
        check(
            Dialect::Messages,
            json!({"max_tokens": 1, "system": "be brief",
                "messages": [{"role": "user", "content": "hello"}]}),
            &all,
        );
        check(Dialect::Responses, json!({"instructions": "be brief", "input": "hello"}), &all);
        check(
            Dialect::Gemini,
            json!({"systemInstruction": {"parts": [{"text": "be brief"}]},
                "contents": [{"role": "user", "parts": [{"text": "hello"}]}]}),
            &all,
        );
        check(
            Dialect::OllamaChat,
            json!({"messages": [{"role": "system", "content": "be brief"},
                {"role": "user", "content": "hello"}]}),
            &all,
        );
        check(Dialect::OllamaGenerate, json!({"system": "be brief", "prompt": "hello"}), &all);
        check(Dialect::Completions, json!({"prompt": "hello"}), &all[1..]);
        check(
            Dialect::Messages,
            json!({"max_tokens": 1, "messages": [{"role": "user", "content": "read it"},
                {"role": "assistant", "content": [{"type": "thinking", "thinking": "x",
                    "signature": "s"}, {"type": "tool_use", "id": "1", "name": "read",
                    "input": {"path": "a"}}]},
                {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "1",
                    "content": "its text"}]}]}),
            &[
                ("user", "read it"),
                ("assistant", r#"{"arguments":{"path":"a"},"name":"read"}"#),
                ("tool", "its text"),
            ],
        );
    }

    #[test]
    fn what_was_said_last_is_kept_of_a_long_conversation() {
        // Each character of it takes six bytes of JSON.
        let long = "\u{1}".repeat(100 * 1024);
        let body = json!({"messages": [{"role": "user", "content": "the first words"},
            {"role": "assistant", "content": long}, {"role": "user", "content": long},
            {"role": "user", "content": "the last words"}]});
        let (messages, is_cut) = request(&asked(Dialect::Chat, &body));
        assert!(is_cut);
        assert_eq!(messages.last().map(|it| &*it.text), Some("the last words"));
        assert!(messages.iter().all(|it| it.text != "the first words"));
        let bytes = serde_json::to_vec(&messages).expect("it is written").len();
        assert!((LARGEST_REQUEST / 2..LARGEST_REQUEST + 256).contains(&bytes), "{bytes}");

        let mut said = Said::default();
        said.push(&long);
        let (answer, is_cut) = answer(&said);
        let bytes = serde_json::to_vec(&answer).expect("it is written").len();
        assert!(is_cut && bytes <= LARGEST_ANSWER + 256, "{bytes}");
    }
}
