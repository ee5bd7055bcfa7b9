//! Mapping of a span of any source to a step of a trace: names and numbers, no text.

use module_sdk::events::{
    LlmRequestCompleted, RequestStatus, SpanKind, SpanStatus, TraceSpanCompleted,
};
use opentelemetry_proto::tonic::trace::v1::Span;

use super::{
    Attributes, Context, Key, Mapper, Outcome, SpanRecord, keys, shape::from_span, shape::hex,
    span_name,
};

/// Status code of a span whose work failed, by OTLP.
const STATUS_ERROR: i32 = 2;
const STATUS_OK: i32 = 1;

/// Creates the event of a span; `None` for a span that is no step of an agent, such as the many
/// that trace the code of Codex itself.
pub(crate) fn map(
    span: &Span,
    mapper: Mapper,
    outcome: &Outcome,
    context: &Context<'_>,
) -> Option<TraceSpanCompleted> {
    let (trace_id, span_id) = (hex(&span.trace_id, 16)?, hex(&span.span_id, 8)?);
    let attributes = Attributes::new(&span.attributes);
    let kind = kind(span, mapper, outcome, attributes)?;
    let known = match outcome {
        Outcome::Request(report) => report.event.clone(),
        _ => from_span(&SpanRecord { span, attributes }, context).event,
    };
    let session = || session(attributes, context);
    let of_request = matches!(outcome, Outcome::Request(_));
    Some(TraceSpanCompleted {
        schema: 1,
        trace_id,
        span_id,
        parent_span_id: hex(&span.parent_span_id, 8),
        kind,
        name: span_name(&span.name),
        started_at: known.started_at,
        ended_at: known.ended_at,
        status: status(span, &known),
        error_type: known.error_type.or_else(|| attributes.name(&[keys::ERROR_TYPE])),
        client: known.client,
        session_id: known.session_id.or_else(session),
        project: known.project,
        branch: known.branch,
        tool: attributes.name(TOOL).filter(|_| kind == SpanKind::Tool || kind == SpanKind::Waiting),
        model: known.response_model.or(known.request_model).or_else(|| attributes.name(MODEL)),
        input_tokens: known.input_tokens.filter(|_| of_request),
        output_tokens: known.output_tokens.filter(|_| of_request),
        dedupe_key: None,
    })
}

const TOOL: &[Key] = &[keys::GEN_AI_TOOL, keys::AI_TOOL, keys::TOOL_NAME, keys::OPENINFERENCE_TOOL];
const MODEL: &[Key] =
    &[keys::RESPONSE_MODEL, keys::REQUEST_MODEL, keys::AI_MODEL_ID, keys::LLM_MODEL_NAME];

fn session(attributes: Attributes<'_>, context: &Context<'_>) -> Option<String> {
    let keys = &[
        keys::SESSION_ID,
        keys::GEN_AI_CONVERSATION_ID,
        keys::CONVERSATION_ID,
        keys::AI_SESSION_ID,
    ];
    attributes.identifier(keys).map(|id| context.host.pseudonym("session", id))
}

fn status(span: &Span, known: &LlmRequestCompleted) -> SpanStatus {
    let code = span.status.as_ref().map_or(0, |status| status.code);
    match (code, known.status) {
        (STATUS_ERROR, _) => SpanStatus::Error,
        (_, Some(RequestStatus::Ok | RequestStatus::Cached)) | (STATUS_OK, None) => SpanStatus::Ok,
        (_, Some(_)) => SpanStatus::Error,
        (_, None) => SpanStatus::Unset,
    }
}

fn kind(
    span: &Span,
    mapper: Mapper,
    outcome: &Outcome,
    attributes: Attributes<'_>,
) -> Option<SpanKind> {
    if let Outcome::Request(report) = outcome {
        let embeds = report.event.operation.as_deref() == Some("embeddings");
        return Some(if embeds { SpanKind::Embedding } else { SpanKind::Llm });
    }
    if let Outcome::Refused(_) = outcome {
        return Some(SpanKind::Llm);
    }
    let name = span.name.split_whitespace().next().unwrap_or_default();
    match mapper {
        Mapper::ClaudeCode => match name.trim_start_matches("claude_code.") {
            "interaction" => Some(SpanKind::Turn),
            "tool" | "tool.execution" => Some(SpanKind::Tool),
            "tool.blocked_on_user" => Some(SpanKind::Waiting),
            _ => Some(SpanKind::Other),
        },
        // Of some 470 spans of a turn the others follow its own code.
        Mapper::Codex => match name {
            "session_task.turn" => Some(SpanKind::Turn),
            "run_sampling_request" | "try_run_sampling_request" => Some(SpanKind::Workflow),
            _ => None,
        },
        Mapper::AiSdk => Some(match name {
            "ai.toolCall" => SpanKind::Tool,
            _ => SpanKind::Agent,
        }),
        Mapper::OpenInference => Some(of_openinference(attributes)),
        Mapper::GenAi | Mapper::GeminiCli => Some(of_operation(attributes)),
        Mapper::None => None,
    }
}

