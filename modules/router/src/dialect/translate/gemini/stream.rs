//! Chunks of Google's streams: each is an answer in part.

use super::{
    super::{
        TranslateError, chat,
        ir::{Arguments, Block, Ending, Stop},
        json::{Json, Object},
        sse,
        stream::{Delta, Head, Opening, StreamReader, StreamWriter, WholeCalls},
    },
    finish_reason, read_call, read_plain, read_usage, stop_of, take, write_answer_part,
    write_usage,
};

/// Reader of chunks.
#[derive(Debug)]
pub(in super::super) struct Reader {
    calls: WholeCalls,
}

impl Reader {
    /// Returns a reader; `scope` makes ids of calls, which Google does not always give.
    pub(in super::super) fn new(scope: &str) -> Self {
        Self { calls: WholeCalls::new(scope) }
    }
}

impl StreamReader for Reader {
    fn read<'a>(
        &mut self,
        _: Option<&str>,
        data: &'a [u8],
        deltas: &mut Vec<Delta<'a>>,
    ) -> Result<(), TranslateError> {
        let mut chunk = chat::read_event(data)?;
        deltas.extend(chunk.take("responseId").into_text().map(Delta::Id));
        if chunk.get("promptFeedback").has("blockReason") {
            deltas.push(Delta::Stop { stop: Stop::Refused, sequence: None });
        }
        if let Some(mut candidate) = chunk.take("candidates").into_list().into_iter().next() {
            for mut part in candidate.take("content").take("parts").into_list() {
                match read_call(take(&mut part, "functionCall", "function_call")) {
                    Some(Block::ToolUse { id, name, arguments }) => {
                        self.calls.push(id, name, arguments.into_text(), deltas);
                    }
                    Some(_) => {}
                    None => match read_plain(part)? {
                        Some(Block::Text(text)) => deltas.push(Delta::Text(text)),
                        Some(Block::Thinking { text, .. }) => deltas.push(Delta::Thinking(text)),
                        _ => {}
                    },
                }
            }
            if let Some(reason) = candidate.get("finishReason").text() {
                deltas.push(Delta::Stop { stop: stop_of(reason), sequence: None });
            }
        }
        if chunk.has("usageMetadata") {
            deltas.push(Delta::Usage(read_usage(chunk.get("usageMetadata"))));
        }
        Ok(())
    }
}

/// Writer of chunks.
#[derive(Debug, Default)]
pub(in super::super) struct Writer {
    id: String,
    model: String,
    kind: Kind,
}

/// Kind of the block that is open.
#[derive(Debug, Default)]
enum Kind {
    #[default]
    Text,
    Thinking,
    /// A call: it is written whole.
    Call {
        id: String,
        name: String,
        arguments: String,
    },
}

impl Writer {
    fn chunk<'a>(&'a self, candidate: Object<'a>) -> Object<'a> {
        Object::new()
            .with("candidates", vec![candidate.with("index", 0_u32).into()])
            .with("modelVersion", self.model.as_str())
            .with("responseId", self.id.as_str())
    }

    fn part(&self, block: Block<'_>, out: &mut Vec<u8>) {
        let parts: Vec<Json<'_>> = write_answer_part(block).into_iter().collect();
        let content = Object::new().with("role", "model").with("parts", parts);
        sse::data(self.chunk(Object::new().with("content", content)), out);
    }
}

impl StreamWriter for Writer {
    fn start(&mut self, head: &Head<'_>, _: &mut Vec<u8>) {
        head.id.clone_into(&mut self.id);
        head.model.clone_into(&mut self.model);
    }

    fn open(&mut self, opening: Opening<'_>, _: &mut Vec<u8>) {
        self.kind = match opening {
            Opening::Text | Opening::Refusal => Kind::Text,
            Opening::Thinking => Kind::Thinking,
            Opening::Call { id, name } => {
                Kind::Call { id: id.to_owned(), name: name.to_owned(), arguments: String::new() }
            }
        };
    }

    fn piece(&mut self, text: &str, out: &mut Vec<u8>) {
        match &mut self.kind {
            Kind::Call { arguments, .. } => arguments.push_str(text),
            Kind::Text => self.part(Block::Text(text.into()), out),
            Kind::Thinking => {
                self.part(Block::Thinking { text: text.into(), is_sealed: false }, out);
            }
        }
    }

    fn close(&mut self, out: &mut Vec<u8>) {
        if let Kind::Call { id, name, arguments } = std::mem::take(&mut self.kind) {
            let arguments = Arguments::Text(arguments.into());
            self.part(Block::ToolUse { id: id.into(), name: name.into(), arguments }, out);
        }
    }

    fn end(&mut self, ending: &Ending, out: &mut Vec<u8>) {
        let content = Object::new().with("role", "model").with("parts", Vec::new());
        let candidate =
            Object::new().with("content", content).with("finishReason", finish_reason(ending.stop));
        let usage = write_usage(&ending.usage);
        sse::data(self.chunk(candidate).with_some("usageMetadata", usage), out);
    }

    fn fail(&mut self, message: &str, out: &mut Vec<u8>) {
        let error = Object::new()
            .with("code", 502_u32)
            .with("message", message)
            .with("status", "UNAVAILABLE");
        sse::data(Object::new().with("error", error), out);
    }
}
