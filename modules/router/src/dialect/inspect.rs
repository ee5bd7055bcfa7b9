//! Findings in a request that routing needs, read without building a tree of it.

mod acts;
mod error;
mod harness;
mod items;
mod keys;
mod media;
mod numbers;
mod offered;
#[cfg(test)]
mod tests;

use std::{borrow::Cow, ops::Range};

use memchr::memmem;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use self::{
    error::{form, refusal},
    items::Items,
    keys::{Watch, tool_names_model},
    media::{TOKENS_OF_MEDIA, holds_media, is_type_in, media_bytes},
    numbers::{temperature, whole},
    offered::offers,
};
use super::Dialect;

pub(crate) use self::{acts::acts, error::InspectError};

/// Findings in the body of a request.
#[derive(Debug, Clone, Default)]
pub(crate) struct Inspected<'a> {
    /// Model that is asked for, empty where none is named.
    pub model: Cow<'a, str>,
    /// Key besides `model` that may choose the model at a provider, or whom that asks for it.
    pub names_models: Option<&'static str>,
    /// Places in the body that may be rewritten.
    pub places: Places,
    /// `true` when the answer is to be streamed.
    pub stream: bool,
    /// `true` when the client asks for the usage at the end of a stream itself.
    pub includes_usage: bool,
    /// Number of messages.
    pub messages: u32,
    /// Number of tools that the model may call.
    pub tools: u32,
    /// `true` when the model must call a tool.
    pub requires_tool: bool,
    /// `true` when images, sound or files are among the messages.
    pub has_images: bool,
    /// Form that the answer must have.
    pub answer_format: AnswerFormat,
    /// Most tokens that the answer may have.
    pub max_tokens: Option<u32>,
    /// Sampling temperature.
    pub temperature: Option<f64>,
    /// Number of answers that are asked for, 1 where it is not said.
    pub choices: u32,
    /// `true` when embeddings are wanted in base64.
    pub wants_base64: bool,
    /// `true` when the last message is the result of a tool: an agent is at work.
    pub continues_tool: bool,
    /// Words that a person said last, without those that a harness puts around them.
    pub last_words: Cow<'a, str>,
    /// System prompt, where it is one text, or its first part.
    pub system: Cow<'a, str>,
    /// Tokens of the input, estimated high: the length of the text divided by 3.5.
    pub estimated_tokens: u64,
}

/// Positions of values in a body, their quotes and brackets included.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Places {
    /// Value of `model`.
    pub model: Option<Range<usize>>,
    /// Value of `stream`.
    pub stream: Option<Range<usize>>,
    /// Value of `stream_options`.
    pub stream_options: Option<Range<usize>>,
    /// Value of `safeguards`.
    pub safeguards: Option<Range<usize>>,
}

/// Form that an answer must have.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum AnswerFormat {
    /// Free text.
    #[default]
    Text,
    /// Any JSON.
    Json,
    /// JSON of a schema.
    Schema,
}

#[derive(Deserialize)]
#[serde(default)]
#[derive(Default)]
struct Body<'a> {
    #[serde(borrow, deserialize_with = "raw")]
    model: Option<&'a RawValue>,
    #[serde(borrow, deserialize_with = "raw")]
    stream: Option<&'a RawValue>,
    #[serde(borrow, deserialize_with = "raw")]
    stream_options: Option<&'a RawValue>,
    #[serde(borrow, deserialize_with = "raw")]
    safeguards: Option<&'a RawValue>,
    #[serde(borrow)]
    messages: Option<Items<'a>>,
    #[serde(borrow)]
    contents: Option<Items<'a>>,
    #[serde(borrow)]
    input: Option<&'a RawValue>,
    #[serde(borrow)]
    prompt: Option<&'a RawValue>,
    #[serde(borrow)]
    system: Option<&'a RawValue>,
    #[serde(borrow)]
    instructions: Option<&'a RawValue>,
    #[serde(borrow)]
    tools: Option<Items<'a>>,
    #[serde(borrow)]
    tool_choice: Option<&'a RawValue>,
    #[serde(borrow)]
    response_format: Option<&'a RawValue>,
    #[serde(borrow)]
    text: Option<&'a RawValue>,
    #[serde(borrow)]
    format: Option<&'a RawValue>,
    #[serde(deserialize_with = "whole")]
    max_tokens: Option<u32>,
    #[serde(deserialize_with = "whole")]
    max_completion_tokens: Option<u32>,
    #[serde(deserialize_with = "whole")]
    max_output_tokens: Option<u32>,
    #[serde(deserialize_with = "temperature")]
    temperature: Option<f64>,
    #[serde(deserialize_with = "whole")]
    n: Option<u32>,
    #[serde(borrow)]
    encoding_format: Option<&'a RawValue>,
    #[serde(borrow)]
    images: Option<Items<'a>>,
    #[serde(borrow)]
    options: Option<&'a RawValue>,
    #[serde(borrow, rename = "generationConfig")]
    generation_config: Option<&'a RawValue>,
}

