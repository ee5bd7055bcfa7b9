//! Gemini CLI: the log record `gemini_cli.api_response` and its errors.
//!
//! Its input count includes the cache; its output count excludes the thoughts, which are added.

use module_sdk::events::{ApiFormat, LlmRequestCompleted, RequestStatus};

use super::{
    Attributes, Context, Log, Outcome, Refusal, SpanRecord,
    counts::{Told, counted},
    keys,
    shape::{from_log, lasted},
};
use crate::report::Report;

/// Returns whether the instrumentation is Gemini CLI's own.
pub(crate) fn owns(context: &Context<'_>) -> bool {
    context.scope.0 == "gemini-cli"
}

/// Maps a log record.
pub(crate) fn map_log(log: &Log<'_>, context: &Context<'_>) -> Outcome {
    match log.name.as_ref() {
        "gemini_cli.api_response" => response(log, context).into(),
        "gemini_cli.api_error" => Outcome::Request(Box::new(error(log, context))),
        "gen_ai.client.inference.operation.details" => {
            Outcome::Repeats("gemini_cli.api_response reports the same call")
        }
        _ => Outcome::Ignored("not a model request"),
    }
}

/// Maps a span: no span holds counts.
pub(crate) fn map_span(record: &SpanRecord<'_>, _: &Context<'_>) -> Outcome {
    match record.span.name.as_str() {
        "llm_call" => Outcome::Repeats("gemini_cli.api_response reports the same call"),
        _ => Outcome::Ignored("not a model request"),
    }
}

fn response(log: &Log<'_>, context: &Context<'_>) -> Result<Report, Refusal> {
    let mut report = from_log(log, context);
    let attributes = log.attributes;
    identify(&mut report.event, attributes, context);
    let event = &mut report.event;
    event.status = Some(RequestStatus::Ok);
    let told = Told {
        input: attributes.count(&[keys::INPUT_TOKEN_COUNT])?,
        cache_read: attributes.count(&[keys::CACHED_CONTENT_TOKEN_COUNT])?,
        output: attributes.count(&[keys::OUTPUT_TOKEN_COUNT])?,
        reasoning: attributes.count(&[keys::THOUGHTS_TOKEN_COUNT])?,
        output_excludes_reasoning: true,
        ..Told::default()
    };
    told.settle(event);
    Ok(report)
}

fn error(log: &Log<'_>, context: &Context<'_>) -> Report {
    let mut report = from_log(log, context);
    identify(&mut report.event, log.attributes, context);
    let event = &mut report.event;
    event.status = Some(RequestStatus::Error);
    event.error_type = log
        .attributes
        .name(&[keys::ERROR_TYPE])
        .or_else(|| event.http_status.map(|status| status.to_string()));
    counted(event);
    report
}

fn identify(event: &mut LlmRequestCompleted, attributes: Attributes<'_>, context: &Context<'_>) {
    let pseudonym = |kind: &str, id: &str| context.host.pseudonym(kind, id);
    event.client = Some("gemini-cli".to_owned());
    // It reports the version of its JavaScript runtime as its own.
    event.client_version = None;
    event.provider = Some("gcp.gemini".to_owned());
    event.dialect = Some(ApiFormat::Gemini);
    event.operation = Some("generate_content".to_owned());
    event.session_id =
        attributes.identifier(&[keys::SESSION_ID]).map(|id| pseudonym("session", id));
    event.turn_id =
        attributes.identifier(&[keys::PROMPT_ID_GEMINI]).map(|id| pseudonym("turn", id));
    event.request_model = attributes.name(&[keys::MODEL]);
    event.response_model.clone_from(&event.request_model);
    event.http_status =
        attributes.small(&[keys::STATUS_CODE, keys::HTTP_STATUS_CODE_OLD]).filter(|code| *code > 0);
    lasted(event, attributes.milliseconds(&[keys::DURATION_MS]));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources::{build::*, map_log, map_span};

    #[test]
    fn thoughts_are_part_of_the_output() {
        let attributes = [
            attr("event.name", text("gemini_cli.api_response")),
            attr("session.id", text("c7d94f54")),
            attr("model", text("gemini-2.5-pro")),
            attr("duration_ms", int(564)),
            attr("input_token_count", int(1200)),
            attr("output_token_count", int(24)),
            attr("cached_content_token_count", int(800)),
            attr("thoughts_token_count", int(10)),
            attr("total_token_count", int(1234)),
            attr("status_code", int(200)),
        ];
        let record = log(NOW_NS, &attributes);
        let outcome =
            with_context("gemini-cli", "gemini-cli", |context| map_log(&record, context).2);
        let event = request_of(outcome).event;
        assert_eq!(event.input_tokens, Some(1200));
        assert_eq!(event.output_tokens, Some(34));
        assert_eq!(event.reasoning_tokens, Some(10));
        assert_eq!(event.cache_read_tokens, Some(800));
        assert_eq!(event.duration_ms, Some(564));
    }

    #[test]
    fn one_call_is_counted_once() {
        let details = [attr("event.name", text("gen_ai.client.inference.operation.details"))];
        let error =
            [attr("event.name", text("gemini_cli.api_error")), attr("status_code", int(429))];
        with_context("gemini-cli", "gemini-cli", |context| {
            let outcome = map_log(&log(NOW_NS, &details), context).2;
            assert!(matches!(outcome, Outcome::Repeats(_)));
            let outcome = map_span(&span("llm_call", 1, 2, &[]), context).2;
            assert!(matches!(outcome, Outcome::Repeats(_)));
            let event = request_of(map_log(&log(NOW_NS, &error), context).2).event;
            assert_eq!(event.status, Some(RequestStatus::Error));
            assert_eq!(event.error_type.as_deref(), Some("429"));
        });
    }
}
