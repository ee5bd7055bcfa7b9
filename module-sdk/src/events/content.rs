//! `llm.request.content`: the text of a request and of its answer.

use std::{borrow::Cow, fmt};

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Class, EventType, words::words};

words! {
    /// Author of a part of a conversation.
    ContentRole {
        /// The operator of the tool.
        System = "system",
        /// The person, or the program that asks.
        User = "user",
        /// The model.
        Assistant = "assistant",
        /// A tool that the model called.
        Tool = "tool",
    }
}

/// One part of a conversation. Its `Debug` shows the author and the length, never the text.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ContentMessage {
    /// Author of the part.
    pub role: ContentRole,
    /// Text of the part.
    pub text: String,
}

impl fmt::Debug for ContentMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ContentMessage({}, {} bytes)", self.role, self.text.len())
    }
}

/// The text of a request to a language model, beside the
/// [`LlmRequestCompleted`](super::LlmRequestCompleted) that has its numbers.
///
/// The only type of this vocabulary with a place for text. The host publishes it only where
/// `privacy.full_logging` is true and `project` stands in `privacy.full_logging_projects`; anything
/// else is refused and counted. It goes into no log, and `lodestar events tail` shows its size.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LlmRequestContent {
    /// The version of this type, 1.
    pub schema: u16,
    /// The `dedupe_key` of the request.
    pub dedupe_key: String,
    /// The project, by which the operator has opted in.
    pub project: String,
    /// Id of the request (`x-lodestar-request-id`), by which feedback names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// Time at which the answer ended, in milliseconds since the Unix epoch.
    pub at: i64,
    /// The session, a pseudonym by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_id: Option<String>,
    /// The model that answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Messages that were sent, in order.
    pub request: Vec<ContentMessage>,
    /// Messages that came back; empty where none did.
    #[serde(default)]
    pub answer: Vec<ContentMessage>,
    /// `true` when some of the text was left out, since it was too long.
    #[serde(default)]
    pub truncated: bool,
}

impl EventType for LlmRequestContent {
    const TOPIC: &'static str = "llm.request.content";
    const CLASS: Class = Class::Ledger;

    fn subject(&self) -> Option<Cow<'_, str>> {
        Some(Cow::Borrowed(&self.project))
    }

    fn time(&self) -> Option<Timestamp> {
        Timestamp::from_millisecond(self.at).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_sizes_and_no_text() {
        let say = |role, text: &str| ContentMessage { role, text: text.to_owned() };
        let content = LlmRequestContent {
            schema: 1,
            dedupe_key: "openai:1".to_owned(),
            project: "shop".to_owned(),
            request_id: None,
            at: 1,
            session_id: None,
            model: None,
            request: vec![say(ContentRole::User, "what I asked")],
            answer: vec![say(ContentRole::Assistant, "what it said")],
            truncated: false,
        };
        let shown = format!("{content:?}");
        assert!(shown.contains("ContentMessage(user, 12 bytes)"), "{shown}");
        assert!(!shown.contains("asked") && !shown.contains("said"), "{shown}");
    }

    #[test]
    fn an_event_of_before_has_no_request_id() {
        let old = r#"{"schema":1,"dedupe_key":"k","project":"shop","at":1,"request":[]}"#;
        let content: LlmRequestContent = serde_json::from_str(old).expect("it is read");
        assert_eq!(content.request_id, None);
        assert!(!serde_json::to_string(&content).expect("JSON").contains("request_id"));
    }
}
