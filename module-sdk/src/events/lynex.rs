//! `lynex.*`: the eleven event types of the Lynex envelope.

use std::borrow::Cow;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Class, EventType, words::words};

words! {
    /// The type of a Lynex event.
    LynexType {
        /// A line of a program's log.
        Log = "log",
        /// An error of the program.
        Error = "error",
        /// A span of work.
        Span = "span",
        /// Tokens that were used.
        TokenUsage = "token_usage",
        /// A message to or from a model.
        Message = "message",
        /// A figure of an evaluation.
        EvalMetric = "eval_metric",
        /// A step of an agent.
        AgentAction = "agent_action",
        /// A search for documents.
        Retrieval = "retrieval",
        /// A call of a tool.
        ToolCall = "tool_call",
        /// An answer of a model.
        ModelResponse = "model_response",
        /// Anything else.
        Custom = "custom",
    }
}

/// A Lynex event that is no request to a model: names and numbers from an allow-list, no text.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct LynexEvent {
    /// The type; the topic is `lynex.<type>`.
    pub kind: LynexType,
    /// The id that the sender gave.
    pub event_id: String,
    /// The project.
    pub project: String,
    /// Time of the event, in milliseconds since the Unix epoch.
    pub at: i64,
    /// Name of the sender's library.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sdk: Option<String>,
    /// Trace that it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<String>,
    /// Fields of the body that are kept.
    #[serde(default, skip_serializing_if = "serde_json::Map::is_empty")]
    pub fields: serde_json::Map<String, serde_json::Value>,
}

impl EventType for LynexEvent {
    const TOPIC: &'static str = "lynex.*";
    const CLASS: Class = Class::Ledger;

    fn topic(&self) -> Cow<'_, str> {
        Cow::Owned(format!("lynex.{}", self.kind))
    }

    fn subject(&self) -> Option<Cow<'_, str>> {
        Some(Cow::Borrowed(&self.project))
    }

    fn time(&self) -> Option<Timestamp> {
        Timestamp::from_millisecond(self.at).ok()
    }
}