/// Returns the kind of a span by OpenTelemetry's `gen_ai.operation.name`.
fn of_operation(attributes: Attributes<'_>) -> SpanKind {
    match attributes.name(&[keys::OPERATION]).as_deref() {
        Some("invoke_agent" | "create_agent") => SpanKind::Agent,
        Some("invoke_workflow" | "plan") => SpanKind::Workflow,
        Some("execute_tool") => SpanKind::Tool,
        Some("retrieval" | "rerank") => SpanKind::Retrieval,
        Some("embeddings") => SpanKind::Embedding,
        Some("chat" | "generate_content" | "text_completion") => SpanKind::Llm,
        _ => SpanKind::Other,
    }
}

fn of_openinference(attributes: Attributes<'_>) -> SpanKind {
    match attributes.name(&[keys::OPENINFERENCE_KIND]).unwrap_or_default().as_str() {
        "LLM" => SpanKind::Llm,
        "EMBEDDING" => SpanKind::Embedding,
        "AGENT" => SpanKind::Agent,
        "CHAIN" => SpanKind::Workflow,
        "TOOL" => SpanKind::Tool,
        "RETRIEVER" | "RERANKER" => SpanKind::Retrieval,
        _ => SpanKind::Other,
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::common::v1::KeyValue;

    use super::*;
    use crate::sources::{build::*, map_span};

    fn traced(service: &str, scope: &str, span: &Span) -> Option<TraceSpanCompleted> {
        with_context(service, scope, |context| {
            let (mapper, _, outcome) = map_span(span, context);
            map(span, mapper, &outcome, context)
        })
    }

    #[test]
    fn every_source_has_its_kinds() {
        let check = |scope: &str, name: &str, attributes: &[KeyValue], expected| {
            let span = span(name, NOW_NS - 5_000_000, NOW_NS, attributes);
            let found = traced("program", scope, &span).map(|span| span.kind);
            assert_eq!(found, expected, "{scope} {name}");
        };
        let claude = "com.anthropic.claude_code.tracing";
        check(claude, "claude_code.interaction", &[], Some(SpanKind::Turn));
        check(claude, "claude_code.tool", &[], Some(SpanKind::Tool));
        check(claude, "claude_code.tool.blocked_on_user", &[], Some(SpanKind::Waiting));
        check(claude, "claude_code.llm_request", &[], Some(SpanKind::Llm));
        check("codex_exec", "session_task.turn", &[], Some(SpanKind::Turn));
        check("codex_exec", "fs.get_metadata", &[], None);
        check("codex_exec", "append_items", &[], None);
        check("ai", "ai.toolCall", &[], Some(SpanKind::Tool));
        check("ai", "ai.streamText", &[], Some(SpanKind::Agent));
        check("ai", "ai.streamText.doStream", &[], Some(SpanKind::Llm));
        check("ai", "ai.embed.doEmbed", &[], Some(SpanKind::Embedding));
        let operation = |word: &str| [attr("gen_ai.operation.name", text(word))];
        check("x", "execute_tool Bash", &operation("execute_tool"), Some(SpanKind::Tool));
        check("x", "invoke_agent a", &operation("invoke_agent"), Some(SpanKind::Agent));
        check("x", "chat gpt", &operation("chat"), Some(SpanKind::Llm));
        check("x", "retrieval", &operation("retrieval"), Some(SpanKind::Retrieval));
        let openinference = |word: &str| [attr("openinference.span.kind", text(word))];
        check("x", "Chain", &openinference("CHAIN"), Some(SpanKind::Workflow));
        check("x", "Reranker", &openinference("RERANKER"), Some(SpanKind::Retrieval));
        check("http", "GET /people/jane", &[], None);
    }

    #[test]
    fn names_pass_and_text_does_not() {
        let told = |name: &str, attributes: &[KeyValue]| {
            let span = span(name, NOW_NS - 7_000_000, NOW_NS, attributes);
            traced("program", "scope", &failed(span, "why")).expect("it is a step")
        };
        let operation = attr("gen_ai.operation.name", text("execute_tool"));
        let step = told(
            "execute_tool Bash now",
            &[
                operation.clone(),
                attr("gen_ai.tool.name", text("Bash")),
                attr("gen_ai.tool.call.arguments", text("rm -rf secrets")),
                attr("session.id", text("jane@example.com")),
            ],
        );
        assert_eq!((step.tool.as_deref(), step.name.as_str()), (Some("Bash"), "execute_tool"));
        assert_eq!((step.status, step.ended_at - step.started_at), (SpanStatus::Error, 7));
        assert_eq!((step.span_id.as_str(), step.input_tokens), ("0808080808080808", None));
        let shown = serde_json::to_string(&step).expect("it serialises");
        for text in ["secrets", "jane", "why", "now"] {
            assert!(!shown.contains(text), "{shown}");
        }
        let prose = attr("gen_ai.tool.name", text("please write a poem"));
        let step = told("please write", &[operation, prose]);
        assert_eq!((step.tool, step.name.as_str()), (None, "(unnamed)"));
    }

    #[test]
    fn a_span_without_ids_is_no_step() {
        let mut nameless = span("claude_code.tool", 1, 2, &[]);
        nameless.span_id = vec![0; 8];
        assert_eq!(traced("claude-code", "com.anthropic.claude_code.tracing", &nameless), None);
    }
}
