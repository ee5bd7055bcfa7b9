//! Privacy: whatever a tool sends, no text of a conversation and no name of a person leaves the
//! module.

use opentelemetry_proto::tonic::{common::v1::AnyValue, trace::v1::span::Event};
use serde_json::json;

use crate::{
    bodies::{IntoValue as _, *},
    http::Site,
};

const CANARY: &str = "CANARY please write a poem about my secret project";

/// Attributes that tools use, listed ones too, all filled with a prompt.
const NAMES: &[&str] = &[
    "prompt",
    "response",
    "error",
    "error.message",
    "error.type",
    "model",
    "event.name",
    "event.kind",
    "request_id",
    "session.id",
    "user.id",
    "user.email",
    "organization.id",
    "conversation.id",
    "prompt.id",
    "stop_reason",
    "service.version",
    "gen_ai.input.messages",
    "gen_ai.output.messages",
    "gen_ai.system_instructions",
    "gen_ai.response.id",
    "gen_ai.response.model",
    "gen_ai.response.finish_reasons",
    "gen_ai.conversation.id",
    "gen_ai.provider.name",
    "ai.prompt.messages",
    "ai.response.text",
    "input.value",
    "output.value",
    "process.command_args",
    "vcs.ref.head.name",
    "lodestar.project",
    "exception.message",
];

#[test]
fn planted_prompts_do_not_come_out() {
    let mut site = Site::plain();
    let now = now_ns();
    let planted = || NAMES.iter().map(|name| attr(name, CANARY)).collect::<Vec<_>>();
    for tool in ["claude-code", "codex_exec", "gemini-cli", "opencode", "program", CANARY] {
        for first in [
            attr("event.name", "claude_code.api_request"),
            attr("event.name", "claude_code.api_error"),
            attr("event.name", "codex.sse_event"),
            attr("event.name", "codex.api_request"),
            attr("event.name", "gemini_cli.api_response"),
            attr("event.name", "gemini_cli.api_error"),
            attr("event.name", "gen_ai.client.inference.operation.details"),
            attr("event.name", CANARY),
        ] {
            let mut attributes = vec![first, attr("gen_ai.operation.name", "chat")];
            attributes.extend(planted());
            let mut record = record(now, attributes);
            record.body = Some(AnyValue { value: Some(CANARY.into_value()) });
            record.severity_text = CANARY.to_owned();
            record.event_name = CANARY.to_owned();
            let answer = site.post_protobuf("/v1/logs", &logs(tool, tool, vec![record]));
            assert!(!answer.text().contains("CANARY"), "{}", answer.text());
        }
        for name in ["chat m", "claude_code.llm_request", "ai.streamText.doStream", CANARY] {
            let mut attributes = vec![
                attr("gen_ai.operation.name", "chat"),
                attr("gen_ai.usage.output_tokens", CANARY),
            ];
            attributes.extend(planted());
            let mut spans = vec![failed(span(name, (1, 2, 0), now, attributes.clone()))];
            attributes.remove(1);
            spans.push(failed(span(name, (1, 3, 0), now, attributes)));
            for span in &mut spans {
                span.trace_state = CANARY.to_owned();
                span.status.as_mut().expect("it failed").message = CANARY.to_owned();
                span.events = vec![Event {
                    name: CANARY.to_owned(),
                    attributes: planted(),
                    ..Event::default()
                }];
            }
            let answer = site.post_protobuf("/v1/traces", &traces(tool, vec![(tool, spans)]));
            assert!(!answer.text().contains("CANARY"), "{}", answer.text());
        }
    }
    assert!(site.requests().len() > 10, "the mappers have not been reached");
    let told = site.everything_told();
    for word in ["CANARY", "poem", "jane"] {
        assert!(!told.contains(word), "{word} came out");
    }
    for entry in walk(site.bench.data_dir()) {
        let bytes = std::fs::read(&entry).expect("it can be read");
        assert!(!String::from_utf8_lossy(&bytes).contains("CANARY"), "{entry:?}");
    }
}

#[test]
fn lynex_texts_do_not_come_out() {
    let mut site = Site::plain();
    let text = CANARY;
    let bodies = [
        ("log", json!({"level": "info", "message": text, "metadata": {text: text}})),
        ("error", json!({"message": text, "stack": text, "type": text, "fingerprint": text})),
        (
            "span",
            json!({"spanId": "s", "name": text, "start": "2026-11-20T23:48:21Z",
                        "attributes": {"a": text}}),
        ),
        ("token_usage", json!({"model": "m", "inputTokens": 1, "outputTokens": 2, "x": text})),
        ("message", json!({"role": "user", "content": text})),
        ("eval_metric", json!({"suiteId": text, "metric": text, "value": 1})),
        (
            "agent_action",
            json!({"agentName": text, "action": text, "input": text,
                                "output": text, "reasoning": text}),
        ),
        ("retrieval", json!({"query": text, "results": [{"id": "a", "score": 1, "text": text}]})),
        ("tool_call", json!({"toolName": text, "arguments": {"a": text}, "result": text})),
        (
            "model_response",
            json!({"model": "m", "prompt": text, "response": text,
                                  "latencyMs": 1, "finishReason": text}),
        ),
        ("custom", json!({"name": text, "payload": {"a": text}})),
    ];
    for (kind, body) in bodies {
        let event = json!({
            "eventId": kind, "projectId": "shop", "type": kind, "body": body,
            "timestamp": "2026-11-20T23:48:21", "sdk": {"name": text, "version": text},
            "context": {"traceId": text, "userId": "jane", "sessionId": text, "note": text},
        });
        let answer = site.post_json("/api/v1/event", &event);
        assert_eq!(answer.status, 202, "{kind}: {}", answer.text());
    }
    // Errors do not quote either.
    let event = json!({"eventId": text, "projectId": text, "type": text, "timestamp": text,
                       "body": {"level": text}});
    let answer = site.post_json("/api/v1/event", &event);
    assert_eq!(answer.status, 422);
    assert!(!answer.text().contains("CANARY"), "{}", answer.text());
    let told = site.everything_told();
    for word in ["CANARY", "poem", "jane"] {
        assert!(!told.contains(word), "{word} came out");
    }
}

#[test]
fn names_of_people_and_sessions_are_pseudonyms() {
    let site = Site::plain();
    site.post_protobuf("/v1/logs", &claude_logs(vec![claude_request(now_ns(), "req_1")]));
    let request = &site.requests()[0];
    let starts =
        |text: &Option<String>, with: &str| text.as_ref().is_some_and(|t| t.starts_with(with));
    assert!(starts(&request.session_id, "session_"), "{request:?}");
    assert!(starts(&request.user, "user_"), "{request:?}");
    assert!(starts(&request.turn_id, "turn_"), "{request:?}");
    let told = format!("{:?}", site.bench.host().emitted());
    for raw in ["bd74aaac", "5af01934", "c068229e", "workstation-of-jane"] {
        assert!(!told.contains(raw), "{raw} came out");
    }
}

fn walk(directory: &std::path::Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(directory).expect("it can be listed");
    entries
        .flat_map(|entry| {
            let path = entry.expect("an entry").path();
            if path.is_dir() { walk(&path) } else { vec![path] }
        })
        .collect()
}
