//! Ollama's own API: `/api/chat`, and `/api/generate` for clients.

mod answer;
mod request_read;
mod request_write;
mod stream;

use super::{
    ir::{Ending, Stop, Timings},
    json::{Json, Object},
};
use crate::dialect::usage::Usage;

pub(super) use self::{
    answer::{
        read as read_answer, write_chat as write_chat_answer,
        write_generate as write_generate_answer,
    },
    request_read::{read_chat as read_chat_request, read_generate as read_generate_request},
    request_write::write as write_request,
    stream::{Reader, Writer},
};

/// Returns the end that a last line or an answer tells of.
fn read_ending(body: &Json<'_>) -> Ending {
    Ending {
        stop: match body.get("done_reason").text() {
            Some("length") => Stop::Length,
            _ => Stop::End,
        },
        stop_sequence: None,
        usage: Usage {
            input: body.get("prompt_eval_count").u64(),
            output: body.get("eval_count").u64(),
            ..Usage::default()
        },
        timings: Timings {
            total: body.get("total_duration").u64(),
            load: body.get("load_duration").u64(),
            prompt: body.get("prompt_eval_duration").u64(),
            eval: body.get("eval_duration").u64(),
        },
    }
}

/// Adds the end to a last line or an answer.
fn with_ending<'a>(object: Object<'a>, ending: &Ending) -> Object<'a> {
    let reason = match ending.stop {
        Stop::Length => "length",
        _ => "stop",
    };
    object
        .with("done", true)
        .with("done_reason", reason)
        .with_some("total_duration", ending.timings.total)
        .with_some("load_duration", ending.timings.load)
        .with_some("prompt_eval_count", ending.usage.input)
        .with_some("prompt_eval_duration", ending.timings.prompt)
        .with_some("eval_count", ending.usage.output)
        .with_some("eval_duration", ending.timings.eval)
}

/// Returns a time in the form of `created_at`.
fn created_at(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds).unwrap_or_default().to_string()
}

/// Returns a call as it stands in a message.
fn write_call<'a>(
    id: impl Into<Json<'a>>,
    index: usize,
    name: impl Into<Json<'a>>,
    arguments: Json<'a>,
) -> Json<'a> {
    let function =
        Object::new().with("index", index).with("name", name).with("arguments", arguments);
    Object::new().with("id", id).with("function", function).into()
}
