//! Parts of writing an answer that all dialects share: events, encodings, faults.

use std::io::Write as _;

use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use ruzstd::encoding::{CompressionLevel, compress_to_vec};
use serde_json::Value;

use super::{
    answer::{Answer, Cut, Encoding, Fault, Wire},
    anthropic,
    dialect::{Asked, Dialect},
    gemini, ollama, openai,
};

/// An event of a stream, or the whole of an answer that is none.
#[derive(Debug, Clone)]
pub(super) struct Event {
    name: Option<String>,
    text: String,
    form: Form,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Sse,
    Line,
    Raw,
}

impl Event {
    pub(super) fn data(data: &Value) -> Self {
        Self { name: None, text: data.to_string(), form: Form::Sse }
    }

    pub(super) fn named(name: &str, data: &Value) -> Self {
        Self { name: Some(name.to_owned()), ..Self::data(data) }
    }

    pub(super) fn done() -> Self {
        Self { name: None, text: "[DONE]".to_owned(), form: Form::Sse }
    }

    pub(super) fn line(data: &Value) -> Self {
        Self { form: Form::Line, ..Self::data(data) }
    }

    pub(super) const fn raw(text: String) -> Self {
        Self { name: None, text, form: Form::Raw }
    }

    fn write(&self, crlf: bool, comments: bool) -> Vec<u8> {
        let end = if crlf { "\r\n" } else { "\n" };
        let mut text = String::new();
        match self.form {
            Form::Raw => text.push_str(&self.text),
            Form::Line => text = format!("{}{end}", self.text),
            Form::Sse => {
                if comments {
                    text.push_str(&format!(": keep-alive{end}{end}"));
                }
                if let Some(name) = &self.name {
                    text.push_str(&format!("event: {name}{end}"));
                }
                text.push_str(&format!("data: {}{end}{end}", self.text));
            }
        }
        text.into_bytes()
    }
}

/// An answer in a dialect, before anything goes wrong with it.
#[derive(Debug, Clone)]
pub(super) struct Reply {
    /// Id that stands in the answer.
    pub(super) id: String,
    pub(super) content_type: &'static str,
    pub(super) events: Vec<Event>,
    pub(super) stream: bool,
    pub(super) crlf: bool,
}

impl Reply {
    pub(super) fn json(id: &str, body: &Value) -> Self {
        let events = vec![Event::raw(body.to_string())];
        Self::new(id, "application/json", events, false)
    }

    pub(super) fn sse(id: &str, events: Vec<Event>) -> Self {
        Self::new(id, "text/event-stream; charset=utf-8", events, true)
    }

    pub(super) fn lines(id: &str, events: Vec<Event>) -> Self {
        Self::new(id, "application/x-ndjson", events, true)
    }

    pub(super) fn array(id: &str, events: Vec<Event>) -> Self {
        Self::new(id, "application/json; charset=UTF-8", events, true)
    }

    fn new(id: &str, content_type: &'static str, events: Vec<Event>, stream: bool) -> Self {
        Self { id: id.to_owned(), content_type, events, stream, crlf: false }
    }

    fn of(asked: &Asked, answer: &Answer, models: &[String], id: &str) -> Self {
        match asked.dialect {
            Dialect::Chat => openai::chat(asked, answer, id),
            Dialect::Responses => openai::responses(asked, answer, id),
            Dialect::Completions => openai::completions(asked, answer, id),
            Dialect::Embeddings => openai::embeddings(asked, answer, id),
            Dialect::Messages => anthropic::messages(asked, answer, id),
            Dialect::CountTokens => anthropic::count_tokens(answer, id),
            Dialect::Models if asked.anthropic => anthropic::models(asked, models, id),
            Dialect::Models => openai::models(asked, models, id),
            Dialect::OllamaChat | Dialect::OllamaGenerate => ollama::generate(asked, answer, id),
            Dialect::OllamaEmbed => ollama::embed(asked, answer, id),
            Dialect::OllamaTags => ollama::tags(models, id),
            Dialect::OllamaShow => ollama::show(id),
            Dialect::OllamaPs => ollama::ps(models, id),
            Dialect::Gemini => gemini::generate(asked, answer, id),
        }
    }
}

/// Manner in which a body ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Whole,
    /// The body ends, and is not the whole answer.
    Short,
    Hang,
    /// The connection ends.
    Broken,
}

/// An answer as it is put on the wire.
#[derive(Debug)]
pub(super) struct Rendered {
    pub(super) status: u16,
    pub(super) headers: Vec<(String, String)>,
    /// Length that is stated; `None` for chunks.
    pub(super) length: Option<usize>,
    pub(super) pieces: Vec<Bytes>,
    pub(super) end: End,
    /// `true` where the end is a reset.
    pub(super) reset: bool,
    /// Id in the answer; `None` where there is none.
    pub(super) id: Option<String>,
}

