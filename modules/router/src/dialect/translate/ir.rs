//! The form between the dialects: what a request asks and what an answer says, whoever asks it.

use std::borrow::Cow;

use serde_json::Number;

use super::{
    ClientTools, TranslateError,
    json::{Json, Object},
};
use crate::dialect::usage::Usage;

/// Key under which arguments of a tool are kept that are not an object, where a dialect wants one.
pub(super) const RAW_ARGUMENTS: &str = "_raw_arguments";

/// A request to a chat model.
#[derive(Debug, Default)]
pub(super) struct Request<'a> {
    /// Parts of the system prompt.
    pub system: Vec<Cow<'a, str>>,
    /// Turns of the conversation.
    pub turns: Vec<Turn<'a>>,
    /// Tools that the model may call.
    pub tools: Vec<Tool<'a>>,
    /// Choice among the tools.
    pub tool_choice: Option<ToolChoice<'a>>,
    /// `false` when at most one tool may be called in an answer.
    pub parallel_tool_calls: Option<bool>,
    /// Most tokens of the answer.
    pub max_tokens: Option<u64>,
    /// Sampling.
    pub sampling: Sampling<'a>,
    /// Form of the answer.
    pub format: Format<'a>,
    /// Wish for reasoning.
    pub reasoning: Option<Reasoning>,
    /// Length of the answer in OpenAI's words: `low`, `medium`, `high`.
    pub verbosity: Option<Cow<'a, str>>,
    /// Id of the person behind the client.
    pub user: Option<Cow<'a, str>>,
    /// Key that helps the provider find its cached prompt.
    pub prompt_cache_key: Option<Cow<'a, str>>,
    /// Labels that the provider keeps with the answer (OpenAI).
    pub metadata: Json<'a>,
    /// Time that the model stays loaded (Ollama).
    pub keep_alive: Json<'a>,
    /// Options that only Ollama has.
    pub ollama_options: Object<'a>,
    /// Tools that the client knows in another form than the provider.
    pub client_tools: ClientTools,
    /// Parts that were left out.
    pub dropped: Dropped,
}

/// Sampling of an answer, in the numbers that the client wrote.
#[derive(Debug, Default)]
pub(super) struct Sampling<'a> {
    pub temperature: Option<Number>,
    pub top_p: Option<Number>,
    pub top_k: Option<Number>,
    pub min_p: Option<Number>,
    pub seed: Option<Number>,
    pub frequency_penalty: Option<Number>,
    pub presence_penalty: Option<Number>,
    pub stop: Vec<Cow<'a, str>>,
}

/// Names of the parts of a request that were left out, since the other dialect has no word for
/// them and the request keeps its meaning.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Dropped(Vec<&'static str>);

impl Dropped {
    /// Adds a part.
    pub(super) fn add(&mut self, part: &'static str) {
        if !self.0.contains(&part) {
            self.0.push(part);
        }
    }

    /// Adds a part where it was asked for.
    pub(super) fn add_if(&mut self, is_there: bool, part: &'static str) {
        if is_there {
            self.add(part);
        }
    }

    /// Returns the parts in the order in which they were met.
    pub(crate) fn parts(&self) -> &[&'static str] {
        &self.0
    }
}

/// Side that speaks in a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Instructions after the first words of a person.
    System,
    /// A person, and the results of tools.
    User,
    /// The model.
    Assistant,
}

/// A turn of the conversation.
#[derive(Debug, PartialEq)]
pub(super) struct Turn<'a> {
    pub role: Role,
    pub blocks: Vec<Block<'a>>,
}

