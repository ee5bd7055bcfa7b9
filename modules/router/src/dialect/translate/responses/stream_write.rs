//! Events of a response as they are written, in the order in which Codex and the official
//! clients expect them.

use super::{
    super::{
        AnswerContext, ClientTools,
        client_tools::{Form, free_text},
        ir::{Ending, Stop},
        json::{Json, Object},
        sse,
        stream::{Head, Opening, StreamWriter},
    },
    answer::{Response, new_item_id},
    items::{self, Call},
};

/// Writer of events.
#[derive(Debug, Default)]
pub(in super::super) struct Writer {
    tools: ClientTools,
    id: String,
    model: String,
    created: i64,
    sequence: u64,
    /// Items that are whole.
    output: Vec<Json<'static>>,
    item: Item,
}

/// Item that is open.
#[derive(Debug, Default)]
struct Item {
    id: String,
    kind: Kind,
    text: String,
}

/// Kind of an item.
#[derive(Debug, Default, Clone)]
enum Kind {
    #[default]
    Text,
    Refusal,
    Reasoning,
    Call {
        id: String,
        name: String,
        /// Form of the tool: but for functions, what is asked of it is known at the end alone.
        form: Form,
    },
}

impl Writer {
    /// Returns a writer of calls as the client knows its tools.
    pub(in super::super) fn new(context: &AnswerContext<'_>) -> Self {
        Self { tools: context.client_tools(), ..Self::default() }
    }

    const fn response(&self) -> Response<'_> {
        Response { id: self.id.as_str(), model: self.model.as_str(), created: self.created }
    }

    /// Writes an event with its number in the stream.
    fn event(&mut self, name: &'static str, fields: Object<'_>, out: &mut Vec<u8>) {
        let mut event = Object::new().with("type", name).with("sequence_number", self.sequence);
        event.append(fields);
        sse::named(name, event, out);
        self.sequence += 1;
    }

    /// Writes an event about the item that is open.
    fn item_event(&mut self, name: &'static str, item: Json<'_>, out: &mut Vec<u8>) {
        let fields = Object::new().with("output_index", self.output.len()).with("item", item);
        self.event(name, fields, out);
    }

    /// Writes an event about the one part of the item that is open.
    fn part_event<'a>(
        &mut self,
        name: &'static str,
        key: &'static str,
        value: impl Into<Json<'a>>,
        out: &mut Vec<u8>,
    ) {
        let id = self.item.id.clone();
        let mut fields = Object::new().with("item_id", id).with("output_index", self.output.len());
        match self.item.kind {
            Kind::Text | Kind::Refusal => fields.put("content_index", 0_u32),
            Kind::Reasoning => fields.put("summary_index", 0_u32),
            Kind::Call { .. } => {}
        }
        fields.put(key, value);
        if name.starts_with("response.output_text") {
            fields.put("logprobs", Vec::new());
        }
        self.event(name, fields, out);
    }

    fn part<'a>(&self, text: impl Into<Json<'a>>) -> Json<'a> {
        match self.item.kind {
            Kind::Refusal => items::write_refusal(text),
            Kind::Reasoning => Object::new().with("type", "summary_text").with("text", text).into(),
            Kind::Text | Kind::Call { .. } => items::write_text(text),
        }
    }
}

impl StreamWriter for Writer {
    fn start(&mut self, head: &Head<'_>, out: &mut Vec<u8>) {
        head.id.clone_into(&mut self.id);
        head.model.clone_into(&mut self.model);
        self.created = head.created;
        for name in ["response.created", "response.in_progress"] {
            let response = self.response().write(None, Vec::new());
            let response = Json::from(response).into_owned();
            self.event(name, Object::new().with("response", response), out);
        }
    }

