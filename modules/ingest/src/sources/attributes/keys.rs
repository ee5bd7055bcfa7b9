//! The attribute keys on the allow-list.

use super::Key;

macro_rules! allow {
    ($($name:ident = $key:literal;)+) => {
        $(pub(crate) const $name: Key = Key($key);)+
        /// Every attribute that is ever read.
        #[cfg(test)]
        pub(crate) const ALL: &[Key] = &[$($name),+];
    };
}

allow! {
    // Resources.
    SERVICE_NAME = "service.name";
    SERVICE_VERSION = "service.version";
    PROJECT = "lodestar.project";
    BRANCH = "vcs.ref.head.name";
    // Common to the logs of the coding tools.
    EVENT_NAME = "event.name";
    EVENT_NAME_OLD = "event_name";
    EVENT_TIMESTAMP = "event.timestamp";
    SESSION_ID = "session.id";
    USER_ID = "user.id";
    PROMPT_ID = "prompt.id";
    MODEL = "model";
    INPUT_TOKENS = "input_tokens";
    OUTPUT_TOKENS = "output_tokens";
    DURATION_MS = "duration_ms";
    TTFT_MS = "ttft_ms";
    STATUS_CODE = "status_code";
    HTTP_STATUS_CODE = "http.response.status_code";
    HTTP_STATUS_CODE_OLD = "http.status_code";
    ATTEMPT = "attempt";
    ERROR_TYPE = "error.type";
    // Claude Code.
    REQUEST_ID = "request_id";
    CACHE_READ_TOKENS = "cache_read_tokens";
    CACHE_CREATION_TOKENS = "cache_creation_tokens";
    CACHE_CREATION_5M_TOKENS = "cache_creation_5m_tokens";
    CACHE_CREATION_1H_TOKENS = "cache_creation_1h_tokens";
    COST_USD = "cost_usd";
    COST_USD_MICROS = "cost_usd_micros";
    ANTHROPIC_PROVIDER = "anthropic.provider";
    FIRST_CONTENT_MS = "first_content_ms";
    STOP_REASON = "stop_reason";
    SPEED = "speed";
    SERVICE_TIER = "service_tier";
    SUCCESS = "success";
    // Codex.
    EVENT_KIND = "event.kind";
    CONVERSATION_ID = "conversation.id";
    INPUT_TOKEN_COUNT = "input_token_count";
    OUTPUT_TOKEN_COUNT = "output_token_count";
    CACHED_TOKEN_COUNT = "cached_token_count";
    CACHE_WRITE_TOKEN_COUNT = "cache_write_token_count";
    REASONING_TOKEN_COUNT = "reasoning_token_count";
    APP_VERSION = "app.version";
    ENDPOINT = "endpoint";
    CODEX_REASONING_TOKENS = "codex.usage.reasoning_output_tokens";
    TURN_ID = "turn.id";
    // Gemini CLI.
    CACHED_CONTENT_TOKEN_COUNT = "cached_content_token_count";
    THOUGHTS_TOKEN_COUNT = "thoughts_token_count";
    PROMPT_ID_GEMINI = "prompt_id";
    // OpenTelemetry GenAI, with the names of older versions.
    OPERATION = "gen_ai.operation.name";
    PROVIDER = "gen_ai.provider.name";
    SYSTEM = "gen_ai.system";
    REQUEST_MODEL = "gen_ai.request.model";
    RESPONSE_MODEL = "gen_ai.response.model";
    RESPONSE_ID = "gen_ai.response.id";
    FINISH_REASONS = "gen_ai.response.finish_reasons";
    REQUEST_STREAM = "gen_ai.request.stream";
    GEN_AI_CONVERSATION_ID = "gen_ai.conversation.id";
    TIME_TO_FIRST_CHUNK = "gen_ai.response.time_to_first_chunk";
    USAGE_INPUT = "gen_ai.usage.input_tokens";
    USAGE_OUTPUT = "gen_ai.usage.output_tokens";
    USAGE_PROMPT_OLD = "gen_ai.usage.prompt_tokens";
    USAGE_COMPLETION_OLD = "gen_ai.usage.completion_tokens";
    USAGE_CACHE_READ = "gen_ai.usage.cache_read.input_tokens";
    USAGE_CACHE_READ_OLD = "gen_ai.usage.cache_read_input_tokens";
    USAGE_CACHE_READ_SHORT = "gen_ai.usage.cache_read_tokens";
    USAGE_CACHED_INPUT = "gen_ai.usage.cached_input_tokens";
    USAGE_INPUT_CACHED = "gen_ai.usage.input_cached_tokens";
    USAGE_CACHED = "gen_ai.usage.cached_tokens";
    USAGE_CACHED_CONTENT = "gen_ai.usage.cached_content_tokens";
    INPUT_CACHED_SENTRY = "gen_ai.usage.input_tokens.cached";
    PROMPT_CACHED_SENTRY = "gen_ai.usage.prompt_tokens.cached";
    DETAILS_CACHE_READ = "gen_ai.usage.details.cache_read_tokens";
    DETAILS_CACHE_READ_INPUT = "gen_ai.usage.details.cache_read_input_tokens";
    DETAILS_CACHED = "gen_ai.usage.details.cached_tokens";
    DETAILS_CACHED_INPUT = "gen_ai.usage.details.cached_input_tokens";
    DETAILS_CACHED_CONTENT = "gen_ai.usage.details.cached_content_tokens";
    LLM_USAGE_CACHE_READ = "llm.usage.cache_read_input_tokens";
    USAGE_CACHE_WRITE = "gen_ai.usage.cache_write.input_tokens";
    USAGE_CACHE_CREATION = "gen_ai.usage.cache_creation.input_tokens";
    USAGE_CACHE_CREATION_OLD = "gen_ai.usage.cache_creation_input_tokens";
    USAGE_CACHE_CREATION_SHORT = "gen_ai.usage.cache_creation_tokens";
    USAGE_CACHE_WRITE_INPUT = "gen_ai.usage.cache_write_input_tokens";
    USAGE_CACHE_WRITE_SHORT = "gen_ai.usage.cache_write_tokens";
    INPUT_WRITE_SENTRY = "gen_ai.usage.input_tokens.cache_write";
    INPUT_CREATION_SENTRY = "gen_ai.usage.input_tokens.cache_creation";
    DETAILS_CACHE_WRITE = "gen_ai.usage.details.cache_write_tokens";
    DETAILS_CACHE_WRITE_INPUT = "gen_ai.usage.details.cache_write_input_tokens";
    DETAILS_CACHE_CREATION = "gen_ai.usage.details.cache_creation_tokens";
    DETAILS_CACHE_CREATION_INPUT = "gen_ai.usage.details.cache_creation_input_tokens";
    LLM_USAGE_CACHE_CREATION = "llm.usage.cache_creation_input_tokens";
    USAGE_REASONING = "gen_ai.usage.reasoning.output_tokens";
    USAGE_REASONING_OLD = "gen_ai.usage.reasoning_tokens";
    OUTPUT_REASONING_SENTRY = "gen_ai.usage.output_tokens.reasoning";
    COMPLETION_REASONING_SENTRY = "gen_ai.usage.completion_tokens.reasoning";
    DETAILS_REASONING = "gen_ai.usage.details.reasoning_tokens";
    DETAILS_THOUGHTS = "gen_ai.usage.details.thoughts_tokens";
    LLM_USAGE_REASONING = "llm.usage.reasoning_tokens";
    USAGE_COST = "gen_ai.usage.cost";
    OPERATION_COST = "operation.cost";
    OPENAI_TIER = "openai.response.service_tier";
    OPENAI_TIER_OLD = "gen_ai.openai.response.service_tier";
    OPENAI_TIER_ASKED = "openai.request.service_tier";
    OPENAI_TIER_ASKED_OLD = "gen_ai.openai.request.service_tier";
    ANTHROPIC_SPEED = "anthropic.response.speed";
    ANTHROPIC_TIER = "anthropic.response.service_tier";
    ANTHROPIC_TIER_ASKED = "anthropic.request.service_tier";
    LITELLM_TIER = "llm.openai.service_tier";
    // What provider SDKs and instrumentations add.
    ANTHROPIC_REQUEST_ID = "anthropic.request.id";
    ANTHROPIC_WRITE_5M = "anthropic.usage.cache_creation.ephemeral_5m_input_tokens";
    ANTHROPIC_WRITE_1H = "anthropic.usage.cache_creation.ephemeral_1h_input_tokens";
    ANTHROPIC_STOP_REASON = "anthropic.message.stop_reason";
    OPENAI_API_TYPE = "openai.api.type";
    LLM_REQUEST_TYPE = "llm.request.type";
    LLM_IS_STREAMING = "llm.is_streaming";
    LITELLM_CALL_ID = "litellm.call_id";
    LITELLM_COST = "gen_ai.cost.total_cost";
    LITELLM_USAGE = "metadata.usage_object";
    // The names of tools.
    GEN_AI_TOOL = "gen_ai.tool.name";
    AI_TOOL = "ai.toolCall.name";
    TOOL_NAME = "tool_name";
    OPENINFERENCE_TOOL = "tool.name";
    // The AI SDK (opencode).
    AI_MODEL_PROVIDER = "ai.model.provider";
    AI_MODEL_ID = "ai.model.id";
    AI_SESSION_ID = "ai.telemetry.metadata.sessionId";
    AI_RESPONSE_ID = "ai.response.id";
    AI_RESPONSE_MODEL = "ai.response.model";
    AI_FINISH_REASON = "ai.response.finishReason";
    AI_MS_TO_FIRST_CHUNK = "ai.response.msToFirstChunk";
    AI_INPUT_TOKENS = "ai.usage.inputTokens";
    AI_OUTPUT_TOKENS = "ai.usage.outputTokens";
    AI_PROMPT_TOKENS = "ai.usage.promptTokens";
    AI_COMPLETION_TOKENS = "ai.usage.completionTokens";
    AI_CACHE_READ = "ai.usage.inputTokenDetails.cacheReadTokens";
    AI_CACHE_WRITE = "ai.usage.inputTokenDetails.cacheWriteTokens";
    AI_TOKENS = "ai.usage.tokens";
    AI_CACHED_INPUT = "ai.usage.cachedInputTokens";
    AI_CACHED_PROMPT = "ai.usage.cachedPromptTokens";
    AI_PROVIDER_METADATA = "ai.response.providerMetadata";
    AI_REASONING = "ai.usage.outputTokenDetails.reasoningTokens";
    AI_REASONING_OLD = "ai.usage.reasoningTokens";
    // OpenInference.
    OPENINFERENCE_KIND = "openinference.span.kind";
    LLM_MODEL_NAME = "llm.model_name";
    EMBEDDING_MODEL = "embedding.model_name";
    LLM_COST = "llm.cost.total";
    LLM_PROVIDER = "llm.provider";
    LLM_SYSTEM = "llm.system";
    LLM_PROMPT_TOKENS = "llm.token_count.prompt";
    LLM_COMPLETION_TOKENS = "llm.token_count.completion";
    LLM_CACHE_READ = "llm.token_count.prompt_details.cache_read";
    LLM_CACHE_WRITE = "llm.token_count.prompt_details.cache_write";
    LLM_REASONING = "llm.token_count.completion_details.reasoning";
}