/// A part of a turn or an answer.
#[derive(Debug, PartialEq)]
pub(super) enum Block<'a> {
    /// Text.
    Text(Cow<'a, str>),
    /// Text with which the model refused to answer.
    Refusal(Cow<'a, str>),
    /// Reasoning of the model.
    Thinking {
        text: Cow<'a, str>,
        /// `true` where only the provider that wrote it can use it again.
        is_sealed: bool,
    },
    /// An image.
    Image(Media<'a>),
    /// A document.
    File { media: Media<'a>, name: Option<Cow<'a, str>> },
    /// A call of a tool.
    ToolUse { id: Cow<'a, str>, name: Cow<'a, str>, arguments: Arguments<'a> },
    /// The result of a call.
    ToolResult { id: Cow<'a, str>, content: Vec<Block<'a>>, is_error: bool },
}

/// Bytes of an image or a document.
#[derive(Debug, PartialEq)]
pub(super) enum Media<'a> {
    /// In the request itself.
    Base64 { media_type: Cow<'a, str>, data: Cow<'a, str> },
    /// At an address.
    Url(Cow<'a, str>),
}

impl<'a> Media<'a> {
    /// Returns the media of an address, which may be a `data:` URL.
    pub(super) fn from_url(url: Cow<'a, str>) -> Self {
        let Some((media_type, data)) = split_data_url(&url) else { return Self::Url(url) };
        let (media_type, data) = (media_type.to_owned(), data.to_owned());
        Self::Base64 { media_type: media_type.into(), data: data.into() }
    }

    /// Returns the address, a `data:` URL where it has none.
    pub(super) fn into_url(self) -> Cow<'a, str> {
        match self {
            Self::Url(url) => url,
            Self::Base64 { media_type, data } => format!("data:{media_type};base64,{data}").into(),
        }
    }
}

/// Returns media type and data of a `data:` URL in base64.
fn split_data_url(url: &str) -> Option<(&str, &str)> {
    let (head, data) = url.strip_prefix("data:")?.split_once(',')?;
    let media_type = head.strip_suffix(";base64")?;
    let media_type = media_type.split(';').next().unwrap_or_default();
    Some((if media_type.is_empty() { "image/png" } else { media_type }, data))
}

/// Arguments of a call: text of JSON in OpenAI's dialects, an object in the others.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Arguments<'a> {
    Text(Cow<'a, str>),
    Tree(Json<'a>),
}

impl<'a> Arguments<'a> {
    /// Returns them as text of JSON.
    pub(super) fn into_text(self) -> Cow<'a, str> {
        match self {
            Self::Text(text) if text.trim().is_empty() => "{}".into(),
            Self::Text(text) => text,
            Self::Tree(Json::Null) => "{}".into(),
            Self::Tree(mut tree) => match kept_raw(&mut tree) {
                Some(text) => text,
                None => tree.to_string().into(),
            },
        }
    }

    /// Returns them as an object. What is no object stands in it under [`RAW_ARGUMENTS`].
    pub(super) fn into_object(self) -> Json<'a> {
        let text = match self {
            Self::Tree(tree @ Json::Object(_)) => return tree,
            Self::Tree(Json::Null) => return Object::new().into(),
            Self::Tree(other) => other.to_string().into(),
            Self::Text(text) => text,
        };
        object_of(&text).unwrap_or_else(|| Object::new().with(RAW_ARGUMENTS, text).into())
    }
}

/// Returns the object that a text of JSON is, an empty one where the text is empty or `null`.
pub(super) fn object_of(text: &str) -> Option<Json<'static>> {
    if text.trim().is_empty() {
        return Some(Object::new().into());
    }
    match Json::parse(text.as_bytes()).ok()? {
        Json::Null => Some(Object::new().into()),
        object @ Json::Object(_) => Some(object.into_owned()),
        _ => None,
    }
}

/// Takes the text out of an object that only keeps what was no object.
fn kept_raw<'a>(tree: &mut Json<'a>) -> Option<Cow<'a, str>> {
    let Json::Object(object) = tree else { return None };
    let is_kept = object.iter().count() == 1 && object.iter().all(|(key, _)| key == RAW_ARGUMENTS);
    if is_kept { object.take(RAW_ARGUMENTS).into_text() } else { None }
}

/// A tool that the model may call.
#[derive(Debug, PartialEq)]
pub(super) struct Tool<'a> {
    pub name: Cow<'a, str>,
    pub description: Option<Cow<'a, str>>,
    /// Schema of the arguments, `Null` where there is none.
    pub schema: Json<'a>,
    /// `true` where the arguments must fit the schema.
    pub is_strict: Option<bool>,
}

impl<'a> Tool<'a> {
    /// Returns the schema of the arguments, an open object where there is none.
    pub(super) fn take_schema(&mut self) -> Json<'a> {
        match std::mem::take(&mut self.schema) {
            schema @ Json::Object(_) => schema,
            _ => Object::new().with("type", "object").with("properties", Object::new()).into(),
        }
    }
}

/// Choice among the tools.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ToolChoice<'a> {
    /// The model decides.
    Auto,
    /// No tool.
    None,
    /// Any tool, but one.
    Required,
    /// This tool.
    Named(Cow<'a, str>),
}

