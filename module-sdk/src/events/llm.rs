//! `llm.*`: requests to language models.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Class, EventType, words::words};

words! {
    /// Way in which a request was reported to Lodestar. The order is the order of trust: of two
    /// reports of one request the earlier one here wins.
    RequestSource {
        /// The router, which the request went through.
        Gateway = "gateway",
        /// A file that a tool wrote.
        Transcript = "transcript",
        /// An OTLP log record.
        OtlpLog = "otlp_log",
        /// An OTLP span.
        OtlpSpan = "otlp_span",
        /// `POST /api/v1/event`.
        HttpEvent = "http_event",
        /// LiteLLM's callback.
        Litellm = "litellm",
    }
}

words! {
    /// An API dialect of a provider.
    ApiFormat {
        /// OpenAI chat completions.
        Chat = "chat",
        /// OpenAI responses.
        Responses = "responses",
        /// Anthropic messages.
        Messages = "messages",
        /// Google Gemini.
        Gemini = "gemini",
        /// Ollama's own API.
        Ollama = "ollama",
        /// OpenAI embeddings.
        Embeddings = "embeddings",
        /// OpenAI text completions.
        Completions = "completions",
    }
}

words! {
    /// Outcome of a request.
    RequestStatus {
        /// A whole answer.
        Ok = "ok",
        /// The provider answered with an error.
        Error = "error",
        /// The provider's stream broke off.
        UpstreamCut = "upstream_cut",
        /// The client went away.
        ClientAbort = "client_abort",
        /// No answer came in time.
        Timeout = "timeout",
        /// Refused before it was sent.
        Rejected = "rejected",
        /// Answered from a cache.
        Cached = "cached",
    }
}

words! {
    /// Origin of the token counts.
    UsageSource {
        /// Counts of the provider.
        Provider = "provider",
        /// Counts of the provider, for a part of the answer.
        Partial = "partial",
        /// An estimate.
        Estimated = "estimated",
        /// No counts.
        None = "none",
    }
}

words! {
    /// Origin of the cost.
    CostSource {
        /// Lodestar's price table.
        PriceTable = "price_table",
        /// The client that reported the request.
        Client = "client",
        /// The provider.
        Provider = "provider",
        /// No cost.
        None = "none",
    }
}

words! {
    /// Outcome of the response cache.
    CacheOutcome {
        /// No answer in the cache.
        Miss = "miss",
        /// Answer from the cache.
        Hit = "hit",
        /// Cache not asked.
        Bypass = "bypass",
    }
}

/// End of a request to a language model, successful or not. Numbers and names, no text.
///
/// Token counts: `input_tokens` is the whole input, cache reads and writes included;
/// `cache_read_tokens` and the `cache_write_*_tokens` are parts of it; `reasoning_tokens` is a part
/// of `output_tokens`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct LlmRequestCompleted {
    /// The version of this type, 1.
    pub schema: u16,
    /// Way in which the request was reported.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<RequestSource>,
    /// Position in the source: `file:offset`, the instrumentation scope, or the id that the router
    /// gave the request; of one that it asked beside another, the id of that other.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_ref: Option<String>,
    /// Key that makes two reports of one request one: `provider:request_id`, else
    /// `provider:response_id`, else a hash of what is known.
    pub dedupe_key: String,
    /// Start, in milliseconds since the Unix epoch.
    pub started_at: i64,
    /// End, in milliseconds since the Unix epoch.
    pub ended_at: i64,
    /// Tool that asked: `claude-code`, `codex`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// Version of the tool.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_version: Option<String>,
    /// The session, a pseudonym by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_id: Option<String>,
    /// The turn within the session, a pseudonym by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub turn_id: Option<String>,
    /// The trace, 32 hexadecimal digits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<String>,
    /// The span, 16 hexadecimal digits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub span_id: Option<String>,
    /// The project.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    /// The branch of the project's repository.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub branch: Option<String>,
    /// The person, a pseudonym by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// `gen_ai.provider.name`: `anthropic`, `openai`, `ollama`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    /// The id of the provider in the configuration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upstream: Option<String>,
    /// API dialect of the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dialect: Option<ApiFormat>,
    /// `gen_ai.operation.name`: `chat`, `embeddings`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operation: Option<String>,
    /// Model that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_model: Option<String>,
    /// Model that answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_model: Option<String>,
    /// Model that the router chose.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub routed_model: Option<String>,
    /// The speed or tier of service, where it is priced apart: `fast` (Claude's fast mode), `flex`,
    /// `priority`, `batch`; `standard` where it was said to be the ordinary one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_tier: Option<String>,
    /// `true` when the answer was streamed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream: Option<bool>,
    /// Outcome of the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<RequestStatus>,
    /// The provider's HTTP status.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http_status: Option<u16>,
    /// Number of the attempt, 1 for the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u16>,
    /// Event id of the previous attempt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_of: Option<String>,
    /// Kind of the error, `error.type`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error_type: Option<String>,
    /// `gen_ai.response.finish_reasons`, the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finish_reason: Option<String>,
    /// Tokens of the whole input.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input_tokens: Option<u64>,
    /// Tokens of the input that were read from the provider's cache.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache_read_tokens: Option<u64>,
    /// Tokens of the input that were written to the cache for five minutes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache_write_5m_tokens: Option<u64>,
    /// Tokens of the input that were written to the cache for an hour. Absent beside
    /// `cache_write_5m_tokens` where nobody told the two apart: all then count as 5 minutes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache_write_1h_tokens: Option<u64>,
    /// Tokens of the whole output.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_tokens: Option<u64>,
    /// Tokens of the output that were reasoning.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reasoning_tokens: Option<u64>,
    /// Origin of the token counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage_source: Option<UsageSource>,
    /// Cost in 1e-9 USD.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost_nano_usd: Option<i64>,
    /// Origin of the cost.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost_source: Option<CostSource>,
    /// The version of the price table that was used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub price_version: Option<String>,
    /// Time from the request to the end of the answer, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<u32>,
    /// Time to the first byte of the answer, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttfb_ms: Option<u32>,
    /// Time to the first content, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttft_ms: Option<u32>,
    /// Time that the provider took, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upstream_ms: Option<u32>,
    /// Time of waiting before it was sent, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue_ms: Option<u32>,
    /// Time for loading the model, in milliseconds (Ollama).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub load_ms: Option<u32>,
    /// Time for reading the prompt, in milliseconds (Ollama).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt_eval_ms: Option<u32>,
    /// Time for writing the answer, in milliseconds (Ollama).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eval_ms: Option<u32>,
    /// Outcome of the response cache.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache: Option<CacheOutcome>,
    /// Routing rule that chose the model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub route_rule: Option<String>,
    /// The arm of an A/B test.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// Model that failed before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fallback_from: Option<String>,
    /// `gen_ai.response.id`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_id: Option<String>,
    /// The provider's request id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upstream_request_id: Option<String>,
    /// Size of the request body, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_bytes: Option<u64>,
    /// Size of the answer's body, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_bytes: Option<u64>,
    /// Reference to the text, only with full logging.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_ref: Option<String>,
}

