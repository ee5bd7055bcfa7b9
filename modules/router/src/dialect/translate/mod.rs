//! Translation of requests, answers and streams from one dialect to another.
//!
//! Each dialect has a reader and a writer; between them stands one form ([`ir`]), so that N
//! dialects need N codecs. What a provider has no word for is left out where the request keeps
//! its meaning, and listed ([`Translated::dropped`]); where it does not, the translation is
//! refused, and another target may take the request.
//!
//! - Reasoning of earlier turns is dropped whole where it is sealed (signed or encrypted). Plain
//!   reasoning goes to Ollama, and to DeepSeek, which asks for it. Reasoning that is written for a
//!   client of another provider bears a mark, so that [`foreign`] can take it out again.
//! - Arguments of tools that are no object stand in one under `_raw_arguments` where a dialect
//!   wants an object, and come out of it on the way back. In a stream they go on as they arrive.
//! - Calls without an id get one that is always the same at the same place; ids that a provider
//!   would refuse are replaced, in the call and in its result alike.
//! - A custom tool, whose argument is a text, is a function with one argument; a tool in a
//!   namespace is a function with both names in its own; so is a search for tools that the client
//!   makes, and what it has found is offered from then on ([`client_tools`]).
//! - Completions have a prompt for a conversation, and of the answer its text alone
//!   ([`completions`]); no provider is asked for them by translation.
//! - Results of tools are moved right behind their calls; images in them follow in the person's
//!   message where a result may only be text.
//! - A count that is not known is left out, or `null` where its key must be there; only
//!   `message_start` has a 0, which the last event corrects.

mod chat;
mod client_tools;
mod collect;
mod completions;
mod conversation;
mod embed;
mod error;
pub(crate) mod foreign;
mod gemini;
mod ids;
mod ir;
mod json;
mod messages;
mod ollama;
mod order;
mod reasoning;
mod responses;
mod sse;
mod stream;
#[cfg(test)]
mod tests;

pub(crate) use self::{
    client_tools::ClientTools,
    conversation::{StreamText, conversation},
    error::TranslateError,
    ir::Dropped,
};
use self::{
    collect::Collector,
    ir::{Answer, Block},
    json::Json,
    stream::{Blocks, Delta, StreamReader},
};
#[cfg(test)]
use crate::dialect::usage::Usage;
use crate::dialect::{Dialect, sse::Splitter};

/// Facts about a request that the target decides.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct RequestOptions<'a> {
    /// Model, as the provider calls it.
    pub model: &'a str,
    /// `true` when the answer is to be streamed.
    pub stream: bool,
    /// Context length that Ollama is to give the model, unless the client asks for one.
    pub num_ctx: Option<u32>,
    /// Limit of tokens where the dialect needs one and the client names none.
    pub default_max_tokens: u32,
    /// `true` when a stream of chat completions is to end with the usage.
    pub include_usage: bool,
}

/// Facts about an answer that its body does not say.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct AnswerContext<'a> {
    /// Model, as the client named it.
    pub model: &'a str,
    /// Id of the request, for the ids that the provider does not give.
    pub id: &'a str,
    /// Time of the answer, in seconds since 1970.
    pub created: i64,
    /// `true` when the client wants the usage at the end of a stream of chat completions.
    pub include_usage: bool,
    /// `true` when the client wants embeddings in base64.
    pub base64_embeddings: bool,
    /// Tools that the client knows in another form than the provider.
    pub tools: Option<&'a ClientTools>,
}

impl AnswerContext<'_> {
    /// Returns the tools that the client knows in another form.
    fn client_tools(&self) -> ClientTools {
        self.tools.cloned().unwrap_or_default()
    }

    /// Returns the id of an answer in a dialect.
    fn answer_id(&self, dialect: Dialect) -> String {
        let prefix = match dialect {
            Dialect::Chat => "chatcmpl-",
            Dialect::Completions => "cmpl-",
            Dialect::Responses => "resp_",
            Dialect::Messages => "msg_",
            _ => "",
        };
        format!("{prefix}{}", self.id)
    }
}

