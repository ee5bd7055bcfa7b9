//! Tests of translations, by tables of small pairs.

mod answers;
mod calls;
mod client_tools;
mod completions;
mod conversations;
mod others;
mod properties;
mod requests;
mod streams;

use serde_json::{Value, json};

use super::{AnswerContext, RequestOptions, StreamTranslator, TranslateError};
use crate::dialect::Dialect::{self, Chat, Messages, OllamaChat, OllamaGenerate, Responses};

/// Dialects of clients.
const CLIENTS: [Dialect; 5] = [Chat, Responses, Messages, OllamaChat, OllamaGenerate];

/// Dialects of providers.
const PROVIDERS: [Dialect; 4] = [Chat, Responses, Messages, OllamaChat];

const OPTIONS: RequestOptions<'static> = RequestOptions {
    model: "upstream",
    stream: false,
    num_ctx: None,
    default_max_tokens: 4_096,
    include_usage: false,
};

const CONTEXT: AnswerContext<'static> = AnswerContext {
    model: "asked",
    id: "r1",
    created: 1_700_000_000,
    include_usage: true,
    base64_embeddings: false,
    tools: None,
};

/// Returns a translated request.
fn request(from: Dialect, to: Dialect, body: &Value) -> Value {
    request_with(from, to, body, &OPTIONS)
}

fn request_with(from: Dialect, to: Dialect, body: &Value, options: &RequestOptions<'_>) -> Value {
    let body = super::request(from, to, body.to_string().as_bytes(), options)
        .unwrap_or_else(|error| panic!("{from:?} to {to:?}: {error}"));
    serde_json::from_slice(&body).expect("JSON")
}

/// Returns the error of a request that is not translated.
fn refusal(from: Dialect, to: Dialect, body: &Value) -> TranslateError {
    super::request(from, to, body.to_string().as_bytes(), &OPTIONS).expect_err("refused")
}

/// Returns a translated answer.
fn answer(from: Dialect, to: Dialect, body: &Value) -> Value {
    let body = super::answer(from, to, body.to_string().as_bytes(), &CONTEXT)
        .unwrap_or_else(|error| panic!("{from:?} to {to:?}: {error}"));
    serde_json::from_slice(&body).expect("JSON")
}

/// An event of a stream: its name, and its data.
type Event = (String, Value);

/// Returns the events of a stream of server-sent events, or its lines of JSON.
fn events(out: &[u8], dialect: Dialect) -> Vec<Event> {
    let text = std::str::from_utf8(out).expect("text");
    if dialect.is_json_lines() {
        assert!(text.is_empty() || text.ends_with('\n'), "a line is cut: {text}");
        let lines = text.lines();
        return lines.map(|line| (String::new(), line.parse().expect("JSON"))).collect();
    }
    assert!(text.is_empty() || text.ends_with("\n\n"), "an event is cut: {text}");
    let mut events = Vec::new();
    for event in text.split_terminator("\n\n") {
        let mut name = String::new();
        let mut data = json!("[DONE]");
        for line in event.lines() {
            if let Some(text) = line.strip_prefix("event: ") {
                text.clone_into(&mut name);
            } else if let Some(text) = line.strip_prefix("data: ") {
                if text != "[DONE]" {
                    data = text.parse().expect("JSON");
                }
            } else {
                panic!("neither event nor data: {line}");
            }
        }
        events.push((name, data));
    }
    events
}

/// Feeds events to a translator, and returns what came out with its good end.
fn stream(from: Dialect, to: Dialect, input: &[Value]) -> Vec<Event> {
    let mut translator = StreamTranslator::new(from, to, &CONTEXT).expect("a pair");
    let mut out = Vec::new();
    for data in input {
        push(&mut translator, data, &mut out).expect("translated");
        // Whole events come out of every push.
        let _ = events(&out, to);
    }
    translator.finish(&mut out);
    events(&out, to)
}

fn push(
    translator: &mut StreamTranslator,
    data: &Value,
    out: &mut Vec<u8>,
) -> Result<(), TranslateError> {
    let name = data["type"].as_str().map(str::to_owned);
    let text = data.as_str().map_or_else(|| data.to_string(), str::to_owned);
    translator.push(name.as_deref(), text.as_bytes(), out)
}

/// Returns a full answer of a provider as it is replayed to a client.
fn replay_text(from: Dialect, to: Dialect) -> String {
    let mut out = Vec::new();
    let body = answers::full(from).to_string();
    super::replay(from, to, body.as_bytes(), &CONTEXT, &mut out).expect("replayed");
    format!("{:?}", events(&out, to))
}

/// Returns the names of events.
fn names(events: &[Event]) -> Vec<&str> {
    events.iter().map(|(name, _)| name.as_str()).collect()
}
