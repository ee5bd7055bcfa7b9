//! Spans by OpenTelemetry's GenAI conventions, in their old and new names: the OpenTelemetry
//! instrumentations, provider SDKs that trace themselves, OpenLLMetry, and LiteLLM's own.
//!
//! By the conventions the input count includes the cache and the output count the reasoning.

use module_sdk::events::{ApiFormat, CostSource, LlmRequestCompleted, RequestStatus};
use opentelemetry_proto::tonic::trace::v1::Span;

use super::{
    Attributes, Context, Outcome, Refusal, SpanRecord,
    counts::Told,
    keys,
    providers::{canonical, of_model},
    shape::from_span,
};
use crate::report::Report;

/// Returns whether the span's name alone shows that it follows these conventions.
pub(crate) fn owns(span: &Span) -> bool {
    matches!(span.name.as_str(), "anthropic.messages.create" | "raw_gen_ai_request")
}

/// Maps a span.
pub(crate) fn map_span(record: &SpanRecord<'_>, context: &Context<'_>) -> Outcome {
    if record.span.name == "raw_gen_ai_request" {
        return Outcome::Repeats("litellm_request reports the same call");
    }
    if let Err(outcome) = is_request(record.attributes, &record.span.name) {
        return outcome;
    }
    let mut report = from_span(record, context);
    let failed = record.span.status.as_ref().is_some_and(|status| status.code == 2);
    match read(&mut report, record.attributes, failed, context) {
        Ok(()) => Outcome::Request(Box::new(report)),
        Err(refusal) => Outcome::Refused(refusal),
    }
}

/// Checks whether the attributes are those of one call of a model; the error is the outcome to
/// report where they are not.
pub(crate) fn is_request(attributes: Attributes<'_>, span_name: &str) -> Result<(), Outcome> {
    let operation = operation(attributes);
    match operation.as_deref() {
        Some("chat" | "generate_content" | "text_completion" | "embeddings") => Ok(()),
        Some(
            "invoke_agent" | "create_agent" | "execute_tool" | "invoke_workflow" | "retrieval"
            | "rerank",
        ) => Err(Outcome::Ignored("not a model request")),
        _ if keys::GEN_AI_INPUT.iter().any(|key| attributes.has(*key))
            || attributes.has(keys::RESPONSE_ID)
            || span_name == "anthropic.messages.create" =>
        {
            Ok(())
        }
        _ => Err(Outcome::Ignored("neither counts nor a known operation")),
    }
}

/// Reads the fields that the conventions define.
pub(crate) fn read(
    report: &mut Report,
    attributes: Attributes<'_>,
    failed: bool,
    context: &Context<'_>,
) -> Result<(), Refusal> {
    let event = &mut report.event;
    identify(event, attributes, context);
    outcome(event, attributes, failed);
    tokens(event, attributes)?;
    event.ttft_ms = attributes.seconds_as_ms(&[keys::TIME_TO_FIRST_CHUNK]);
    event.cost_nano_usd =
        attributes.usd(&[keys::USAGE_COST, keys::LITELLM_COST, keys::OPERATION_COST])?;
    event.cost_source = event.cost_nano_usd.map(|_| CostSource::Client);
    Ok(())
}

fn operation(attributes: Attributes<'_>) -> Option<String> {
    let operation = attributes.name(&[keys::OPERATION, keys::LLM_REQUEST_TYPE])?;
    Some(match operation.as_str() {
        "completion" | "completions" => "text_completion".to_owned(),
        "embedding" => "embeddings".to_owned(),
        "responses" | "messages" | "acompletion" => "chat".to_owned(),
        _ => operation,
    })
}

fn identify(event: &mut LlmRequestCompleted, attributes: Attributes<'_>, context: &Context<'_>) {
    event.operation = operation(attributes);
    event.request_model = attributes.name(&[keys::REQUEST_MODEL]);
    event.response_model = attributes.name(&[keys::RESPONSE_MODEL]);
    event.provider = attributes
        .name(&[keys::PROVIDER, keys::SYSTEM])
        .map(|provider| canonical(&provider))
        .or_else(|| of_model(event.request_model.as_deref()?).map(str::to_owned));
    event.dialect = dialect(event, attributes);
    event.response_id = attributes.name(&[keys::RESPONSE_ID]);
    // LiteLLM puts its own call id where the provider gave none.
    if event.response_id == attributes.name(&[keys::LITELLM_CALL_ID]) {
        event.response_id = None;
    }
    event.upstream_request_id = attributes.name(&[keys::ANTHROPIC_REQUEST_ID]);
    let session = attributes.identifier(&[keys::GEN_AI_CONVERSATION_ID, keys::SESSION_ID]);
    event.session_id = session.map(|id| context.host.pseudonym("session", id));
    event.user =
        attributes.identifier(&[keys::USER_ID]).map(|id| context.host.pseudonym("user", id));
    event.service_tier = attributes
        .tier(keys::GEN_AI_TIER)
        .or_else(|| attributes.tier_within(keys::LITELLM_USAGE, "speed"))
        .or_else(|| attributes.tier_within(keys::LITELLM_USAGE, "service_tier"))
        .or_else(|| attributes.tier(keys::GEN_AI_TIER_ASKED));
    event.stream = attributes.flag(&[keys::REQUEST_STREAM, keys::LLM_IS_STREAMING]);
}

