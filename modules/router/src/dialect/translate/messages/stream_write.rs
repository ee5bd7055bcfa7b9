//! Events of a message as they are written.

use super::{
    super::{
        ir::{Arguments, Ending},
        json::{Json, Object},
        sse,
        stream::{Head, Opening, StreamWriter},
    },
    FOREIGN_SIGNATURE, fresh_input, stop_reason, with_cache,
};

/// Writer of events.
#[derive(Debug, Default)]
pub(in super::super) struct Writer {
    /// Index of the block that is open, or of the next one.
    index: u32,
    kind: Kind,
}

/// Kind of the block that is open.
#[derive(Debug, Default)]
enum Kind {
    #[default]
    Text,
    Thinking,
    /// A call, of whose arguments nothing has come.
    Call,
    /// A call whose arguments are an object as far as they go.
    ObjectCall,
    /// A call whose arguments are something else: they are written at their end, as an object.
    OddCall(String),
}

impl Writer {
    fn delta(&self, kind: &'static str, key: &'static str, text: &str, out: &mut Vec<u8>) {
        let delta = Object::new().with("type", kind).with(key, text);
        let event = Object::new()
            .with("type", "content_block_delta")
            .with("index", self.index)
            .with("delta", delta);
        sse::named("content_block_delta", event, out);
    }

    fn arguments(&self, text: &str, out: &mut Vec<u8>) {
        self.delta("input_json_delta", "partial_json", text, out);
    }
}

impl StreamWriter for Writer {
    fn start(&mut self, head: &Head<'_>, out: &mut Vec<u8>) {
        // The official clients need numbers here; `message_delta` carries the true ones.
        let usage = with_cache(
            Object::new().with("input_tokens", fresh_input(head.usage).unwrap_or(0)),
            head.usage,
        )
        .with("output_tokens", head.usage.output.unwrap_or(0));
        let message = Object::new()
            .with("id", head.id)
            .with("type", "message")
            .with("role", "assistant")
            .with("model", head.model)
            .with("content", Vec::new())
            .with("stop_reason", Json::Null)
            .with("stop_sequence", Json::Null)
            .with("usage", usage);
        let event = Object::new().with("type", "message_start").with("message", message);
        sse::named("message_start", event, out);
    }

    fn open(&mut self, opening: Opening<'_>, out: &mut Vec<u8>) {
        let block = match opening {
            Opening::Text | Opening::Refusal => {
                self.kind = Kind::Text;
                Object::new().with("type", "text").with("text", "")
            }
            Opening::Thinking => {
                self.kind = Kind::Thinking;
                Object::new().with("type", "thinking").with("thinking", "").with("signature", "")
            }
            Opening::Call { id, name } => {
                self.kind = Kind::Call;
                Object::new()
                    .with("type", "tool_use")
                    .with("id", id)
                    .with("name", name)
                    .with("input", Object::new())
            }
        };
        let event = Object::new()
            .with("type", "content_block_start")
            .with("index", self.index)
            .with("content_block", block);
        sse::named("content_block_start", event, out);
    }

    fn piece(&mut self, text: &str, out: &mut Vec<u8>) {
        match &mut self.kind {
            Kind::Text => self.delta("text_delta", "text", text, out),
            Kind::Thinking => self.delta("thinking_delta", "thinking", text, out),
            Kind::ObjectCall => self.arguments(text, out),
            Kind::OddCall(arguments) => arguments.push_str(text),
            Kind::Call => match text.trim_start().bytes().next() {
                None => {}
                Some(b'{') => {
                    self.kind = Kind::ObjectCall;
                    self.arguments(text, out);
                }
                Some(_) => self.kind = Kind::OddCall(text.to_owned()),
            },
        }
    }

    fn close(&mut self, out: &mut Vec<u8>) {
        match std::mem::take(&mut self.kind) {
            Kind::OddCall(arguments) => {
                let object = Arguments::Text(arguments.into()).into_object();
                self.arguments(&object.to_string(), out);
            }
            Kind::Thinking => {
                self.delta("signature_delta", "signature", FOREIGN_SIGNATURE, out);
            }
            Kind::Text | Kind::Call | Kind::ObjectCall => {}
        }
        let event = Object::new().with("type", "content_block_stop").with("index", self.index);
        sse::named("content_block_stop", event, out);
        self.index += 1;
    }

    fn end(&mut self, ending: &Ending, out: &mut Vec<u8>) {
        let delta = Object::new()
            .with("stop_reason", stop_reason(ending.stop, ending.stop_sequence.is_some()))
            .with("stop_sequence", ending.stop_sequence.clone());
        let usage = Object::new().with_some("input_tokens", fresh_input(&ending.usage));
        let usage = with_cache(usage, &ending.usage).with("output_tokens", ending.usage.output);
        let event =
            Object::new().with("type", "message_delta").with("delta", delta).with("usage", usage);
        sse::named("message_delta", event, out);
        sse::named("message_stop", Object::new().with("type", "message_stop"), out);
    }

    fn fail(&mut self, message: &str, out: &mut Vec<u8>) {
        let error = Object::new().with("type", "api_error").with("message", message);
        sse::named("error", Object::new().with("type", "error").with("error", error), out);
    }
}
