//! Requests in the forms of OpenAI and llama.cpp.

use serde::Deserialize;
use serde_json::{Value, json};

use super::{adapters::Scale, engine::Engine, refusal::Refusal, sampling::Sampling};

/// Most words that may end an answer, and the longest of them in bytes.
const STOPS: usize = 4;
const LONGEST_STOP: usize = 200;

/// A request for an answer in a conversation. Fields that change no answer are not read.
#[derive(Deserialize)]
pub(super) struct ChatRequest {
    #[serde(default)]
    pub model: String,
    messages: Vec<Value>,
    #[serde(default)]
    pub tools: Option<Value>,
    #[serde(default)]
    pub stream: bool,
    #[serde(default)]
    stream_options: Option<StreamOptions>,
    #[serde(default)]
    max_tokens: Option<u32>,
    #[serde(default)]
    max_completion_tokens: Option<u32>,
    #[serde(default)]
    pub lora: Vec<Scale>,
    #[serde(default)]
    n: Option<u32>,
    #[serde(default)]
    logprobs: Option<bool>,
    #[serde(default)]
    response_format: Option<Value>,
    #[serde(flatten)]
    choice: Choice,
}

/// Settings by which tokens are chosen.
#[derive(Deserialize)]
struct Choice {
    #[serde(default)]
    temperature: Option<f64>,
    #[serde(default)]
    top_p: Option<f64>,
    #[serde(default)]
    seed: Option<i64>,
    #[serde(default)]
    stop: Option<Stop>,
}

#[derive(Deserialize)]
struct StreamOptions {
    #[serde(default)]
    include_usage: bool,
}

#[derive(Clone, Deserialize)]
#[serde(untagged)]
enum Stop {
    One(String),
    Several(Vec<String>),
}

impl Choice {
    fn sampling(&self) -> Result<Sampling, Refusal> {
        Sampling::new(self.temperature, self.top_p, self.seed)
    }

    fn stops(&self) -> Result<Vec<String>, Refusal> {
        let words = match self.stop.clone() {
            None => Vec::new(),
            Some(Stop::One(word)) => vec![word],
            Some(Stop::Several(words)) => words,
        };
        let is_sound = |word: &String| !word.is_empty() && word.len() <= LONGEST_STOP;
        if words.len() > STOPS || !words.iter().all(is_sound) {
            return Err(Refusal::request("stop", "up to 4 words of 1 to 200 bytes end an answer"));
        }
        Ok(words)
    }
}

impl ChatRequest {
    /// Refuses what would be answered otherwise than it is asked for.
    pub(super) fn check(&self) -> Result<(), Refusal> {
        if self.messages.is_empty() {
            return Err(Refusal::request("messages", "there are no messages"));
        }
        if self.n.is_some_and(|n| n != 1) {
            return Err(Refusal::request("n", "one answer is given, not several"));
        }
        if self.logprobs == Some(true) {
            return Err(Refusal::request("logprobs", "no probabilities are told here"));
        }
        let format = self.response_format.as_ref().and_then(|it| it["type"].as_str());
        if format.is_some_and(|it| it != "text") {
            return Err(Refusal::request("response_format", "answers are text here"));
        }
        Ok(())
    }

    /// Returns the messages with their text in one piece, as templates read it.
    pub(super) fn messages(&self) -> Result<Vec<Value>, Refusal> {
        self.messages.iter().map(plain).collect()
    }

    pub(super) fn most(&self) -> usize {
        let most = self.max_completion_tokens.or(self.max_tokens);
        most.map_or(usize::MAX, |most| most as usize)
    }

    pub(super) fn sampling(&self) -> Result<Sampling, Refusal> {
        self.choice.sampling()
    }

    pub(super) fn stops(&self) -> Result<Vec<String>, Refusal> {
        self.choice.stops()
    }

    pub(super) fn wants_usage(&self) -> bool {
        self.stream_options.as_ref().is_some_and(|it| it.include_usage)
    }
}