/// A request in the dialect of its provider.
#[derive(Debug)]
pub(crate) struct Translated {
    /// Body of the request.
    pub body: Vec<u8>,
    /// Parts that were left out.
    pub dropped: Dropped,
}

impl Translated {
    /// Returns a request of which nothing was left out.
    fn whole(body: Json<'_>) -> Self {
        Self { body: body.to_bytes(), dropped: Dropped::default() }
    }
}

/// Translates a request.
pub(crate) fn request(
    from: Dialect,
    to: Dialect,
    body: &[u8],
    options: &RequestOptions<'_>,
) -> Result<Vec<u8>, TranslateError> {
    request_with_report(from, to, body, options).map(|translated| translated.body)
}

/// Translates a request, and says what was left out.
pub(crate) fn request_with_report(
    from: Dialect,
    to: Dialect,
    body: &[u8],
    options: &RequestOptions<'_>,
) -> Result<Translated, TranslateError> {
    let body = Json::parse(body)?;
    ir::expect(matches!(body, Json::Object(_)), "the body must be an object")?;
    match (from, to) {
        (Dialect::Embeddings, Dialect::OllamaEmbed) => {
            return embed::request_to_ollama(body, options).map(Translated::whole);
        }
        (Dialect::OllamaEmbed, Dialect::Embeddings) => {
            return embed::request_to_openai(body, options).map(Translated::whole);
        }
        _ => {}
    }
    let mut request = read_request(from, to, body)?;
    order::settle(&mut request);
    let body = match to {
        Dialect::Chat => chat::write_request(&mut request, options),
        Dialect::Responses => responses::write_request(&mut request, options),
        Dialect::Messages => messages::write_request(&mut request, options),
        Dialect::Gemini => gemini::write_request(&mut request, options),
        Dialect::OllamaChat => ollama::write_request(&mut request, options),
        _ => Err(TranslateError::NoPair { from, to }),
    }?;
    Ok(Translated { body: body.to_bytes(), dropped: request.dropped })
}

/// Reads a request into the form between the dialects.
fn read_request(
    from: Dialect,
    to: Dialect,
    body: Json<'_>,
) -> Result<ir::Request<'_>, TranslateError> {
    match from {
        Dialect::Chat => chat::read_request(body),
        Dialect::Completions => completions::read_request(body),
        Dialect::Responses => responses::read_request(body),
        Dialect::Messages => messages::read_request(body),
        Dialect::Gemini => gemini::read_request(body),
        Dialect::OllamaChat => ollama::read_chat_request(body),
        Dialect::OllamaGenerate => ollama::read_generate_request(body),
        _ => Err(TranslateError::NoPair { from, to }),
    }
}

/// Translates a whole answer of a provider that speaks `from` for a client that speaks `to`.
pub(crate) fn answer(
    from: Dialect,
    to: Dialect,
    body: &[u8],
    context: &AnswerContext<'_>,
) -> Result<Vec<u8>, TranslateError> {
    if matches!((from, to), (Dialect::Embeddings, _) | (_, Dialect::Embeddings)) {
        return embeddings(from, to, body, context);
    }
    let answer = read_answer(from, to, body, context)?;
    write_answer(from, to, answer, context)
}

fn write_answer(
    from: Dialect,
    to: Dialect,
    answer: Answer<'_>,
    context: &AnswerContext<'_>,
) -> Result<Vec<u8>, TranslateError> {
    let body = match to {
        Dialect::Chat => chat::write_answer(answer, context),
        Dialect::Completions => completions::write_answer(answer, context),
        Dialect::Responses => responses::write_answer(answer, context),
        Dialect::Messages => messages::write_answer(answer, context),
        Dialect::Gemini => gemini::write_answer(answer, context),
        Dialect::OllamaChat => ollama::write_chat_answer(answer, context),
        Dialect::OllamaGenerate => ollama::write_generate_answer(answer, context),
        _ => return Err(TranslateError::NoPair { from, to }),
    };
    Ok(body.to_bytes())
}

