//! Chunks of a chat completion as they are written.

use super::{
    super::{
        AnswerContext, ClientTools,
        client_tools::free_text,
        ir::Ending,
        json::{Json, Object},
        sse,
        stream::{Head, Opening, StreamWriter},
    },
    finish_reason, write_usage,
};

/// Writer of chunks.
#[derive(Debug)]
pub(in super::super) struct Writer {
    include_usage: bool,
    tools: ClientTools,
    id: String,
    model: String,
    created: i64,
    /// Kind of the block that is open.
    key: Key,
    /// Number of calls so far.
    calls: u32,
}

/// Place of a piece of text in a delta.
#[derive(Debug)]
enum Key {
    Field(&'static str),
    Arguments,
    /// Arguments of a custom tool so far: their text is known at their end.
    Free(String),
}

impl Writer {
    /// Returns a writer that ends with the usage where the client asked for it.
    pub(in super::super) fn new(context: &AnswerContext<'_>) -> Self {
        Self {
            include_usage: context.include_usage,
            tools: context.client_tools(),
            id: String::new(),
            model: String::new(),
            created: 0,
            key: Key::Field("content"),
            calls: 0,
        }
    }

    fn chunk<'a>(&'a self, choices: Vec<Json<'a>>) -> Object<'a> {
        Object::new()
            .with("id", self.id.as_str())
            .with("object", "chat.completion.chunk")
            .with("created", self.created)
            .with("model", self.model.as_str())
            .with("choices", choices)
    }

    fn delta(&self, delta: Object<'_>, finish_reason: Option<&str>, out: &mut Vec<u8>) {
        let choice = Object::new()
            .with("index", 0_u32)
            .with("delta", delta)
            .with("logprobs", Json::Null)
            .with("finish_reason", finish_reason);
        let mut chunk = self.chunk(vec![choice.into()]);
        if self.include_usage {
            chunk.put("usage", Json::Null);
        }
        sse::data(chunk, out);
    }

    fn call(&self, call: Object<'_>, out: &mut Vec<u8>) {
        self.delta(Object::new().with("tool_calls", vec![call.into()]), None, out);
    }
}

impl StreamWriter for Writer {
    fn start(&mut self, head: &Head<'_>, out: &mut Vec<u8>) {
        head.id.clone_into(&mut self.id);
        head.model.clone_into(&mut self.model);
        self.created = head.created;
        self.delta(Object::new().with("role", "assistant").with("content", ""), None, out);
    }

    fn open(&mut self, opening: Opening<'_>, out: &mut Vec<u8>) {
        self.key = match opening {
            Opening::Text => Key::Field("content"),
            Opening::Refusal => Key::Field("refusal"),
            Opening::Thinking => Key::Field("reasoning_content"),
            Opening::Call { id, name } if self.tools.is_free(name) => {
                let custom = Object::new().with("name", name).with("input", "");
                let call = Object::new()
                    .with("index", self.calls)
                    .with("id", id)
                    .with("type", "custom")
                    .with("custom", custom);
                self.call(call, out);
                self.calls += 1;
                Key::Free(String::new())
            }
            Opening::Call { id, name } => {
                let function = Object::new().with("name", name).with("arguments", "");
                let call = Object::new()
                    .with("index", self.calls)
                    .with("id", id)
                    .with("type", "function")
                    .with("function", function);
                self.call(call, out);
                self.calls += 1;
                Key::Arguments
            }
        };
    }

    fn piece(&mut self, text: &str, out: &mut Vec<u8>) {
        match &mut self.key {
            Key::Free(arguments) => arguments.push_str(text),
            Key::Field(field) => {
                let delta = Object::new().with(field, text);
                self.delta(delta, None, out);
            }
            Key::Arguments => {
                let function = Object::new().with("arguments", text);
                let index = self.calls.saturating_sub(1);
                self.call(Object::new().with("index", index).with("function", function), out);
            }
        }
    }

    fn close(&mut self, out: &mut Vec<u8>) {
        let Key::Free(arguments) = &self.key else { return };
        let custom = Object::new().with("input", free_text(arguments));
        let index = self.calls.saturating_sub(1);
        self.call(Object::new().with("index", index).with("custom", custom), out);
    }

    fn end(&mut self, ending: &Ending, out: &mut Vec<u8>) {
        self.delta(Object::new(), Some(finish_reason(ending.stop)), out);
        if self.include_usage
            && let Some(usage) = write_usage(&ending.usage)
        {
            sse::data(self.chunk(Vec::new()).with("usage", usage), out);
        }
        out.extend_from_slice(b"data: [DONE]\n\n");
    }

    fn fail(&mut self, message: &str, out: &mut Vec<u8>) {
        write_failure(message, out);
    }
}

/// Writes the event that ends a stream with an error.
pub(in super::super) fn write_failure(message: &str, out: &mut Vec<u8>) {
    let error = Object::new()
        .with("message", message)
        .with("type", "upstream_error")
        .with("param", Json::Null)
        .with("code", Json::Null);
    sse::data(Object::new().with("error", error), out);
}
