//! Codex: the log record `codex.sse_event` of kind `response.completed` that holds counts, failed
//! attempts, and the span `handle_responses`.
//!
//! Its input counts include the cache; some counts are text; `timeUnixNano` is 0. There is no
//! request or response id, so log and span are correlated by what they have in common.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use module_sdk::events::{ApiFormat, LlmRequestCompleted, RequestStatus};
use opentelemetry_proto::tonic::trace::v1::Span;

use super::{
    Attributes, Context, Log, Outcome, Refusal, SpanRecord,
    counts::{Told, counted},
    keys,
    shape::{from_log, from_span, lasted, to_ms},
};
use crate::report::Report;

/// Returns whether the record comes from Codex.
pub(crate) fn owns(context: &Context<'_>) -> bool {
    let service = context.resource.name(&[keys::SERVICE_NAME]).unwrap_or_default();
    context.scope.0.starts_with("codex") || service.starts_with("codex")
}

/// The data that records of Codex need of each other: a span of the model call has neither its
/// model nor its conversation, and the end of an answer does not say when the request was sent.
#[derive(Debug, Default)]
pub(crate) struct Conversations(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    /// The trace of each trace id.
    traces: HashMap<Vec<u8>, Trace>,
    /// Time when the last request of each conversation was sent, in nanoseconds since the Unix
    /// epoch.
    sent: HashMap<String, u64>,
}

#[derive(Debug, Default, Clone)]
struct Trace {
    conversation: Option<String>,
    model: Option<String>,
    turn: Option<String>,
}

/// Largest number of traces and of conversations that are remembered; beyond it all are forgotten,
/// so that some answers lack their duration and their session.
const REMEMBERED: usize = 4096;

impl Conversations {
    /// Learns from a span of such a scope before those of its body are mapped: a parent arrives
    /// after its children.
    pub(crate) fn learn(&self, scope: &str, span: &Span) {
        if scope.starts_with("codex") {
            self.known().learn(span);
        }
    }

    fn trace(&self, id: &[u8]) -> Trace {
        self.known().traces.get(id).cloned().unwrap_or_default()
    }

    fn sent(&self, conversation: &str, at_ns: u64) {
        let mut known = self.known();
        if known.sent.len() >= REMEMBERED {
            known.sent.clear();
        }
        known.sent.insert(conversation.to_owned(), at_ns);
    }

