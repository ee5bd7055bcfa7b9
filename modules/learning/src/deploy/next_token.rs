//! Single tokens of a server: what it puts after a text, and how many tokens it makes of it. By
//! them a serving runtime is compared with the trainer.

use std::fmt;

use serde_json::{Value, json};

use super::{DeployError, Kind, Model, QUESTION, Server, Unreadable, WORK, llama_server, read};

/// Words by which Ollama tells of bases that are not quantised.
const FULL: [&str; 4] = ["F32", "F16", "BF16", "UNKNOWN"];

/// The token that a model puts after a text. Its `Debug` shows no text.
#[derive(Clone, PartialEq, Eq)]
pub struct NextToken {
    /// Its text; empty for the end of an answer.
    pub text: String,
    /// Number of tokens that the server made of the text before it, where it tells.
    pub tokens: Option<u64>,
}

impl fmt::Debug for NextToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NextToken({} bytes after {:?} tokens)", self.text.len(), self.tokens)
    }
}

impl Server {
    /// Asks a model for the likeliest token after a text, which holds all special tokens already.
    ///
    /// # Errors
    ///
    /// When there is no answer.
    pub async fn next_token(&self, model: Model<'_>, text: &str) -> Result<NextToken, DeployError> {
        let no_text = DeployError::Unreadable(Unreadable("no text after a prompt"));
        if self.kind == Kind::Ollama {
            // A penalty for what was said already is on unless it is set to none.
            let options = json!({
                "num_predict": 1, "temperature": 0, "seed": 0, "repeat_penalty": 1.0,
                "presence_penalty": 0.0, "frequency_penalty": 0.0,
            });
            let body = json!({
                "model": self.named(model), "prompt": text, "raw": true, "stream": false,
                "options": options,
            });
            let answer = read(&self.post("/api/generate", &body, WORK).await?)?;
            let tokens = answer["prompt_eval_count"].as_u64();
            let text = answer["response"].as_str().map(str::to_owned).ok_or(no_text)?;
            return Ok(NextToken { text, tokens });
        }
        if self.kind == Kind::Vllm {
            let body = json!({
                "model": self.named(model), "prompt": text, "max_tokens": 1, "temperature": 0,
                "seed": 0, "add_special_tokens": false, "repetition_penalty": 1.0,
            });
            let answer = read(&self.post("/v1/completions", &body, WORK).await?)?;
            let tokens = answer["usage"]["prompt_tokens"].as_u64();
            let text = answer["choices"][0]["text"].as_str().map(str::to_owned).ok_or(no_text)?;
            return Ok(NextToken { text, tokens });
        }
        let body = json!({
            "prompt": text, "n_predict": 1, "temperature": 0, "seed": 0, "cache_prompt": true,
            "lora": llama_server::scales_of(self, model).await?,
        });
        let answer = read(&self.post("/completion", &body, WORK).await?)?;
        let tokens = answer["tokens_evaluated"].as_u64();
        let text = answer["content"].as_str().map(str::to_owned).ok_or(no_text)?;
        Ok(NextToken { text, tokens })
    }

    /// Returns the number of tokens that the server's own template makes of a conversation, where
    /// it tells.
    ///
    /// # Errors
    ///
    /// When there is no answer.
    pub async fn chat_tokens(
        &self,
        model: Model<'_>,
        messages: &Value,
        tools: Option<&Value>,
    ) -> Result<Option<u64>, DeployError> {
        let mut body = json!({"messages": messages});
        if let Some(tools) = tools {
            body["tools"] = tools.clone();
        }
        if self.kind == Kind::Ollama {
            body["model"] = self.named(model).into();
            body["stream"] = false.into();
            body["options"] = json!({"num_predict": 1, "temperature": 0});
            let answer = read(&self.post("/api/chat", &body, WORK).await?)?;
            return Ok(answer["prompt_eval_count"].as_u64());
        }
        (body["max_tokens"], body["temperature"]) = (json!(1), json!(0));
        if self.kind == Kind::Vllm {
            body["model"] = self.named(model).into();
        } else {
            body["lora"] = llama_server::scales_of(self, model).await?;
        }
        let answer = read(&self.post("/v1/chat/completions", &body, WORK).await?)?;
        Ok(answer["usage"]["prompt_tokens"].as_u64())
    }

    /// Returns whether the server says that its base is quantised.
    ///
    /// # Errors
    ///
    /// When there is no answer.
    pub async fn is_quantised(&self, base: &str) -> Result<bool, DeployError> {
        if self.kind != Kind::Ollama {
            return Ok(false);
        }
        let answer = read(&self.post("/api/show", &json!({"model": base}), QUESTION).await?)?;
        let level = answer["details"]["quantization_level"].as_str().map(str::to_uppercase);
        Ok(level.is_some_and(|level| !level.is_empty() && !FULL.contains(&level.as_str())))
    }

    /// Returns the name under which a model is asked.
    pub(super) fn named(&self, model: Model<'_>) -> String {
        match model {
            Model::Base(name) => name.to_owned(),
            Model::Version(adapter) => adapter.model(),
        }
    }
}