/// Renders an answer with its fault.
pub(super) fn render(asked: &Asked, answer: &Answer, models: &[String], id: &str) -> Rendered {
    let error = |status| asked.error(status, "the upstream was told to fail");
    match &answer.fault {
        Some(Fault::Status { status, body }) => {
            let json = body.as_ref().is_none_or(|body| body.trim_start().starts_with(['{', '[']));
            let kind = if json { "application/json" } else { "text/plain" };
            let body = body.clone().unwrap_or_else(|| error(*status).to_string());
            return refusal(*status, kind, body, answer);
        }
        Some(Fault::Html) => {
            let body = "<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body>\r\n\
                        <center><h1>502 Bad Gateway</h1></center>\r\n</body>\r\n</html>\r\n";
            return refusal(502, "text/html", body.to_owned(), answer);
        }
        Some(Fault::ErrorInOk) => {
            return refusal(200, "application/json", error(500).to_string(), answer);
        }
        Some(Fault::Redirect { to }) => {
            let mut refusal = refusal(307, "text/plain", String::new(), answer);
            refusal.headers.push(("location".to_owned(), to.clone()));
            return refusal;
        }
        _ => {}
    }
    let reply = Reply::of(asked, answer, models, id);
    let (end, reset) = match answer.fault {
        Some(Fault::HangAfter { .. }) => (End::Hang, false),
        Some(Fault::CutAfter { how, .. }) => match how {
            Cut::Reset => (End::Broken, true),
            Cut::Close => (End::Broken, false),
            Cut::End => (End::Short, false),
        },
        Some(Fault::ErrorAfter { .. }) => (End::Short, false),
        _ => (End::Whole, false),
    };
    let mut headers = headers(reply.content_type, answer);
    let wire = answer.wire;
    let crlf = wire.crlf || reply.crlf;
    let mut pieces: Vec<Vec<u8>> = Vec::new();
    let whole: usize = reply.events.iter().map(|event| event.text.len()).sum();
    for event in shortened(&reply, asked, answer) {
        pieces.push(event.write(crlf, wire.comments));
    }
    if !reply.stream && matches!(end, End::Hang | End::Broken | End::Short) {
        for piece in &mut pieces {
            piece.truncate(whole / 2);
        }
    }
    let pieces = encoded(pieces, wire, &mut headers);
    let length = match end {
        _ if reply.stream => None,
        End::Whole => Some(pieces.iter().map(Bytes::len).sum()),
        End::Short => None,
        End::Hang | End::Broken => Some(whole),
    };
    Rendered { status: 200, headers, length, pieces, end, reset, id: Some(reply.id) }
}

/// Returns the events that are sent before the fault, and the one that is it.
fn shortened(reply: &Reply, asked: &Asked, answer: &Answer) -> Vec<Event> {
    let first = |count: usize| reply.events.iter().take(count).cloned().collect::<Vec<_>>();
    match answer.fault {
        Some(Fault::HangAfter { events } | Fault::CutAfter { events, .. }) if reply.stream => {
            first(events)
        }
        Some(Fault::ErrorAfter { events }) if reply.stream => {
            let error = asked.error(500, "the upstream was told to fail");
            let error = match reply.events.first() {
                Some(Event { name: Some(_), .. }) => Event::named("error", &error),
                Some(Event { form: Form::Line, .. }) => Event::line(&error),
                _ => Event::data(&error),
            };
            let mut events = first(events);
            events.push(error);
            events
        }
        _ => reply.events.clone(),
    }
}

fn refusal(status: u16, content_type: &str, body: String, answer: &Answer) -> Rendered {
    let mut headers = headers(content_type, answer);
    let pieces = encoded(vec![body.into_bytes()], answer.wire, &mut headers);
    Rendered {
        status,
        headers,
        length: Some(pieces.iter().map(Bytes::len).sum()),
        pieces,
        end: End::Short,
        reset: false,
        id: None,
    }
}

fn headers(content_type: &str, answer: &Answer) -> Vec<(String, String)> {
    let mut headers = vec![("content-type".to_owned(), content_type.to_owned())];
    headers.extend(answer.headers.iter().cloned());
    headers
}

fn encoded(pieces: Vec<Vec<u8>>, wire: Wire, headers: &mut Vec<(String, String)>) -> Vec<Bytes> {
    let Some(encoding) = wire.encoding else {
        return pieces.into_iter().map(Bytes::from).collect();
    };
    let (name, pieces) = match encoding {
        Encoding::Gzip => ("gzip", gzip(&pieces)),
        Encoding::Zstd => ("zstd", zstd(&pieces)),
    };
    headers.push(("content-encoding".to_owned(), name.to_owned()));
    pieces
}

/// Compresses so that each piece can be read once it has arrived.
fn gzip(pieces: &[Vec<u8>]) -> Vec<Bytes> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    let mut encoded = Vec::new();
    for piece in pieces {
        encoder.write_all(piece).expect("memory takes all");
        encoder.flush().expect("memory takes all");
        encoded.push(Bytes::from(std::mem::take(encoder.get_mut())));
    }
    encoded.push(encoder.finish().expect("memory takes all").into());
    encoded
}

/// Compresses all into one frame, cut into as many pieces as there were.
fn zstd(pieces: &[Vec<u8>]) -> Vec<Bytes> {
    let encoded = compress_to_vec(&pieces.concat()[..], CompressionLevel::Fastest);
    let size = encoded.len().div_ceil(pieces.len().max(1)).max(1);
    encoded.chunks(size).map(Bytes::copy_from_slice).collect()
}

/// Splits a text into so many parts of about the same length.
pub(super) fn split(text: &str, pieces: usize) -> Vec<&str> {
    let size = text.len().div_ceil(pieces.max(1)).max(1);
    let mut parts = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let mut at = size.min(rest.len());
        while !rest.is_char_boundary(at) {
            at += 1;
        }
        let (part, behind) = rest.split_at(at);
        parts.push(part);
        rest = behind;
    }
    parts
}
