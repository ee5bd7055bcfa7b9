//! Whole answers of Google.

use super::{
    super::{
        AnswerContext, TranslateError,
        ir::{Answer, Ending, Stop, Timings, expect},
        json::{Json, Object},
    },
    finish_reason, read_call, read_plain, read_usage, stop_of, take, write_answer_part,
    write_usage,
};

/// Reads an answer; of several candidates the first.
pub(in super::super) fn read(mut body: Json<'_>) -> Result<Answer<'_>, TranslateError> {
    let usage = read_usage(body.get("usageMetadata"));
    let is_blocked = body.get("promptFeedback").has("blockReason");
    let mut candidates = body.take("candidates").into_list();
    expect(is_blocked || !candidates.is_empty(), "the answer has no candidates")?;
    let id = body.take("responseId").into_text();
    let mut blocks = Vec::new();
    let mut stop = if is_blocked { Stop::Refused } else { Stop::End };
    if !candidates.is_empty() {
        let mut candidate = candidates.swap_remove(0);
        for mut part in candidate.take("content").take("parts").into_list() {
            match read_call(take(&mut part, "functionCall", "function_call")) {
                Some(call) => blocks.push(call),
                None => blocks.extend(read_plain(part)?),
            }
        }
        stop = candidate.get("finishReason").text().map_or(stop, stop_of);
    }
    let ending = Ending { stop, stop_sequence: None, usage, timings: Timings::default() };
    Ok(Answer { id, blocks, ending, ..Answer::default() })
}

/// Writes an answer.
pub(in super::super) fn write<'a>(answer: Answer<'a>, context: &AnswerContext<'a>) -> Json<'a> {
    let parts: Vec<Json<'a>> = answer.blocks.into_iter().filter_map(write_answer_part).collect();
    let content = Object::new().with("role", "model").with("parts", parts);
    let candidate = Object::new()
        .with("content", content)
        .with("finishReason", finish_reason(answer.ending.stop))
        .with("index", 0_u32);
    Object::new()
        .with("candidates", vec![candidate.into()])
        .with_some("usageMetadata", write_usage(&answer.ending.usage))
        .with("modelVersion", context.model)
        .with("responseId", answer.id.unwrap_or(context.id.into()))
        .into()
}
