//! Steps of traces, from a span that a tool sends to a module that subscribes to them.

use harness::{Sandbox, http, telemetry, wait_until};
use serde_json::{Value, json};

use crate::reload_faults::ISOLATIONS;

fn spans() -> Value {
    let attribute = |key: &str, value: Value| json!({"key": key, "value": value});
    let text = |key: &str, value: &str| attribute(key, json!({"stringValue": value}));
    let span = |id: &str, name: &str, attributes: Vec<Value>| {
        json!({
            "traceId": "01010101010101010101010101010101", "spanId": id, "name": name, "kind": 3,
            "startTimeUnixNano": "1795218560000000000", "endTimeUnixNano": "1795218560400000000",
            "attributes": attributes,
        })
    };
    let chat = vec![
        text("gen_ai.operation.name", "chat"),
        text("gen_ai.provider.name", "openai"),
        text("gen_ai.request.model", "gpt-4o"),
        text("gen_ai.response.id", "chatcmpl-1"),
        attribute("gen_ai.usage.input_tokens", json!({"intValue": "7"})),
        attribute("gen_ai.usage.output_tokens", json!({"intValue": "3"})),
    ];
    let tool = vec![
        text("gen_ai.operation.name", "execute_tool"),
        text("gen_ai.tool.name", "Bash"),
        text("gen_ai.tool.call.arguments", "canary-of-a-person"),
    ];
    let spans = [
        span("0202020202020202", "chat gpt-4o", chat),
        span("0303030303030303", "execute_tool Bash", tool),
    ];
    json!({"resourceSpans": [{
        "resource": {"attributes": [text("service.name", "program")]},
        "scopeSpans": [{"scope": {"name": "program.genai"}, "spans": spans}],
    }]})
}

#[test]
fn a_module_that_wants_steps_gets_them() {
    for isolation in ISOLATIONS {
        let config = format!(
            "modules:\n  ingest:\n    isolation: {isolation}\n    listen: 127.0.0.1:0\n  \
             witness:\n    enabled: false\nmetrics:\n  listen: 127.0.0.1:0\n"
        );
        let sandbox = Sandbox::new(&["ingest", "witness"], &config);
        let daemon = sandbox.start();
        let post = || {
            let body = spans().to_string();
            let address = daemon.address("ingest", "http");
            let answer = http::post(&address, "/v1/traces", &[telemetry::JSON], body.as_bytes());
            assert_eq!(answer.expect("ingest answers").status, 200);
        };
        // Nobody has subscribed yet: nothing of this waits for anybody.
        post();
        assert_eq!(sandbox.lodestar(&["modules", "enable", "witness"]).code, 0);
        post();
        let seen = wait_until("it has both steps", || {
            let seen = sandbox.json(&["witness", "seen"]);
            (seen.as_array()?.len() >= 2).then_some(seen)
        });
        assert_eq!(seen.as_array().map(Vec::len), Some(2), "{isolation}: {seen:#}");
        let (chat, tool) = (&seen[0]["data"], &seen[1]["data"]);
        assert_eq!((&chat["kind"], &tool["kind"]), (&json!("llm"), &json!("tool")), "{seen:#}");
        assert_eq!(chat["dedupe_key"], "openai:chatcmpl-1", "{seen:#}");
        assert_eq!((&tool["tool"], &tool["dedupe_key"]), (&json!("Bash"), &Value::Null));
        assert_eq!(seen[0]["subject"], "01010101010101010101010101010101");
        assert!(!seen.to_string().contains("canary"), "{seen:#}");
        assert!(daemon.stop().success());
    }
}
