//! OpenAI's responses, without their memory: every request carries the whole conversation.

mod answer;
mod items;
mod request_read;
mod request_write;
mod stream_read;
mod stream_write;

use super::json::{Json, Object};
use crate::dialect::usage::Usage;

pub(super) use self::{
    answer::{read as read_answer, write as write_answer},
    request_read::read as read_request,
    request_write::write as write_request,
    stream_read::Reader,
    stream_write::Writer,
};

/// Returns the counts of a `usage`.
fn read_usage(usage: &Json<'_>) -> Usage {
    let input = usage.get("input_tokens_details");
    Usage {
        input: usage.get("input_tokens").u64(),
        cache_read: input.get("cached_tokens").u64(),
        cache_write_5m: input.get("cache_write_tokens").u64(),
        cache_write_1h: None,
        output: usage.get("output_tokens").u64(),
        reasoning: usage.get("output_tokens_details").get("reasoning_tokens").u64(),
    }
}

/// Returns a `usage`, none where it is not known as a whole: its clients want every number.
fn write_usage(usage: &Usage) -> Option<Object<'static>> {
    let (input, output) = usage.input.zip(usage.output)?;
    let cached = Object::new().with("cached_tokens", usage.cache_read.unwrap_or(0));
    let reasoning = Object::new().with("reasoning_tokens", usage.reasoning.unwrap_or(0));
    Some(
        Object::new()
            .with("input_tokens", input)
            .with("input_tokens_details", cached)
            .with("output_tokens", output)
            .with("output_tokens_details", reasoning)
            .with("total_tokens", input.saturating_add(output)),
    )
}
