//! Claude Code: the log record `claude_code.api_request`, its errors, and the spans (beta).
//!
//! Its `input_tokens` exclude the cache, so reads and writes are added. One reply is one log
//! record and, with tracing on, one span `claude_code.llm_request` under the same request id.

use module_sdk::events::{ApiFormat, CostSource, LlmRequestCompleted, RequestStatus};

use super::{
    Attributes, Context, Log, Outcome, Refusal, SpanRecord,
    counts::{Told, counted},
    keys,
    providers::canonical,
    shape::{from_log, from_span, lasted},
};
use crate::report::Report;

/// Returns whether the instrumentation is Claude Code's own.
pub(crate) fn owns(context: &Context<'_>) -> bool {
    context.scope.0.starts_with("com.anthropic.claude_code")
}

/// Maps a log record.
pub(crate) fn map_log(log: &Log<'_>, context: &Context<'_>) -> Outcome {
    match log.name.trim_start_matches("claude_code.") {
        "api_request" => request(log, context).into(),
        "api_error" => error(log, context).into(),
        // Logged beside the last `api_error`, which is counted.
        "api_retries_exhausted" => Outcome::Repeats("api_error reports the same request"),
        _ => Outcome::Ignored("not a model request"),
    }
}

/// Maps a span.
pub(crate) fn map_span(record: &SpanRecord<'_>, context: &Context<'_>) -> Outcome {
    if record.span.name != "claude_code.llm_request" {
        return Outcome::Ignored("not a model request");
    }
    llm_request(record, context).into()
}

impl From<Result<Report, Refusal>> for Outcome {
    fn from(result: Result<Report, Refusal>) -> Self {
        match result {
            Ok(report) => Self::Request(Box::new(report)),
            Err(refusal) => Self::Refused(refusal),
        }
    }
}

fn request(log: &Log<'_>, context: &Context<'_>) -> Result<Report, Refusal> {
    let mut report = from_log(log, context);
    identify(&mut report.event, log.attributes, context);
    tokens(&mut report.event, log.attributes)?;
    let event = &mut report.event;
    event.status = Some(RequestStatus::Ok);
    event.ttft_ms = log.attributes.milliseconds(&[keys::TTFT_MS]);
    lasted(event, log.attributes.milliseconds(&[keys::DURATION_MS]));
    cost(event, log.attributes)?;
    Ok(report)
}

fn error(log: &Log<'_>, context: &Context<'_>) -> Result<Report, Refusal> {
    let mut report = from_log(log, context);
    identify(&mut report.event, log.attributes, context);
    let event = &mut report.event;
    event.http_status =
        log.attributes.small(&[keys::STATUS_CODE, keys::HTTP_STATUS_CODE]).filter(|code| *code > 0);
    event.status = Some(RequestStatus::Error);
    // The attribute `error` is a sentence and may quote the request.
    event.error_type = log
        .attributes
        .name(&[keys::ERROR_TYPE])
        .or_else(|| event.http_status.map(|code| code.to_string()));
    lasted(event, log.attributes.milliseconds(&[keys::DURATION_MS]));
    counted(event);
    Ok(report)
}

fn llm_request(record: &SpanRecord<'_>, context: &Context<'_>) -> Result<Report, Refusal> {
    let attributes = record.attributes;
    let mut report = from_span(record, context);
    identify(&mut report.event, attributes, context);
    tokens(&mut report.event, attributes)?;
    let event = &mut report.event;
    // It calls the request id a response id.
    if event.upstream_request_id.is_none() {
        event.upstream_request_id = attributes.name(&[keys::RESPONSE_ID]);
    }
    event.http_status = attributes.small(&[keys::STATUS_CODE, keys::HTTP_STATUS_CODE]);
    let failed = record.span.status.as_ref().is_some_and(|status| status.code == 2)
        || attributes.flag(&[keys::SUCCESS]) == Some(false)
        || event.http_status.is_some_and(|code| code >= 400);
    event.status = Some(if failed { RequestStatus::Error } else { RequestStatus::Ok });
    event.finish_reason = attributes.name(&[keys::STOP_REASON]);
    event.ttft_ms = attributes.milliseconds(&[keys::TTFT_MS, keys::FIRST_CONTENT_MS]);
    if let Some(duration) = attributes.milliseconds(&[keys::DURATION_MS]) {
        lasted(event, Some(duration));
    }
    Ok(report)
}