    fn open(&mut self, opening: Opening<'_>, out: &mut Vec<u8>) {
        let (prefix, kind) = match opening {
            Opening::Text => ("msg", Kind::Text),
            Opening::Refusal => ("msg", Kind::Refusal),
            Opening::Thinking => ("rs", Kind::Reasoning),
            Opening::Call { id, name } => {
                let form = self.tools.form(name);
                let kind = Kind::Call { id: id.to_owned(), name: name.to_owned(), form };
                (items::id_prefix(form), kind)
            }
        };
        let id = new_item_id(prefix, &self.id, self.output.len());
        self.item = Item { id: id.clone(), kind: kind.clone(), text: String::new() };
        let item: Json<'_> = match kind {
            Kind::Text | Kind::Refusal => Object::new()
                .with("id", id)
                .with("type", "message")
                .with("status", "in_progress")
                .with("role", "assistant")
                .with("content", Vec::new())
                .into(),
            Kind::Reasoning => Object::new()
                .with("id", id)
                .with("type", "reasoning")
                .with("summary", Vec::new())
                .into(),
            Kind::Call { id: call, name, .. } => {
                let (id, name, arguments) = (call.into(), name.into(), "".into());
                let item = self.item.id.clone();
                let call = Call { item, id, name, arguments, status: "in_progress" };
                items::write_call(call, &self.tools)
            }
        };
        self.item_event("response.output_item.added", item, out);
        let part = self.part("");
        match self.item.kind {
            Kind::Text | Kind::Refusal => {
                self.part_event("response.content_part.added", "part", part, out);
            }
            Kind::Reasoning => {
                self.part_event("response.reasoning_summary_part.added", "part", part, out);
            }
            Kind::Call { .. } => {}
        }
    }

    fn piece(&mut self, text: &str, out: &mut Vec<u8>) {
        self.item.text.push_str(text);
        let name = match self.item.kind {
            Kind::Text => "response.output_text.delta",
            Kind::Refusal => "response.refusal.delta",
            Kind::Reasoning => "response.reasoning_summary_text.delta",
            Kind::Call { form: Form::Function, .. } => "response.function_call_arguments.delta",
            Kind::Call { .. } => return,
        };
        self.part_event(name, "delta", text, out);
    }

    fn close(&mut self, out: &mut Vec<u8>) {
        let mut text = std::mem::take(&mut self.item.text);
        if matches!(self.item.kind, Kind::Call { form: Form::Free, .. }) {
            text = free_text(&text).into_owned();
            if !text.is_empty() {
                let name = "response.custom_tool_call_input.delta";
                self.part_event(name, "delta", text.as_str(), out);
            }
        }
        let part = self.part(text.clone());
        let (done, part_done) = match self.item.kind {
            Kind::Text => {
                (Some(("response.output_text.done", "text")), Some("response.content_part.done"))
            }
            Kind::Refusal => {
                (Some(("response.refusal.done", "refusal")), Some("response.content_part.done"))
            }
            Kind::Reasoning => (
                Some(("response.reasoning_summary_text.done", "text")),
                Some("response.reasoning_summary_part.done"),
            ),
            Kind::Call { form: Form::Function, .. } => {
                (Some(("response.function_call_arguments.done", "arguments")), None)
            }
            Kind::Call { form: Form::Free, .. } => {
                (Some(("response.custom_tool_call_input.done", "input")), None)
            }
            Kind::Call { form: Form::Search, .. } => (None, None),
        };
        if let Some((done, key)) = done {
            self.part_event(done, key, text.as_str(), out);
        }
        if let Some(part_done) = part_done {
            self.part_event(part_done, "part", part.clone(), out);
        }
        let Item { id, kind, .. } = std::mem::take(&mut self.item);
        let item: Json<'static> = match kind {
            Kind::Text | Kind::Refusal => items::write_message(id, part),
            Kind::Reasoning => items::write_reasoning(id, text),
            Kind::Call { id: call, name, .. } => {
                let (call, name, arguments) = (call.into(), name.into(), text.into());
                let call = Call { item: id, id: call, name, arguments, status: "completed" };
                items::write_call(call, &self.tools)
            }
        };
        self.item_event("response.output_item.done", item.clone(), out);
        self.output.push(item);
    }

    fn end(&mut self, ending: &Ending, out: &mut Vec<u8>) {
        let name = match ending.stop {
            Stop::Length | Stop::Refused => "response.incomplete",
            _ => "response.completed",
        };
        let output = std::mem::take(&mut self.output);
        let response = Json::from(self.response().write(Some(ending), output)).into_owned();
        self.event(name, Object::new().with("response", response), out);
    }

    fn fail(&mut self, message: &str, out: &mut Vec<u8>) {
        let error = Object::new().with("code", "server_error").with("message", message.to_owned());
        let output = std::mem::take(&mut self.output);
        let response = self.response().write_as("failed", None, error.into(), output);
        let response = Json::from(response.with("usage", Json::Null)).into_owned();
        self.event("response.failed", Object::new().with("response", response), out);
    }
}
