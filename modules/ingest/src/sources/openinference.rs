//! Spans by the OpenInference conventions: kind `LLM` (or `EMBEDDING`) is a request.

use module_sdk::events::{CostSource, RequestStatus};

use super::{
    Context, Outcome, Refusal, SpanRecord,
    counts::Told,
    keys,
    providers::{canonical, of_model},
    shape::from_span,
};
use crate::report::Report;

/// Maps a span.
pub(crate) fn map_span(record: &SpanRecord<'_>, context: &Context<'_>) -> Outcome {
    let embeds = record.attributes.is(keys::OPENINFERENCE_KIND, "EMBEDDING");
    if !embeds && !record.attributes.is(keys::OPENINFERENCE_KIND, "LLM") {
        return Outcome::Ignored("not a model request");
    }
    request(record, embeds, context).into()
}

fn request(
    record: &SpanRecord<'_>,
    embeds: bool,
    context: &Context<'_>,
) -> Result<Report, Refusal> {
    let attributes = record.attributes;
    let mut report = from_span(record, context);
    let event = &mut report.event;
    let told = Told {
        input: attributes.count(&[keys::LLM_PROMPT_TOKENS])?,
        cache_read: attributes.count(&[keys::LLM_CACHE_READ])?,
        cache_write: attributes.count(&[keys::LLM_CACHE_WRITE])?,
        output: attributes.count(&[keys::LLM_COMPLETION_TOKENS])?,
        reasoning: attributes.count(&[keys::LLM_REASONING])?,
        ..Told::default()
    };
    told.settle(event);
    event.operation = Some(if embeds { "embeddings" } else { "chat" }.to_owned());
    event.request_model = attributes.name(&[keys::LLM_MODEL_NAME, keys::EMBEDDING_MODEL]);
    event.cost_nano_usd = attributes.usd(&[keys::LLM_COST])?;
    event.cost_source = event.cost_nano_usd.map(|_| CostSource::Client);
    event.response_model.clone_from(&event.request_model);
    event.provider = attributes
        .name(&[keys::LLM_PROVIDER, keys::LLM_SYSTEM])
        .map(|provider| canonical(&provider))
        .or_else(|| of_model(event.request_model.as_deref()?).map(str::to_owned));
    let session = attributes.identifier(&[keys::SESSION_ID]);
    event.session_id = session.map(|id| context.host.pseudonym("session", id));
    let failed = record.span.status.as_ref().is_some_and(|status| status.code == 2);
    event.status = Some(if failed { RequestStatus::Error } else { RequestStatus::Ok });
    Ok(report)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources::{build::*, map_span};

    #[test]
    fn counts_follow_the_common_rules() {
        let attributes = [
            attr("openinference.span.kind", text("LLM")),
            attr("llm.model_name", text("claude-sonnet-4-5")),
            attr("llm.token_count.prompt", int(3)),
            attr("llm.token_count.completion", int(4)),
            attr("llm.token_count.prompt_details.cache_read", int(17_024)),
            attr("llm.token_count.prompt_details.cache_write", int(310)),
            attr("llm.token_count.completion_details.reasoning", int(9)),
            attr("llm.cost.total", double(0.5)),
        ];
        let embedding = [
            attr("openinference.span.kind", text("EMBEDDING")),
            attr("embedding.model_name", text("text-embedding-3-large")),
            attr("llm.token_count.prompt", int(28)),
        ];
        with_context("program", "openinference.instrumentation.x", |context| {
            let event =
                request_of(map_span(&span("query", 1, NOW_NS, &attributes), context).2).event;
            assert_eq!((event.input_tokens, event.output_tokens), (Some(17_337), Some(13)));
            assert_eq!(event.cost_nano_usd, Some(500_000_000));
            let event =
                request_of(map_span(&span("embed", 1, NOW_NS, &embedding), context).2).event;
            assert_eq!(event.input_tokens, Some(28));
            assert_eq!(event.request_model.as_deref(), Some("text-embedding-3-large"));
        });
    }

    #[test]
    fn only_spans_of_kind_llm_are_requests() {
        let attributes = [
            attr("openinference.span.kind", text("LLM")),
            attr("llm.model_name", text("gpt-5")),
            attr("llm.token_count.prompt", int(1200)),
            attr("llm.token_count.completion", int(34)),
            attr("llm.token_count.prompt_details.cache_read", int(800)),
            attr("input.value", text("secret words")),
        ];
        with_context("program", "openinference.instrumentation.openai", |context| {
            let request = span("ChatCompletion", 1, NOW_NS, &attributes);
            let event = request_of(map_span(&request, context).2).event;
            assert_eq!(event.input_tokens, Some(1200));
            assert_eq!(event.cache_read_tokens, Some(800));
            assert_eq!(event.provider.as_deref(), Some("openai"));
            let chain = [attr("openinference.span.kind", text("CHAIN"))];
            let outcome = map_span(&span("Chain", 1, 2, &chain), context).2;
            assert!(matches!(outcome, Outcome::Ignored(_)));
        });
    }
}
