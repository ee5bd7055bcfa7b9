//! Steps of traces: made from the spans that arrive anyway, where a subscriber wants them.

use std::collections::BTreeMap;

use module_sdk::events::{SpanKind, SpanStatus, TraceSpanCompleted};

use crate::{bodies::*, http::Site};

fn steps(site: &Site) -> Vec<TraceSpanCompleted> {
    site.bench.host().emitted_as().expect("the steps")
}

fn wanting() -> Site {
    let site = Site::plain();
    site.bench.host().want("trace.>");
    site
}

#[test]
fn nobody_wants_them_and_none_are_made() {
    let site = Site::plain();
    site.post_protobuf("/v1/traces", &claude_span(now_ns(), "req_1"));
    assert_eq!(site.requests().len(), 1);
    assert_eq!(steps(&site), []);
}

#[test]
fn a_step_that_is_a_request_has_its_key_and_the_others_have_none() {
    let site = wanting();
    let ended = now_ns();
    let tool = vec![
        attr("gen_ai.operation.name", "execute_tool"),
        attr("gen_ai.tool.name", "Bash"),
        attr("gen_ai.tool.call.arguments", "cat /home/jane/diary"),
        attr("gen_ai.conversation.id", "conversation of jane"),
    ];
    let agent = vec![attr("gen_ai.operation.name", "invoke_agent")];
    let spans = vec![
        chat_span((1, 3, 2), ended, "msg_1", Vec::new()),
        failed(span("execute_tool Bash", (1, 4, 2), ended, tool)),
        span("invoke_agent planner", (1, 2, 0), ended, agent),
        span("GET /people/jane", (1, 5, 2), ended, Vec::new()),
    ];
    let answer =
        site.post_protobuf("/v1/traces", &traces("program", vec![("program.genai", spans)]));
    assert_eq!(answer.status, 200);
    let steps = steps(&site);
    let kinds: Vec<_> = steps.iter().map(|step| step.kind).collect();
    assert_eq!(kinds, [SpanKind::Llm, SpanKind::Tool, SpanKind::Agent]);
    let [chat, tool, agent] = steps.as_slice() else { panic!("three") };
    assert_eq!(chat.dedupe_key.as_ref(), Some(&site.requests()[0].dedupe_key));
    assert_eq!((chat.input_tokens, chat.output_tokens), (Some(1200), Some(34)));
    assert_eq!(chat.model.as_deref(), Some("claude-sonnet-4-5"));
    assert_eq!(chat.parent_span_id.as_deref(), Some("0202020202020202"));
    assert_eq!((tool.tool.as_deref(), tool.status), (Some("Bash"), SpanStatus::Error));
    assert!(tool.session_id.as_deref().is_some_and(|id| id.starts_with("session_")));
    assert_eq!((&tool.dedupe_key, &tool.input_tokens), (&None, &None));
    assert_eq!((agent.parent_span_id.as_deref(), agent.name.as_str()), (None, "invoke_agent"));
    assert_eq!(agent.ended_at - agent.started_at, 400);
    let told = format!("{:?}", site.bench.host().emitted());
    for text in ["jane", "diary", "Overloaded"] {
        assert!(!told.contains(text), "{text}: {told}");
    }
    assert!(site.bench.host().emitted().iter().all(|event| event.ledger));
}

#[test]
fn a_step_that_sums_up_others_has_neither_key_nor_tokens() {
    let site = wanting();
    let ended = now_ns();
    let sum = vec![attr("gen_ai.usage.input_tokens", 1200), attr("gen_ai.usage.output_tokens", 34)];
    let spans = vec![
        chat_span((1, 3, 2), ended, "msg_1", Vec::new()),
        span("agent run", (1, 2, 0), ended, sum),
    ];
    site.post_protobuf("/v1/traces", &traces("program", vec![("program.genai", spans)]));
    let steps: BTreeMap<_, _> =
        steps(&site).into_iter().map(|step| (step.span_id.clone(), step)).collect();
    assert_eq!(steps.len(), 2);
    assert!(steps["0303030303030303"].dedupe_key.is_some());
    let sum = &steps["0202020202020202"];
    assert_eq!((&sum.dedupe_key, sum.input_tokens, sum.output_tokens), (&None, None, None));
}

#[test]
fn of_codex_only_what_an_agent_did_is_a_step() {
    let site = wanting();
    site.post_protobuf("/v1/traces", &codex_spans(now_ns()));
    let names: Vec<_> = steps(&site).into_iter().map(|step| step.name).collect();
    assert_eq!(names, ["handle_responses", "run_sampling_request"]);
}