/// Translates the answer to a request for embeddings.
fn embeddings(
    from: Dialect,
    to: Dialect,
    body: &[u8],
    context: &AnswerContext<'_>,
) -> Result<Vec<u8>, TranslateError> {
    let body = read_body(body)?;
    let body = match (from, to) {
        (Dialect::OllamaEmbed, Dialect::Embeddings) => embed::answer_to_openai(body, context),
        (Dialect::Embeddings, Dialect::OllamaEmbed) => embed::answer_to_ollama(body, context),
        _ => Err(TranslateError::NoPair { from, to }),
    }?;
    Ok(body.to_bytes())
}

/// Writes a whole answer as the stream that a client asked for; the dialects may be the same.
pub(crate) fn replay(
    from: Dialect,
    to: Dialect,
    body: &[u8],
    context: &AnswerContext<'_>,
    out: &mut Vec<u8>,
) -> Result<(), TranslateError> {
    let answer = read_answer(from, to, body, context)?;
    let mut blocks = Blocks::new(from, to, context)?;
    blocks.apply(Delta::Usage(answer.ending.usage), out);
    blocks.apply(Delta::Timings(answer.ending.timings), out);
    if let Some(id) = answer.id {
        blocks.apply(Delta::Id(id), out);
    }
    for (key, block) in (0..).zip(answer.blocks) {
        match block {
            Block::Text(text) => blocks.apply(Delta::Text(text), out),
            Block::Refusal(text) => blocks.apply(Delta::Refusal(text), out),
            Block::Thinking { text, .. } => blocks.apply(Delta::Thinking(text), out),
            Block::ToolUse { id, name, arguments } => {
                blocks.apply(Delta::Call { key, id, name }, out);
                blocks.apply(Delta::Arguments { key, text: arguments.into_text() }, out);
            }
            Block::Image(_) | Block::File { .. } | Block::ToolResult { .. } => {}
        }
    }
    let sequence = answer.ending.stop_sequence;
    blocks.apply(Delta::Stop { stop: answer.ending.stop, sequence }, out);
    blocks.end(out);
    Ok(())
}

/// Writes a stream that is at its end as the whole answer that a client asked for; the dialects
/// may be the same.
pub(crate) fn collect(
    from: Dialect,
    to: Dialect,
    stream: &[u8],
    context: &AnswerContext<'_>,
) -> Result<Vec<u8>, TranslateError> {
    let mut reader = reader(from, to, context)?;
    let mut collector = Collector::default();
    for (_, event) in Splitter::events(from.is_json_lines(), stream) {
        if event.data.trim_ascii().is_empty() {
            continue;
        }
        let mut deltas = Vec::new();
        reader.read(event.name, &event.data, &mut deltas)?;
        deltas.into_iter().for_each(|delta| collector.add(delta));
    }
    let mut answer = settled(collector.finish()?, context);
    if from != to {
        // Each dialect has a form of its own.
        answer.logprobs = Json::Null;
    }
    write_answer(from, to, answer, context)
}

/// Returns the reader of a provider's stream.
fn reader(
    from: Dialect,
    to: Dialect,
    context: &AnswerContext<'_>,
) -> Result<Box<dyn StreamReader>, TranslateError> {
    Ok(match from {
        Dialect::Chat => Box::new(chat::Reader::new(context.id)),
        Dialect::Completions => Box::new(completions::Reader::default()),
        Dialect::Responses => Box::new(responses::Reader::default()),
        Dialect::Messages => Box::new(messages::Reader::default()),
        Dialect::Gemini => Box::new(gemini::Reader::new(context.id)),
        Dialect::OllamaChat => Box::new(ollama::Reader::new(context.id)),
        _ => return Err(TranslateError::NoPair { from, to }),
    })
}

/// Translation of one stream. The provider's events go in one by one, whole events of the client
/// come out.
pub(crate) struct StreamTranslator {
    reader: Box<dyn StreamReader>,
    blocks: Blocks,
}

