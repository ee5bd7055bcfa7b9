//! A stream of one dialect as it arrives, in the events of another as they go out.

use std::{borrow::Cow, collections::VecDeque};

use super::{
    AnswerContext, TranslateError, chat, completions, gemini, ids,
    ir::{Ending, Stop, Timings},
    json::Json,
    messages, ollama, responses,
};
use crate::dialect::{Dialect, usage::Usage};

/// Piece of an answer, as a provider's event says it.
#[derive(Debug)]
pub(super) enum Delta<'a> {
    /// Id that the provider gave the answer.
    Id(Cow<'a, str>),
    Text(Cow<'a, str>),
    Refusal(Cow<'a, str>),
    Thinking(Cow<'a, str>),
    /// A call begins; `key` names it within the stream.
    Call {
        key: u64,
        id: Cow<'a, str>,
        name: Cow<'a, str>,
    },
    /// More of a call's arguments.
    Arguments {
        key: u64,
        text: Cow<'a, str>,
    },
    /// Probabilities of the tokens of a text, in the form of the provider's dialect.
    Logprobs(Json<'a>),
    /// The answer is whole, for this reason.
    Stop {
        stop: Stop,
        sequence: Option<String>,
    },
    /// The answer is whole; nothing is said of the reason.
    Whole,
    Usage(Usage),
    Timings(Timings),
}

/// Calls of tools that come whole, one after another, where the provider does not always give ids.
#[derive(Debug)]
pub(super) struct WholeCalls {
    scope: String,
    number: usize,
}

impl WholeCalls {
    /// Returns a counter; `scope` makes the ids.
    pub(super) fn new(scope: &str) -> Self {
        Self { scope: scope.to_owned(), number: 0 }
    }

    /// Adds the pieces of a call; an empty `id` is made up.
    pub(super) fn push<'a>(
        &mut self,
        id: Cow<'a, str>,
        name: Cow<'a, str>,
        arguments: Cow<'a, str>,
        deltas: &mut Vec<Delta<'a>>,
    ) {
        let id = if id.is_empty() { ids::call(&self.scope, self.number).into() } else { id };
        let key = self.number as u64;
        self.number += 1;
        deltas.push(Delta::Call { key, id, name });
        deltas.push(Delta::Arguments { key, text: arguments });
    }
}

/// Reader of a provider's stream.
pub(super) trait StreamReader: Send {
    /// Reads one event into its pieces.
    fn read<'a>(
        &mut self,
        event: Option<&str>,
        data: &'a [u8],
        deltas: &mut Vec<Delta<'a>>,
    ) -> Result<(), TranslateError>;
}

/// Kind of a block that opens.
#[derive(Debug, Clone, Copy)]
pub(super) enum Opening<'a> {
    Text,
    Refusal,
    Thinking,
    Call { id: &'a str, name: &'a str },
}

/// Facts about an answer that are known when its first event is written.
#[derive(Debug)]
pub(super) struct Head<'a> {
    pub id: &'a str,
    pub model: &'a str,
    pub created: i64,
    pub usage: &'a Usage,
}

/// Writer of a client's stream. Blocks come one after another: `open`, `piece`s, `close`.
pub(super) trait StreamWriter: Send {
    /// Writes what stands before the first block.
    fn start(&mut self, head: &Head<'_>, out: &mut Vec<u8>);
    /// Begins a block.
    fn open(&mut self, opening: Opening<'_>, out: &mut Vec<u8>);
    /// Adds text to the block that is open.
    fn piece(&mut self, text: &str, out: &mut Vec<u8>);
    /// Ends the block that is open.
    fn close(&mut self, out: &mut Vec<u8>);
    /// Writes a good end.
    fn end(&mut self, ending: &Ending, out: &mut Vec<u8>);
    /// Writes an error.
    fn fail(&mut self, message: &str, out: &mut Vec<u8>);
}

/// Blocks of an answer in their order: pieces of calls may arrive mixed, and go out one call after
/// another.
pub(super) struct Blocks {
    writer: Box<dyn StreamWriter>,
    id: Option<String>,
    own_id: String,
    model: String,
    created: i64,
    ending: Ending,
    /// Block other than a call that is open.
    open: Option<Plain>,
    /// Calls that are not over: the first one is open, the others wait.
    calls: VecDeque<Call>,
    /// Text that came while a call was under way.
    held: Vec<(Plain, String)>,
    /// Number of calls so far.
    calls_seen: usize,
    has_started: bool,
    has_content: bool,
    is_whole: bool,
    is_over: bool,
}

/// Kind of a block other than a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Plain {
    Text,
    Refusal,
    Thinking,
}

/// A call under way.
struct Call {
    key: u64,
    id: String,
    name: String,
    /// Arguments that wait for the calls before it.
    waiting: String,
    /// `true` once it has arguments.
    has_arguments: bool,
    depth: Depth,
}

impl Blocks {
    /// Returns the blocks of an answer to a client of `to`.
    pub(super) fn new(
        from: Dialect,
        to: Dialect,
        context: &AnswerContext<'_>,
    ) -> Result<Self, TranslateError> {
        let writer: Box<dyn StreamWriter> = match to {
            Dialect::Chat => Box::new(chat::Writer::new(context)),
            Dialect::Completions => Box::new(completions::Writer::new(context)),
            Dialect::Responses => Box::new(responses::Writer::new(context)),
            Dialect::Messages => Box::new(messages::Writer::default()),
            Dialect::Gemini => Box::new(gemini::Writer::default()),
            Dialect::OllamaChat => Box::new(ollama::Writer::chat()),
            Dialect::OllamaGenerate => Box::new(ollama::Writer::generate()),
            _ => return Err(TranslateError::NoPair { from, to }),
        };
        Ok(Self {
            writer,
            id: None,
            own_id: context.answer_id(to),
            model: context.model.to_owned(),
            created: context.created,
            ending: Ending::default(),
            open: None,
            calls: VecDeque::new(),
            held: Vec::new(),
            calls_seen: 0,
            has_started: false,
            has_content: false,
            is_whole: false,
            is_over: false,
        })
    }

