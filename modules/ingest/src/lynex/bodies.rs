//! The bodies of the eleven types: their checks, and the fields that are kept. Of texts only the
//! length is kept.

use module_sdk::events::LynexType;
use serde_json::{Map, Value};

use super::{envelope::Body, fields::Fields};
use crate::sources::{milliseconds, nano_usd};

/// The data that `token_usage` and `model_response` hold about a request.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Usage {
    pub(super) model: String,
    pub(super) input: Option<u64>,
    pub(super) output: Option<u64>,
    pub(super) cost_nano_usd: Option<i64>,
    pub(super) duration_ms: Option<u32>,
    pub(super) finish_reason: Option<String>,
}

/// Reads a body. Problems are noted in `fields`, where the caller checks for them.
pub(super) fn read(kind: LynexType, fields: &Fields<'_>) -> Option<Body> {
    match kind {
        LynexType::TokenUsage => token_usage(fields).map(|usage| Body::Usage(Box::new(usage))),
        LynexType::ModelResponse => {
            model_response(fields).map(|usage| Body::Usage(Box::new(usage)))
        }
        _ => {
            let mut kept = Kept::default();
            keep(kind, fields, &mut kept);
            Some(Body::Fields(kept.0))
        }
    }
}

fn token_usage(fields: &Fields<'_>) -> Option<Usage> {
    let model = fields.name("model");
    let (input, output) = (fields.count("inputTokens"), fields.count("outputTokens"));
    let total = fields.optional_count("totalTokens");
    if let (Some(input), Some(output), Some(total)) = (input, output, total)
        && total < input + output
    {
        fields.problem("totalTokens", "is less than inputTokens and outputTokens together");
    }
    // Their schema says `costUSD`, their SDKs send `cost`.
    let field = if fields.value("costUSD").is_some() { "costUSD" } else { "cost" };
    Some(Usage {
        model: model?,
        input,
        output,
        cost_nano_usd: cost(fields, field),
        ..Usage::default()
    })
}

fn model_response(fields: &Fields<'_>) -> Option<Usage> {
    let model = fields.name("model");
    for field in ["prompt", "response"] {
        match fields.value(field) {
            // A conversation comes as a list of messages.
            Some(Value::String(_) | Value::Array(_) | Value::Object(_)) => {}
            Some(_) => fields.problem(field, "must be a text or messages"),
            None => fields.problem(field, "is missing"),
        }
    }
    let latency = fields.number("latencyMs").and_then(|_| fields.optional_amount("latencyMs"));
    let metadata = fields.optional_object("metadata");
    let tokens = metadata.as_ref().and_then(|metadata| match metadata.value("tokens") {
        Some(Value::Object(_)) => metadata.optional_object("tokens"),
        _ => None,
    });
    let count = |names: [&str; 3]| {
        let tokens = tokens.as_ref()?;
        tokens.optional_count(names.into_iter().find(|name| tokens.value(name).is_some())?)
    };
    Some(Usage {
        model: model?,
        input: count(["input", "prompt", "inputTokens"]),
        output: count(["output", "completion", "outputTokens"]),
        duration_ms: latency.and_then(milliseconds),
        finish_reason: fields.optional_title("finishReason"),
        cost_nano_usd: None,
    })
}

fn cost(fields: &Fields<'_>, field: &str) -> Option<i64> {
    match nano_usd(fields.optional_number(field)?) {
        Ok(cost) => Some(cost),
        Err(what) => {
            fields.problem(field, what);
            None
        }
    }
}

fn keep(kind: LynexType, fields: &Fields<'_>, kept: &mut Kept) {
    match kind {
        LynexType::Log => {
            kept.text("level", fields.word("level", &["debug", "info", "warn", "error"]));
            fields.text("message");
            kept.length("message", fields);
            kept.size("metadata_fields", fields.optional_object("metadata"));
        }
        LynexType::Error => error(fields, kept),
        LynexType::Span => span(fields, kept),
        LynexType::Message => {
            kept.text("role", fields.word("role", &["user", "system", "assistant", "tool"]));
            fields.text("content");
            kept.length("content", fields);
        }
        LynexType::EvalMetric => {
            kept.text("suite_id", fields.title("suiteId"));
            kept.text("metric", fields.title("metric"));
            kept.number("value", fields.number("value"));
        }
        LynexType::AgentAction => agent_action(fields, kept),
        LynexType::Retrieval => retrieval(fields, kept),
        LynexType::ToolCall => {
            kept.text("tool", fields.title("toolName"));
            kept.size("arguments", fields.object("arguments"));
            kept.length("result", fields);
            kept.number("latency_ms", fields.optional_amount("latencyMs"));
        }
        LynexType::Custom => {
            kept.text("name", fields.optional_title("name"));
            let field = if fields.value("payload").is_some() { "payload" } else { "data" };
            kept.size("payload_fields", fields.optional_object(field));
        }
        // They are requests and read above.
        LynexType::TokenUsage | LynexType::ModelResponse => {}
    }
}