    fn take_sent(&self, conversation: &str) -> Option<u64> {
        self.known().sent.remove(conversation)
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn learn(&mut self, span: &Span) {
        let attributes = Attributes::new(&span.attributes);
        // Other spans name models too, of which some are only looked at.
        let model = match span.name.as_str() {
            "session_task.turn" | "run_sampling_request" | "try_run_sampling_request" => {
                attributes.name(&[keys::MODEL])
            }
            name if name.starts_with("model_client.stream") => attributes.name(&[keys::MODEL]),
            _ => None,
        };
        let conversation = attributes.identifier(&[keys::CONVERSATION_ID]);
        let turn = attributes.identifier(&[keys::TURN_ID]);
        if model.is_none() && conversation.is_none() && turn.is_none() {
            return;
        }
        if self.traces.len() >= REMEMBERED && !self.traces.contains_key(&span.trace_id) {
            self.traces.clear();
        }
        let trace = self.traces.entry(span.trace_id.clone()).or_default();
        trace.model = model.or(trace.model.take());
        trace.conversation = conversation.map(str::to_owned).or(trace.conversation.take());
        trace.turn = turn.map(str::to_owned).or(trace.turn.take());
    }
}

/// Maps a log record.
pub(crate) fn map_log(log: &Log<'_>, context: &Context<'_>) -> Outcome {
    match log.name.trim_start_matches("codex.") {
        "sse_event" => sse_event(log, context),
        "api_request" => api_request(log, context),
        _ => Outcome::Ignored("not a model request"),
    }
}

/// Maps a span.
pub(crate) fn map_span(record: &SpanRecord<'_>, context: &Context<'_>) -> Outcome {
    let attributes = record.attributes;
    if record.span.name != "handle_responses" || !attributes.has(keys::USAGE_OUTPUT) {
        return Outcome::Ignored("not a model request");
    }
    handle_responses(record, context).into()
}

fn sse_event(log: &Log<'_>, context: &Context<'_>) -> Outcome {
    let attributes = log.attributes;
    let completed = attributes.is(keys::EVENT_KIND, "response.completed");
    let failed = attributes.is(keys::EVENT_KIND, "response.failed");
    if completed && attributes.has(keys::INPUT_TOKEN_COUNT) {
        response_completed(log, context).into()
    } else if failed && log_has_error(log) {
        Outcome::Request(Box::new(failure(log, context)))
    } else if completed && log_has_error(log) {
        // Codex could not read it, so nobody else tells of this answer.
        let mut report = failure(log, context);
        report.event.error_type = Some("unreadable_completion".to_owned());
        Outcome::Request(Box::new(report))
    } else if completed || failed {
        Outcome::Repeats("the record with the counts reports the same answer")
    } else {
        Outcome::Ignored("a part of an answer")
    }
}

/// Returns whether the record holds the reason of a failure. A failed response is reported twice,
/// and the record with the reason counts. The text of the reason is not read.
fn log_has_error(log: &Log<'_>) -> bool {
    log.attributes.any_named("error.")
}

fn response_completed(log: &Log<'_>, context: &Context<'_>) -> Result<Report, Refusal> {
    let mut report = from_log(log, context);
    let attributes = log.attributes;
    let conversation = identify(&mut report.event, attributes, context);
    let event = &mut report.event;
    event.status = Some(RequestStatus::Ok);
    let told = Told {
        input: attributes.count(&[keys::INPUT_TOKEN_COUNT])?,
        cache_read: attributes.count(&[keys::CACHED_TOKEN_COUNT])?,
        cache_write: attributes.count(&[keys::CACHE_WRITE_TOKEN_COUNT])?,
        output: attributes.count(&[keys::OUTPUT_TOKEN_COUNT])?,
        reasoning: attributes.count(&[keys::REASONING_TOKEN_COUNT])?,
        ..Told::default()
    };
    told.settle(event);
    event.service_tier = attributes.tier(&[keys::SERVICE_TIER]);
    event.ttft_ms = attributes.milliseconds(&[keys::TTFT_MS]);
    let sent = conversation.and_then(|id| context.conversations.take_sent(id)).map(to_ms);
    let lasting = sent.and_then(|sent| u32::try_from(event.ended_at - sent).ok());
    lasted(event, lasting);
    Ok(report)
}

fn api_request(log: &Log<'_>, context: &Context<'_>) -> Outcome {
    let attributes = log.attributes;
    let endpoint = attributes.name(&[keys::ENDPOINT]);
    if endpoint.is_some_and(|path| !path.contains("responses") && !path.contains("completions")) {
        return Outcome::Ignored("not a model request");
    }
    let status = attributes.small(&[keys::HTTP_STATUS_CODE]);
    if status.is_some_and(|status| status < 400) && !log_has_error(log) {
        remember_start(log, context);
        return Outcome::Ignored("the end of the answer is reported apart");
    }
    let mut report = failure(log, context);
    report.event.http_status = status;
    report.event.error_type = status.map(|status| status.to_string());
    // It counts its attempts from 0.
    report.event.attempt =
        attributes.small(&[keys::ATTEMPT]).map(|attempt| attempt.saturating_add(1));
    Outcome::Request(Box::new(report))
}

fn remember_start(log: &Log<'_>, context: &Context<'_>) {
    let report = from_log(log, context);
    let lasted = log.attributes.milliseconds(&[keys::DURATION_MS]).unwrap_or(0);
    let sent_ms = report.event.ended_at - i64::from(lasted);
    if let Some(conversation) = log.attributes.identifier(&[keys::CONVERSATION_ID])
        && let Ok(sent_ms) = u64::try_from(sent_ms)
    {
        context.conversations.sent(conversation, sent_ms * 1_000_000);
    }
}

fn failure(log: &Log<'_>, context: &Context<'_>) -> Report {
    let mut report = from_log(log, context);
    identify(&mut report.event, log.attributes, context);
    let event = &mut report.event;
    event.status = Some(RequestStatus::Error);
    lasted(event, log.attributes.milliseconds(&[keys::DURATION_MS]));
    counted(event);
    report
}

fn handle_responses(record: &SpanRecord<'_>, context: &Context<'_>) -> Result<Report, Refusal> {
    let attributes = record.attributes;
    let mut report = from_span(record, context);
    let trace = context.conversations.trace(&record.span.trace_id);
    let event = &mut report.event;
    describe(event);
    event.request_model.clone_from(&trace.model);
    event.response_model.clone_from(&trace.model);
    let pseudonym = |kind: &str, id: &String| context.host.pseudonym(kind, id);
    event.session_id = trace.conversation.as_ref().map(|id| pseudonym("session", id));
    event.turn_id = trace.turn.as_ref().map(|id| pseudonym("turn", id));
    event.status = Some(RequestStatus::Ok);
    let told = Told {
        input: attributes.count(&[keys::USAGE_INPUT])?,
        cache_read: attributes.count(&[keys::USAGE_CACHE_READ])?,
        cache_write: attributes.count(&[keys::USAGE_CACHE_WRITE])?,
        output: attributes.count(&[keys::USAGE_OUTPUT])?,
        reasoning: attributes.count(&[keys::CODEX_REASONING_TOKENS])?,
        ..Told::default()
    };
    told.settle(event);
    // The span covers the last piece of the stream and not the request.
    lasted(event, None);
    Ok(report)
}

fn identify<'a>(
    event: &mut LlmRequestCompleted,
    attributes: Attributes<'a>,
    context: &Context<'_>,
) -> Option<&'a str> {
    describe(event);
    let conversation = attributes.identifier(&[keys::CONVERSATION_ID]);
    event.session_id = conversation.map(|id| context.host.pseudonym("session", id));
    event.request_model = attributes.name(&[keys::MODEL]);
    event.response_model.clone_from(&event.request_model);
    event.client_version = attributes.name(&[keys::APP_VERSION]).or(event.client_version.take());
    conversation
}

