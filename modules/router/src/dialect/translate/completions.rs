//! OpenAI's older completions, for clients: the prompt is what a person says, and the answer is
//! the text that follows.

use std::borrow::Cow;

use super::{
    AnswerContext, TranslateError, chat,
    ir::{Answer, Block, Ending, Request, Role, Stop, join},
    json::{Json, Object},
    sse,
    stream::{Delta, Head, Opening, StreamReader, StreamWriter},
};
use crate::dialect::Dialect;

/// Reads a request.
pub(super) fn read_request(mut body: Json<'_>) -> Result<Request<'_>, TranslateError> {
    refuse_what_has_no_word(&body)?;
    let mut request = Request::default();
    let prompt = read_prompt(body.take("prompt"))?;
    request.push(Role::User, vec![Block::Text(prompt)]);
    request.max_tokens = body.get("max_tokens").u64();
    request.sampling = chat::read_sampling(&mut body);
    request.user = body.take("user").into_text();
    request.dropped.add_if(body.has("logit_bias"), "logit_bias");
    Ok(request)
}

/// Refuses what changes the answer as a whole.
fn refuse_what_has_no_word(body: &Json<'_>) -> Result<(), TranslateError> {
    let is_many = |key| body.get(key).u64().is_some_and(|number| number > 1);
    let fault = if is_many("n") {
        "more than one answer to a request (n)"
    } else if is_many("best_of") {
        "the best of several answers (best_of)"
    } else if body.get("echo").bool() == Some(true) {
        "an answer that begins with its prompt (echo)"
    } else if body.has("logprobs") && body.get("logprobs").bool() != Some(false) {
        "the probabilities of tokens (logprobs)"
    } else if body.get("suffix").text().is_some_and(|suffix| !suffix.is_empty()) {
        "text between a prompt and a suffix (suffix)"
    } else {
        return Ok(());
    };
    Err(TranslateError::Unsupported(fault))
}

/// Returns the prompt where it is one text, or a list of one.
fn read_prompt(prompt: Json<'_>) -> Result<Cow<'_, str>, TranslateError> {
    let text = match prompt {
        Json::Text(text) => Some(text),
        Json::List(mut items) if items.len() == 1 && items[0].text().is_some() => {
            items.pop().and_then(Json::into_text)
        }
        Json::List(items) if items.iter().any(|item| item.text().is_some()) => {
            let fault = "several prompts in one request (send them one by one)";
            return Err(TranslateError::Unsupported(fault));
        }
        Json::List(items) if !items.is_empty() => {
            return Err(TranslateError::Unsupported("a prompt of tokens (send text)"));
        }
        _ => None,
    };
    text.filter(|text| !text.is_empty())
        .ok_or(TranslateError::Malformed("prompt must be a text, or a list of one text"))
}

/// Writes an answer. Of what a model says only its text has a place.
pub(super) fn write_answer<'a>(answer: Answer<'a>, context: &AnswerContext<'a>) -> Json<'a> {
    let texts = answer.blocks.into_iter().filter_map(|block| match block {
        Block::Text(text) | Block::Refusal(text) => Some(text),
        _ => None,
    });
    let text = join(texts.collect(), "");
    let id = answer.id.unwrap_or_else(|| context.answer_id(Dialect::Completions).into());
    completion(id, context.model, context.created)
        .with("choices", vec![choice(text, answer.logprobs, Some(answer.ending.stop)).into()])
        .with_some("usage", chat::write_usage(&answer.ending.usage))
        .into()
}

/// Returns what begins an answer and each chunk of one.
fn completion<'a>(id: impl Into<Json<'a>>, model: impl Into<Json<'a>>, created: i64) -> Object<'a> {
    Object::new()
        .with("id", id)
        .with("object", "text_completion")
        .with("created", created)
        .with("model", model)
}

fn choice<'a>(text: impl Into<Json<'a>>, logprobs: Json<'a>, stop: Option<Stop>) -> Object<'a> {
    // Calls have no place, so none is the reason of an end.
    let reason = stop.map(|stop| match chat::finish_reason(stop) {
        "tool_calls" => "stop",
        reason => reason,
    });
    Object::new()
        .with("text", text)
        .with("index", 0_u32)
        .with("logprobs", logprobs)
        .with("finish_reason", reason)
}

/// Reader of chunks.
#[derive(Debug, Default)]
pub(super) struct Reader {
    chunks: chat::Chunks,
}

impl StreamReader for Reader {
    fn read<'a>(
        &mut self,
        _: Option<&str>,
        data: &'a [u8],
        deltas: &mut Vec<Delta<'a>>,
    ) -> Result<(), TranslateError> {
        let Some(mut chunk) = self.chunks.read(data, deltas)? else { return Ok(()) };
        let usage = chunk.take("usage");
        for mut choice in chat::choices(&mut chunk) {
            deltas.extend(choice.take("text").into_text().map(Delta::Text));
            deltas.extend(chat::take_logprobs(&mut choice));
            if let Some(reason) = choice.get("finish_reason").text() {
                deltas.push(Delta::Stop { stop: chat::stop_of(reason), sequence: None });
            }
        }
        if !usage.is_null() {
            deltas.push(Delta::Usage(chat::read_usage(&usage)));
        }
        Ok(())
    }
}

/// Writer of chunks.
#[derive(Debug)]
pub(super) struct Writer {
    include_usage: bool,
    id: String,
    model: String,
    created: i64,
    /// `true` while the block that is open has a place.
    is_text: bool,
}

impl Writer {
    /// Returns a writer that ends with the usage where the client asked for it.
    pub(super) const fn new(context: &AnswerContext<'_>) -> Self {
        Self {
            include_usage: context.include_usage,
            id: String::new(),
            model: String::new(),
            created: 0,
            is_text: false,
        }
    }

    fn completion(&self) -> Object<'_> {
        completion(self.id.as_str(), self.model.as_str(), self.created)
    }

    fn chunk(&self, text: &str, stop: Option<Stop>, out: &mut Vec<u8>) {
        let choice = choice(text, Json::Null, stop);
        let mut chunk = self.completion().with("choices", vec![choice.into()]);
        if self.include_usage {
            chunk.put("usage", Json::Null);
        }
        sse::data(chunk, out);
    }
}

impl StreamWriter for Writer {
    fn start(&mut self, head: &Head<'_>, _: &mut Vec<u8>) {
        head.id.clone_into(&mut self.id);
        head.model.clone_into(&mut self.model);
        self.created = head.created;
    }

    fn open(&mut self, opening: Opening<'_>, _: &mut Vec<u8>) {
        self.is_text = matches!(opening, Opening::Text | Opening::Refusal);
    }

    fn piece(&mut self, text: &str, out: &mut Vec<u8>) {
        if self.is_text {
            self.chunk(text, None, out);
        }
    }

    fn close(&mut self, _: &mut Vec<u8>) {}

    fn end(&mut self, ending: &Ending, out: &mut Vec<u8>) {
        self.chunk("", Some(ending.stop), out);
        if self.include_usage
            && let Some(usage) = chat::write_usage(&ending.usage)
        {
            let chunk = self.completion().with("choices", Vec::new());
            sse::data(chunk.with("usage", usage), out);
        }
        out.extend_from_slice(b"data: [DONE]\n\n");
    }

    fn fail(&mut self, message: &str, out: &mut Vec<u8>) {
        chat::write_failure(message, out);
    }
}