impl EventType for LlmRequestCompleted {
    const TOPIC: &'static str = "llm.request.completed";
    const CLASS: Class = Class::Ledger;

    fn time(&self) -> Option<Timestamp> {
        Timestamp::from_millisecond(self.ended_at).ok()
    }
}

/// Withdrawal of a reported request that is none: its counts were the sum of other requests, as
/// became known after it was published. A module that counted it subtracts it; the withdrawal may
/// come before the request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LlmRequestWithdrawn {
    /// The `dedupe_key` of the request, which no other request gets.
    pub dedupe_key: String,
    /// Time of the withdrawal, in milliseconds since the Unix epoch.
    pub at: i64,
}

impl EventType for LlmRequestWithdrawn {
    const TOPIC: &'static str = "llm.request.withdrawn";
    const CLASS: Class = Class::Ledger;
}

/// Start of a session: it was seen for the first time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LlmSessionStarted {
    /// The session.
    pub session_id: String,
    /// Tool of the session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// The project.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    /// Start, in milliseconds since the Unix epoch.
    pub started_at: i64,
}

impl EventType for LlmSessionStarted {
    const TOPIC: &'static str = "llm.session.started";
    const CLASS: Class = Class::Live;
}

/// End of a session: nothing was heard of it for a while.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LlmSessionEnded {
    /// The session.
    pub session_id: String,
    /// Start, in milliseconds since the Unix epoch.
    pub started_at: i64,
    /// End, in milliseconds since the Unix epoch.
    pub ended_at: i64,
    /// Number of requests that it made.
    pub requests: u64,
}

impl EventType for LlmSessionEnded {
    const TOPIC: &'static str = "llm.session.ended";
    const CLASS: Class = Class::Live;
}

/// Change of a session to another model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LlmModelSwitched {
    /// The session.
    pub session_id: String,
    /// The model before.
    pub from: String,
    /// The model now.
    pub to: String,
    /// Time of the change, in milliseconds since the Unix epoch.
    pub at: i64,
}

impl EventType for LlmModelSwitched {
    const TOPIC: &'static str = "llm.model.switched";
    const CLASS: Class = Class::Live;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_unknown_is_absent() {
        let event = LlmRequestCompleted { schema: 1, dedupe_key: "k".into(), ..Default::default() };
        let json = serde_json::to_value(&event).expect("it serialises");
        assert_eq!(
            json,
            serde_json::json!({"schema": 1, "dedupe_key": "k", "started_at": 0, "ended_at": 0})
        );
    }

    #[test]
    fn words_are_read_as_they_are_written() {
        for source in RequestSource::ALL {
            assert_eq!(source.as_str().parse::<RequestSource>().ok(), Some(*source));
            assert_eq!(serde_json::json!(source), serde_json::json!(source.as_str()));
        }
        assert!("telepathy".parse::<RequestSource>().is_err());
    }
}
