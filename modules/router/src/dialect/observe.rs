//! Findings in an answer: its counts, its end, its errors. Its text is kept only where the operator
//! wants it published.

mod pieces;
#[cfg(test)]
mod tests;
mod values;

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    Dialect,
    said::{Listener, Said},
    sse::Event,
    usage::{Usage, stated_cost},
};
use pieces::{Choices, Delta, Piece};
use values::{is_damaged, parse, reason, says, text};

/// Findings in an answer so far.
#[derive(Debug, Clone, Default)]
pub(crate) struct Observed {
    /// Counts.
    pub usage: Usage,
    /// Cost in nano-USD, where the provider states one.
    pub cost_nano_usd: Option<i64>,
    /// Id that the provider gave the answer.
    pub response_id: Option<String>,
    /// Model that answered.
    pub model: Option<String>,
    /// Reason for which it ended, in the words of its dialect.
    pub finish_reason: Option<String>,
    /// Tier of service.
    pub service_tier: Option<String>,
    /// `true` once there was content: text, thinking or a call of a tool.
    pub has_content: bool,
    /// `true` once it called a tool.
    pub calls_tool: bool,
    /// `true` once it said that it is whole.
    pub is_whole: bool,
    /// `true` once nothing more can come.
    pub is_ended: bool,
    /// `true` once it said that it failed.
    pub has_failed: bool,
    /// Times that Ollama states, in milliseconds: loading, reading the prompt, writing.
    pub ollama_ms: Option<[u32; 3]>,
    /// Bytes of content so far, for an estimate where no counts come.
    pub content_bytes: u64,
    /// Text, where it is to be kept.
    pub said: Option<Box<Said>>,
}

/// Observer of one answer.
#[derive(Debug)]
pub(crate) struct Observer {
    dialect: Dialect,
    /// Choices that have begun, and those that have ended, a bit each.
    choices: (u64, u64),
    /// Listener to the text, where that is to be kept.
    listener: Option<Listener>,
    /// Number of choices that are asked for.
    expected: u32,
    /// Findings so far.
    pub found: Observed,
}

/// Role of an event in a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Content.
    Content,
    /// The counts alone.
    Usage,
    /// An error, which ends the stream.
    Failure,
    /// Half an object, or what else no client can read.
    Damaged,
    /// Anything else.
    Other,
}

impl Observer {
    /// Creates an observer of an answer in a dialect.
    pub(crate) fn new(dialect: Dialect) -> Self {
        Self { dialect, choices: (0, 0), expected: 1, listener: None, found: Observed::default() }
    }

    /// Keeps the text of what comes, within a bound.
    pub(crate) fn keep_text(&mut self) {
        self.listener = Some(Listener::new(self.dialect));
        self.found.said = Some(Box::default());
    }

    /// Sets the number of answers that are asked for: one that has not begun is not at its end.
    pub(crate) const fn of_choices(mut self, number: u32) -> Self {
        self.expected = number;
        self
    }

    /// Notes that the stream ended as a whole one does. Gemini says nothing behind its last answer,
    /// and gives fewer than were asked for where it cannot give more.
    pub(crate) fn ended(&mut self) {
        let (begun, ended) = self.choices;
        self.found.is_whole |= self.dialect == Dialect::Gemini && begun != 0 && begun == ended;
    }

    /// Takes one event of a stream.
    pub(crate) fn event(&mut self, event: &Event<'_>) -> Role {
        if let (Some(listener), Some(said)) = (&mut self.listener, &mut self.found.said) {
            listener.event(event, said);
        }
        self.read(event)
    }

    fn read(&mut self, event: &Event<'_>) -> Role {
        if event.data.as_ref() == b"[DONE]" {
            self.found.is_ended = true;
            self.found.is_whole |= self.found.has_content;
            return Role::Other;
        }
        let Some(piece) = parse(&event.data) else {
            return match event.name {
                Some("error") => self.failure(),
                _ if is_damaged(&event.data) => Role::Damaged,
                _ => Role::Other,
            };
        };
        self.common(&piece);
        match self.dialect {
            Dialect::Messages => self.messages(&piece),
            Dialect::Responses => self.responses(&piece),
            Dialect::OllamaChat | Dialect::OllamaGenerate | Dialect::OllamaEmbed => {
                self.ollama(&piece, &event.data)
            }
            Dialect::Chat | Dialect::Completions | Dialect::Embeddings | Dialect::Gemini => {
                self.choices(&piece)
            }
        }
    }

