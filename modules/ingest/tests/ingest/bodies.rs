//! Telemetry in the form in which tools send it.

use opentelemetry_proto::tonic::{
    collector::{
        logs::v1::ExportLogsServiceRequest, metrics::v1::ExportMetricsServiceRequest,
        trace::v1::ExportTraceServiceRequest,
    },
    common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value::Value},
    logs::v1::{LogRecord, ResourceLogs, ScopeLogs},
    metrics::v1::{
        Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum, metric::Data,
        number_data_point::Value as Point,
    },
    resource::v1::Resource,
    trace::v1::{ResourceSpans, ScopeSpans, Span, Status},
};

/// Conversion of what tests write into an attribute's value.
pub(crate) trait IntoValue {
    fn into_value(self) -> Value;
}

impl IntoValue for &str {
    fn into_value(self) -> Value {
        Value::StringValue(self.to_owned())
    }
}

impl IntoValue for i64 {
    fn into_value(self) -> Value {
        Value::IntValue(self)
    }
}

impl IntoValue for f64 {
    fn into_value(self) -> Value {
        Value::DoubleValue(self)
    }
}

pub(crate) fn attr(key: &str, value: impl IntoValue) -> KeyValue {
    let value = Some(AnyValue { value: Some(value.into_value()) });
    KeyValue { key: key.to_owned(), value, ..KeyValue::default() }
}

pub(crate) fn now_ns() -> u64 {
    u64::try_from(jiff::Timestamp::now().as_nanosecond()).expect("after 1970")
}

fn resource(service: &str) -> Option<Resource> {
    let attributes = vec![
        attr("service.name", service),
        attr("service.version", "2.1.329"),
        attr("host.name", "workstation-of-jane"),
        attr("process.owner", "jane"),
    ];
    Some(Resource { attributes, ..Resource::default() })
}

fn scope(name: &str) -> Option<InstrumentationScope> {
    Some(InstrumentationScope { name: name.to_owned(), ..InstrumentationScope::default() })
}

pub(crate) fn logs(
    service: &str,
    scope_name: &str,
    records: Vec<LogRecord>,
) -> ExportLogsServiceRequest {
    let scope_logs =
        vec![ScopeLogs { scope: scope(scope_name), log_records: records, ..ScopeLogs::default() }];
    let resource = resource(service);
    let resource_logs = vec![ResourceLogs { resource, scope_logs, ..ResourceLogs::default() }];
    ExportLogsServiceRequest { resource_logs }
}

pub(crate) fn traces(service: &str, by_scope: Vec<(&str, Vec<Span>)>) -> ExportTraceServiceRequest {
    let scope_spans = by_scope
        .into_iter()
        .map(|(name, spans)| ScopeSpans { scope: scope(name), spans, ..ScopeSpans::default() })
        .collect();
    let resource = resource(service);
    let resource_spans = vec![ResourceSpans { resource, scope_spans, ..ResourceSpans::default() }];
    ExportTraceServiceRequest { resource_spans }
}

pub(crate) fn record(time_ns: u64, attributes: Vec<KeyValue>) -> LogRecord {
    LogRecord {
        time_unix_nano: time_ns,
        observed_time_unix_nano: time_ns,
        attributes,
        ..LogRecord::default()
    }
}

pub(crate) fn span(
    name: &str,
    ids: (u8, u8, u8),
    ended_ns: u64,
    attributes: Vec<KeyValue>,
) -> Span {
    let (trace, id, parent) = ids;
    Span {
        name: name.to_owned(),
        trace_id: vec![trace; 16],
        span_id: vec![id; 8],
        parent_span_id: if parent == 0 { Vec::new() } else { vec![parent; 8] },
        kind: 3,
        start_time_unix_nano: ended_ns - 400_000_000,
        end_time_unix_nano: ended_ns,
        attributes,
        ..Span::default()
    }
}

pub(crate) fn failed(mut span: Span) -> Span {
    span.status = Some(Status { code: 2, message: "Overloaded".to_owned() });
    span
}

/// Returns Claude Code's record of one answer: 400 in, 500 read from and 300 written to the cache,
/// 34 out.
pub(crate) fn claude_request(time_ns: u64, request_id: &str) -> LogRecord {
    let mut record = record(
        time_ns,
        vec![
            attr("user.id", "5af019348571d103"),
            attr("session.id", "bd74aaac-a27e-4b75-bc12-8512c8e7b4b7"),
            attr("event.name", "api_request"),
            attr("prompt.id", "c068229e-23ff-4613-947b-58fd368154aa"),
            attr("model", "claude-sonnet-4-5"),
            attr("input_tokens", 400),
            attr("output_tokens", 34),
            attr("cache_read_tokens", 500),
            attr("cache_creation_tokens", 300),
            attr("cache_creation_5m_tokens", 100),
            attr("cache_creation_1h_tokens", 200),
            attr("cost_usd", 0.003_435),
            attr("cost_usd_micros", 3435),
            attr("duration_ms", 487),
            attr("ttft_ms", 24),
            attr("request_id", request_id),
        ],
    );
    record.body = Some(AnyValue { value: Some("claude_code.api_request".into_value()) });
    record
}

