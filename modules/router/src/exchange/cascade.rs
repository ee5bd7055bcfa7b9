//! A local model first, whose answer is checked before it counts.

use std::sync::Arc;

use bytes::Bytes;

use super::{Answered, Asking, Attempts, Plan, sending::answer_context};
use crate::{
    app::App,
    dialect::{Dialect, reading, reading::Reading, translate},
    routing::check::{AnswerText, Asked, Check, Finish, Tool, ToolCall, check, check_both},
    target::TargetName,
};

/// A whole answer, before the client has it.
struct Draft {
    answered: Answered,
    body: Bytes,
    reading: Reading,
}

/// Returns whether an answer can be checked, and then be given in the form that was asked for.
pub(super) fn can_check(plan: &Plan) -> bool {
    let has_replay = matches!(
        plan.dialect,
        Dialect::Chat | Dialect::Responses | Dialect::Messages | Dialect::OllamaChat
    );
    plan.choices == 1 && (!plan.is_stream || has_replay)
}

/// Asks the first target of a decision for a whole answer, and checks it. Returns `None` where the
/// next one is to be asked.
pub(super) async fn first(
    app: &Arc<App>,
    plan: &Arc<Plan>,
    attempts: &Attempts,
) -> Option<Answered> {
    let name = plan.decision.order.first()?;
    let draft = draft(app, plan, attempts, name).await?;
    let (tools, schema) = reading::offered(plan.dialect, &plan.body);
    let tools: Vec<Tool<'_>> = tools
        .iter()
        .map(|tool| Tool { name: &tool.name, schema: tool.schema.as_deref() })
        .collect();
    let asked = Asked {
        format: plan.answer_format,
        schema: schema.as_deref(),
        tools: &tools,
        requires_tool: plan.requires_tool,
        expected: plan.expected,
    };
    let calls = calls(&draft.reading);
    let mut is_compared = false;
    let mut checked = check(&asked, &text_of(&draft.reading, &calls));
    if checked == Check::Kept
        && let Some(second) = &plan.decision.second
        && let Some(other) = self::draft(app, plan, attempts, second).await
    {
        is_compared = true;
        // The judgement is of the first one.
        let is_local = app.targets.get(name).is_some_and(|target| target.is_local());
        app.labels.answered(&plan.id, is_local);
        let others = self::calls(&other.reading);
        checked =
            check_both(&asked, &text_of(&draft.reading, &calls), &text_of(&other.reading, &others));
    }
    let now = app.host.now().as_millisecond();
    match checked {
        Check::Kept => {
            // Its form alone does not make it right.
            if is_compared {
                app.labels.judged(&plan.id, "check", true, now);
            }
            Some(as_asked(plan, draft))
        }
        Check::Escalate(failure) => {
            app.labels.judged(&plan.id, "check", false, now);
            tracing::debug!(target = %name, why = failure.as_str(), "an answer did not count");
            plan.story.did_not_count(failure.as_str());
            None
        }
    }
}

async fn draft(
    app: &Arc<App>,
    plan: &Arc<Plan>,
    attempts: &Attempts,
    name: &TargetName,
) -> Option<Draft> {
    let target = app.targets.get_or_add(name)?;
    let answered = attempts.at_target(app, plan, &target, Asking::default()).await?.ok()?;
    let Answered::Whole { body, .. } = &answered else { return None };
    let body = body.clone();
    let reading = reading::read(plan.dialect, &body);
    Some(Draft { answered, body, reading })
}

fn calls(reading: &Reading) -> Vec<ToolCall<'_>> {
    reading.calls.iter().map(|(name, arguments)| ToolCall { name, arguments }).collect()
}

fn text_of<'a>(reading: &'a Reading, calls: &'a [ToolCall<'a>]) -> AnswerText<'a> {
    AnswerText { text: &reading.text, tool_calls: calls, finish: finish(reading) }
}

fn finish(reading: &Reading) -> Finish {
    match reading.finish.as_deref() {
        Some("length" | "max_tokens" | "max_output_tokens" | "incomplete" | "MAX_TOKENS") => {
            Finish::Length
        }
        Some("content_filter" | "refusal" | "SAFETY") => Finish::Filtered,
        _ => Finish::Done,
    }
}

/// Gives the client the form that it asked for.
fn as_asked(plan: &Plan, draft: Draft) -> Answered {
    let Answered::Whole { headers, .. } = &draft.answered else { return draft.answered };
    if !plan.is_stream {
        return draft.answered;
    }
    let mut events = Vec::new();
    let context = answer_context(plan, &plan.model);
    let written = translate::replay(plan.dialect, plan.dialect, &draft.body, &context, &mut events);
    match written {
        Ok(()) => Answered::Replayed { headers: headers.clone(), body: events.into() },
        // It was written by the same code a moment ago.
        Err(error) => {
            tracing::warn!(%error, "an answer could not be written as a stream");
            draft.answered
        }
    }
}
