//! `trace.*`: steps of an agent's work.

use std::borrow::Cow;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Class, EventType, words::words};

words! {
    /// Kind of work that a span covers.
    SpanKind {
        /// A turn of a conversation: from what a person said to the answer.
        Turn = "turn",
        /// The work of an agent.
        Agent = "agent",
        /// Steps that belong together.
        Workflow = "workflow",
        /// A request to a language model.
        Llm = "llm",
        /// A request for embeddings.
        Embedding = "embedding",
        /// The call of a tool.
        Tool = "tool",
        /// Looking up documents.
        Retrieval = "retrieval",
        /// Waiting for a person.
        Waiting = "waiting",
        /// Anything else.
        Other = "other",
    }
}

words! {
    /// Outcome of a span.
    SpanStatus {
        /// Success.
        Ok = "ok",
        /// Error.
        Error = "error",
        /// No outcome was reported.
        Unset = "unset",
    }
}

/// End of a span of work. Names and numbers, no text.
///
/// A span that was sent twice is published twice: `trace_id` and `span_id` together are its key.
/// Its cost is known by `dedupe_key` to the module that stores the requests, and stands nowhere
/// else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TraceSpanCompleted {
    /// The version of this type, 1.
    pub schema: u16,
    /// The trace, 32 hexadecimal digits.
    pub trace_id: String,
    /// The span, 16 hexadecimal digits.
    pub span_id: String,
    /// Span around it; absent for the first one of a trace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent_span_id: Option<String>,
    /// Kind of work.
    pub kind: SpanKind,
    /// Name of the operation, where it is certainly that; else `(unnamed)`.
    pub name: String,
    /// Start, in milliseconds since the Unix epoch.
    pub started_at: i64,
    /// End, in milliseconds since the Unix epoch.
    pub ended_at: i64,
    /// Outcome of the span.
    pub status: SpanStatus,
    /// Kind of the error, `error.type`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_type: Option<String>,
    /// Tool that reports: `claude-code`, `codex`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// The session, a pseudonym by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_id: Option<String>,
    /// The project.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    /// The branch of the project's repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branch: Option<String>,
    /// Name of the tool that was called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool: Option<String>,
    /// Model that answered, or was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Tokens of the whole input of its own request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input_tokens: Option<u64>,
    /// Tokens of the whole output of its own request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_tokens: Option<u64>,
    /// The `dedupe_key` of the request that the span is; absent where it is none, or sums up
    /// others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dedupe_key: Option<String>,
}

impl EventType for TraceSpanCompleted {
    const TOPIC: &'static str = "trace.span.completed";
    const CLASS: Class = Class::Ledger;

    fn subject(&self) -> Option<Cow<'_, str>> {
        Some(Cow::Borrowed(&self.trace_id))
    }

    fn time(&self) -> Option<Timestamp> {
        Timestamp::from_millisecond(self.ended_at).ok()
    }
}
