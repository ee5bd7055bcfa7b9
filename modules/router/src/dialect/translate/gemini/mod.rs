//! Google's `generateContent`.

mod answer;
mod request_read;
mod request_write;
mod stream;

use super::{
    TranslateError,
    ir::{Arguments, Block, Media, Stop},
    json::{Json, Object},
};
use crate::dialect::usage::Usage;

pub(super) use self::{
    answer::{read as read_answer, write as write_answer},
    request_read::read as read_request,
    request_write::write as write_request,
    stream::{Reader, Writer},
};

/// Returns the reason of a `finishReason`.
fn stop_of(name: &str) -> Stop {
    match name {
        "MAX_TOKENS" => Stop::Length,
        "SAFETY" | "RECITATION" | "BLOCKLIST" | "PROHIBITED_CONTENT" | "SPII" | "IMAGE_SAFETY" => {
            Stop::Refused
        }
        _ => Stop::End,
    }
}

/// Returns the `finishReason` of a reason.
const fn finish_reason(stop: Stop) -> &'static str {
    match stop {
        Stop::Length => "MAX_TOKENS",
        Stop::Refused => "SAFETY",
        Stop::End | Stop::Sequence | Stop::Tools | Stop::Paused => "STOP",
    }
}

/// Returns the counts of `usageMetadata`. Its output leaves out the reasoning.
fn read_usage(usage: &Json<'_>) -> Usage {
    let reasoning = usage.get("thoughtsTokenCount").u64();
    let answer = usage.get("candidatesTokenCount").u64();
    Usage {
        input: usage.get("promptTokenCount").u64(),
        cache_read: usage.get("cachedContentTokenCount").u64(),
        output: answer.or(reasoning.map(|_| 0)).map(|n| n.saturating_add(reasoning.unwrap_or(0))),
        reasoning,
        ..Usage::default()
    }
}

/// Returns a `usageMetadata`, none where nothing is known.
fn write_usage(usage: &Usage) -> Option<Object<'static>> {
    if usage.input.is_none() && usage.output.is_none() {
        return None;
    }
    let answer = usage.output.map(|all| all.saturating_sub(usage.reasoning.unwrap_or(0)));
    let total = usage.input.zip(usage.output).map(|(input, output)| input.saturating_add(output));
    Some(
        Object::new()
            .with_some("promptTokenCount", usage.input)
            .with_some("cachedContentTokenCount", usage.cache_read)
            .with_some("candidatesTokenCount", answer)
            .with_some("thoughtsTokenCount", usage.reasoning)
            .with_some("totalTokenCount", total),
    )
}

/// Takes a value under its name in camel case, or in snake case, which Google takes too.
fn take<'a>(json: &mut Json<'a>, camel: &str, snake: &str) -> Json<'a> {
    match json.take(camel) {
        Json::Null => json.take(snake),
        value => value,
    }
}

/// Reads a part that is no call and no result.
fn read_plain(mut part: Json<'_>) -> Result<Option<Block<'_>>, TranslateError> {
    if let Some(text) = part.take("text").into_text() {
        let is_thought = part.get("thought").bool() == Some(true);
        return Ok(if is_thought {
            Some(Block::Thinking { text, is_sealed: part.has("thoughtSignature") })
        } else {
            Block::text(text)
        });
    }
    let mut inline = take(&mut part, "inlineData", "inline_data");
    if let Some(data) = inline.take("data").into_text() {
        let media_type = take(&mut inline, "mimeType", "mime_type").into_text();
        let media_type = media_type.unwrap_or("image/png".into());
        if media_type.starts_with("audio/") || media_type.starts_with("video/") {
            return Err(TranslateError::Unsupported("sound or film"));
        }
        let is_image = media_type.starts_with("image/");
        let media = Media::Base64 { media_type, data };
        return Ok(Some(if is_image {
            Block::Image(media)
        } else {
            Block::File { media, name: None }
        }));
    }
    let mut file = take(&mut part, "fileData", "file_data");
    if let Some(uri) = take(&mut file, "fileUri", "file_uri").into_text() {
        if !uri.starts_with("https://") || uri.contains("generativelanguage.googleapis.com") {
            return Err(TranslateError::Unsupported("a file that lies with another provider"));
        }
        return Ok(Some(Block::Image(Media::Url(uri))));
    }
    Ok(None)
}

/// Reads a call of a tool: its id where it has one, its name, its arguments.
fn read_call(mut call: Json<'_>) -> Option<Block<'_>> {
    let id = call.take("id").into_text().unwrap_or_default();
    let name = call.take("name").into_text()?;
    Some(Block::ToolUse { id, name, arguments: Arguments::Tree(call.take("args")) })
}

/// Writes a part of an answer.
fn write_answer_part(block: Block<'_>) -> Option<Json<'_>> {
    Some(match block {
        Block::Text(text) | Block::Refusal(text) => Object::new().with("text", text).into(),
        Block::Thinking { text, .. } => {
            Object::new().with("text", text).with("thought", true).into()
        }
        Block::ToolUse { id, name, arguments } => {
            let call = Object::new()
                .with("id", id)
                .with("name", name)
                .with("args", arguments.into_object());
            Object::new().with("functionCall", call).into()
        }
        Block::Image(_) | Block::File { .. } | Block::ToolResult { .. } => return None,
    })
}