    /// Adds a piece.
    pub(super) fn apply(&mut self, delta: Delta<'_>, out: &mut Vec<u8>) {
        if self.is_over {
            return;
        }
        match delta {
            Delta::Id(id) => self.id = Some(id.into_owned()).filter(|id| !id.is_empty()),
            Delta::Text(text) => self.plain(Plain::Text, &text, out),
            Delta::Refusal(text) => self.plain(Plain::Refusal, &text, out),
            Delta::Thinking(text) => self.plain(Plain::Thinking, &text, out),
            Delta::Call { key, id, name } => {
                let (id, name) = (id.into_owned(), name.into_owned());
                let id = if id.is_empty() { ids::call(&self.own_id, self.calls_seen) } else { id };
                self.calls_seen += 1;
                self.close_plain(out);
                self.calls.push_back(Call {
                    key,
                    id,
                    name,
                    waiting: String::new(),
                    has_arguments: false,
                    depth: Depth::default(),
                });
                if self.calls.len() == 1 {
                    self.open_first(out);
                }
                self.advance(out);
            }
            Delta::Arguments { key, text } => self.arguments(key, &text, out),
            // Each dialect has a form of its own.
            Delta::Logprobs(_) => {}
            Delta::Stop { stop, sequence } => {
                self.ending.stop = stop;
                self.ending.stop_sequence = sequence;
                self.is_whole = true;
                self.close_all(out);
            }
            Delta::Whole => self.is_whole = true,
            Delta::Usage(usage) => merge(&mut self.ending.usage, &usage),
            Delta::Timings(timings) => self.ending.timings = timings,
        }
    }

    /// Returns whether something was written that is read as the answer.
    #[cfg(test)]
    pub(super) const fn has_content(&self) -> bool {
        self.has_content
    }

    /// Returns whether the answer is said to be whole.
    pub(super) const fn is_whole(&self) -> bool {
        self.is_whole
    }

    /// Returns the counts that are known so far.
    #[cfg(test)]
    pub(super) const fn usage(&self) -> &Usage {
        &self.ending.usage
    }

    /// Writes an error and no end.
    pub(super) fn fail(&mut self, message: &str, out: &mut Vec<u8>) {
        if !std::mem::replace(&mut self.is_over, true) {
            self.writer.fail(message, out);
        }
    }

    /// Writes a good end.
    pub(super) fn end(&mut self, out: &mut Vec<u8>) {
        if std::mem::replace(&mut self.is_over, true) {
            return;
        }
        self.close_all(out);
        self.start(out);
        self.ending.stop = match self.ending.stop {
            // Some servers call tools and say `stop`, some say so and call none.
            Stop::End if self.calls_seen > 0 => Stop::Tools,
            Stop::Tools if self.calls_seen == 0 => Stop::End,
            stop => stop,
        };
        self.writer.end(&self.ending, out);
    }

    fn start(&mut self, out: &mut Vec<u8>) {
        if !std::mem::replace(&mut self.has_started, true) {
            let id = self.id.as_deref().unwrap_or(&self.own_id);
            let usage = &self.ending.usage;
            let head = Head { id, model: &self.model, created: self.created, usage };
            self.writer.start(&head, out);
        }
    }