/// Returns a message whose content is one text. Some templates call a role by no other name.
fn plain(message: &Value) -> Result<Value, Refusal> {
    let wrong = |what| Refusal::request("messages", what);
    let Some(role) = message["role"].as_str() else {
        return Err(wrong("a message has no role"));
    };
    let mut plain = message.clone();
    if role == "developer" {
        plain["role"] = json!("system");
    }
    match &message["content"] {
        Value::String(_) => {}
        Value::Null => plain["content"] = json!(""),
        Value::Array(parts) => {
            let text = |part: &Value| match (part["type"].as_str(), part["text"].as_str()) {
                (Some("text") | None, Some(text)) => Ok(text.to_owned()),
                _ => Err(wrong("only text is read here, no pictures, sounds or files")),
            };
            plain["content"] = json!(parts.iter().map(text).collect::<Result<String, _>>()?);
        }
        _ => return Err(wrong("the content of a message is no text")),
    }
    Ok(plain)
}

/// A request for a text that goes on, as llama.cpp has it.
#[derive(Deserialize)]
pub(super) struct Completion {
    prompt: Prompt,
    #[serde(default)]
    n_predict: Option<i64>,
    #[serde(default)]
    pub lora: Vec<Scale>,
    #[serde(default)]
    pub return_tokens: bool,
    #[serde(flatten)]
    choice: Choice,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Prompt {
    Text(String),
    Tokens(Vec<u32>),
}

impl Completion {
    /// Returns the prompt as tokens.
    pub(super) fn prompt(&self, engine: &Engine) -> Result<Vec<u32>, Refusal> {
        match &self.prompt {
            Prompt::Text(text) => engine.encoded(text),
            Prompt::Tokens(ids) => Ok(ids.clone()),
        }
    }

    /// Returns the most tokens; a negative number is no bound.
    pub(super) fn most(&self) -> usize {
        let most = self.n_predict.and_then(|most| usize::try_from(most).ok());
        most.unwrap_or(usize::MAX)
    }

    pub(super) fn sampling(&self) -> Result<Sampling, Refusal> {
        self.choice.sampling()
    }

    pub(super) fn stops(&self) -> Result<Vec<String>, Refusal> {
        self.choice.stops()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(body: Value) -> ChatRequest {
        serde_json::from_value(body).expect("it has the form")
    }

    #[test]
    fn text_in_parts_is_joined_and_other_parts_are_refused() {
        let parts = json!([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]);
        let body = json!({"messages": [
            {"role": "developer", "content": parts}, {"role": "assistant", "content": null},
        ]});
        let messages = request(body).messages().expect("they are text");
        assert_eq!(messages[0], json!({"role": "system", "content": "ab"}));
        assert_eq!(messages[1]["content"], "");
        let picture = json!([{"type": "image_url", "image_url": {"url": "http://a"}}]);
        for message in [
            json!({"role": "user", "content": picture}),
            json!({"role": "user", "content": 3}),
            json!({"content": "a"}),
        ] {
            request(json!({"messages": [message]})).messages().expect_err("it is refused");
        }
    }

    #[test]
    fn what_is_not_done_here_is_refused_by_name() {
        for (key, value) in [
            ("messages", json!([])),
            ("n", json!(2)),
            ("logprobs", json!(true)),
            ("response_format", json!({"type": "json_object"})),
        ] {
            let mut body = json!({"messages": [{"role": "user", "content": "a"}]});
            body[key] = value;
            let refusal = request(body).check().expect_err("it is refused");
            assert_eq!(refusal.body_of()["error"]["param"], key);
        }
        let stop = json!({"messages": [], "stop": ["", "a"]});
        request(stop).stops().expect_err("an empty word ends everything");
        let one = request(json!({"messages": [], "stop": "a", "max_tokens": 3}));
        assert_eq!((one.stops().expect("one word"), one.most()), (vec!["a".to_owned()], 3));
    }
}
