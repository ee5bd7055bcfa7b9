//! Lines of JSON, as Ollama streams them.

use super::{
    super::{
        TranslateError, chat,
        ir::{Arguments, Ending},
        json::Object,
        sse,
        stream::{Delta, Head, Opening, StreamReader, StreamWriter, WholeCalls},
    },
    created_at, read_ending,
    request_read::read_call,
    with_ending, write_call,
};

/// Reader of lines of `/api/chat`.
#[derive(Debug)]
pub(in super::super) struct Reader {
    calls: WholeCalls,
}

impl Reader {
    /// Returns a reader; `scope` makes ids of calls, which Ollama does not always give.
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
        let mut line = chat::read_event(data)?;
        let mut message = line.take("message");
        deltas.extend(message.take("thinking").into_text().map(Delta::Thinking));
        deltas.extend(message.take("content").into_text().map(Delta::Text));
        for call in message.take("tool_calls").into_list() {
            let (id, name, arguments) = read_call(call)?;
            let id = id.unwrap_or_default();
            self.calls.push(id, name, arguments.into_text(), deltas);
        }
        if line.get("done").bool() == Some(true) {
            let Ending { stop, usage, timings, .. } = read_ending(&line);
            deltas.push(Delta::Stop { stop, sequence: None });
            deltas.push(Delta::Usage(usage));
            deltas.push(Delta::Timings(timings));
        }
        Ok(())
    }
}

/// Writer of lines, of `/api/chat` or of `/api/generate`.
#[derive(Debug)]
pub(in super::super) struct Writer {
    is_chat: bool,
    model: String,
    created_at: String,
    kind: Kind,
    calls: usize,
}

/// Kind of the block that is open.
#[derive(Debug)]
enum Kind {
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
    /// Returns a writer of lines of `/api/chat`.
    pub(in super::super) const fn chat() -> Self {
        Self::new(true)
    }

    /// Returns a writer of lines of `/api/generate`, which has no tools.
    pub(in super::super) const fn generate() -> Self {
        Self::new(false)
    }

    const fn new(is_chat: bool) -> Self {
        Self {
            is_chat,
            model: String::new(),
            created_at: String::new(),
            kind: Kind::Text,
            calls: 0,
        }
    }

    fn line(&self) -> Object<'_> {
        Object::new()
            .with("model", self.model.as_str())
            .with("created_at", self.created_at.as_str())
    }

    fn message<'a>(&'a self, message: Object<'a>, out: &mut Vec<u8>) {
        sse::line(self.line().with("message", message).with("done", false), out);
    }

    fn assistant(text: &str) -> Object<'_> {
        Object::new().with("role", "assistant").with("content", text)
    }
}

impl StreamWriter for Writer {
    fn start(&mut self, head: &Head<'_>, _: &mut Vec<u8>) {
        head.model.clone_into(&mut self.model);
        self.created_at = created_at(head.created);
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
            Kind::Text if self.is_chat => self.message(Self::assistant(text), out),
            Kind::Text => sse::line(self.line().with("response", text).with("done", false), out),
            Kind::Thinking if self.is_chat => {
                self.message(Self::assistant("").with("thinking", text), out);
            }
            Kind::Thinking => {
                let line = self.line().with("response", "").with("thinking", text);
                sse::line(line.with("done", false), out);
            }
        }
    }

    fn close(&mut self, out: &mut Vec<u8>) {
        let kind = std::mem::replace(&mut self.kind, Kind::Text);
        let Kind::Call { id, name, arguments } = kind else { return };
        if self.is_chat {
            let arguments = Arguments::Text(arguments.into()).into_object();
            let call = write_call(id, self.calls, name, arguments);
            self.message(Self::assistant("").with("tool_calls", vec![call]), out);
        }
        self.calls += 1;
    }

    fn end(&mut self, ending: &Ending, out: &mut Vec<u8>) {
        let line = self.line();
        let line = if self.is_chat {
            line.with("message", Self::assistant(""))
        } else {
            line.with("response", "")
        };
        sse::line(with_ending(line, ending), out);
    }

    fn fail(&mut self, message: &str, out: &mut Vec<u8>) {
        sse::line(Object::new().with("error", message), out);
    }
}