fn describe(event: &mut LlmRequestCompleted) {
    event.client = Some("codex".to_owned());
    event.dialect = Some(ApiFormat::Responses);
    event.operation = Some("chat".to_owned());
    // Its `provider_name` is a title that the user chose; the dialect is OpenAI's.
    event.provider = Some("openai".to_owned());
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::common::v1::KeyValue;

    use super::*;
    use crate::sources::{build::*, map_log, map_span};

    fn completed() -> Vec<KeyValue> {
        vec![
            attr("event.name", text("codex.sse_event")),
            attr("event.kind", text("response.completed")),
            attr("event.timestamp", text("2026-11-20T23:49:20.615Z")),
            attr("conversation.id", text("01a1fb5d")),
            attr("model", text("gpt-5.1-codex")),
            attr("input_token_count", text("1200")),
            attr("output_token_count", text("34")),
            attr("cached_token_count", int(800)),
            attr("cache_write_token_count", int(0)),
            attr("reasoning_token_count", int(10)),
            attr("tool_token_count", text("1234")),
            attr("ttft_ms", int(40)),
        ]
    }

    fn outcome(attributes: &[KeyValue]) -> Outcome {
        let mut record = log(0, attributes);
        record.observed_time_unix_nano = NOW_NS;
        with_context("codex_exec", "codex_otel.log_only", |context| map_log(&record, context).2)
    }

    #[test]
    fn counts_as_text_and_a_time_of_zero_are_read() {
        let event = request_of(outcome(&completed())).event;
        assert_eq!(event.input_tokens, Some(1200));
        assert_eq!(event.output_tokens, Some(34));
        assert_eq!(event.cache_read_tokens, Some(800));
        assert_eq!(event.cache_write_5m_tokens, Some(0));
        assert_eq!(event.reasoning_tokens, Some(10));
        assert_eq!(event.ended_at, 1_795_218_560_615);
        assert_eq!(event.ttft_ms, Some(40));
        assert_eq!(event.duration_ms, None);
        assert_eq!(event.client.as_deref(), Some("codex"));
    }

    #[test]
    fn the_record_without_counts_repeats() {
        let bare = [
            attr("event.name", text("codex.sse_event")),
            attr("event.kind", text("response.completed")),
        ];
        assert!(matches!(outcome(&bare), Outcome::Repeats(_)));
        let delta = [
            attr("event.name", text("codex.sse_event")),
            attr("event.kind", text("response.output_text.delta")),
        ];
        assert!(matches!(outcome(&delta), Outcome::Ignored(_)));
    }

    #[test]
    fn a_completion_that_codex_could_not_read_is_no_repeat() {
        let unreadable = [
            attr("event.name", text("codex.sse_event")),
            attr("event.kind", text("response.completed")),
            attr("conversation.id", text("01a1fb5d")),
            attr("model", text("gpt-5.1-codex")),
            attr("duration_ms", text("36")),
            attr("error.message", text("failed to parse ResponseCompleted: secret words")),
        ];
        let event = request_of(outcome(&unreadable)).event;
        assert_eq!(event.status, Some(RequestStatus::Error));
        assert_eq!(event.error_type.as_deref(), Some("unreadable_completion"));
        assert_eq!((event.input_tokens, event.duration_ms), (None, Some(36)));
        assert!(!format!("{event:?}").contains("secret"));
    }

    #[test]
    fn failed_attempts_are_requests_and_good_ones_wait_for_their_end() {
        let attempt = |status: i64, endpoint: &str| {
            outcome(&[
                attr("event.name", text("codex.api_request")),
                attr("http.response.status_code", int(status)),
                attr("endpoint", text(endpoint)),
                attr("attempt", int(2)),
                attr("duration_ms", text("36")),
            ])
        };
        let event = request_of(attempt(429, "/responses")).event;
        assert_eq!(event.status, Some(RequestStatus::Error));
        assert_eq!(event.http_status, Some(429));
        assert_eq!(event.attempt, Some(3));
        assert_eq!(event.duration_ms, Some(36));
        assert!(matches!(attempt(200, "/responses"), Outcome::Ignored(_)));
        assert!(matches!(attempt(500, "/models"), Outcome::Ignored(_)));
    }

    #[test]
    fn the_start_of_the_request_gives_the_duration() {
        let sent = [
            attr("event.name", text("codex.api_request")),
            attr("event.timestamp", text("2026-11-20T23:49:20.256Z")),
            attr("http.response.status_code", int(200)),
            attr("conversation.id", text("01a1fb5d")),
            attr("duration_ms", text("36")),
        ];
        with_context("codex_exec", "codex_otel.log_only", |context| {
            map_log(&log(0, &sent), context);
            let event = request_of(map_log(&log(0, &completed()), context).2).event;
            assert_eq!(event.duration_ms, Some(615 - (256 - 36)));
        });
    }

    #[test]
    fn the_span_learns_its_conversation_from_its_trace() {
        let usage = [
            attr("gen_ai.usage.input_tokens", int(1200)),
            attr("gen_ai.usage.output_tokens", int(34)),
            attr("codex.usage.reasoning_output_tokens", int(10)),
        ];
        let call = span("handle_responses", NOW_NS - 1000, NOW_NS, &usage);
        let turn = [
            attr("conversation.id", text("01a1fb5d")),
            attr("turn.id", text("t-1")),
            attr("model", text("gpt-5.1-codex")),
        ];
        let turn = span("run_sampling_request", 1, 2, &turn);
        with_context("codex_exec", "codex_exec", |context| {
            for span in [&call, &turn] {
                context.conversations.learn("codex_exec", span);
            }
            let event = request_of(map_span(&call, context).2).event;
            assert_eq!(event.request_model.as_deref(), Some("gpt-5.1-codex"));
            assert_eq!(event.session_id, Some(context.host.pseudonym("session", "01a1fb5d")));
            assert_eq!(event.reasoning_tokens, Some(10));
            let noise = span("append_items", 1, 2, &[]);
            assert!(matches!(map_span(&noise, context).2, Outcome::Ignored(_)));
        });
    }
}
