//! The answer of a chat completion.

use super::{
    super::{
        AnswerContext, TranslateError,
        client_tools::free_text,
        ir::{Answer, Block, Ending, Stop, Timings, expect, join},
        json::{Json, Object},
    },
    finish_reason, read_usage,
    request_read::{read_call, read_content},
    request_write::write_call,
    stop_of, take_reasoning, write_usage,
};
use crate::dialect::Dialect;

/// Reads an answer; of several choices the first.
pub(in super::super) fn read(mut body: Json<'_>) -> Result<Answer<'_>, TranslateError> {
    let mut choices = body.take("choices").into_list();
    expect(!choices.is_empty(), "the answer has no choices")?;
    let mut choice = choices.swap_remove(0);
    let mut message = choice.take("message");
    expect(matches!(message, Json::Object(_)), "the answer has no message")?;
    let mut blocks = Vec::new();
    let reasoning = take_reasoning(&mut message);
    blocks.extend(reasoning.map(|text| Block::Thinking { text, is_sealed: false }));
    blocks.extend(read_content(message.take("content"))?);
    let refusal = message.take("refusal").into_text().filter(|text| !text.is_empty());
    blocks.extend(refusal.map(Block::Refusal));
    for call in message.take("tool_calls").into_list() {
        blocks.push(read_call(call)?);
    }
    let stop = choice.get("finish_reason").text().map_or(Stop::End, stop_of);
    let usage = read_usage(body.get("usage"));
    let ending = Ending { stop, stop_sequence: None, usage, timings: Timings::default() };
    Ok(Answer { id: body.take("id").into_text(), blocks, ending, ..Answer::default() })
}

/// Writes an answer.
pub(in super::super) fn write<'a>(answer: Answer<'a>, context: &AnswerContext<'a>) -> Json<'a> {
    let (mut texts, mut refusals, mut thoughts) = (Vec::new(), Vec::new(), Vec::new());
    let mut calls = Vec::new();
    for block in answer.blocks {
        match block {
            Block::Text(text) => texts.push(text),
            Block::Refusal(text) => refusals.push(text),
            Block::Thinking { text, .. } => thoughts.push(text),
            Block::ToolUse { id, name, arguments }
                if context.tools.is_some_and(|tools| tools.is_free(&name)) =>
            {
                let input = free_text(&arguments.into_text()).into_owned();
                let custom = Object::new().with("name", name).with("input", input);
                let call = Object::new().with("id", id).with("type", "custom");
                calls.push(call.with("custom", custom).into());
            }
            Block::ToolUse { id, name, arguments } => calls.push(write_call(id, name, arguments)),
            Block::Image(_) | Block::File { .. } | Block::ToolResult { .. } => {}
        }
    }
    let content =
        (!texts.is_empty() || calls.is_empty() && refusals.is_empty()).then(|| join(texts, ""));
    let refusal = (!refusals.is_empty()).then(|| join(refusals, ""));
    let thoughts = (!thoughts.is_empty()).then(|| join(thoughts, "\n\n"));
    let message = Object::new()
        .with("role", "assistant")
        .with("content", content)
        .with("refusal", refusal)
        .with_some("reasoning_content", thoughts)
        .with_items("tool_calls", calls);
    let choice = Object::new()
        .with("index", 0_u32)
        .with("message", message)
        .with("logprobs", answer.logprobs)
        .with("finish_reason", finish_reason(answer.ending.stop));
    Object::new()
        .with("id", answer.id.unwrap_or_else(|| context.answer_id(Dialect::Chat).into()))
        .with("object", "chat.completion")
        .with("created", context.created)
        .with("model", context.model)
        .with("choices", vec![choice.into()])
        .with_some("usage", write_usage(&answer.ending.usage))
        .into()
}
