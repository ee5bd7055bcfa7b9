//! Spans of the AI SDK for JavaScript, as opencode sends them.
//!
//! `ai.streamText` repeats the usage of its child `ai.streamText.doStream`, which is the request.

use module_sdk::events::RequestStatus;
use opentelemetry_proto::tonic::trace::v1::Span;

use super::{
    Context, Outcome, Refusal, SpanRecord, counts::Told, keys, providers::canonical,
    shape::from_span,
};
use crate::report::Report;

/// Returns whether the span is the AI SDK's.
pub(crate) fn owns(span: &Span) -> bool {
    span.name.starts_with("ai.")
}

/// Maps a span.
pub(crate) fn map_span(record: &SpanRecord<'_>, context: &Context<'_>) -> Outcome {
    let name = record.span.name.split_whitespace().next().unwrap_or_default();
    if name.ends_with(".doStream") || name.ends_with(".doGenerate") || name.ends_with(".doEmbed") {
        request(record, name, context).into()
    } else if name == "ai.toolCall" {
        Outcome::Ignored("not a model request")
    } else {
        Outcome::Repeats("its child span reports the same call")
    }
}

fn request(record: &SpanRecord<'_>, name: &str, context: &Context<'_>) -> Result<Report, Refusal> {
    let attributes = record.attributes;
    let mut report = from_span(record, context);
    let hidden = |names: &[&str]| {
        names.iter().find_map(|name| attributes.count_within(keys::AI_PROVIDER_METADATA, name))
    };
    let told = Told {
        input: attributes.count(&[
            keys::AI_INPUT_TOKENS,
            keys::AI_PROMPT_TOKENS,
            keys::AI_TOKENS,
            keys::USAGE_INPUT,
        ])?,
        cache_read: attributes
            .count(&[keys::AI_CACHE_READ, keys::AI_CACHED_INPUT, keys::AI_CACHED_PROMPT])?
            .or_else(|| hidden(&["cacheReadInputTokens", "cachedPromptTokens"])),
        cache_write: attributes
            .count(&[keys::AI_CACHE_WRITE])?
            .or_else(|| hidden(&["cacheCreationInputTokens"])),
        output: attributes.count(&[
            keys::AI_OUTPUT_TOKENS,
            keys::AI_COMPLETION_TOKENS,
            keys::USAGE_OUTPUT,
        ])?,
        reasoning: attributes.count(&[keys::AI_REASONING, keys::AI_REASONING_OLD])?,
        ..Told::default()
    };
    told.settle(&mut report.event);
    identify(&mut report, record, name, context);
    Ok(report)
}

fn identify(report: &mut Report, record: &SpanRecord<'_>, name: &str, context: &Context<'_>) {
    let attributes = record.attributes;
    let event = &mut report.event;
    let embeds = name.ends_with(".doEmbed");
    event.operation = Some(if embeds { "embeddings" } else { "chat" }.to_owned());
    event.stream = Some(name.ends_with(".doStream"));
    event.provider = attributes
        .name(&[keys::AI_MODEL_PROVIDER, keys::SYSTEM])
        .map(|provider| canonical(&provider));
    event.request_model = attributes.name(&[keys::AI_MODEL_ID, keys::REQUEST_MODEL]);
    event.response_model = attributes.name(&[keys::AI_RESPONSE_MODEL, keys::RESPONSE_MODEL]);
    event.service_tier = attributes
        .tier(&[keys::SERVICE_TIER])
        .or_else(|| attributes.tier_within(keys::AI_PROVIDER_METADATA, "serviceTier"));
    event.response_id = attributes.name(&[keys::AI_RESPONSE_ID, keys::RESPONSE_ID]);
    event.finish_reason = attributes.name(&[keys::AI_FINISH_REASON]);
    event.ttft_ms = attributes.milliseconds(&[keys::AI_MS_TO_FIRST_CHUNK]);
    let session = attributes.identifier(&[keys::SESSION_ID, keys::AI_SESSION_ID]);
    event.session_id = session.map(|id| context.host.pseudonym("session", id));
    let failed = record.span.status.as_ref().is_some_and(|status| status.code == 2);
    event.status = Some(if failed { RequestStatus::Error } else { RequestStatus::Ok });
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::common::v1::KeyValue;

    use super::*;
    use crate::sources::{build::*, map_span};

    #[test]
    fn embeddings_and_hidden_counts_are_read() {
        let event = |name: &str, attributes: &[KeyValue]| {
            with_context("app", "ai", |context| {
                request_of(map_span(&span(name, 1, NOW_NS, attributes), context).2).event
            })
        };
        let tokens = attr("ai.usage.tokens", int(28));
        for name in ["ai.embed.doEmbed", "ai.embedMany.doEmbed titles"] {
            let event = event(name, std::slice::from_ref(&tokens));
            assert_eq!(event.input_tokens, Some(28), "{name}");
            assert_eq!(event.operation.as_deref(), Some("embeddings"), "{name}");
        }
        let metadata = "{\"anthropic\":{\"cacheCreationInputTokens\":310,\
                        \"cacheReadInputTokens\":17024},\"openai\":{\"serviceTier\":\"flex\"}}";
        let event = event(
            "ai.generateText.doGenerate",
            &[
                attr("ai.usage.promptTokens", int(3)),
                attr("ai.usage.completionTokens", int(4)),
                attr("ai.usage.reasoningTokens", int(9)),
                attr("ai.response.providerMetadata", text(metadata)),
            ],
        );
        assert_eq!((event.input_tokens, event.output_tokens), (Some(17_337), Some(13)));
        assert_eq!(event.cache_write_5m_tokens, Some(310));
        assert_eq!(event.service_tier.as_deref(), Some("flex"));
    }

    #[test]
    fn the_inner_span_is_the_request_and_the_outer_repeats() {
        let attributes = [
            attr("ai.model.provider", text("openai.chat")),
            attr("ai.model.id", text("gpt-5")),
            attr("ai.prompt.messages", text("secret words")),
            attr("session.id", text("ses_1")),
            attr("ai.response.id", text("chatcmpl-1")),
            attr("ai.response.msToFirstChunk", double(35.15)),
            attr("ai.usage.inputTokens", int(1200)),
            attr("ai.usage.inputTokenDetails.cacheReadTokens", int(800)),
            attr("ai.usage.outputTokens", int(34)),
            attr("ai.usage.outputTokenDetails.reasoningTokens", int(10)),
        ];
        with_context("opencode", "opencode", |context| {
            let inner = span("ai.streamText.doStream", 1, NOW_NS, &attributes);
            let event = request_of(map_span(&inner, context).2).event;
            assert_eq!(event.input_tokens, Some(1200));
            assert_eq!(event.output_tokens, Some(34));
            assert_eq!(event.cache_read_tokens, Some(800));
            assert_eq!(event.ttft_ms, Some(35));
            assert_eq!(event.provider.as_deref(), Some("openai"));
            assert_eq!(event.client.as_deref(), Some("opencode"));
            let outer = span("ai.streamText", 1, NOW_NS, &attributes);
            assert!(matches!(map_span(&outer, context).2, Outcome::Repeats(_)));
        });
    }
}
