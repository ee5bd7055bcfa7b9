//! Events of a response as they arrive.

use std::borrow::Cow;

use super::{
    super::{
        TranslateError, chat,
        ir::{Block, Ending},
        json::Json,
        stream::{Delta, StreamReader},
    },
    answer::read_ending,
    items,
};

/// Reader of events.
#[derive(Debug, Default)]
pub(in super::super) struct Reader {
    /// Places of items of which a delta has come: their whole is not told again.
    told: Vec<u64>,
    /// Parts of a summary so far, in all items.
    summary_parts: usize,
    has_calls: bool,
}

impl StreamReader for Reader {
    fn read<'a>(
        &mut self,
        name: Option<&str>,
        data: &'a [u8],
        deltas: &mut Vec<Delta<'a>>,
    ) -> Result<(), TranslateError> {
        let mut event = Json::parse(data)?;
        let kind = event.take("type").into_text();
        let key = event.get("output_index").u64().unwrap_or(0);
        match kind.as_deref().or(name) {
            Some("response.created") => {
                deltas.extend(event.take("response").take("id").into_text().map(Delta::Id));
            }
            Some("response.output_item.added") => self.read_added(key, event.take("item"), deltas),
            Some("response.output_text.delta") => {
                self.read_delta(key, event, Delta::Text, deltas);
            }
            Some("response.refusal.delta") => self.read_delta(key, event, Delta::Refusal, deltas),
            Some("response.reasoning_summary_part.added") => {
                if self.summary_parts > 0 {
                    deltas.push(Delta::Thinking(Cow::Borrowed("\n\n")));
                }
                self.summary_parts += 1;
            }
            Some("response.reasoning_summary_text.delta" | "response.reasoning_text.delta") => {
                self.read_delta(key, event, Delta::Thinking, deltas);
            }
            Some("response.function_call_arguments.delta") => {
                let arguments = |text| Delta::Arguments { key, text };
                self.read_delta(key, event, arguments, deltas);
            }
            Some("response.output_item.done") => self.read_done(key, event.take("item"), deltas)?,
            Some("response.completed" | "response.incomplete") => {
                let Ending { stop, usage, .. } = read_ending(event.get("response"), self.has_calls);
                deltas.push(Delta::Stop { stop, sequence: None });
                deltas.push(Delta::Usage(usage));
            }
            Some("response.failed" | "response.cancelled") => {
                let message = chat::error_message(event.get("response"));
                return Err(TranslateError::Upstream { message });
            }
            Some("error") => {
                let message = event.get("message").text().map(str::to_owned);
                let message = message.unwrap_or_else(|| chat::error_message(&event));
                return Err(TranslateError::Upstream { message });
            }
            _ => {}
        }
        Ok(())
    }
}

impl Reader {
    fn read_delta<'a>(
        &mut self,
        key: u64,
        mut event: Json<'a>,
        delta: impl FnOnce(Cow<'a, str>) -> Delta<'a>,
        deltas: &mut Vec<Delta<'a>>,
    ) {
        if let Some(text) = event.take("delta").into_text() {
            self.tell(key);
            deltas.push(delta(text));
        }
    }

    fn tell(&mut self, key: u64) {
        if !self.told.contains(&key) {
            self.told.push(key);
        }
    }

    fn read_added<'a>(&mut self, key: u64, mut item: Json<'a>, deltas: &mut Vec<Delta<'a>>) {
        if item.get("type").text() == Some("function_call") {
            self.has_calls = true;
            let id = item.take("call_id").into_text().unwrap_or_default();
            let name = item.take("name").into_text().unwrap_or_default();
            deltas.push(Delta::Call { key, id, name });
        }
    }

    /// Reads a whole item, of which some servers send no deltas.
    fn read_done<'a>(
        &mut self,
        key: u64,
        mut item: Json<'a>,
        deltas: &mut Vec<Delta<'a>>,
    ) -> Result<(), TranslateError> {
        if self.told.contains(&key) {
            return Ok(());
        }
        match item.get("type").text() {
            Some("message") => {
                for block in items::read_content(item.take("content"))? {
                    match block {
                        Block::Text(text) => deltas.push(Delta::Text(text)),
                        Block::Refusal(text) => deltas.push(Delta::Refusal(text)),
                        _ => {}
                    }
                }
            }
            Some("function_call") => {
                let arguments = item.take("arguments").into_text();
                deltas.extend(arguments.map(|text| Delta::Arguments { key, text }));
            }
            Some("custom_tool_call") => {
                if let Block::ToolUse { id, name, arguments } = items::read_call(item)? {
                    self.has_calls = true;
                    deltas.push(Delta::Call { key, id, name });
                    deltas.push(Delta::Arguments { key, text: arguments.into_text() });
                }
            }
            Some("tool_search_call") if items::is_of_client(&item) => {
                if let Block::ToolUse { id, name, arguments } = items::read_search(item) {
                    self.has_calls = true;
                    deltas.push(Delta::Call { key, id, name });
                    deltas.push(Delta::Arguments { key, text: arguments.into_text() });
                }
            }
            Some("reasoning") => {
                if let Block::Thinking { text, .. } = items::read_reasoning(item) {
                    deltas.push(Delta::Thinking(text));
                }
            }
            _ => {}
        }
        Ok(())
    }
}