fn identify(event: &mut LlmRequestCompleted, attributes: Attributes<'_>, context: &Context<'_>) {
    let pseudonym = |kind: &str, id: &str| context.host.pseudonym(kind, id);
    event.client = Some("claude-code".to_owned());
    event.session_id =
        attributes.identifier(&[keys::SESSION_ID]).map(|id| pseudonym("session", id));
    event.turn_id = attributes.identifier(&[keys::PROMPT_ID]).map(|id| pseudonym("turn", id));
    event.user = attributes.identifier(&[keys::USER_ID]).map(|id| pseudonym("user", id));
    event.provider = Some(
        attributes
            .name(&[keys::ANTHROPIC_PROVIDER])
            .map_or_else(|| "anthropic".to_owned(), |provider| canonical(&provider)),
    );
    event.dialect = Some(ApiFormat::Messages);
    event.operation = Some("chat".to_owned());
    event.request_model = attributes.name(&[keys::MODEL, keys::REQUEST_MODEL]);
    event.response_model.clone_from(&event.request_model);
    event.upstream_request_id = attributes.name(&[keys::REQUEST_ID, keys::ANTHROPIC_REQUEST_ID]);
    event.service_tier = attributes.tier(&[keys::SPEED, keys::SERVICE_TIER]);
    event.attempt = attributes.small(&[keys::ATTEMPT]).filter(|attempt| *attempt > 0);
}

fn tokens(event: &mut LlmRequestCompleted, attributes: Attributes<'_>) -> Result<(), Refusal> {
    let told = Told {
        input: attributes.count(&[keys::INPUT_TOKENS])?,
        cache_read: attributes.count(&[keys::CACHE_READ_TOKENS])?,
        cache_write: attributes.count(&[keys::CACHE_CREATION_TOKENS])?,
        cache_write_5m: attributes.count(&[keys::CACHE_CREATION_5M_TOKENS])?,
        cache_write_1h: attributes.count(&[keys::CACHE_CREATION_1H_TOKENS])?,
        output: attributes.count(&[keys::OUTPUT_TOKENS])?,
        input_excludes_cache: true,
        ..Told::default()
    };
    told.settle(event);
    Ok(())
}