/// Form of an answer.
#[derive(Debug, Default, PartialEq)]
pub(super) enum Format<'a> {
    /// Free text.
    #[default]
    Text,
    /// Any object.
    Json,
    /// JSON of a schema.
    Schema {
        schema: Json<'a>,
        name: Option<Cow<'a, str>>,
        description: Option<Cow<'a, str>>,
        is_strict: Option<bool>,
    },
}

/// Wish for reasoning before the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reasoning {
    /// None.
    Off,
    /// As much as this, said for this request.
    Effort(Effort),
    /// At most so many tokens.
    Budget(u64),
    /// As much as the model likes; some clients say so to every model.
    Adaptive(Option<Effort>),
}

/// Effort of reasoning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Effort {
    Minimal,
    Low,
    Medium,
    High,
    ExtraHigh,
    Max,
}

/// An answer of a model.
#[derive(Debug, Default)]
pub(super) struct Answer<'a> {
    /// Id that the provider gave.
    pub id: Option<Cow<'a, str>>,
    pub blocks: Vec<Block<'a>>,
    /// Probabilities of tokens, in the form of the provider's dialect.
    pub logprobs: Json<'a>,
    pub ending: Ending,
}

/// End of an answer.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Ending {
    pub stop: Stop,
    /// Stop sequence that was met.
    pub stop_sequence: Option<String>,
    pub usage: Usage,
    pub timings: Timings,
}

/// Reason for the end of an answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Stop {
    /// The model had said all.
    #[default]
    End,
    /// A stop sequence was met.
    Sequence,
    /// The limit of tokens was reached.
    Length,
    /// Tools are called.
    Tools,
    /// The provider or the model refused.
    Refused,
    /// The provider paused a long turn.
    Paused,
}

/// Times that Ollama states, in nanoseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Timings {
    pub total: Option<u64>,
    pub load: Option<u64>,
    pub prompt: Option<u64>,
    pub eval: Option<u64>,
}

impl<'a> Request<'a> {
    /// Adds words of the system: to its prompt, or as a turn where the conversation has begun.
    pub(super) fn push_system(&mut self, text: Cow<'a, str>) {
        if text.is_empty() {
            return;
        }
        if self.turns.is_empty() {
            self.system.push(text);
        } else {
            self.push(Role::System, vec![Block::Text(text)]);
        }
    }

    /// Adds a turn, or adds to the last one where the same side goes on speaking.
    pub(super) fn push(&mut self, role: Role, blocks: Vec<Block<'a>>) {
        if blocks.is_empty() {
            return;
        }
        match self.turns.last_mut() {
            Some(last) if last.role == role => last.blocks.extend(blocks),
            _ => self.turns.push(Turn { role, blocks }),
        }
    }

    /// Returns the images and documents of all turns, each with whether it is a document.
    pub(super) fn media(&self) -> impl Iterator<Item = (bool, &Media<'a>)> {
        let blocks = self.turns.iter().flat_map(|turn| &turn.blocks);
        blocks.flat_map(|block| std::iter::once(block).chain(block.nested())).filter_map(|block| {
            match block {
                Block::Image(media) => Some((false, media)),
                Block::File { media, .. } => Some((true, media)),
                _ => None,
            }
        })
    }

    /// Returns the names of the tools that were called, by the ids of the calls.
    pub(super) fn tool_names(&self) -> Vec<(Cow<'a, str>, Cow<'a, str>)> {
        let blocks = self.turns.iter().flat_map(|turn| &turn.blocks);
        blocks
            .filter_map(|block| match block {
                Block::ToolUse { id, name, .. } => Some((id.clone(), name.clone())),
                _ => None,
            })
            .collect()
    }
}

impl<'a> Block<'a> {
    /// Returns the blocks of a result.
    fn nested(&self) -> &[Self] {
        if let Self::ToolResult { content, .. } = self { content } else { &[] }
    }

    /// Returns text, or nothing where it is empty.
    pub(super) fn text(text: Cow<'a, str>) -> Option<Self> {
        (!text.is_empty()).then_some(Self::Text(text))
    }
}

/// Returns texts joined by line breaks.
pub(super) fn join<'a>(texts: Vec<Cow<'a, str>>, separator: &str) -> Cow<'a, str> {
    let mut texts = texts;
    match texts.len() {
        0 => Cow::Borrowed(""),
        1 => texts.swap_remove(0),
        _ => texts.join(separator).into(),
    }
}

/// Returns an error where an answer must be JSON of a kind that it is not.
pub(super) fn expect(is_so: bool, fault: &'static str) -> Result<(), TranslateError> {
    if is_so { Ok(()) } else { Err(TranslateError::Malformed(fault)) }
}