fn dialect(event: &LlmRequestCompleted, attributes: Attributes<'_>) -> Option<ApiFormat> {
    match (event.operation.as_deref(), event.provider.as_deref()) {
        (Some("embeddings"), _) => Some(ApiFormat::Embeddings),
        (Some("text_completion"), _) => Some(ApiFormat::Completions),
        (_, Some("anthropic")) => Some(ApiFormat::Messages),
        (_, Some("gcp.gemini" | "gcp.gen_ai" | "gcp.vertex_ai")) => Some(ApiFormat::Gemini),
        (_, Some("ollama")) => Some(ApiFormat::Ollama),
        _ if attributes.is(keys::OPENAI_API_TYPE, "responses") => Some(ApiFormat::Responses),
        _ if attributes.is(keys::OPENAI_API_TYPE, "chat_completions") => Some(ApiFormat::Chat),
        _ => None,
    }
}

fn outcome(event: &mut LlmRequestCompleted, attributes: Attributes<'_>, failed: bool) {
    event.http_status = attributes.small(&[keys::HTTP_STATUS_CODE]).filter(|status| *status > 0);
    event.error_type = attributes.name(&[keys::ERROR_TYPE]);
    event.finish_reason = attributes
        .first_name(keys::FINISH_REASONS)
        .or_else(|| attributes.name(&[keys::ANTHROPIC_STOP_REASON]));
    event.status = Some(match event.error_type.as_deref() {
        Some(error) if error.to_ascii_lowercase().contains("timeout") => RequestStatus::Timeout,
        Some(error) if error.contains("Cancelled") || error.contains("AbortError") => {
            RequestStatus::ClientAbort
        }
        Some(_) => RequestStatus::Error,
        None if failed || event.http_status.is_some_and(|status| status >= 400) => {
            RequestStatus::Error
        }
        None => RequestStatus::Ok,
    });
}

fn tokens(event: &mut LlmRequestCompleted, attributes: Attributes<'_>) -> Result<(), Refusal> {
    let or_litellm =
        |keys, names| Ok(attributes.count(keys)?.or_else(|| litellm(attributes, names)));
    let told = Told {
        input: attributes.count(keys::GEN_AI_INPUT)?,
        cache_read: or_litellm(
            keys::GEN_AI_CACHE_READ,
            &["cache_read_input_tokens", "cached_tokens"],
        )?,
        cache_write: or_litellm(
            keys::GEN_AI_CACHE_WRITE,
            &["cache_creation_input_tokens", "cache_creation_tokens", "cache_write_tokens"],
        )?,
        cache_write_5m: or_litellm(&[keys::ANTHROPIC_WRITE_5M], &["ephemeral_5m_input_tokens"])?,
        cache_write_1h: or_litellm(&[keys::ANTHROPIC_WRITE_1H], &["ephemeral_1h_input_tokens"])?,
        output: attributes.count(keys::GEN_AI_OUTPUT)?,
        reasoning: or_litellm(keys::GEN_AI_REASONING, &["reasoning_tokens"])?,
        ..Told::default()
    };
    told.settle(event);
    Ok(())
}