fn error(fields: &Fields<'_>, kept: &mut Kept) {
    fields.text("message");
    kept.length("message", fields);
    for stack in ["stack", "stacktrace"] {
        if fields.optional_text(stack).is_some() {
            kept.number("stack_chars", fields.length(stack).map(to_f64));
        }
    }
    kept.text("type", fields.optional_title("type"));
    kept.text("fingerprint", fields.optional_title("fingerprint"));
}

fn span(fields: &Fields<'_>, kept: &mut Kept) {
    kept.text("span_id", fields.name("spanId"));
    kept.text("parent_span_id", fields.optional_title("parentSpanId"));
    kept.text("name", fields.optional_title("name"));
    let (start, end) = (fields.time("start"), fields.optional_time("end"));
    if let Some((start, end)) = start.zip(end) {
        let duration = end.as_millisecond() - start.as_millisecond();
        if duration < 0 {
            fields.problem("end", "is before start");
        } else {
            kept.0.insert("duration_ms".to_owned(), duration.into());
        }
    }
    kept.size("attributes", fields.optional_object("attributes"));
}

fn agent_action(fields: &Fields<'_>, kept: &mut Kept) {
    kept.text("agent", fields.optional_title("agentName"));
    kept.text("action", fields.title("action"));
    if fields.value("input").is_none() {
        fields.problem("input", "is missing");
    }
    for field in ["input", "output", "reasoning"] {
        kept.length(field, fields);
    }
}

fn retrieval(fields: &Fields<'_>, kept: &mut Kept) {
    fields.text("query");
    kept.length("query", fields);
    if let Some(results) = fields.list("results") {
        kept.0.insert("results".to_owned(), results.len().into());
        if let Some(index) = results.iter().position(|result| !result.is_object()) {
            fields.problem("results", &format!("holds at {index} what is no object"));
        }
        let scores = results.iter().filter_map(|result| result.get("score")?.as_f64());
        kept.number("top_score", scores.reduce(f64::max));
    }
    let dimensions = fields.optional_count("vectorDimensions");
    kept.number("vector_dimensions", dimensions.map(to_f64));
}

/// The fields that go on the bus.
#[derive(Default)]
struct Kept(Map<String, Value>);

impl Kept {
    fn text(&mut self, field: &str, text: Option<impl Into<String>>) {
        if let Some(text) = text {
            self.0.insert(field.to_owned(), Value::String(text.into()));
        }
    }

    fn number(&mut self, field: &str, number: Option<f64>) {
        if let Some(number) = number {
            // A whole number is written as one.
            #[expect(clippy::cast_possible_truncation, reason = "compared right behind")]
            let whole = number as i64;
            #[expect(clippy::cast_precision_loss, clippy::float_cmp, reason = "exact or not")]
            let value = if whole as f64 == number { whole.into() } else { number.into() };
            self.0.insert(field.to_owned(), value);
        }
    }

    fn length(&mut self, field: &str, fields: &Fields<'_>) {
        if let Some(length) = fields.length(field) {
            self.0.insert(format!("{field}_chars"), length.into());
        }
    }

    fn size(&mut self, field: &str, object: Option<Fields<'_>>) {
        if let Some(object) = object {
            self.0.insert(field.to_owned(), object.len().into());
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "lengths and dimensions")]
const fn to_f64(number: u64) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use serde_json::json;

    use super::*;

    fn read_body(kind: &str, body: &Value) -> Result<Body, Vec<String>> {
        let problems = RefCell::new(Vec::new());
        let fields = Fields::of(body, "/body", &problems).expect("an object");
        let kind = kind.parse().expect("a type");
        let read = read(kind, &fields);
        let problems = problems.into_inner();
        let told = problems.iter().map(|p| format!("{} {}", p.path, p.message)).collect();
        read.filter(|_| problems.is_empty()).ok_or(told)
    }