/// Limits and sampling, where a dialect has them inside.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Inside {
    #[serde(alias = "maxOutputTokens")]
    num_predict: Option<i64>,
    temperature: Option<f64>,
    #[serde(rename = "candidateCount")]
    candidates: Option<u32>,
}

/// Longest name of a model, in bytes.
const LONGEST_NAME: usize = 256;

/// Reads a value whose place counts, also where it is `null`.
fn raw<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Message<'a> {
    #[serde(borrow)]
    role: Option<Cow<'a, str>>,
    #[serde(borrow, rename = "type")]
    kind: Option<Cow<'a, str>>,
    #[serde(borrow)]
    content: Option<&'a RawValue>,
    #[serde(borrow)]
    parts: Option<&'a RawValue>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Part<'a> {
    #[serde(borrow, rename = "type")]
    kind: Option<Cow<'a, str>>,
    #[serde(borrow)]
    text: Option<&'a RawValue>,
}

/// Reads the body of a request.
pub(crate) fn inspect(dialect: Dialect, body: &[u8]) -> Result<Inspected<'_>, InspectError> {
    let text =
        std::str::from_utf8(body).map_err(|error| InspectError::NotUtf8(error.valid_up_to()))?;
    let begin = text.trim_start();
    if begin.is_empty() {
        return Err(InspectError::Empty);
    }
    if begin.starts_with('\u{feff}') {
        let what = "it begins with a byte order mark; leave that out";
        return Err(InspectError::NotJson { line: 1, column: 1, what });
    }
    // A list would be taken for the values of an object.
    if begin.starts_with('[') {
        return Err(form(": an object is expected there"));
    }
    let mut watch = Watch::default();
    let read: Body<'_> = keys::read(text, &mut watch).map_err(|error| refusal(&error))?;
    let names_model = offers(read.tools.as_ref(), read.input, tool_names_model);
    let by_tool = names_model.then_some("tools");
    let model = match read.model.map(RawValue::get) {
        None | Some("null") => Cow::Borrowed(""),
        Some(raw) => string(raw).ok_or_else(|| form(": `model` is a text"))?,
    };
    let stream = match read.stream.map(RawValue::get) {
        None | Some("null") => None,
        Some("true") => Some(true),
        Some("false") => Some(false),
        Some(_) => return Err(form(": `stream` is true or false")),
    };
    let place = |raw: Option<&RawValue>| raw.map(|raw| range_in(text, raw.get()));
    let mut found = Inspected {
        model,
        places: Places {
            model: place(read.model),
            stream: place(read.stream),
            stream_options: place(read.stream_options),
            safeguards: place(read.safeguards),
        },
        names_models: watch.names_models.or(by_tool),
        stream: stream.unwrap_or(dialect.streams_by_default()),
        includes_usage: read.stream_options.is_some_and(|raw| includes_usage(raw.get())),
        tools: count(read.tools.as_ref().map(|it| it.0.as_slice())),
        requires_tool: read.tool_choice.is_some_and(|raw| requires_tool(raw.get())),
        answer_format: answer_format(&read),
        max_tokens: read.max_completion_tokens.or(read.max_output_tokens).or(read.max_tokens),
        temperature: read.temperature,
        choices: read.n.unwrap_or(1),
        wants_base64: read.encoding_format.map(RawValue::get) == Some("\"base64\""),
        ..Inspected::default()
    };
    if found.model.len() > LONGEST_NAME {
        let what = format!(": a model's name of at most {LONGEST_NAME} bytes is expected there");
        return Err(form(&what));
    }
    let inside = read.options.or(read.generation_config);
    let inside = inside.and_then(|raw| serde_json::from_str::<Inside>(raw.get()).ok());
    if let Some(inside) = inside {
        let most = inside.num_predict.and_then(|most| u32::try_from(most).ok());
        found.max_tokens = found.max_tokens.or(most);
        found.temperature = found.temperature.or(inside.temperature);
        found.choices = inside.candidates.unwrap_or(found.choices);
    }
    let items = read.messages.or(read.contents);
    let items = match (items, read.input) {
        (Some(items), _) => items.0,
        // Text, or a list of items (Responses) or of texts (embeddings).
        (None, Some(raw)) => match serde_json::from_str::<Items<'_>>(raw.get()) {
            Ok(items) => items.0,
            Err(_) => {
                found.last_words = last_words(string(raw.get()).unwrap_or_default());
                Vec::new()
            }
        },
        (None, None) => {
            let prompt = read.prompt.and_then(|raw| string(raw.get()));
            found.last_words = last_words(prompt.unwrap_or_default());
            Vec::new()
        }
    };
    found.messages = count(Some(&items));
    if dialect == Dialect::Responses && found.tools == 0 {
        found.tools = items.iter().map(|item| tools_of_item(item.get())).sum();
    }
    found.system = [read.system, read.instructions]
        .into_iter()
        .flatten()
        .next()
        .map_or_else(|| first_system(&items), |raw| first_text(raw.get()).unwrap_or_default());
    if dialect.operation() != "embeddings" {
        walk_back(&items, &mut found);
    }
    found.has_images = read.images.is_some_and(|images| !images.0.is_empty())
        || items.iter().any(|item| holds_media(item.get()));
    #[expect(clippy::cast_possible_truncation, reason = "a number of tokens")]
    #[expect(clippy::cast_sign_loss, reason = "a length is not negative")]
    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    {
        let (encoded, media) = if found.has_images { media_bytes(text) } else { (0, 0) };
        let words = body.len().saturating_sub(encoded);
        found.estimated_tokens = (words as f64 / 3.5) as u64 + media * TOKENS_OF_MEDIA;
    }
    Ok(found)
}