/// Returns a count of the caches or of reasoning that LiteLLM writes only in a text of its own.
fn litellm(attributes: Attributes<'_>, names: &[&str]) -> Option<u64> {
    names.iter().find_map(|name| attributes.count_within(keys::LITELLM_USAGE, name))
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::common::v1::KeyValue;

    use super::*;
    use crate::sources::{build::*, map_span};

    fn outcome_of(name: &str, attributes: &[KeyValue]) -> Outcome {
        let span = span(name, NOW_NS - 250_000_000, NOW_NS, attributes);
        with_context("program", "scope", |context| map_span(&span, context).2)
    }

    #[test]
    fn new_names_are_read() {
        let event = request_of(outcome_of(
            "chat gpt-5",
            &[
                attr("gen_ai.operation.name", text("chat")),
                attr("gen_ai.provider.name", text("openai")),
                attr("gen_ai.request.model", text("gpt-5")),
                attr("gen_ai.response.id", text("chatcmpl-1")),
                attr("gen_ai.request.stream", flag(true)),
                attr("gen_ai.usage.input_tokens", int(1200)),
                attr("gen_ai.usage.output_tokens", int(34)),
                attr("gen_ai.usage.cache_read.input_tokens", int(800)),
                attr("gen_ai.usage.reasoning.output_tokens", int(10)),
                attr("gen_ai.response.time_to_first_chunk", double(0.0302)),
                attr("openai.api.type", text("responses")),
            ],
        ))
        .event;
        assert_eq!(event.input_tokens, Some(1200));
        assert_eq!(event.cache_read_tokens, Some(800));
        assert_eq!(event.reasoning_tokens, Some(10));
        assert_eq!(event.ttft_ms, Some(30));
        assert_eq!(event.duration_ms, Some(250));
        assert_eq!(event.stream, Some(true));
        assert_eq!(event.dialect, Some(ApiFormat::Responses));
        assert_eq!(event.cache_write_5m_tokens, None);
    }

    #[test]
    fn old_names_are_read() {
        let event = request_of(outcome_of(
            "openai.chat",
            &[
                attr("llm.request.type", text("chat")),
                attr("gen_ai.system", text("Anthropic")),
                attr("gen_ai.usage.prompt_tokens", int(1200)),
                attr("gen_ai.usage.completion_tokens", int(34)),
                attr("gen_ai.usage.cache_read_input_tokens", int(500)),
                attr("gen_ai.usage.cache_creation.input_tokens", int(300)),
            ],
        ))
        .event;
        assert_eq!(event.provider.as_deref(), Some("anthropic"));
        assert_eq!(event.input_tokens, Some(1200));
        assert_eq!(event.output_tokens, Some(34));
        assert_eq!(event.cache_write_5m_tokens, Some(300));
    }

    #[test]
    fn a_provider_sdk_gives_both_ids_and_the_split() {
        let report = request_of(outcome_of(
            "anthropic.messages.create",
            &[
                attr("gen_ai.provider.name", text("anthropic")),
                attr("gen_ai.operation.name", text("chat")),
                attr("gen_ai.usage.input_tokens", int(1200)),
                attr("gen_ai.usage.cache_write.input_tokens", int(300)),
                attr("anthropic.usage.cache_creation.ephemeral_5m_input_tokens", int(100)),
                attr("anthropic.usage.cache_creation.ephemeral_1h_input_tokens", int(200)),
                attr("anthropic.request.id", text("req_1")),
                attr("gen_ai.response.id", text("msg_1")),
                attr("anthropic.message.stop_reason", text("end_turn")),
            ],
        ));
        assert_eq!(report.event.cache_write_5m_tokens, Some(100));
        assert_eq!(report.event.cache_write_1h_tokens, Some(200));
        assert_eq!(report.event.upstream_request_id.as_deref(), Some("req_1"));
        assert_eq!(report.event.response_id.as_deref(), Some("msg_1"));
        assert_eq!(report.event.finish_reason.as_deref(), Some("end_turn"));
    }

    #[test]
    fn an_input_smaller_than_its_cache_excludes_it() {
        let event = request_of(outcome_of(
            "chat m",
            &[
                attr("gen_ai.operation.name", text("chat")),
                attr("gen_ai.usage.input_tokens", int(400)),
                attr("gen_ai.usage.cache_read.input_tokens", int(500)),
            ],
        ))
        .event;
        assert_eq!(event.input_tokens, Some(900));
    }

    #[test]
    fn counts_are_found_under_every_name_that_reporters_use() {
        let event = |key: &str| {
            request_of(outcome_of(
                "chat m",
                &[
                    attr("gen_ai.operation.name", text("chat")),
                    attr("gen_ai.usage.input_tokens", int(130_213)),
                    attr("gen_ai.usage.output_tokens", int(100)),
                    attr(key, int(77)),
                ],
            ))
            .event
        };
        for key in keys::GEN_AI_CACHE_READ.iter().map(|key| key.as_str()) {
            assert_eq!(event(key).cache_read_tokens, Some(77), "{key}");
        }
        for key in keys::GEN_AI_CACHE_WRITE.iter().map(|key| key.as_str()) {
            assert_eq!(event(key).cache_write_5m_tokens, Some(77), "{key}");
        }
        for key in keys::GEN_AI_REASONING.iter().map(|key| key.as_str()) {
            assert_eq!(event(key).reasoning_tokens, Some(77), "{key}");
        }
        for key in [
            "gen_ai.usage.details.cache_read_tokens",
            "gen_ai.usage.details.cache_write_tokens",
            "gen_ai.usage.input_tokens.cached",
            "gen_ai.usage.prompt_tokens.cached",
            "gen_ai.usage.cached_tokens",
        ] {
            let event = event(key);
            let cached = [event.cache_read_tokens, event.cache_write_5m_tokens];
            assert_eq!(cached.into_iter().flatten().sum::<u64>(), 77, "{key}");
            assert_eq!(event.input_tokens, Some(130_213), "{key}");
        }
    }

    #[test]
    fn a_reasoning_above_the_output_is_added_to_it() {
        let event = request_of(outcome_of(
            "chat m",
            &[
                attr("gen_ai.operation.name", text("chat")),
                attr("gen_ai.usage.output_tokens", int(24)),
                attr("gen_ai.usage.reasoning.output_tokens", int(100)),
                attr("openai.response.service_tier", text("flex")),
                attr("operation.cost", double(0.25)),
            ],
        ))
        .event;
        assert_eq!((event.output_tokens, event.reasoning_tokens), (Some(124), Some(100)));
        assert_eq!(event.service_tier.as_deref(), Some("flex"));
        assert_eq!(event.cost_nano_usd, Some(250_000_000));
    }

    #[test]
    fn errors_have_a_kind() {
        let check = |error: &str, expected: RequestStatus| {
            let attributes =
                [attr("gen_ai.operation.name", text("chat")), attr("error.type", text(error))];
            let event = request_of(outcome_of("chat m", &attributes)).event;
            assert_eq!(event.status, Some(expected), "{error}");
            assert_eq!(event.error_type.as_deref(), Some(error));
        };
        check("openai.RateLimitError", RequestStatus::Error);
        check("openai.APITimeoutError", RequestStatus::Timeout);
        check("asyncio.CancelledError", RequestStatus::ClientAbort);
        let attributes = [attr("gen_ai.operation.name", text("chat"))];
        let span = failed(span("chat m", 1, NOW_NS, &attributes), "the prompt was: poem");
        let outcome = with_context("program", "scope", |context| map_span(&span, context).2);
        assert_eq!(request_of(outcome).event.status, Some(RequestStatus::Error));
    }

    #[test]
    fn only_calls_of_a_model_are_requests() {
        let check = |name: &str, attributes: &[KeyValue]| {
            let outcome = outcome_of(name, attributes);
            assert!(!matches!(outcome, Outcome::Request(_) | Outcome::Unknown), "{outcome:?}");
        };
        let usage = attr("gen_ai.usage.input_tokens", int(5));
        let operation = |name: &str| attr("gen_ai.operation.name", text(name));
        check("invoke_agent a", &[operation("invoke_agent"), usage.clone()]);
        check("execute_tool t", &[operation("execute_tool")]);
        check("llm_call", &[operation("llm_call")]);
        check("raw_gen_ai_request", &[]);
    }

    #[test]
    fn litellms_own_text_tells_of_caches_and_reasoning() {
        let event = |usage: &str| {
            let attributes = [
                attr("gen_ai.operation.name", text("chat")),
                attr("gen_ai.usage.input_tokens", int(1200)),
                attr("gen_ai.usage.output_tokens", int(34)),
                attr("metadata.usage_object", text(usage)),
            ];
            request_of(outcome_of("litellm_request", &attributes)).event
        };
        let anthropic = event(
            "{'prompt_tokens': 1200, 'completion_tokens_details': {'reasoning_tokens': 0}, \
             'prompt_tokens_details': {'audio_tokens': None, 'cached_tokens': 500, \
             'cache_creation_tokens': 300, 'cache_creation_token_details': \
             {'ephemeral_5m_input_tokens': 100, 'ephemeral_1h_input_tokens': 200}}, \
             'cache_creation_input_tokens': 300, 'cache_read_input_tokens': 500}",
        );
        assert_eq!(anthropic.input_tokens, Some(1200));
        assert_eq!(anthropic.cache_read_tokens, Some(500));
        assert_eq!(anthropic.cache_write_5m_tokens, Some(100));
        assert_eq!(anthropic.cache_write_1h_tokens, Some(200));
        assert_eq!(anthropic.reasoning_tokens, Some(0));
        let openai = event(
            "{\"completion_tokens_details\": {\"reasoning_tokens\": 10}, \
             \"prompt_tokens_details\": {\"cached_tokens\": 800, \"cache_write_tokens\": null}}",
        );
        assert_eq!(openai.cache_read_tokens, Some(800));
        assert_eq!(openai.reasoning_tokens, Some(10));
        assert_eq!(openai.cache_write_5m_tokens, None);
        let none = event("{'prompt_tokens_details': None}");
        assert_eq!((none.cache_read_tokens, none.reasoning_tokens), (None, None));
    }

    #[test]
    fn litellms_call_id_is_no_response_id() {
        let attributes = [
            attr("gen_ai.operation.name", text("chat")),
            attr("gen_ai.response.id", text("bc9c2233")),
            attr("litellm.call_id", text("bc9c2233")),
        ];
        assert_eq!(request_of(outcome_of("litellm_request", &attributes)).event.response_id, None);
    }
}
