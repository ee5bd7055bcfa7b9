//! Anthropic's messages.

mod answer;
mod request_read;
mod request_write;
mod stream_read;
mod stream_write;

use super::{
    ir::Stop,
    json::{Json, Object},
};
use crate::dialect::usage::Usage;

pub(super) use self::{
    answer::{read as read_answer, write as write_answer},
    request_read::read as read_request,
    request_write::write as write_request,
    stream_read::Reader,
    stream_write::Writer,
};

/// Signature of reasoning that another provider wrote. Anthropic refuses it, so it must be taken
/// out of a request before it goes there.
pub(super) const FOREIGN_SIGNATURE: &str = super::ids::OWN;

/// Returns the reason of a `stop_reason`.
fn stop_of(name: &str) -> Stop {
    match name {
        "max_tokens" | "model_context_window_exceeded" => Stop::Length,
        "tool_use" => Stop::Tools,
        "stop_sequence" => Stop::Sequence,
        "refusal" => Stop::Refused,
        "pause_turn" => Stop::Paused,
        _ => Stop::End,
    }
}

/// Returns the `stop_reason` of a reason. That of another provider who does not say which
/// sequence stopped it is a plain end.
const fn stop_reason(stop: Stop, has_sequence: bool) -> &'static str {
    match stop {
        Stop::Sequence if has_sequence => "stop_sequence",
        Stop::End | Stop::Sequence => "end_turn",
        Stop::Length => "max_tokens",
        Stop::Tools => "tool_use",
        Stop::Refused => "refusal",
        Stop::Paused => "pause_turn",
    }
}

/// Returns the counts of a `usage`. Its input leaves out what was read from the cache or written
/// to it.
fn read_usage(usage: &Json<'_>) -> Usage {
    let cache_read = usage.get("cache_read_input_tokens").u64();
    let written = usage.get("cache_creation_input_tokens").u64();
    let by_age = usage.get("cache_creation");
    let long = by_age.get("ephemeral_1h_input_tokens").u64();
    let short = by_age
        .get("ephemeral_5m_input_tokens")
        .u64()
        .or_else(|| written.map(|all| all.saturating_sub(long.unwrap_or(0))));
    let cached = cache_read
        .unwrap_or(0)
        .saturating_add(short.unwrap_or(0))
        .saturating_add(long.unwrap_or(0));
    Usage {
        input: usage.get("input_tokens").u64().map(|fresh| fresh.saturating_add(cached)),
        cache_read,
        cache_write_5m: short,
        cache_write_1h: long,
        output: usage.get("output_tokens").u64(),
        reasoning: usage.get("output_tokens_details").get("thinking_tokens").u64(),
    }
}

/// Returns the input without what was read from the cache or written to it.
fn fresh_input(usage: &Usage) -> Option<u64> {
    let cached = [usage.cache_read, usage.cache_write_5m, usage.cache_write_1h];
    let cached = cached.into_iter().flatten().fold(0, u64::saturating_add);
    usage.input.map(|input| input.saturating_sub(cached))
}

/// Returns the counts of the cache as fields of a `usage`.
fn with_cache<'a>(object: Object<'a>, usage: &Usage) -> Object<'a> {
    let written = match (usage.cache_write_5m, usage.cache_write_1h) {
        (None, None) => None,
        (short, long) => Some(short.unwrap_or(0).saturating_add(long.unwrap_or(0))),
    };
    object
        .with_some("cache_creation_input_tokens", written)
        .with_some("cache_read_input_tokens", usage.cache_read)
}

/// Returns a `usage`. A count that must be there and is not known is `null`, never an invented 0.
fn write_usage(usage: &Usage) -> Object<'static> {
    let counts = Object::new().with("input_tokens", fresh_input(usage));
    with_cache(counts, usage).with("output_tokens", usage.output)
}
