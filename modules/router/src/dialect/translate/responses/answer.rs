//! Whole responses.

use super::{
    super::{
        AnswerContext, ClientTools, TranslateError, chat,
        client_tools::free_text,
        ids::OWN,
        ir::{Answer, Block, Ending, Stop, Timings, expect},
        json::{Json, Object},
    },
    items::{self, Call},
    read_usage, write_usage,
};
use crate::dialect::Dialect;

/// Reads an answer.
pub(in super::super) fn read(mut body: Json<'_>) -> Result<Answer<'_>, TranslateError> {
    if body.get("status").text() == Some("failed") {
        return Err(TranslateError::Upstream { message: chat::error_message(&body) });
    }
    let output = body.take("output");
    expect(matches!(output, Json::List(_)), "the answer has no output")?;
    let mut blocks = Vec::new();
    for mut item in output.into_list() {
        match item.get("type").text() {
            Some("message") => blocks.extend(items::read_content(item.take("content"))?),
            Some("function_call" | "custom_tool_call") => blocks.push(items::read_call(item)?),
            Some("tool_search_call") if items::is_of_client(&item) => {
                blocks.push(items::read_search(item));
            }
            Some("reasoning") => blocks.push(items::read_reasoning(item)),
            _ => {}
        }
    }
    // Encrypted reasoning without a summary says nothing to anybody else.
    blocks.retain(|block| !matches!(block, Block::Thinking { text, .. } if text.is_empty()));
    let ending = read_ending(&body, blocks.iter().any(|b| matches!(b, Block::ToolUse { .. })));
    Ok(Answer { id: body.take("id").into_text(), blocks, ending, ..Answer::default() })
}

/// Returns the end of a response.
pub(super) fn read_ending(response: &Json<'_>, has_calls: bool) -> Ending {
    let reason = response.get("incomplete_details").get("reason").text();
    let stop = match (response.get("status").text(), reason) {
        (_, Some("content_filter")) => Stop::Refused,
        (Some("incomplete"), _) | (_, Some("max_output_tokens")) => Stop::Length,
        _ if has_calls => Stop::Tools,
        _ => Stop::End,
    };
    let usage = read_usage(response.get("usage"));
    Ending { stop, stop_sequence: None, usage, timings: Timings::default() }
}

/// Writes an answer.
pub(in super::super) fn write<'a>(answer: Answer<'a>, context: &AnswerContext<'a>) -> Json<'a> {
    let tools = context.client_tools();
    let output: Vec<Json<'a>> = (0..)
        .zip(answer.blocks)
        .filter_map(|(at, block)| {
            write_item(item_id(&block, &tools, context.id, at), block, &tools)
        })
        .collect();
    let id = answer.id.unwrap_or_else(|| context.answer_id(Dialect::Responses).into());
    let response = Response { id: &id, model: context.model, created: context.created };
    let whole: Json<'_> = response.write(Some(&answer.ending), output).into();
    whole.into_owned()
}

fn item_id(block: &Block<'_>, tools: &ClientTools, scope: &str, at: usize) -> String {
    let kind = match block {
        Block::Thinking { .. } => "rs",
        Block::ToolUse { name, .. } => items::id_prefix(tools.form(name)),
        _ => "msg",
    };
    new_item_id(kind, scope, at)
}

/// Returns the id of an item that is made here.
pub(super) fn new_item_id(kind: &str, scope: &str, at: usize) -> String {
    format!("{kind}_{OWN}_{scope}_{at}")
}

fn write_item<'a>(id: String, block: Block<'a>, tools: &ClientTools) -> Option<Json<'a>> {
    Some(match block {
        Block::Text(text) => items::write_message(id, items::write_text(text)),
        Block::Refusal(text) => items::write_message(id, items::write_refusal(text)),
        Block::Thinking { text, .. } => items::write_reasoning(id, text),
        Block::ToolUse { id: call, name, arguments } => {
            let arguments = arguments.into_text();
            let arguments = if tools.is_free(&name) {
                free_text(&arguments).into_owned().into()
            } else {
                arguments
            };
            let call = Call { item: id, id: call, name, arguments, status: "completed" };
            items::write_call(call, tools)
        }
        Block::Image(_) | Block::File { .. } | Block::ToolResult { .. } => return None,
    })
}

/// A response as a whole, with what its clients expect in it.
pub(super) struct Response<'a> {
    pub id: &'a str,
    pub model: &'a str,
    pub created: i64,
}

impl<'a> Response<'a> {
    /// Returns the response, under way where it has no end.
    pub(super) fn write(&self, ending: Option<&Ending>, output: Vec<Json<'a>>) -> Object<'a> {
        let (status, reason) = match ending.map(|ending| ending.stop) {
            None => ("in_progress", None),
            Some(Stop::Length) => ("incomplete", Some("max_output_tokens")),
            Some(Stop::Refused) => ("incomplete", Some("content_filter")),
            Some(_) => ("completed", None),
        };
        self.write_as(status, reason, Json::Null, output)
            .with("usage", ending.and_then(|ending| write_usage(&ending.usage)))
    }

    /// Returns the response with a status and an error.
    pub(super) fn write_as(
        &self,
        status: &'static str,
        reason: Option<&'static str>,
        error: Json<'a>,
        output: Vec<Json<'a>>,
    ) -> Object<'a> {
        let text = Object::new().with("format", Object::new().with("type", "text"));
        Object::new()
            .with("id", self.id)
            .with("object", "response")
            .with("created_at", self.created)
            .with("status", status)
            .with("background", false)
            .with("error", error)
            .with("incomplete_details", reason.map(|reason| Object::new().with("reason", reason)))
            .with("instructions", Json::Null)
            .with("max_output_tokens", Json::Null)
            .with("model", self.model)
            .with("output", output)
            .with("parallel_tool_calls", true)
            .with("previous_response_id", Json::Null)
            .with("store", false)
            .with("temperature", Json::Null)
            .with("text", text)
            .with("tool_choice", "auto")
            .with("tools", Vec::new())
            .with("top_p", Json::Null)
            .with("truncation", "disabled")
            .with("metadata", Object::new())
    }
}