    /// Takes a whole answer that is no stream. Returns `false` where it is no answer of the
    /// dialect: no JSON, or an error.
    pub(crate) fn whole(&mut self, body: &[u8]) -> bool {
        let Some(piece) = parse(body) else { return false };
        self.common(&piece);
        let has_error = piece.error.is_some_and(says)
            || piece.kind.as_deref() == Some("error")
            || text(piece.status).as_deref() == Some("failed");
        if has_error {
            self.found.has_failed = true;
            return false;
        }
        // Any object would pass otherwise: `{"detail": "…"}` is no answer.
        let has_body = match self.dialect {
            Dialect::Messages => piece.content.is_some(),
            Dialect::Responses => piece.output.is_some(),
            Dialect::OllamaChat => piece.message.is_some(),
            Dialect::OllamaGenerate => piece.response.is_some(),
            Dialect::Gemini => piece.candidates.is_some() || piece.prompt_feedback.is_some(),
            Dialect::Chat | Dialect::Completions => piece.choices.is_some(),
            Dialect::Embeddings => piece.data.is_some(),
            Dialect::OllamaEmbed => piece.embeddings.is_some(),
        };
        if !has_body {
            return false;
        }
        match self.dialect {
            Dialect::Messages => {
                self.found.finish_reason = text(piece.stop_reason);
                let is_call = |raw: &&RawValue| raw.get().contains("\"tool_use\"");
                self.found.calls_tool |= piece.content.as_ref().is_some_and(is_call);
                self.content(piece.content.filter(|raw| says(raw)).map(|raw| raw.get().len()));
            }
            Dialect::Responses => {
                let reason = piece.incomplete_details.and_then(reason);
                self.found.finish_reason = reason.or_else(|| text(piece.status));
                let is_call = |raw: &&RawValue| raw.get().contains("_call\"");
                self.found.calls_tool |= piece.output.as_ref().is_some_and(is_call);
                self.content(piece.output.filter(|raw| says(raw)).map(|raw| raw.get().len()));
            }
            Dialect::OllamaChat | Dialect::OllamaGenerate | Dialect::OllamaEmbed => {
                self.ollama(&piece, body);
            }
            Dialect::Chat | Dialect::Completions | Dialect::Embeddings | Dialect::Gemini => {
                self.choices(&piece);
            }
        }
        if self.dialect == Dialect::OllamaEmbed {
            self.counts_beside(body);
        }
        if let Some(said) = &mut self.found.said {
            **said = Said::of(self.dialect, body);
        }
        self.found.is_whole = true;
        true
    }