    #[test]
    fn names_and_numbers_are_kept_and_texts_measured() {
        let check = |kind: &str, body: Value, expected: Value| match read_body(kind, &body) {
            Ok(Body::Fields(fields)) => assert_eq!(Value::Object(fields), expected, "{kind}"),
            other => panic!("{kind}: {other:?}"),
        };
        check(
            "log",
            json!({"level": "WARN", "message": "a prompt", "metadata": {"a": 1, "b": 2}}),
            json!({"level": "warn", "message_chars": 8, "metadata_fields": 2}),
        );
        check(
            "error",
            json!({"message": "boom", "stacktrace": "at x", "type": "ValueError"}),
            json!({"message_chars": 4, "stack_chars": 4, "type": "ValueError"}),
        );
        check(
            "span",
            json!({"spanId": "s1", "name": "load the user", "start": "2026-11-20T23:48:21Z",
                   "end": "2026-11-20T23:48:22.5Z", "attributes": {}}),
            json!({"span_id": "s1", "duration_ms": 1500, "attributes": 0}),
        );
        check(
            "message",
            json!({"role": "user", "content": "grüezi"}),
            json!({"role": "user", "content_chars": 6}),
        );
        check(
            "eval_metric",
            json!({"suiteId": "nightly", "metric": "accuracy", "value": 0.93}),
            json!({"suite_id": "nightly", "metric": "accuracy", "value": 0.93}),
        );
        check(
            "agent_action",
            json!({"agentName": "planner", "action": "search", "input": {"q": "x"},
                   "output": "yes"}),
            json!({"agent": "planner", "action": "search", "input_chars": 9, "output_chars": 3}),
        );
        check(
            "retrieval",
            json!({"query": "who", "vectorDimensions": 768,
                   "results": [{"id": "a", "score": 0.5, "text": "t"},
                               {"id": "b", "score": 0.75}]}),
            json!({"query_chars": 3, "results": 2, "top_score": 0.75, "vector_dimensions": 768}),
        );
        check(
            "tool_call",
            json!({"toolName": "calc", "arguments": {"a": 1}, "result": 2, "latencyMs": 5}),
            json!({"tool": "calc", "arguments": 1, "result_chars": 1, "latency_ms": 5}),
        );
        check(
            "custom",
            json!({"name": "deploy", "data": {"a": 1, "b": 2, "c": 3}}),
            json!({"name": "deploy", "payload_fields": 3}),
        );
    }

    #[test]
    fn usage_is_read_from_both() {
        let check = |kind: &str, body: Value, expected: Usage| match read_body(kind, &body) {
            Ok(Body::Usage(usage)) => assert_eq!(*usage, expected, "{kind}"),
            other => panic!("{kind}: {other:?}"),
        };
        let base = || Usage { model: "gpt-5".to_owned(), ..Usage::default() };
        check(
            "token_usage",
            json!({"model": "gpt-5", "inputTokens": 12, "outputTokens": 3, "totalTokens": 15,
                   "cost": 0.001}),
            Usage { input: Some(12), output: Some(3), cost_nano_usd: Some(1_000_000), ..base() },
        );
        check(
            "model_response",
            json!({"model": "gpt-5", "prompt": "p", "response": "r", "latencyMs": 250.4,
                   "finishReason": "stop", "metadata": {"tokens": {"input": 12, "output": 3}}}),
            Usage {
                input: Some(12),
                output: Some(3),
                duration_ms: Some(250),
                finish_reason: Some("stop".to_owned()),
                ..base()
            },
        );
    }

    #[test]
    fn each_type_says_what_is_wrong() {
        let check = |kind: &str, body: Value, expected: &[&str]| {
            assert_eq!(read_body(kind, &body).expect_err(kind), expected, "{kind}");
        };
        check(
            "log",
            json!({"level": "loud"}),
            &["/body/level must be one of debug, info, warn, error", "/body/message is missing"],
        );
        check("error", json!({"message": 5}), &["/body/message must be a text"]);
        check(
            "span",
            json!({"spanId": "s", "start": "2026-11-20T23:48:21Z", "end": "2026-11-20T23:48:20Z"}),
            &["/body/end is before start"],
        );
        check(
            "token_usage",
            json!({"model": "m", "inputTokens": -1, "outputTokens": 1.5, "cost": -1}),
            &[
                "/body/inputTokens must be a whole number from 0 to 1000000000000",
                "/body/outputTokens must be a whole number from 0 to 1000000000000",
                "/body/cost is negative",
            ],
        );
        check(
            "token_usage",
            json!({"model": "m", "inputTokens": 5, "outputTokens": 5, "totalTokens": 9}),
            &["/body/totalTokens is less than inputTokens and outputTokens together"],
        );
        check(
            "message",
            json!({"role": "god", "content": "x"}),
            &["/body/role must be one of user, system, assistant, tool"],
        );
        check(
            "model_response",
            json!({"model": "m", "prompt": 5, "latencyMs": -1}),
            &[
                "/body/prompt must be a text or messages",
                "/body/response is missing",
                "/body/latencyMs must not be negative",
            ],
        );
        check(
            "eval_metric",
            json!({"suiteId": "s", "metric": "m", "value": "good"}),
            &["/body/value must be a number"],
        );
        check("agent_action", json!({"action": "a"}), &["/body/input is missing"]);
        check(
            "retrieval",
            json!({"query": "q", "results": [5]}),
            &["/body/results holds at 0 what is no object"],
        );
        check(
            "tool_call",
            json!({"toolName": "t", "arguments": []}),
            &["/body/arguments must be an object"],
        );
        check("custom", json!({"payload": 5}), &["/body/payload must be an object"]);
    }
}