/// Returns the number of tools that an item of a conversation brings, as those of Codex do.
fn tools_of_item(item: &str) -> u32 {
    #[derive(Deserialize)]
    struct Brings<'a> {
        #[serde(borrow)]
        tools: Items<'a>,
    }

    if memmem::find(item.as_bytes(), b"\"additional_tools\"").is_none() {
        return 0;
    }
    serde_json::from_str::<Brings<'_>>(item).map_or(0, |brings| count(Some(&brings.tools.0)))
}

/// Finds the last words of a person, from the end.
fn walk_back<'a>(items: &[&'a RawValue], found: &mut Inspected<'a>) {
    for (back, item) in items.iter().rev().enumerate() {
        let Ok(message) = serde_json::from_str::<Message<'a>>(item.get()) else { continue };
        let role = message.role.as_deref().unwrap_or_default();
        let kind = message.kind.as_deref().unwrap_or_default();
        let is_result = role == "tool" || role == "function" || kind.ends_with("_output");
        let content = message.content.or(message.parts);
        let text = content.filter(|_| role == "user").map(|raw| user_text(raw.get()));
        let has_results = content.is_some_and(|raw| role == "user" && holds_results(raw.get()));
        if back == 0 {
            found.continues_tool = is_result || has_results;
        }
        let Some(words) = text.flatten().map(last_words) else { continue };
        if !words.is_empty() {
            found.last_words = words;
            return;
        }
    }
}

fn last_words(text: Cow<'_, str>) -> Cow<'_, str> {
    match text {
        Cow::Borrowed(text) => harness::strip(text),
        Cow::Owned(text) => Cow::Owned(harness::strip(&text).into_owned()),
    }
}

/// Returns the last text of a user's message that a harness did not write alone.
fn user_text(content: &str) -> Option<Cow<'_, str>> {
    if content.starts_with('"') {
        return string(content);
    }
    let parts: Vec<Part<'_>> = serde_json::from_str(content).ok()?;
    let texts = parts
        .iter()
        .rev()
        .filter(|part| matches!(part.kind.as_deref(), None | Some("text" | "input_text")));
    texts.filter_map(|part| string(part.text?.get())).find(|text| !harness::strip(text).is_empty())
}

