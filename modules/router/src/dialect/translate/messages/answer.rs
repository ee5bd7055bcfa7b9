//! The answer to a message.

use super::{
    super::{
        AnswerContext, TranslateError,
        ir::{Answer, Block, Ending, Stop, Timings, expect},
        json::{Json, Object},
    },
    FOREIGN_SIGNATURE, read_usage,
    request_read::{read_call, read_thinking},
    stop_of, stop_reason, write_usage,
};
use crate::dialect::Dialect;

/// Reads an answer.
pub(in super::super) fn read(mut body: Json<'_>) -> Result<Answer<'_>, TranslateError> {
    let content = body.take("content");
    expect(matches!(content, Json::List(_)), "the answer has no content")?;
    let mut blocks = Vec::new();
    for mut block in content.into_list() {
        match block.get("type").text() {
            Some("text") => blocks.extend(block.take("text").into_text().and_then(Block::text)),
            Some("thinking") => blocks.extend(read_thinking(block)),
            Some("tool_use") => blocks.push(read_call(block)?),
            _ => {}
        }
    }
    let ending = Ending {
        stop: body.get("stop_reason").text().map_or(Stop::End, stop_of),
        stop_sequence: body.get("stop_sequence").text().map(str::to_owned),
        usage: read_usage(body.get("usage")),
        timings: Timings::default(),
    };
    Ok(Answer { id: body.take("id").into_text(), blocks, ending, ..Answer::default() })
}

/// Writes an answer.
pub(in super::super) fn write<'a>(answer: Answer<'a>, context: &AnswerContext<'a>) -> Json<'a> {
    let content: Vec<Json<'a>> = answer.blocks.into_iter().filter_map(write_block).collect();
    let ending = answer.ending;
    Object::new()
        .with("id", answer.id.unwrap_or_else(|| context.answer_id(Dialect::Messages).into()))
        .with("type", "message")
        .with("role", "assistant")
        .with("model", context.model)
        .with("content", content)
        .with("stop_reason", stop_reason(ending.stop, ending.stop_sequence.is_some()))
        .with("stop_sequence", ending.stop_sequence)
        .with("usage", write_usage(&ending.usage))
        .into()
}

fn write_block(block: Block<'_>) -> Option<Json<'_>> {
    let object = Object::new();
    Some(match block {
        Block::Text(text) | Block::Refusal(text) => {
            object.with("type", "text").with("text", text).into()
        }
        Block::Thinking { text, .. } => object
            .with("type", "thinking")
            .with("thinking", text)
            .with("signature", FOREIGN_SIGNATURE)
            .into(),
        Block::ToolUse { id, name, arguments } => object
            .with("type", "tool_use")
            .with("id", id)
            .with("name", name)
            .with("input", arguments.into_object())
            .into(),
        Block::Image(_) | Block::File { .. } | Block::ToolResult { .. } => return None,
    })
}
