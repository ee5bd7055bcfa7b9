//! Gemini CLI: one message a line, with patches (`$set`) of the whole; or one document with all
//! messages.
//!
//! Its input includes the cache and its output excludes the thoughts. A message that comes again
//! is the same one.

use std::sync::LazyLock;

use memchr::memmem::Finder;
use module_sdk::events::{ApiFormat, LlmRequestCompleted};
use module_transcripts::Tool;
use serde::Deserialize;

use super::{
    Fault, Found, Harvest, LineReader, Origin, begun,
    counts::Told,
    json::{Count, Object, Objects, Text, Time},
    names, set_times,
};

static MARKS: LazyLock<[Finder<'static>; 2]> =
    LazyLock::new(|| ["\"tokens\"", "\"sessionId\""].map(Finder::new));

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Entry<'a> {
    #[serde(borrow)]
    session_id: Text<'a>,
    #[serde(borrow)]
    messages: Objects<Message<'a>>,
    #[serde(borrow, rename = "$set")]
    set: Object<Patch<'a>>,
    // A message of its own.
    #[serde(borrow)]
    id: Text<'a>,
    #[serde(borrow, rename = "type")]
    kind: Text<'a>,
    timestamp: Time,
    #[serde(borrow)]
    model: Text<'a>,
    tokens: Object<Tokens>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Patch<'a> {
    #[serde(borrow)]
    messages: Objects<Message<'a>>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Message<'a> {
    #[serde(borrow)]
    id: Text<'a>,
    #[serde(borrow, rename = "type")]
    kind: Text<'a>,
    timestamp: Time,
    #[serde(borrow)]
    model: Text<'a>,
    tokens: Object<Tokens>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Tokens {
    input: Count,
    output: Count,
    cached: Count,
    thoughts: Count,
    tool: Count,
    total: Count,
}

impl Tokens {
    /// Returns the counts. What tools were given is input as well. Where the total shows it, the
    /// input leaves out the cache.
    fn told(&self) -> Told {
        let [input, output, cached, thoughts, tool] =
            [self.input, self.output, self.cached, self.thoughts, self.tool].map(Count::or_zero);
        let parts = [input, output, thoughts, tool];
        let all = parts.into_iter().fold(0, u64::saturating_add);
        let input_excludes_cache = cached > 0 && self.total.0 == Some(all.saturating_add(cached));
        Told {
            input: Count(self.input.0.map(|input| input.saturating_add(tool))),
            output: self.output,
            cache_read: self.cached,
            reasoning: self.thoughts,
            input_excludes_cache,
            output_excludes_reasoning: true,
            ..Told::default()
        }
    }
}

/// The reader of a file with a message a line.
#[derive(Debug)]
pub(super) struct Reader {
    session: String,
    changed_ms: i64,
}

impl Reader {
    pub(super) fn new(origin: Origin<'_>) -> Self {
        Self { session: origin.stem().to_owned(), changed_ms: origin.changed_ms }
    }

    fn add(&self, message: &Message<'_>, line: u64, harvest: &mut Harvest) {
        if !message.kind.is("gemini") {
            return;
        }
        let Some(told) = message.tokens.0.as_ref().map(Tokens::told) else { return };
        if told.is_nothing() {
            return;
        }
        let model = message.model.name();
        let mut request = LlmRequestCompleted {
            session_id: Some(self.session.clone()),
            provider: Some("gcp.gemini".to_owned()),
            dialect: Some(ApiFormat::Gemini),
            request_model: model.clone(),
            response_model: model,
            ..begun(Tool::Gemini)
        };
        request.operation = Some("generate_content".to_owned());
        told.settle(&mut request);
        set_times(&mut request, None, message.timestamp.0.unwrap_or(self.changed_ms));
        request.dedupe_key = match message.id.as_str() {
            Some(id) => names::key_of("gemini-cli", &[id]),
            None => {
                let number = |count: Option<u64>| count.unwrap_or(0).to_string();
                names::key_of(
                    "gemini-cli",
                    &[
                        &self.session,
                        &request.ended_at.to_string(),
                        &number(request.input_tokens),
                        &number(request.output_tokens),
                    ],
                )
            }
        };
        harvest.records += 1;
        harvest.found.push(Found { request, line, ..Found::default() });
    }

    fn read(&mut self, entry: Entry<'_>, line: u64, harvest: &mut Harvest) {
        if let Some(session) = entry.session_id.id() {
            self.session = session;
        }
        let patched = entry.set.0.iter().flat_map(|patch| &patch.messages.0);
        for message in entry.messages.0.iter().chain(patched) {
            self.add(message, line, harvest);
        }
        let Entry { id, kind, timestamp, model, tokens, .. } = entry;
        self.add(&Message { id, kind, timestamp, model, tokens }, line, harvest);
    }
}

impl LineReader for Reader {
    fn line(&mut self, line: &[u8], number: u64, harvest: &mut Harvest) -> Result<(), Fault> {
        if MARKS.iter().any(|mark| mark.find(line).is_some()) {
            self.read(serde_json::from_slice(line)?, number, harvest);
        }
        Ok(())
    }
}

/// Reads a document with all messages.
pub(super) fn document(
    text: &[u8],
    origin: Origin<'_>,
    harvest: &mut Harvest,
) -> Result<(), Fault> {
    Reader::new(origin).read(serde_json::from_slice(text)?, 0, harvest);
    Ok(())
}
