//! The APIs that clients speak and providers offer: their requests, answers, streams and errors.

pub(crate) mod fault;
pub(crate) mod inspect;
pub(crate) mod json_key;
pub(crate) mod observe;
pub(crate) mod reading;
pub(crate) mod rewrite;
pub(crate) mod said;
pub(crate) mod sse;
pub(crate) mod translate;
pub(crate) mod usage;

use module_sdk::{ProviderApi, events::ApiFormat};

/// An API in which a request is asked and answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Dialect {
    /// OpenAI's `/v1/chat/completions`.
    Chat,
    /// OpenAI's `/v1/responses`.
    Responses,
    /// OpenAI's `/v1/completions`.
    Completions,
    /// OpenAI's `/v1/embeddings`.
    Embeddings,
    /// Anthropic's `/v1/messages`.
    Messages,
    /// Google's `models/M:generateContent` and `:streamGenerateContent`.
    Gemini,
    /// Ollama's `/api/chat`.
    OllamaChat,
    /// Ollama's `/api/generate`.
    OllamaGenerate,
    /// Ollama's `/api/embed`.
    OllamaEmbed,
}

impl Dialect {
    /// Returns the name of the dialect in events.
    pub(crate) const fn format(self) -> ApiFormat {
        match self {
            Self::Chat => ApiFormat::Chat,
            Self::Responses => ApiFormat::Responses,
            Self::Completions => ApiFormat::Completions,
            Self::Embeddings => ApiFormat::Embeddings,
            Self::Messages => ApiFormat::Messages,
            Self::Gemini => ApiFormat::Gemini,
            Self::OllamaChat | Self::OllamaGenerate | Self::OllamaEmbed => ApiFormat::Ollama,
        }
    }

    /// Returns `gen_ai.operation.name` of its requests.
    pub(crate) const fn operation(self) -> &'static str {
        match self {
            Self::Chat | Self::Responses | Self::Messages | Self::OllamaChat => "chat",
            Self::Completions | Self::OllamaGenerate => "text_completion",
            Self::Embeddings | Self::OllamaEmbed => "embeddings",
            Self::Gemini => "generate_content",
        }
    }

    /// Returns what its requests ask for, for a sentence.
    pub(crate) const fn asks_for(self) -> &'static str {
        match self {
            Self::Embeddings | Self::OllamaEmbed => "embeddings",
            Self::Completions | Self::OllamaGenerate => "a completion",
            _ => "an answer in another dialect",
        }
    }

    /// Returns whether its requests stream where their body does not say.
    pub(crate) const fn streams_by_default(self) -> bool {
        matches!(self, Self::OllamaChat | Self::OllamaGenerate)
    }

    /// Returns whether a stream of it consists of lines of JSON, not of server-sent events.
    pub(crate) const fn is_json_lines(self) -> bool {
        matches!(self, Self::OllamaChat | Self::OllamaGenerate | Self::OllamaEmbed)
    }

    /// Returns whether it is the own dialect of providers with this API.
    pub(crate) const fn is_of(self, api: ProviderApi) -> bool {
        match api {
            ProviderApi::Openai => {
                matches!(self, Self::Chat | Self::Responses | Self::Completions | Self::Embeddings)
            }
            ProviderApi::Anthropic => matches!(self, Self::Messages),
            ProviderApi::Gemini => matches!(self, Self::Gemini),
            ProviderApi::Ollama => {
                matches!(self, Self::OllamaChat | Self::OllamaGenerate | Self::OllamaEmbed)
            }
        }
    }
}