impl std::fmt::Debug for StreamTranslator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StreamTranslator").field("is_whole", &self.is_whole()).finish()
    }
}

impl StreamTranslator {
    /// Returns a translator of a stream that a provider sends in `from` to a client of `to`.
    pub(crate) fn new(
        from: Dialect,
        to: Dialect,
        context: &AnswerContext<'_>,
    ) -> Result<Self, TranslateError> {
        Ok(Self { reader: reader(from, to, context)?, blocks: Blocks::new(from, to, context)? })
    }

    /// Translates one event of the provider: its name where it has one, and its data, or a line of
    /// JSON. Whole events of the client are added to `out`; on an error nothing is.
    pub(crate) fn push(
        &mut self,
        event: Option<&str>,
        data: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), TranslateError> {
        if data.trim_ascii().is_empty() {
            return Ok(());
        }
        let mut deltas = Vec::new();
        self.reader.read(event, data, &mut deltas)?;
        for delta in deltas {
            self.blocks.apply(delta, out);
        }
        Ok(())
    }

    /// Writes the end of a stream that ended well. One that the provider never said to be whole
    /// ends in an error instead: a cut answer must not look like a whole one.
    pub(crate) fn finish(&mut self, out: &mut Vec<u8>) {
        if self.is_whole() {
            self.blocks.end(out);
        } else {
            self.fail("the provider ended its answer before it was whole", out);
        }
    }

    /// Writes an error and no end.
    pub(crate) fn fail(&mut self, message: &str, out: &mut Vec<u8>) {
        self.blocks.fail(message, out);
    }

    /// Returns whether something was written that a person or a program reads as the answer.
    #[cfg(test)]
    pub(crate) const fn has_content(&self) -> bool {
        self.blocks.has_content()
    }

    /// Returns whether the provider has said that the answer is whole.
    pub(crate) const fn is_whole(&self) -> bool {
        self.blocks.is_whole()
    }

    /// Returns the counts that the provider has stated so far.
    #[cfg(test)]
    pub(crate) const fn usage(&self) -> &Usage {
        self.blocks.usage()
    }
}

/// Reads an answer, and gives its calls ids where they have none.
fn read_answer<'a>(
    from: Dialect,
    to: Dialect,
    body: &'a [u8],
    context: &AnswerContext<'_>,
) -> Result<Answer<'a>, TranslateError> {
    let body = read_body(body)?;
    let answer = match from {
        Dialect::Chat => chat::read_answer(body),
        Dialect::Responses => responses::read_answer(body),
        Dialect::Messages => messages::read_answer(body),
        Dialect::Gemini => gemini::read_answer(body),
        Dialect::OllamaChat => ollama::read_answer(body),
        _ => Err(TranslateError::NoPair { from, to }),
    }?;
    Ok(settled(answer, context))
}

/// Gives calls ids where they have none, and makes the end what they say.
fn settled<'a>(mut answer: Answer<'a>, context: &AnswerContext<'_>) -> Answer<'a> {
    let mut calls = 0;
    for block in &mut answer.blocks {
        if let Block::ToolUse { id, .. } = block {
            if id.is_empty() {
                *id = ids::call(context.id, calls).into();
            }
            calls += 1;
        }
    }
    answer.ending.stop = match answer.ending.stop {
        ir::Stop::End if calls > 0 => ir::Stop::Tools,
        ir::Stop::Tools if calls == 0 => ir::Stop::End,
        stop => stop,
    };
    answer
}

/// Reads the body of an answer that is no error.
fn read_body(body: &[u8]) -> Result<Json<'_>, TranslateError> {
    let body = Json::parse(body)?;
    ir::expect(matches!(body, Json::Object(_)), "the answer must be an object")?;
    // A response has the key always.
    if body.has("error") && !body.has("output") {
        return Err(TranslateError::Upstream { message: chat::error_message(&body) });
    }
    Ok(body)
}