/// The names of one count in GenAI records, the conventions' first.
pub(crate) const GEN_AI_INPUT: &[Key] = &[USAGE_INPUT, USAGE_PROMPT_OLD];
pub(crate) const GEN_AI_OUTPUT: &[Key] = &[USAGE_OUTPUT, USAGE_COMPLETION_OLD];
pub(crate) const GEN_AI_CACHE_READ: &[Key] = &[
    USAGE_CACHE_READ,
    USAGE_CACHE_READ_OLD,
    USAGE_CACHE_READ_SHORT,
    USAGE_CACHED_INPUT,
    USAGE_INPUT_CACHED,
    USAGE_CACHED,
    USAGE_CACHED_CONTENT,
    INPUT_CACHED_SENTRY,
    PROMPT_CACHED_SENTRY,
    DETAILS_CACHE_READ,
    DETAILS_CACHE_READ_INPUT,
    DETAILS_CACHED,
    DETAILS_CACHED_INPUT,
    DETAILS_CACHED_CONTENT,
    LLM_USAGE_CACHE_READ,
];
pub(crate) const GEN_AI_CACHE_WRITE: &[Key] = &[
    USAGE_CACHE_WRITE,
    USAGE_CACHE_CREATION,
    USAGE_CACHE_CREATION_OLD,
    USAGE_CACHE_CREATION_SHORT,
    USAGE_CACHE_WRITE_INPUT,
    USAGE_CACHE_WRITE_SHORT,
    INPUT_WRITE_SENTRY,
    INPUT_CREATION_SENTRY,
    DETAILS_CACHE_WRITE,
    DETAILS_CACHE_WRITE_INPUT,
    DETAILS_CACHE_CREATION,
    DETAILS_CACHE_CREATION_INPUT,
    LLM_USAGE_CACHE_CREATION,
];
pub(crate) const GEN_AI_REASONING: &[Key] = &[
    USAGE_REASONING,
    USAGE_REASONING_OLD,
    OUTPUT_REASONING_SENTRY,
    COMPLETION_REASONING_SENTRY,
    DETAILS_REASONING,
    DETAILS_THOUGHTS,
    LLM_USAGE_REASONING,
];
/// The tier that answered.
pub(crate) const GEN_AI_TIER: &[Key] = &[
    ANTHROPIC_SPEED,
    OPENAI_TIER,
    OPENAI_TIER_OLD,
    ANTHROPIC_TIER,
    LITELLM_TIER,
    SPEED,
    SERVICE_TIER,
];
/// The tier that was requested, which is used where no answering tier is stated.
pub(crate) const GEN_AI_TIER_ASKED: &[Key] =
    &[OPENAI_TIER_ASKED, OPENAI_TIER_ASKED_OLD, ANTHROPIC_TIER_ASKED];
