//! Events of a message as they arrive.

use super::{
    super::{
        TranslateError, chat,
        json::Json,
        stream::{Delta, StreamReader},
    },
    read_usage, stop_of,
};
use crate::dialect::usage::Usage;

/// Reader of events.
#[derive(Debug, Default)]
pub(in super::super) struct Reader {
    /// Counts of the cache that stand in `message_start` and are missing later.
    start: Usage,
}

impl StreamReader for Reader {
    fn read<'a>(
        &mut self,
        _: Option<&str>,
        data: &'a [u8],
        deltas: &mut Vec<Delta<'a>>,
    ) -> Result<(), TranslateError> {
        let mut event = Json::parse(data)?;
        let kind = event.take("type").into_text();
        match kind.as_deref() {
            Some("message_start") => {
                let mut message = event.take("message");
                deltas.extend(message.take("id").into_text().map(Delta::Id));
                self.start = read_usage(message.get("usage"));
                deltas.push(Delta::Usage(self.start));
            }
            Some("content_block_start") => read_start(event, deltas),
            Some("content_block_delta") => read_delta(event, deltas),
            Some("message_delta") => {
                if event.has("usage") {
                    deltas.push(Delta::Usage(self.later_usage(event.get("usage"))));
                }
                let delta = event.get("delta");
                if let Some(reason) = delta.get("stop_reason").text() {
                    let sequence = delta.get("stop_sequence").text().map(str::to_owned);
                    deltas.push(Delta::Stop { stop: stop_of(reason), sequence });
                }
            }
            Some("message_stop") => deltas.push(Delta::Whole),
            Some("error") => {
                return Err(TranslateError::Upstream { message: chat::error_message(&event) });
            }
            // `ping`, `content_block_stop`, and events that are not known.
            _ => {}
        }
        Ok(())
    }
}

impl Reader {
    /// Returns the counts of `message_delta`, which may leave out those of the cache.
    fn later_usage(&self, usage: &Json<'_>) -> Usage {
        let mut later = read_usage(usage);
        let names_cache =
            usage.has("cache_read_input_tokens") || usage.has("cache_creation_input_tokens");
        if later.input.is_some() && !names_cache {
            let cached =
                [self.start.cache_read, self.start.cache_write_5m, self.start.cache_write_1h];
            let cached = cached.into_iter().flatten().fold(0, u64::saturating_add);
            later.input = later.input.map(|input| input.saturating_add(cached));
        }
        if !usage.has("cache_creation") && self.start.cache_write_1h.is_some() {
            // The sum alone cannot say how long it is kept.
            (later.cache_write_5m, later.cache_write_1h) = (None, None);
        }
        later
    }
}

fn read_start<'a>(mut event: Json<'a>, deltas: &mut Vec<Delta<'a>>) {
    let key = event.get("index").u64().unwrap_or(0);
    let mut block = event.take("content_block");
    match block.get("type").text() {
        Some("text") => deltas.extend(block.take("text").into_text().map(Delta::Text)),
        Some("thinking") => deltas.extend(block.take("thinking").into_text().map(Delta::Thinking)),
        Some("tool_use") => {
            let id = block.take("id").into_text().unwrap_or_default();
            let name = block.take("name").into_text().unwrap_or_default();
            deltas.push(Delta::Call { key, id, name });
            // Some servers send the whole input at once.
            if let input @ Json::Object(_) = block.take("input") {
                let text = input.to_string();
                if text != "{}" {
                    deltas.push(Delta::Arguments { key, text: text.into() });
                }
            }
        }
        _ => {}
    }
}

fn read_delta<'a>(mut event: Json<'a>, deltas: &mut Vec<Delta<'a>>) {
    let key = event.get("index").u64().unwrap_or(0);
    let mut delta = event.take("delta");
    let kind = delta.take("type").into_text();
    match kind.as_deref() {
        Some("text_delta") => deltas.extend(delta.take("text").into_text().map(Delta::Text)),
        Some("thinking_delta") => {
            deltas.extend(delta.take("thinking").into_text().map(Delta::Thinking));
        }
        Some("input_json_delta") => {
            let text = delta.take("partial_json").into_text();
            deltas.extend(text.map(|text| Delta::Arguments { key, text }));
        }
        // Signatures and citations: no other dialect has them.
        _ => {}
    }
}