fn cost(event: &mut LlmRequestCompleted, attributes: Attributes<'_>) -> Result<(), Refusal> {
    let micros = attributes.count(&[keys::COST_USD_MICROS])?;
    let from_micros = micros.and_then(|micros| i64::try_from(micros).ok()?.checked_mul(1000));
    event.cost_nano_usd = attributes.usd(&[keys::COST_USD])?.or(from_micros);
    event.cost_source = event.cost_nano_usd.map(|_| CostSource::Client);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources::{build::*, map_log, map_span};
    use opentelemetry_proto::tonic::common::v1::KeyValue;

    const SCOPE: &str = "com.anthropic.claude_code.events";

    fn request_attributes(more: &[KeyValue]) -> Vec<KeyValue> {
        let mut attributes = vec![
            attr("event.name", text("api_request")),
            attr("session.id", text("bd74aaac")),
            attr("user.id", text("5af01934")),
            attr("model", text("claude-sonnet-4-5")),
            attr("input_tokens", int(400)),
            attr("output_tokens", int(34)),
            attr("cache_read_tokens", int(500)),
            attr("cache_creation_tokens", int(300)),
            attr("cost_usd", double(0.003_435)),
            attr("duration_ms", int(487)),
            attr("ttft_ms", int(24)),
            attr("request_id", text("req_1")),
        ];
        for attribute in more {
            attributes.retain(|known| known.key != attribute.key);
            attributes.push(attribute.clone());
        }
        attributes
    }

    fn mapped(more: &[KeyValue]) -> Outcome {
        let record = log(NOW_NS, &request_attributes(more));
        with_context("claude-code", SCOPE, |context| map_log(&record, context).2)
    }

    #[test]
    fn the_cache_is_part_of_the_input() {
        let split = [
            attr("cache_creation_5m_tokens", int(100)),
            attr("cache_creation_1h_tokens", int(200)),
        ];
        let report = request_of(mapped(&split));
        let event = &report.event;
        assert_eq!(event.input_tokens, Some(1200));
        assert_eq!(event.cache_read_tokens, Some(500));
        assert_eq!(event.cache_write_5m_tokens, Some(100));
        assert_eq!(event.cache_write_1h_tokens, Some(200));
        assert_eq!(event.output_tokens, Some(34));
        assert_eq!(event.cost_nano_usd, Some(3_435_000));
        assert_eq!(event.cost_source, Some(CostSource::Client));
        assert_eq!(event.started_at, event.ended_at - 487);
        assert_eq!(event.upstream_request_id.as_deref(), Some("req_1"));
        assert!(event.session_id.as_deref().is_some_and(|id| id.starts_with("session_")));
    }

    #[test]
    fn a_cache_write_without_split_is_for_five_minutes() {
        let report = request_of(mapped(&[]));
        assert_eq!(report.event.input_tokens, Some(1200));
        assert_eq!(report.event.cache_write_5m_tokens, Some(300));
        assert_eq!(report.event.cache_write_1h_tokens, None, "nobody told");
    }

    #[test]
    fn parts_of_a_cache_write_never_exceed_its_total() {
        let told = [
            attr("input_tokens", int(67)),
            attr("cache_read_tokens", int(0)),
            attr("cache_creation_tokens", int(46_318)),
            attr("cache_creation_5m_tokens", int(46_318)),
            attr("cache_creation_1h_tokens", int(46_318)),
        ];
        let event = request_of(mapped(&told)).event;
        assert_eq!(event.input_tokens, Some(46_385));
        assert_eq!(event.cache_write_5m_tokens, Some(46_318));
        assert_eq!(event.cache_write_1h_tokens, None, "nobody knows");
    }

    #[test]
    fn the_speed_is_told() {
        let tier =
            |speed: &str| request_of(mapped(&[attr("speed", text(speed))])).event.service_tier;
        assert_eq!(tier("fast").as_deref(), Some("fast"));
        assert_eq!(tier("normal").as_deref(), Some("standard"));
        assert_eq!(tier("").as_deref(), None);
    }

    #[test]
    fn what_is_unknown_stays_unknown() {
        let record = log(NOW_NS, &[attr("event.name", text("api_request"))]);
        let outcome = with_context("claude-code", SCOPE, |context| map_log(&record, context).2);
        let event = request_of(outcome).event;
        assert_eq!(event.input_tokens, None);
        assert_eq!(event.cost_nano_usd, None);
        assert_eq!(event.cost_source, None);
        assert_eq!(event.duration_ms, None);
    }

    #[test]
    fn absurd_numbers_are_refused_with_their_field() {
        let check = |attribute: KeyValue, expected: &str| match mapped(&[attribute]) {
            Outcome::Refused(refusal) => assert_eq!(refusal.to_string(), expected),
            other => panic!("not refused: {other:?}"),
        };
        check(attr("input_tokens", int(-1)), "input_tokens is negative");
        check(attr("output_tokens", double(f64::NAN)), "output_tokens is not a finite number");
        check(attr("cost_usd", double(-1.0)), "cost_usd is negative");
        check(attr("cache_read_tokens", int(i64::MAX)), "cache_read_tokens is absurdly large");
    }

    #[test]
    fn an_error_is_one_request_and_its_summary_none() {
        let error = [
            attr("event.name", text("api_error")),
            attr("status_code", int(529)),
            attr("attempt", int(3)),
            attr("error", text("Overloaded: please write a poem")),
            attr("model", text("claude-sonnet-4-5")),
        ];
        let exhausted = [attr("event.name", text("api_retries_exhausted"))];
        with_context("claude-code", SCOPE, |context| {
            let event = request_of(map_log(&log(NOW_NS, &error), context).2).event;
            assert_eq!(event.status, Some(RequestStatus::Error));
            assert_eq!(event.http_status, Some(529));
            assert_eq!(event.error_type.as_deref(), Some("529"));
            assert_eq!(event.attempt, Some(3));
            assert_eq!(event.input_tokens, None);
            let outcome = map_log(&log(NOW_NS, &exhausted), context).2;
            assert!(matches!(outcome, Outcome::Repeats(_)));
        });
    }

    #[test]
    fn the_span_carries_the_request_id_of_the_log() {
        let attributes = [
            attr("model", text("claude-sonnet-4-5")),
            attr("input_tokens", int(400)),
            attr("output_tokens", int(34)),
            attr("cache_read_tokens", int(500)),
            attr("cache_creation_tokens", int(300)),
            attr("gen_ai.response.id", text("req_1")),
            attr("stop_reason", text("end_turn")),
        ];
        let span = span("claude_code.llm_request", NOW_NS - 400_000_000, NOW_NS, &attributes);
        let outcome = with_context("claude-code", "com.anthropic.claude_code.tracing", |context| {
            map_span(&span, context).2
        });
        let event = request_of(outcome).event;
        assert_eq!(event.upstream_request_id.as_deref(), Some("req_1"));
        assert_eq!(event.response_id, None);
        assert_eq!(event.input_tokens, Some(1200));
        assert_eq!(event.duration_ms, Some(400));
    }

    #[test]
    fn other_records_are_known_and_no_requests() {
        let check = |event: &str| {
            let record = log(NOW_NS, &[attr("event.name", text(event))]);
            let outcome = with_context("claude-code", SCOPE, |context| map_log(&record, context).2);
            assert_eq!(outcome, Outcome::Ignored("not a model request"), "{event}");
        };
        check("user_prompt");
        check("assistant_response");
        check("tool_result");
    }
}
