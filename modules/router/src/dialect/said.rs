//! Text of an answer, kept while it comes, where the operator wants the text of requests.

use serde_json::{Value, json};

use super::{Dialect, reading, sse::Event, translate::StreamText};

/// Most that is kept of an answer, in bytes.
const LARGEST: usize = 128 * 1024;

/// Text of an answer. Its `Debug` shows sizes, never text.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Said {
    /// Text, without reasoning.
    pub text: String,
    /// Calls of tools: name and arguments, as JSON.
    pub calls: Vec<(String, String)>,
    /// `true` when more was said than is kept.
    pub is_cut: bool,
    bytes: usize,
}

impl std::fmt::Debug for Said {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Said({} bytes, {} calls)", self.text.len(), self.calls.len())
    }
}

impl Said {
    /// Returns what a whole answer says.
    pub(crate) fn of(dialect: Dialect, body: &[u8]) -> Self {
        let reading = reading::read(dialect, body);
        let mut said = Self::default();
        said.push(&reading.text);
        for (name, arguments) in &reading.calls {
            said.call(name);
            said.arguments(said.calls.len().saturating_sub(1), arguments);
        }
        said
    }

    /// Adds text.
    pub(crate) fn push(&mut self, text: &str) {
        let kept = self.room(text);
        self.text.push_str(kept);
    }

    /// Begins a call of a tool.
    pub(crate) fn call(&mut self, name: &str) {
        let kept = self.room(name).to_owned();
        if !self.is_cut {
            self.calls.push((kept, String::new()));
        }
    }

    /// Adds to the arguments of the call at a position.
    pub(crate) fn arguments(&mut self, at: usize, text: &str) {
        let kept = self.room(text).to_owned();
        if let Some((_, arguments)) = self.calls.get_mut(at) {
            arguments.push_str(&kept);
        }
    }

    /// Returns the part of a text for which there is room.
    fn room<'a>(&mut self, text: &'a str) -> &'a str {
        let end = text.floor_char_boundary(LARGEST - self.bytes);
        self.is_cut |= end < text.len();
        self.bytes += end;
        &text[..end]
    }
}

/// Returns a call of a tool as a text of a conversation.
pub(crate) fn call_text(name: &str, arguments: &str) -> String {
    let arguments = serde_json::from_str(arguments).unwrap_or_else(|_| Value::from(arguments));
    json!({"name": name, "arguments": arguments}).to_string()
}

/// Listener to the text of one stream.
#[derive(Debug)]
pub(crate) struct Listener {
    dialect: Dialect,
    /// Reader of the dialect; `None` where its events are plain.
    reader: Option<StreamText>,
}

impl Listener {
    /// Returns a listener to a stream of a dialect.
    pub(crate) fn new(dialect: Dialect) -> Self {
        Self { dialect, reader: StreamText::new(dialect) }
    }

    /// Adds what an event says.
    pub(crate) fn event(&mut self, event: &Event<'_>, said: &mut Said) {
        match &mut self.reader {
            Some(reader) => reader.event(event.name, &event.data, said),
            None => {
                let Ok(piece) = serde_json::from_slice::<Value>(&event.data) else { return };
                let text = match self.dialect {
                    Dialect::OllamaGenerate => &piece["response"],
                    _ => &piece["choices"][0]["text"],
                };
                said.push(text.as_str().unwrap_or_default());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::{observe::Observer, sse::Splitter};

    fn said(dialect: Dialect, stream: &str) -> Said {
        let mut observer = Observer::new(dialect);
        observer.keep_text();
        let mut splitter = Splitter::new(dialect.is_json_lines());
        let whole = splitter.push(&bytes::Bytes::from(stream.to_owned())).expect("it is small");
        for (_, event) in Splitter::events(dialect.is_json_lines(), &whole) {
            observer.event(&event);
        }
        *observer.found.said.expect("it is kept")
    }

    #[test]
    fn the_text_of_streams_of_every_dialect_is_kept() {
        let check = |dialect, stream: &str| {
            let said = said(dialect, stream);
            assert_eq!(said.text, "Hi there", "{dialect:?}");
            assert!(!said.is_cut);
            said.calls
        };
        check(
            Dialect::Completions,
            "data: {\"choices\":[{\"text\":\"Hi \"}]}\n\n\
             data: {\"choices\":[{\"text\":\"there\"}]}\n\n",
        );
        check(
            Dialect::OllamaGenerate,
            "{\"response\":\"Hi \",\"done\":false}\n{\"response\":\"there\",\"done\":true}\n",
        );
        check(
            Dialect::OllamaChat,
            "{\"message\":{\"role\":\"assistant\",\"content\":\"Hi \"},\"done\":false}\n\
             {\"message\":{\"role\":\"assistant\",\"content\":\"there\"},\"done\":true}\n",
        );
        let calls = check(
            Dialect::Chat,
            "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hi \"}}]}\n\n\
             data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"there\"}}]}\n\n\
             data: {\"choices\":[{\"index\":0,\"delta\":{\"tool_calls\":[{\"index\":0,\"id\":\"c\",\
             \"function\":{\"name\":\"f\",\"arguments\":\"{\\\"a\\\"\"}}]}}]}\n\n\
             data: {\"choices\":[{\"index\":0,\"delta\":{\"tool_calls\":[{\"index\":0,\
             \"function\":{\"arguments\":\":1}\"}}]}}]}\n\ndata: [DONE]\n\n",
        );
        assert_eq!(calls, [("f".to_owned(), "{\"a\":1}".to_owned())]);
        check(
            Dialect::Messages,
            "event: message_start\n\
             data: {\"type\":\"message_start\",\"message\":{\"id\":\"m\"}}\n\n\
             event: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":0,\
             \"content_block\":{\"type\":\"text\",\"text\":\"\"}}\n\n\
             event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\
             \"delta\":{\"type\":\"text_delta\",\"text\":\"Hi \"}}\n\n\
             event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\
             \"delta\":{\"type\":\"text_delta\",\"text\":\"there\"}}\n\n",
        );
        check(
            Dialect::Gemini,
            "data: {\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"Hi \"}]}}]}\n\n\
             data: {\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"there\"}]}}]}\n\n",
        );
    }

    #[test]
    fn what_is_kept_is_bounded_and_debug_shows_none_of_it() {
        let mut said = Said::default();
        said.call("f");
        for _ in 0..100 {
            said.push(&"\u{e4}".repeat(1000));
            said.arguments(0, &"x".repeat(1000));
        }
        assert!(said.is_cut);
        assert!(said.text.len() + said.calls[0].1.len() <= LARGEST);
        said.call("g");
        assert_eq!(said.calls.len(), 1);
        let shown = format!("{said:?}");
        assert!(!shown.contains('x') && shown.contains("bytes"), "{shown}");
    }

    #[test]
    fn a_call_is_shown_as_json() {
        assert_eq!(call_text("f", "{\"a\":1}"), r#"{"arguments":{"a":1},"name":"f"}"#);
        assert_eq!(call_text("f", "{"), r#"{"arguments":"{","name":"f"}"#);
    }
}
