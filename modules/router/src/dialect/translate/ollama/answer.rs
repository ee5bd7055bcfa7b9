//! Whole answers of Ollama.

use std::borrow::Cow;

use super::{
    super::{
        AnswerContext, TranslateError,
        ir::{Answer, Block, expect, join},
        json::{Json, Object},
    },
    created_at, read_ending,
    request_read::read_call,
    with_ending, write_call,
};

/// Reads an answer of `/api/chat`. It has no ids.
pub(in super::super) fn read(mut body: Json<'_>) -> Result<Answer<'_>, TranslateError> {
    let mut message = body.take("message");
    expect(matches!(message, Json::Object(_)), "the answer has no message")?;
    expect(body.get("done").bool() != Some(false), "the answer is not whole")?;
    let mut blocks = Vec::new();
    let thinking = message.take("thinking").into_text().filter(|text| !text.is_empty());
    blocks.extend(thinking.map(|text| Block::Thinking { text, is_sealed: false }));
    blocks.extend(message.take("content").into_text().and_then(Block::text));
    for call in message.take("tool_calls").into_list() {
        let (id, name, arguments) = read_call(call)?;
        blocks.push(Block::ToolUse { id: id.unwrap_or_default(), name, arguments });
    }
    Ok(Answer { blocks, ending: read_ending(&body), ..Answer::default() })
}

/// Text and reasoning of an answer, and its calls.
#[derive(Default)]
struct Parts<'a> {
    texts: Vec<Cow<'a, str>>,
    thoughts: Vec<Cow<'a, str>>,
    calls: Vec<Json<'a>>,
}

fn parts(blocks: Vec<Block<'_>>) -> Parts<'_> {
    let mut parts = Parts::default();
    for block in blocks {
        match block {
            Block::Text(text) | Block::Refusal(text) => parts.texts.push(text),
            Block::Thinking { text, .. } => parts.thoughts.push(text),
            Block::ToolUse { id, name, arguments } => {
                let index = parts.calls.len();
                parts.calls.push(write_call(id, index, name, arguments.into_object()));
            }
            Block::Image(_) | Block::File { .. } | Block::ToolResult { .. } => {}
        }
    }
    parts
}

/// Writes an answer of `/api/chat`.
pub(in super::super) fn write_chat<'a>(
    answer: Answer<'a>,
    context: &AnswerContext<'a>,
) -> Json<'a> {
    let Parts { texts, thoughts, calls } = parts(answer.blocks);
    let thoughts = (!thoughts.is_empty()).then(|| join(thoughts, "\n\n"));
    let message = Object::new()
        .with("role", "assistant")
        .with("content", join(texts, ""))
        .with_some("thinking", thoughts)
        .with_items("tool_calls", calls);
    let body = Object::new()
        .with("model", context.model)
        .with("created_at", created_at(context.created))
        .with("message", message);
    with_ending(body, &answer.ending).into()
}

/// Writes an answer of `/api/generate`.
pub(in super::super) fn write_generate<'a>(
    answer: Answer<'a>,
    context: &AnswerContext<'a>,
) -> Json<'a> {
    let Parts { texts, thoughts, .. } = parts(answer.blocks);
    let thoughts = (!thoughts.is_empty()).then(|| join(thoughts, "\n\n"));
    let body = Object::new()
        .with("model", context.model)
        .with("created_at", created_at(context.created))
        .with("response", join(texts, ""))
        .with_some("thinking", thoughts);
    with_ending(body, &answer.ending).into()
}