    fn plain(&mut self, kind: Plain, text: &str, out: &mut Vec<u8>) {
        if text.is_empty() {
            return;
        }
        if self.calls.iter().any(|call| !call.depth.is_closed()) {
            match self.held.last_mut() {
                Some((last, held)) if *last == kind => held.push_str(text),
                _ => self.held.push((kind, text.to_owned())),
            }
            return;
        }
        self.close_calls(out);
        self.write_plain(kind, text, out);
    }

    fn write_plain(&mut self, kind: Plain, text: &str, out: &mut Vec<u8>) {
        if self.open != Some(kind) {
            self.close_plain(out);
            self.start(out);
            self.writer.open(
                match kind {
                    Plain::Text => Opening::Text,
                    Plain::Refusal => Opening::Refusal,
                    Plain::Thinking => Opening::Thinking,
                },
                out,
            );
            self.open = Some(kind);
        }
        self.has_content = true;
        self.writer.piece(text, out);
    }

    fn close_plain(&mut self, out: &mut Vec<u8>) {
        if self.open.take().is_some() {
            self.writer.close(out);
        }
    }

    fn arguments(&mut self, key: u64, text: &str, out: &mut Vec<u8>) {
        let Some(at) = self.calls.iter().position(|call| call.key == key) else { return };
        if text.is_empty() {
            return;
        }
        let call = &mut self.calls[at];
        call.depth.feed(text);
        call.has_arguments |= !text.trim().is_empty();
        if at == 0 {
            self.writer.piece(text, out);
        } else {
            call.waiting.push_str(text);
        }
        self.advance(out);
    }

    /// Opens the first call, and writes what has come of it.
    fn open_first(&mut self, out: &mut Vec<u8>) {
        self.start(out);
        let Some(call) = self.calls.front_mut() else { return };
        self.has_content = true;
        self.writer.open(Opening::Call { id: &call.id, name: &call.name }, out);
        let waiting = std::mem::take(&mut call.waiting);
        if !waiting.is_empty() {
            self.writer.piece(&waiting, out);
        }
    }

    /// Ends calls whose arguments are whole, as long as others wait.
    fn advance(&mut self, out: &mut Vec<u8>) {
        while self.calls.len() > 1 && self.calls.front().is_some_and(|c| c.depth.is_closed()) {
            self.close_first(out);
        }
        if !self.held.is_empty() && self.calls.iter().all(|call| call.depth.is_closed()) {
            self.close_calls(out);
            self.write_held(out);
        }
    }

    fn close_first(&mut self, out: &mut Vec<u8>) {
        // No text is no JSON, and clients parse what they have collected.
        if self.calls.front().is_some_and(|call| !call.has_arguments) {
            self.writer.piece("{}", out);
        }
        self.writer.close(out);
        self.calls.pop_front();
        if !self.calls.is_empty() {
            self.open_first(out);
        }
    }

    fn close_calls(&mut self, out: &mut Vec<u8>) {
        while !self.calls.is_empty() {
            self.close_first(out);
        }
    }

    fn write_held(&mut self, out: &mut Vec<u8>) {
        for (kind, text) in std::mem::take(&mut self.held) {
            self.write_plain(kind, &text, out);
        }
    }

    fn close_all(&mut self, out: &mut Vec<u8>) {
        self.close_calls(out);
        self.write_held(out);
        self.close_plain(out);
    }
}

/// Takes over the counts that are known; later ones replace earlier ones, as they are cumulative.
pub(super) fn merge(usage: &mut Usage, later: &Usage) {
    usage.input = later.input.or(usage.input);
    usage.cache_read = later.cache_read.or(usage.cache_read);
    usage.cache_write_5m = later.cache_write_5m.or(usage.cache_write_5m);
    usage.cache_write_1h = later.cache_write_1h.or(usage.cache_write_1h);
    usage.output = later.output.or(usage.output);
    usage.reasoning = later.reasoning.or(usage.reasoning);
}

/// Depth of braces in text of JSON that arrives in pieces.
#[derive(Debug, Default)]
struct Depth {
    depth: u32,
    has_begun: bool,
    is_in_string: bool,
    is_escaped: bool,
}

impl Depth {
    fn feed(&mut self, text: &str) {
        for byte in text.bytes() {
            if self.is_in_string {
                match byte {
                    _ if self.is_escaped => self.is_escaped = false,
                    b'\\' => self.is_escaped = true,
                    b'"' => self.is_in_string = false,
                    _ => {}
                }
                continue;
            }
            match byte {
                b'"' => self.is_in_string = true,
                b'{' | b'[' => {
                    self.has_begun = true;
                    self.depth = self.depth.saturating_add(1);
                }
                b'}' | b']' => self.depth = self.depth.saturating_sub(1),
                _ => {}
            }
        }
    }

    /// Returns whether an object has begun and ended.
    const fn is_closed(&self) -> bool {
        self.has_begun && self.depth == 0
    }
}