    fn common(&mut self, piece: &Piece<'_>) {
        let found = &mut self.found;
        if found.response_id.is_none() {
            found.response_id = text(piece.id.or(piece.gemini_id));
        }
        if found.model.is_none() {
            found.model = text(piece.model.or(piece.gemini_model));
        }
        if piece.service_tier.is_some() {
            found.service_tier = text(piece.service_tier);
        }
        let usage = piece.usage.or(piece.gemini_usage).filter(|raw| says(raw));
        if let Some(raw) = usage {
            self.usage(raw);
        } else if let Some(raw) = piece.x_groq {
            #[derive(Deserialize)]
            struct Groq<'a> {
                #[serde(borrow)]
                usage: Option<&'a RawValue>,
            }

            let groq = serde_json::from_str::<Groq<'_>>(raw.get()).ok();
            if let Some(raw) = groq.and_then(|groq| groq.usage) {
                self.usage(raw);
            }
        }
    }

    fn usage(&mut self, raw: &RawValue) {
        self.found.usage.update(&Usage::read(self.dialect, raw.get()));
        if raw.get().contains("cost") {
            self.found.cost_nano_usd = stated_cost(raw.get()).or(self.found.cost_nano_usd);
        }
    }

    fn content(&mut self, bytes: Option<usize>) {
        if let Some(bytes) = bytes {
            self.found.has_content = true;
            self.found.content_bytes += bytes as u64;
        }
    }

    fn failure(&mut self) -> Role {
        self.found.has_failed = true;
        Role::Failure
    }

    fn choices(&mut self, piece: &Piece<'_>) -> Role {
        if piece.error.is_some_and(says) {
            return self.failure();
        }
        let raw = piece.choices.or(piece.candidates);
        let list = raw.and_then(|raw| serde_json::from_str::<Choices<'_>>(raw.get()).ok());
        let mut bytes = None;
        let mut has_finished = false;
        for choice in list.iter().flat_map(|list| &list.0) {
            let bit = 1_u64 << choice.index.unwrap_or(0).min(63);
            self.choices.0 |= bit;
            let calls = [&choice.delta, &choice.message].into_iter().flatten();
            self.found.calls_tool |=
                calls.filter_map(|delta| delta.tool_calls.or(delta.function_call)).any(says);
            let deltas = [&choice.delta, &choice.message, &choice.content];
            let said = deltas.into_iter().flatten().filter_map(Delta::content);
            let text_bytes = choice.text.filter(|raw| says(raw)).map(|raw| raw.get().len());
            bytes = said.chain(text_bytes).chain(bytes).reduce(|sum, length| sum + length);
            if let Some(reason) = text(choice.finish_reason.or(choice.gemini_finish_reason)) {
                self.found.finish_reason = Some(reason);
                self.choices.1 |= bit;
                has_finished = true;
            }
        }
        // Of several answers all have to come to their end, those that begin late among them.
        let (begun, ended) = self.choices;
        let is_last = begun == ended && begun.count_ones() >= self.expected.min(64);
        self.found.is_whole |= has_finished && is_last;
        self.content(bytes);
        let has_usage = piece.usage.or(piece.gemini_usage).is_some_and(says);
        match bytes {
            Some(_) => Role::Content,
            None if has_usage && !has_finished => Role::Usage,
            None => Role::Other,
        }
    }

    fn messages(&mut self, piece: &Piece<'_>) -> Role {
        match piece.kind.as_deref() {
            Some("error") => self.failure(),
            Some("message_start") => {
                let inner = piece.message.and_then(|raw| parse(raw.get().as_bytes()));
                if let Some(inner) = inner {
                    self.common(&inner);
                }
                Role::Other
            }
            Some("content_block_start") => {
                let block = piece.content_block.and_then(|raw| parse(raw.get().as_bytes()));
                let kind = block.and_then(|block| block.kind.map(Cow::into_owned));
                match kind.as_deref() {
                    // What follows is told by its deltas.
                    None | Some("text" | "thinking") => Role::Other,
                    Some(_) => {
                        self.found.calls_tool = true;
                        self.content(Some(0));
                        Role::Content
                    }
                }
            }
            Some("content_block_delta") => {
                self.content(piece.delta.map(|raw| raw.get().len().saturating_sub(32)));
                Role::Content
            }
            Some("message_delta") => {
                let delta = piece.delta;
                let delta = delta.and_then(|raw| serde_json::from_str::<Delta<'_>>(raw.get()).ok());
                if let Some(reason) = delta.and_then(|delta| text(delta.stop_reason)) {
                    self.found.finish_reason = Some(reason);
                }
                Role::Other
            }
            Some("message_stop") => {
                self.found.is_ended = true;
                self.found.is_whole = true;
                Role::Other
            }
            _ => Role::Other,
        }
    }

    fn responses(&mut self, piece: &Piece<'_>) -> Role {
        let kind = piece.kind.as_deref().unwrap_or_default();
        if let Some(raw) = piece.response
            && let Some(inner) = parse(raw.get().as_bytes())
        {
            self.common(&inner);
            let is_end = matches!(kind, "response.completed" | "response.incomplete");
            if is_end {
                let reason = inner.incomplete_details.and_then(reason);
                self.found.finish_reason = reason.or_else(|| text(inner.status));
                self.found.is_whole = true;
                self.found.is_ended = true;
            }
        }
        self.found.calls_tool |=
            kind.contains("_call_arguments") || kind.contains("_tool_call_input");
        match kind {
            "error" | "response.failed" => self.failure(),
            _ if kind.ends_with(".delta") => {
                self.content(piece.delta.map(|raw| raw.get().len()));
                Role::Content
            }
            _ => Role::Other,
        }
    }

    fn ollama(&mut self, piece: &Piece<'_>, line: &[u8]) -> Role {
        if piece.error.is_some_and(says) {
            return self.failure();
        }
        let message = piece.message;
        let message = message.and_then(|raw| serde_json::from_str::<Delta<'_>>(raw.get()).ok());
        self.found.calls_tool |=
            message.as_ref().and_then(|message| message.tool_calls).is_some_and(says);
        let said = message.and_then(|message| message.content());
        let said =
            said.or_else(|| piece.response.filter(|raw| says(raw)).map(|raw| raw.get().len()));
        self.content(said);
        if piece.done == Some(true) {
            self.found.is_whole = true;
            self.found.is_ended = true;
            self.found.finish_reason = text(piece.done_reason);
            self.counts_beside(line);
            let ms =
                |ns: Option<u64>| u32::try_from(ns.unwrap_or(0) / 1_000_000).unwrap_or(u32::MAX);
            if piece.eval_duration.is_some() {
                let times = [piece.load_duration, piece.prompt_eval_duration, piece.eval_duration];
                self.found.ollama_ms = Some(times.map(ms));
            }
        }
        match said {
            Some(_) => Role::Content,
            None => Role::Other,
        }
    }

    /// Takes the counts that a line of Ollama states beside everything else.
    fn counts_beside(&mut self, line: &[u8]) {
        if let Ok(text) = std::str::from_utf8(line) {
            self.found.usage.update(&Usage::read(self.dialect, text));
        }
    }
}
