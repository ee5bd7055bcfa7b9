//! Chunks of a chat completion as they arrive.

use std::borrow::Cow;

use super::{
    super::{
        TranslateError, ids,
        ir::Stop,
        json::Json,
        stream::{Delta, StreamReader},
    },
    read_usage, stop_of, take_reasoning,
};

/// Reads an event of a stream, which may be an error.
pub(in super::super) fn read_event(data: &[u8]) -> Result<Json<'_>, TranslateError> {
    let event = Json::parse(data)?;
    if event.has("error") {
        return Err(TranslateError::Upstream { message: error_message(&event) });
    }
    Ok(event)
}

/// Reader of what chunks of OpenAI's streams have in common.
#[derive(Debug, Default)]
pub(in super::super) struct Chunks {
    has_id: bool,
}

impl Chunks {
    /// Reads a chunk, and the id of the answer from the first that has it. Returns the rest of the
    /// chunk; `None` at the end of the stream.
    pub(in super::super) fn read<'a>(
        &mut self,
        data: &'a [u8],
        deltas: &mut Vec<Delta<'a>>,
    ) -> Result<Option<Json<'a>>, TranslateError> {
        if data.trim_ascii() == b"[DONE]" {
            deltas.push(Delta::Whole);
            return Ok(None);
        }
        let mut chunk = read_event(data)?;
        if !self.has_id
            && let Some(id) = chunk.take("id").into_text()
        {
            self.has_id = true;
            deltas.push(Delta::Id(id));
        }
        Ok(Some(chunk))
    }
}

/// Returns the pieces of the first answer of a chunk: further ones cannot be told to clients of
/// other dialects, and have no place in one answer.
pub(in super::super) fn choices<'a>(
    chunk: &mut Json<'a>,
) -> impl Iterator<Item = Json<'a>> + use<'a> {
    let choices = chunk.take("choices").into_list().into_iter();
    choices.filter(|choice| choice.get("index").u64().unwrap_or(0) == 0)
}

/// Returns the probabilities of the tokens of a piece.
pub(in super::super) fn take_logprobs<'a>(choice: &mut Json<'a>) -> Option<Delta<'a>> {
    Some(choice.take("logprobs")).filter(|it| !it.is_null()).map(Delta::Logprobs)
}

/// Reader of chunks.
#[derive(Debug)]
pub(in super::super) struct Reader {
    scope: String,
    chunks: Chunks,
    calls: Vec<Call>,
}

/// A call that has been seen.
#[derive(Debug)]
struct Call {
    /// Index that the provider gave it.
    index: Option<u64>,
    id: String,
    /// `true` once its name has come and its begin has been told.
    has_begun: bool,
    /// Arguments that came before the name.
    early: String,
}

impl Reader {
    /// Returns a reader; `scope` makes ids of calls where the provider gives none.
    pub(in super::super) fn new(scope: &str) -> Self {
        Self { scope: scope.to_owned(), chunks: Chunks::default(), calls: Vec::new() }
    }
}

impl StreamReader for Reader {
    fn read<'a>(
        &mut self,
        _: Option<&str>,
        data: &'a [u8],
        deltas: &mut Vec<Delta<'a>>,
    ) -> Result<(), TranslateError> {
        let Some(mut chunk) = self.chunks.read(data, deltas)? else { return Ok(()) };
        let usage = match chunk.take("usage") {
            Json::Null => chunk.take("x_groq").take("usage"),
            usage => usage,
        };
        for mut choice in choices(&mut chunk) {
            let mut delta = choice.take("delta");
            deltas.extend(take_reasoning(&mut delta).map(Delta::Thinking));
            deltas.extend(delta.take("content").into_text().map(Delta::Text));
            deltas.extend(delta.take("refusal").into_text().map(Delta::Refusal));
            deltas.extend(take_logprobs(&mut choice));
            for call in delta.take("tool_calls").into_list() {
                self.read_call(call, deltas);
            }
            if let Some(reason) = choice.get("finish_reason").text() {
                deltas.push(Delta::Stop { stop: self.stop(reason), sequence: None });
            }
        }
        if !usage.is_null() {
            deltas.push(Delta::Usage(read_usage(&usage)));
        }
        Ok(())
    }
}

/// Returns the words of an error in a stream.
pub(in super::super) fn error_message(chunk: &Json<'_>) -> String {
    let error = chunk.get("error");
    let message = error.get("message").text().or_else(|| error.text());
    message.unwrap_or("the provider reported an error").to_owned()
}

impl Reader {
    fn stop(&self, reason: &str) -> Stop {
        match stop_of(reason) {
            Stop::End if self.calls.iter().any(|call| call.has_begun) => Stop::Tools,
            stop => stop,
        }
    }

    fn read_call<'a>(&mut self, mut call: Json<'a>, deltas: &mut Vec<Delta<'a>>) {
        let index = call.get("index").u64();
        let id = call.take("id").into_text().filter(|id| !id.is_empty());
        let mut function = call.take("function");
        let name = function.take("name").into_text().filter(|name| !name.is_empty());
        let arguments = match function.take("arguments") {
            Json::Text(text) => text,
            Json::Null => Cow::Borrowed(""),
            tree => tree.to_string().into(),
        };
        let key = self.key(index, id.as_deref(), name.is_some());
        let known = &mut self.calls[key];
        let number = key as u64;
        if !known.has_begun {
            let Some(name) = name else {
                known.early.push_str(&arguments);
                return;
            };
            known.has_begun = true;
            deltas.push(Delta::Call { key: number, id: known.id.clone().into(), name });
            let early = std::mem::take(&mut known.early);
            if !early.is_empty() {
                deltas.push(Delta::Arguments { key: number, text: early.into() });
            }
        }
        deltas.push(Delta::Arguments { key: number, text: arguments });
    }

    /// Returns the place of the call that a piece belongs to. Some servers give every call index
    /// 0 or none, and tell calls apart by their ids alone.
    fn key(&mut self, index: Option<u64>, id: Option<&str>, is_named: bool) -> usize {
        let known = match index {
            Some(_) => self.calls.iter().rposition(|call| call.index == index),
            None => self.calls.len().checked_sub(1),
        };
        let is_other =
            |call: &Call| is_named && call.has_begun && id.is_some_and(|id| id != call.id);
        match known {
            Some(at) if !is_other(&self.calls[at]) => at,
            _ => {
                let at = self.calls.len();
                let id = id.map_or_else(|| ids::call(&self.scope, at), str::to_owned);
                self.calls.push(Call { index, id, has_begun: false, early: String::new() });
                at
            }
        }
    }
}
