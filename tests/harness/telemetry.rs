//! Bodies in the form that tools send, with the ids and counts that a test gives.

use std::time::{SystemTime, UNIX_EPOCH};

use opentelemetry_proto::tonic::{
    collector::{logs::v1::ExportLogsServiceRequest, trace::v1::ExportTraceServiceRequest},
    common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value},
    resource::v1::Resource,
    trace::v1::{ResourceSpans, ScopeSpans, Span},
};
use prost::Message as _;
use serde_json::{Value, json};

/// `Content-Type: application/json`
pub const JSON: &str = "Content-Type: application/json";
/// `Content-Type: application/x-protobuf`
pub const PROTOBUF: &str = "Content-Type: application/x-protobuf";

/// Returns the nanoseconds since 1970.
#[must_use]
pub fn now_ns() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_nanos()).unwrap_or_default()
}

/// Returns a log record of Claude Code for one request: 400 plain, 300 written to the cache (100
/// for five minutes, 200 for an hour), 500 read from it, 34 out; 0.003435 USD on
/// `claude-sonnet-4-5`.
#[must_use]
pub fn claude_code(session: &str, request: &str) -> Value {
    claude_code_many(session, &[request])
}

/// Returns the same as [`claude_code`], with one record per request.
#[must_use]
pub fn claude_code_many(session: &str, requests: &[&str]) -> Value {
    let record = |request: &&str| {
        let time = now_ns().to_string();
        json!({
            "timeUnixNano": time, "observedTimeUnixNano": time,
            "body": {"stringValue": "claude_code.api_request"},
            "attributes": [
                text("user.id", "5af019348571d103"), text("session.id", session),
                text("event.name", "api_request"), text("model", "claude-sonnet-4-5"),
                number("input_tokens", 400), number("output_tokens", 34),
                number("cache_read_tokens", 500), number("cache_creation_tokens", 300),
                number("cache_creation_5m_tokens", 100), number("cache_creation_1h_tokens", 200),
                number("duration_ms", 487), number("ttft_ms", 24), text("request_id", request),
                {"key": "cost_usd", "value": {"doubleValue": 0.003_435}},
            ],
        })
    };
    let records = requests.iter().map(record).collect::<Vec<_>>();
    logs("claude-code", "com.anthropic.claude_code.events", &json!(records))
}

/// Returns a log record of Codex for one request: 1200 in, of them 800 from the cache; 34 out, of
/// them 10 reasoning.
#[must_use]
pub fn codex(conversation: &str) -> Value {
    let record = json!({
        "timeUnixNano": "0", "observedTimeUnixNano": now_ns().to_string(), "body": null,
        "attributes": [
            text("event.name", "codex.sse_event"), text("event.kind", "response.completed"),
            text("input_token_count", "1200"), text("output_token_count", "34"),
            number("cached_token_count", 800), number("reasoning_token_count", 10),
            number("ttft_ms", 40), text("conversation.id", conversation),
            text("model", "gpt-5.1-codex"),
        ],
    });
    logs("codex_exec", "codex_otel.log_only", &json!([record]))
}

/// Returns records in the form of an OTLP export of logs.
#[must_use]
pub fn logs(service: &str, scope: &str, records: &Value) -> Value {
    json!({"resourceLogs": [{
        "resource": {"attributes": [
            text("service.name", service), text("service.version", "2.1.329"),
        ]},
        "scopeLogs": [{"scope": {"name": scope}, "logRecords": records}],
    }]})
}

/// Returns a string attribute.
#[must_use]
pub fn text(key: &str, value: &str) -> Value {
    json!({"key": key, "value": {"stringValue": value}})
}

/// Returns an integer attribute.
#[must_use]
pub fn number(key: &str, value: i64) -> Value {
    json!({"key": key, "value": {"intValue": value}})
}

/// Returns the protobuf form of an export of logs.
///
/// # Panics
///
/// When `logs` is no such export.
#[must_use]
pub fn protobuf(logs: &Value) -> Vec<u8> {
    let request: ExportLogsServiceRequest =
        serde_json::from_value(logs.clone()).expect("the body has the form of an export");
    request.encode_to_vec()
}

/// Returns a span of an instrumented program by OpenTelemetry's GenAI conventions, as protobuf: 26
/// in, 34 out.
#[must_use]
pub fn genai_span(response: &str) -> Vec<u8> {
    let string = |text: &str| any_value::Value::StringValue(text.to_owned());
    let attribute = |key: &str, value| KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(value) }),
        ..KeyValue::default()
    };
    let end = now_ns();
    let span = Span {
        trace_id: uuid::Uuid::now_v7().as_bytes().to_vec(),
        span_id: vec![7; 8],
        name: "chat gpt-4o-mini".to_owned(),
        start_time_unix_nano: end - 250_000_000,
        end_time_unix_nano: end,
        attributes: vec![
            attribute("gen_ai.operation.name", string("chat")),
            attribute("gen_ai.provider.name", string("openai")),
            attribute("gen_ai.request.model", string("gpt-4o-mini")),
            attribute("gen_ai.response.model", string("gpt-4o-mini")),
            attribute("gen_ai.response.id", string(response)),
            attribute("gen_ai.usage.input_tokens", any_value::Value::IntValue(26)),
            attribute("gen_ai.usage.output_tokens", any_value::Value::IntValue(34)),
        ],
        ..Span::default()
    };
    let scope = InstrumentationScope {
        name: "opentelemetry.instrumentation.openai_v2".to_owned(),
        ..InstrumentationScope::default()
    };
    let resource = Resource {
        attributes: vec![attribute("service.name", string("shop"))],
        ..Resource::default()
    };
    let scope_spans = ScopeSpans { scope: Some(scope), spans: vec![span], ..ScopeSpans::default() };
    let resource_spans = ResourceSpans {
        resource: Some(resource),
        scope_spans: vec![scope_spans],
        ..ResourceSpans::default()
    };
    ExportTraceServiceRequest { resource_spans: vec![resource_spans] }.encode_to_vec()
}

/// Returns a Lynex event of a type, with its body.
#[must_use]
pub fn lynex(id: &str, kind: &str, body: Value) -> Value {
    json!({
        "eventId": id, "projectId": "shop", "type": kind, "timestamp": "2026-11-20T12:00:00Z",
        "sdk": {"name": "lynex-python", "version": "1.0.0"}, "context": {}, "body": body,
    })
}

/// Returns a Lynex event for the tokens of one request: 100 in, 20 out.
#[must_use]
pub fn lynex_token_usage(id: &str) -> Value {
    let body = json!({"model": "gpt-4o-mini", "inputTokens": 100, "outputTokens": 20,
                      "totalTokens": 120});
    let mut event = lynex(id, "token_usage", body);
    event["timestamp"] = json!(naive_utc());
    event
}

/// Returns the current time as the Python SDK of Lynex writes it: UTC without a zone.
fn naive_utc() -> String {
    let now = std::process::Command::new("date").args(["-u", "+%Y-%m-%dT%H:%M:%S"]).output();
    String::from_utf8_lossy(&now.expect("date is there").stdout).trim().to_owned()
}