pub(crate) fn claude_logs(records: Vec<LogRecord>) -> ExportLogsServiceRequest {
    logs("claude-code", "com.anthropic.claude_code.events", records)
}

/// Returns the span in which Claude Code reports the same answer.
pub(crate) fn claude_span(ended_ns: u64, request_id: &str) -> ExportTraceServiceRequest {
    let attributes = vec![
        attr("session.id", "bd74aaac-a27e-4b75-bc12-8512c8e7b4b7"),
        attr("model", "claude-sonnet-4-5"),
        attr("input_tokens", 400),
        attr("output_tokens", 34),
        attr("cache_read_tokens", 500),
        attr("cache_creation_tokens", 300),
        attr("gen_ai.response.id", request_id),
    ];
    let span = span("claude_code.llm_request", (1, 2, 0), ended_ns, attributes);
    traces("claude-code", vec![("com.anthropic.claude_code.tracing", vec![span])])
}

/// Returns the sums that Claude Code sends in addition.
pub(crate) fn claude_metrics() -> ExportMetricsServiceRequest {
    let point = |kind: &str, tokens: i64| NumberDataPoint {
        attributes: vec![attr("type", kind), attr("model", "claude-sonnet-4-5")],
        value: Some(Point::AsInt(tokens)),
        ..NumberDataPoint::default()
    };
    let data_points = vec![point("input", 400), point("output", 34)];
    let sum = Sum { data_points, aggregation_temporality: 1, is_monotonic: true };
    let metric = Metric {
        name: "claude_code.token.usage".to_owned(),
        data: Some(Data::Sum(sum)),
        ..Metric::default()
    };
    let scope_metrics = vec![ScopeMetrics {
        scope: scope("com.anthropic.claude_code"),
        metrics: vec![metric],
        ..ScopeMetrics::default()
    }];
    let resource = resource("claude-code");
    let resource_metrics =
        vec![ResourceMetrics { resource, scope_metrics, ..ResourceMetrics::default() }];
    ExportMetricsServiceRequest { resource_metrics }
}

/// Returns Codex' record of one answer: counts as text, no time of its own, no id.
pub(crate) fn codex_completed(observed_ns: u64) -> LogRecord {
    let mut completed = record(
        0,
        vec![
            attr("event.name", "codex.sse_event"),
            attr("event.kind", "response.completed"),
            attr("input_token_count", "1200"),
            attr("output_token_count", "34"),
            attr("cached_token_count", 800),
            attr("cache_write_token_count", 0),
            attr("reasoning_token_count", 10),
            attr("tool_token_count", "1234"),
            attr("ttft_ms", 40),
            attr("conversation.id", "01a1fb5d-53c7-71a1-8eb0-93bfd3ca6406"),
            attr("app.version", "0.169.0"),
            attr("model", "gpt-5.1-codex"),
        ],
    );
    completed.observed_time_unix_nano = observed_ns;
    completed
}

pub(crate) fn codex_logs(records: Vec<LogRecord>) -> ExportLogsServiceRequest {
    logs("codex_exec", "codex_otel.log_only", records)
}

/// Returns the spans of the same answer: the call, and the turn around it that has the
/// conversation.
pub(crate) fn codex_spans(ended_ns: u64) -> ExportTraceServiceRequest {
    let usage = vec![
        attr("gen_ai.usage.input_tokens", 1200),
        attr("gen_ai.usage.cache_read.input_tokens", 800),
        attr("gen_ai.usage.cache_write.input_tokens", 0),
        attr("gen_ai.usage.output_tokens", 34),
        attr("codex.usage.reasoning_output_tokens", 10),
    ];
    let turn = vec![
        attr("conversation.id", "01a1fb5d-53c7-71a1-8eb0-93bfd3ca6406"),
        attr("model", "gpt-5.1-codex"),
    ];
    let spans = vec![
        span("handle_responses", (9, 3, 2), ended_ns, usage),
        span("append_items", (9, 4, 2), ended_ns, Vec::new()),
        span("run_sampling_request", (9, 2, 0), ended_ns, turn),
    ];
    traces("codex_exec", vec![("codex_exec", spans)])
}

/// Returns a span by OpenTelemetry's GenAI conventions.
pub(crate) fn chat_span(
    ids: (u8, u8, u8),
    ended_ns: u64,
    response_id: &str,
    more: Vec<KeyValue>,
) -> Span {
    let mut attributes = vec![
        attr("gen_ai.operation.name", "chat"),
        attr("gen_ai.provider.name", "anthropic"),
        attr("gen_ai.request.model", "claude-sonnet-4-5"),
        attr("gen_ai.usage.input_tokens", 1200),
        attr("gen_ai.usage.output_tokens", 34),
        attr("gen_ai.usage.cache_write.input_tokens", 300),
        attr("gen_ai.usage.cache_read.input_tokens", 500),
    ];
    if !response_id.is_empty() {
        attributes.push(attr("gen_ai.response.id", response_id));
    }
    attributes.extend(more);
    span("chat claude-sonnet-4-5", ids, ended_ns, attributes)
}