fn holds_results(content: &str) -> bool {
    // A plain text holds none.
    if content.starts_with('"') {
        return false;
    }
    is_type_in(content, "tool_result")
        || memmem::find(content.as_bytes(), b"\"functionResponse\"").is_some()
}

fn first_system<'a>(items: &[&'a RawValue]) -> Cow<'a, str> {
    let Some(first) = items.first() else { return Cow::Borrowed("") };
    let Ok(message) = serde_json::from_str::<Message<'a>>(first.get()) else {
        return Cow::Borrowed("");
    };
    match (message.role.as_deref(), message.content) {
        (Some("system" | "developer"), Some(raw)) => first_text(raw.get()).unwrap_or_default(),
        _ => Cow::Borrowed(""),
    }
}

/// Returns a text, or the first one of a list of parts.
fn first_text(content: &str) -> Option<Cow<'_, str>> {
    if content.starts_with('"') {
        return string(content);
    }
    let parts: Vec<Part<'_>> = serde_json::from_str(content).ok()?;
    parts.iter().find_map(|part| string(part.text?.get()))
}

fn includes_usage(options: &str) -> bool {
    #[derive(Deserialize)]
    struct Options {
        include_usage: Option<bool>,
    }

    serde_json::from_str::<Options>(options).is_ok_and(|it| it.include_usage == Some(true))
}

fn requires_tool(choice: &str) -> bool {
    #[derive(Deserialize)]
    struct Choice<'a> {
        #[serde(borrow, rename = "type")]
        kind: Option<Cow<'a, str>>,
    }

    match string(choice) {
        Some(word) => matches!(&*word, "required" | "any"),
        None => serde_json::from_str::<Choice<'_>>(choice).is_ok_and(|choice| {
            matches!(choice.kind.as_deref(), Some("function" | "tool" | "any" | "custom"))
        }),
    }
}

fn answer_format(body: &Body<'_>) -> AnswerFormat {
    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct Format<'a> {
        #[serde(borrow, rename = "type")]
        kind: Option<Cow<'a, str>>,
        #[serde(borrow)]
        format: Option<&'a RawValue>,
    }

    let read = |raw: &RawValue| -> Option<AnswerFormat> {
        let format = serde_json::from_str::<Format<'_>>(raw.get()).ok()?;
        let inner =
            format.format.and_then(|raw| serde_json::from_str::<Format<'_>>(raw.get()).ok());
        match inner.and_then(|inner| inner.kind).or(format.kind).as_deref() {
            Some("json_object") => Some(AnswerFormat::Json),
            Some("json_schema") => Some(AnswerFormat::Schema),
            _ => None,
        }
    };
    let openai = body.response_format.or(body.text).and_then(read);
    // Ollama takes `"json"` or a schema.
    let ollama = body.format.map(|raw| match string(raw.get()) {
        Some(word) if word == "json" => AnswerFormat::Json,
        Some(_) => AnswerFormat::Text,
        None if raw.get().starts_with('{') => AnswerFormat::Schema,
        None => AnswerFormat::Text,
    });
    openai.or(ollama).unwrap_or_default()
}

fn count(items: Option<&[&RawValue]>) -> u32 {
    items.map_or(0, |items| u32::try_from(items.len()).unwrap_or(u32::MAX))
}

/// Returns the text of a JSON string, without a copy where nothing in it is escaped.
pub(super) fn string(json: &str) -> Option<Cow<'_, str>> {
    match serde_json::from_str::<&str>(json) {
        Ok(text) => Some(Cow::Borrowed(text)),
        Err(_) => serde_json::from_str::<String>(json).ok().map(Cow::Owned),
    }
}

/// Returns the position of a part of a text in it.
fn range_in(text: &str, part: &str) -> Range<usize> {
    let start = part.as_ptr() as usize - text.as_ptr() as usize;
    start..start + part.len()
}
