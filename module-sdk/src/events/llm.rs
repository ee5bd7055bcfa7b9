//! `llm.*`: requests to language models.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Class, EventType, words::words};

words! {
    /// How the news of a request reached Lodestar. The order is the order of trust: of two reports
    /// of one request the earlier one here wins.
    RequestSource {
        /// It went through the router.
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
    /// A form of the conversation with a provider.
    ApiFormat {
        /// OpenAI chat completions.
        Chat = "chat",
        /// OpenAI responses.
        Responses = "responses",
        /// Anthropic messages.
        Messages = "messages",
        /// Google Gemini.
        Gemini = "gemini",
        /// Ollama's own.
        Ollama = "ollama",
        /// OpenAI embeddings.
        Embeddings = "embeddings",
        /// OpenAI text completions.
        Completions = "completions",
    }
}

words! {
    /// How a request ended.
    RequestStatus {
        /// A whole answer.
        Ok = "ok",
        /// The provider answered with an error.
        Error = "error",
        /// The provider's stream broke off.
        UpstreamCut = "upstream_cut",
        /// The client went away.
        ClientAbort = "client_abort",
        /// Nothing came in time.
        Timeout = "timeout",
        /// Refused before it was sent.
        Rejected = "rejected",
        /// Answered from a cache.
        Cached = "cached",
    }
}

words! {
    /// Who counted the tokens.
    UsageSource {
        /// The provider.
        Provider = "provider",
        /// The provider, for a part of the answer.
        Partial = "partial",
        /// An estimate.
        Estimated = "estimated",
        /// Nobody.
        None = "none",
    }
}

words! {
    /// Who computed the cost.
    CostSource {
        /// Our price table.
        PriceTable = "price_table",
        /// The client that reported the request.
        Client = "client",
        /// The provider.
        Provider = "provider",
        /// Nobody.
        None = "none",
    }
}

words! {
    /// What the response cache did.
    CacheOutcome {
        /// Not in the cache.
        Miss = "miss",
        /// Answered from it.
        Hit = "hit",
        /// Not asked.
        Bypass = "bypass",
    }
}

/// A request to a language model has ended, well or not. Numbers and names, no text.
///
/// Token counts: `input_tokens` is the whole input, cache reads and writes included;
/// `cache_read_tokens` and the `cache_write_*_tokens` are parts of it; `reasoning_tokens` is a part
/// of `output_tokens`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct LlmRequestCompleted {
    /// The version of this type, 1.
    pub schema: u16,
    /// How the news reached us.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<RequestSource>,
    /// Where in the source: `file:offset`, or the instrumentation scope.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_ref: Option<String>,
    /// The key that makes two reports of one request one: `provider:request_id`, else
    /// `provider:response_id`, else a hash of what is known.
    pub dedupe_key: String,
    /// Unix milliseconds.
    pub started_at: i64,
    /// Unix milliseconds.
    pub ended_at: i64,
    /// The tool that asked: `claude-code`, `codex`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// Its version.
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
    /// The form of the conversation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dialect: Option<ApiFormat>,
    /// `gen_ai.operation.name`: `chat`, `embeddings`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operation: Option<String>,
    /// The model that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_model: Option<String>,
    /// The model that answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_model: Option<String>,
    /// The model that the router chose.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub routed_model: Option<String>,
    /// The speed or tier of service, where it is priced apart: `fast` (Claude's fast mode), `flex`,
    /// `priority`, `batch`; `standard` where it was said to be the ordinary one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_tier: Option<String>,
    /// Whether the answer was streamed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream: Option<bool>,
    /// How it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<RequestStatus>,
    /// The provider's HTTP status.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http_status: Option<u16>,
    /// 1 for the first attempt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u16>,
    /// The event id of the attempt before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_of: Option<String>,
    /// `error.type`.
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
    /// Who counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage_source: Option<UsageSource>,
    /// 1e-9 USD.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost_nano_usd: Option<i64>,
    /// Who computed the cost.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost_source: Option<CostSource>,
    /// The version of the price table that was used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub price_version: Option<String>,
    /// From request to end of answer, milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<u32>,
    /// To the first byte of the answer, milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttfb_ms: Option<u32>,
    /// To the first content, milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttft_ms: Option<u32>,
    /// The provider's share, milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upstream_ms: Option<u32>,
    /// Waiting before it was sent, milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue_ms: Option<u32>,
    /// Loading the model, milliseconds (Ollama).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub load_ms: Option<u32>,
    /// Reading the prompt, milliseconds (Ollama).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt_eval_ms: Option<u32>,
    /// Writing the answer, milliseconds (Ollama).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eval_ms: Option<u32>,
    /// What the response cache did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache: Option<CacheOutcome>,
    /// The routing rule that chose.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub route_rule: Option<String>,
    /// The arm of an A/B test.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// The model that failed before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fallback_from: Option<String>,
    /// `gen_ai.response.id`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_id: Option<String>,
    /// The provider's request id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upstream_request_id: Option<String>,
    /// Size of the request body, bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_bytes: Option<u64>,
    /// Size of the answer's body, bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_bytes: Option<u64>,
    /// Where the text lies, only with full logging.
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

/// A request that was reported is none: its counts were the sum of other requests, as became known
/// after it was published. Whoever counted it takes it off; it may come before its request does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LlmRequestWithdrawn {
    /// The `dedupe_key` of the request, which no other request gets.
    pub dedupe_key: String,
    /// Unix milliseconds.
    pub at: i64,
}

impl EventType for LlmRequestWithdrawn {
    const TOPIC: &'static str = "llm.request.withdrawn";
    const CLASS: Class = Class::Ledger;
}

/// A session was seen for the first time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LlmSessionStarted {
    /// The session.
    pub session_id: String,
    /// The tool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// The project.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    /// Unix milliseconds.
    pub started_at: i64,
}

impl EventType for LlmSessionStarted {
    const TOPIC: &'static str = "llm.session.started";
    const CLASS: Class = Class::Live;
}

/// Nothing has been heard of a session for a while.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LlmSessionEnded {
    /// The session.
    pub session_id: String,
    /// Unix milliseconds.
    pub started_at: i64,
    /// Unix milliseconds.
    pub ended_at: i64,
    /// How many requests it made.
    pub requests: u64,
}

impl EventType for LlmSessionEnded {
    const TOPIC: &'static str = "llm.session.ended";
    const CLASS: Class = Class::Live;
}

/// A session has gone on with another model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LlmModelSwitched {
    /// The session.
    pub session_id: String,
    /// The model before.
    pub from: String,
    /// The model now.
    pub to: String,
    /// Unix milliseconds.
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
