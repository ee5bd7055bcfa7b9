//! OpenAI's chat completions, as OpenAI and everybody who is compatible with it speak them.

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
    request_read::{file_media, read as read_request, read_sampling, read_stop},
    request_write::{into_text, is_lost, write as write_request},
    stream_read::{Chunks, Reader, choices, error_message, read_event, take_logprobs},
    stream_write::{Writer, write_failure},
};

/// Returns the reason of a `finish_reason`.
pub(super) fn stop_of(name: &str) -> Stop {
    match name {
        "length" | "max_tokens" => Stop::Length,
        "tool_calls" | "function_call" => Stop::Tools,
        "content_filter" => Stop::Refused,
        _ => Stop::End,
    }
}

/// Returns the `finish_reason` of a reason.
pub(super) const fn finish_reason(stop: Stop) -> &'static str {
    match stop {
        Stop::End | Stop::Sequence | Stop::Paused => "stop",
        Stop::Length => "length",
        Stop::Tools => "tool_calls",
        Stop::Refused => "content_filter",
    }
}

/// Returns the counts of a `usage`.
pub(super) fn read_usage(usage: &Json<'_>) -> Usage {
    let prompt = usage.get("prompt_tokens_details");
    let completion = usage.get("completion_tokens_details");
    Usage {
        input: usage.get("prompt_tokens").u64(),
        // DeepSeek counts hits beside the details.
        cache_read: prompt
            .get("cached_tokens")
            .u64()
            .or_else(|| usage.get("prompt_cache_hit_tokens").u64()),
        cache_write_5m: prompt.get("cache_write_tokens").u64(),
        cache_write_1h: None,
        output: usage.get("completion_tokens").u64(),
        reasoning: completion.get("reasoning_tokens").u64(),
    }
}

/// Returns a `usage`, none where nothing is known.
pub(super) fn write_usage(usage: &Usage) -> Option<Object<'static>> {
    if usage.input.is_none() && usage.output.is_none() {
        return None;
    }
    let total = usage.input.zip(usage.output).map(|(input, output)| input.saturating_add(output));
    let details = |key, count: Option<u64>| count.map(|count| Object::new().with(key, count));
    Some(
        Object::new()
            .with_some("prompt_tokens", usage.input)
            .with_some("completion_tokens", usage.output)
            .with_some("total_tokens", total)
            .with_some("prompt_tokens_details", details("cached_tokens", usage.cache_read))
            .with_some("completion_tokens_details", details("reasoning_tokens", usage.reasoning)),
    )
}

/// Returns the reasoning that a message or a delta of one carries.
fn take_reasoning<'a>(message: &mut Json<'a>) -> Option<std::borrow::Cow<'a, str>> {
    let texts = ["reasoning_content", "reasoning"].map(|key| message.take(key).into_text());
    texts.into_iter().flatten().find(|text| !text.is_empty())
}
