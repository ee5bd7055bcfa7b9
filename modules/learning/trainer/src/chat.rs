//! Tokenizer and chat template of a base: from messages to tokens.

use std::path::Path;

use candle_core::quantized::{
    gguf_file::{Content, Value as Meta},
    tokenizer::TokenizerFromGguf as _,
};
use minijinja::{Environment, Error, ErrorKind, syntax::SyntaxConfig, value::Serde};
use serde::Serialize;
use serde_json::Value;
use tokenizers::{
    Tokenizer,
    pre_tokenizers::{
        PreTokenizerWrapper, byte_level::ByteLevel, digits::Digits, sequence::Sequence,
    },
};

use crate::failure::{Failure, Result};

/// Name of the template in its environment.
const NAME: &str = "chat";

/// Work that a template may do before it is ended, in steps of its interpreter.
const FUEL: u64 = 20_000_000;

/// A tokenizer and a chat template.
pub struct Chat {
    tokenizer: Tokenizer,
    templates: Environment<'static>,
    bos: String,
    eos: String,
}

/// Values that a template sees.
#[derive(Serialize)]
struct Context<'a> {
    messages: &'a [Value],
    tools: Option<&'a Value>,
    add_generation_prompt: bool,
    bos_token: &'a str,
    eos_token: &'a str,
}

impl Chat {
    /// Reads `tokenizer.json`, `tokenizer_config.json` and `chat_template.jinja` of a folder.
    pub(crate) fn from_folder(folder: &Path) -> Result<Self> {
        let path = folder.join("tokenizer.json");
        let text = std::fs::read(&path).map_err(|error| Failure::file("read", &path, &error))?;
        let tokenizer = Tokenizer::from_bytes(text).map_err(|error| {
            Failure::job(format!("{} is no tokenizer: {error}", path.display()))
        })?;
        let path = folder.join("tokenizer_config.json");
        let config = if path.is_file() { crate::base::read_json(&path)? } else { Value::Null };
        let token = |key: &str| {
            let token = &config[key];
            token.as_str().or(token["content"].as_str()).unwrap_or_default().to_owned()
        };
        let template = match std::fs::read_to_string(folder.join("chat_template.jinja")) {
            Ok(template) => Some(template),
            Err(_) => named_template(&config["chat_template"]),
        };
        Self::new(tokenizer, template, token("bos_token"), token("eos_token"))
    }

    /// Reads the tokenizer and the template of a GGUF file.
    pub(crate) fn from_gguf(content: &mut Content) -> Result<Self> {
        let text = |content: &Content, key: &str| {
            content.metadata.get(key).and_then(|it| it.to_string().ok()).cloned()
        };
        let kind = text(content, "tokenizer.ggml.pre").unwrap_or_default();
        // The words of llama.cpp for a way of splitting, and those that candle knows.
        let splits_digits = match kind.as_str() {
            "llama-bpe" | "llama3" => {
                content.metadata.insert("tokenizer.ggml.pre".into(), Meta::String("llama3".into()));
                None
            }
            "qwen2" => None,
            "gpt-2" => Some(false),
            "smollm" => Some(true),
            _ => {
                return Err(Failure::job(format!(
                    "the base's way of splitting text ({}) is not known here; use the folder of \
                     safetensors of the same model",
                    crate::job::shown(&kind)
                )));
            }
        };
        let mut tokenizer = Tokenizer::from_gguf(content)
            .map_err(|error| Failure::job(format!("the base's tokenizer: {error}")))?;
        if let Some(splits_digits) = splits_digits {
            let bytes: PreTokenizerWrapper = ByteLevel::new(false, true, true).into();
            let parts = match splits_digits {
                true => vec![Digits::new(true).into(), bytes],
                false => vec![bytes],
            };
            tokenizer.with_pre_tokenizer(Some(Sequence::new(parts)));
        }
        let token = |key: &str| {
            let id = content.metadata.get(key).and_then(|it| it.to_u32().ok());
            id.and_then(|id| tokenizer.id_to_token(id)).unwrap_or_default()
        };
        let bos = token("tokenizer.ggml.bos_token_id");
        let eos = token("tokenizer.ggml.eos_token_id");
        Self::new(tokenizer, text(content, "tokenizer.chat_template"), bos, eos)
    }

    fn new(
        tokenizer: Tokenizer,
        template: Option<String>,
        bos: String,
        eos: String,
    ) -> Result<Self> {
        let template = template.ok_or_else(|| {
            Failure::job("the base has no chat template; use one that was made for chats")
        })?;
        let mut templates = Environment::new();
        templates.set_fuel(Some(FUEL));
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        templates.set_syntax(
            syntax.map_err(|error| Failure::other(format!("the form of templates: {error}")))?,
        );
        templates.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        templates.add_function("raise_exception", |why: String| -> Result<String, Error> {
            Err(Error::new(ErrorKind::InvalidOperation, why))
        });
        templates
            .add_template_owned(NAME, template)
            .map_err(|error| Failure::job(format!("the base's chat template: {}", error.kind())))?;
        Ok(Self { tokenizer, templates, bos, eos })
    }

    /// Returns the number of tokens.
    #[must_use]
    pub fn tokens(&self) -> usize {
        self.tokenizer.get_vocab_size(true)
    }

    /// Returns the token that ends an answer.
    #[must_use]
    pub fn end(&self) -> Option<u32> {
        self.tokenizer.token_to_id(&self.eos)
    }

    /// Renders messages; the end of the text invites an answer when `invites` is set.
    ///
    /// Nothing of the messages is told when it fails.
    pub(crate) fn render(
        &self,
        messages: &[Value],
        tools: Option<&Value>,
        invites: bool,
    ) -> Result<String, ErrorKind> {
        let context = Context {
            messages,
            tools,
            add_generation_prompt: invites,
            bos_token: &self.bos,
            eos_token: &self.eos,
        };
        let template = self.templates.get_template(NAME).map_err(|error| error.kind())?;
        template.render(Serde(context)).map_err(|error| error.kind())
    }

    /// Returns the tokens of a text that holds all special tokens already.
    pub(crate) fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let encoded = self.tokenizer.encode_fast(text, false);
        let encoded = encoded.map_err(|_| Failure::data("a text cannot be made into tokens"))?;
        Ok(encoded.get_ids().to_vec())
    }

    /// Returns the text of the token that begins all texts; empty where there is none.
    pub(crate) fn first(&self) -> &str {
        &self.bos
    }

    /// Returns whether a token is a special one, which has no text.
    pub(crate) fn is_special(&self, id: u32) -> Result<bool> {
        Ok(self.decode(&[id])?.is_empty() && !self.text(&[id])?.is_empty())
    }

    /// Returns the text of tokens, with that of the special ones.
    pub(crate) fn text(&self, ids: &[u32]) -> Result<String> {
        self.tokenizer
            .decode(ids, false)
            .map_err(|error| Failure::other(format!("tokens cannot be made into text: {error}")))
    }

    /// Returns the text of tokens without the special ones.
    ///
    /// # Errors
    ///
    /// When the tokenizer does not know one of them.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        self.tokenizer
            .decode(ids, true)
            .map_err(|error| Failure::other(format!("tokens cannot be made into text: {error}")))
    }
}

/// Returns the template of a configuration: a text, or the default of several.
fn named_template(value: &Value) -> Option<String> {
    if let Some(text) = value.as_str() {
        return Some(text.to_owned());
    }
    let named = value.as_array()?.iter().find(|it| it["name"] == "default")?;
    named["template"].as_str().map(str::to_owned)
}
