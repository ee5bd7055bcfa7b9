//! Dialects: which one a path belongs to, and what was asked in it.

use hyper::{HeaderMap, Method};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// A dialect and its operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Dialect {
    /// `/v1/chat/completions`.
    Chat,
    /// `/v1/responses`.
    Responses,
    /// `/v1/completions`.
    Completions,
    /// `/v1/embeddings`.
    Embeddings,
    /// `/v1/messages`.
    Messages,
    /// `/v1/messages/count_tokens`.
    CountTokens,
    /// `/v1/models` and what lies below.
    Models,
    /// Ollama's `/api/chat`.
    OllamaChat,
    /// Ollama's `/api/generate`.
    OllamaGenerate,
    /// Ollama's `/api/embed`.
    OllamaEmbed,
    /// Ollama's `/api/tags`.
    OllamaTags,
    /// Ollama's `/api/show`.
    OllamaShow,
    /// Ollama's `/api/ps`.
    OllamaPs,
    /// Gemini's `generateContent` and `streamGenerateContent`.
    Gemini,
}

/// A request, as far as an answer depends on it.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub(super) dialect: Dialect,
    /// The model; empty where none is named.
    pub(super) model: String,
    pub(super) stream: bool,
    /// `true` where a stream of chunks is to end with its usage.
    pub(super) include_usage: bool,
    /// `true` for a client of Anthropic.
    pub(super) anthropic: bool,
    pub(super) body: Value,
    /// `true` for Gemini's stream without `alt=sse`, which is an array.
    pub(super) array: bool,
}

impl Asked {
    /// Reads a request; `None` for a path that no dialect has.
    pub(super) fn read(
        method: &Method,
        path: &str,
        query: &str,
        headers: &HeaderMap,
        body: &[u8],
    ) -> Option<Self> {
        let (dialect, in_path) = dialect(method, path)?;
        let body: Value = serde_json::from_slice(body).unwrap_or_default();
        let model = in_path.or_else(|| {
            // `ollama` names a model to show by either key.
            let named = body["model"].as_str().or_else(|| body["name"].as_str());
            named.map(str::to_owned)
        });
        let ollama = matches!(dialect, Dialect::OllamaChat | Dialect::OllamaGenerate);
        let stream = match dialect {
            Dialect::Gemini => path.ends_with(":streamGenerateContent"),
            _ => body["stream"].as_bool().unwrap_or(ollama),
        };
        Some(Self {
            dialect,
            model: model.unwrap_or_default(),
            stream,
            include_usage: body["stream_options"]["include_usage"] == true,
            anthropic: headers.contains_key("anthropic-version"),
            array: dialect == Dialect::Gemini && !query.contains("alt=sse"),
            body,
        })
    }

    /// Returns an error in the shape of the dialect.
    pub(super) fn error(&self, status: u16, message: &str) -> Value {
        match self.dialect {
            Dialect::Messages | Dialect::CountTokens => anthropic_error(status, message),
            Dialect::Models if self.anthropic => anthropic_error(status, message),
            Dialect::OllamaChat
            | Dialect::OllamaGenerate
            | Dialect::OllamaEmbed
            | Dialect::OllamaTags
            | Dialect::OllamaShow
            | Dialect::OllamaPs => json!({"error": message}),
            Dialect::Gemini => {
                let name = match status {
                    400 => "INVALID_ARGUMENT",
                    401 => "UNAUTHENTICATED",
                    404 => "NOT_FOUND",
                    429 => "RESOURCE_EXHAUSTED",
                    _ => "INTERNAL",
                };
                json!({"error": {"code": status, "message": message, "status": name}})
            }
            _ => json!({"error": {
                "message": message,
                "type": if status == 429 { "rate_limit_exceeded" } else { "server_error" },
                "param": null,
                "code": if status == 404 { "model_not_found".into() } else { Value::Null },
            }}),
        }
    }
}

fn anthropic_error(status: u16, message: &str) -> Value {
    let kind = match status {
        400 => "invalid_request_error",
        401 => "authentication_error",
        404 => "not_found_error",
        429 => "rate_limit_error",
        529 => "overloaded_error",
        _ => "api_error",
    };
    json!({"type": "error", "error": {"type": kind, "message": message}})
}

/// Returns the dialect of a path, and the model that stands in it.
fn dialect(method: &Method, path: &str) -> Option<(Dialect, Option<String>)> {
    if method == Method::GET || method == Method::HEAD {
        let path = path.strip_prefix("/v1").unwrap_or(path);
        return match path {
            "/models" => Some((Dialect::Models, None)),
            "/api/tags" => Some((Dialect::OllamaTags, None)),
            "/api/ps" => Some((Dialect::OllamaPs, None)),
            _ => Some((Dialect::Models, Some(path.strip_prefix("/models/")?.to_owned()))),
        };
    }
    if let Some((model, verb)) = path.rsplit_once(':')
        && matches!(verb, "generateContent" | "streamGenerateContent")
    {
        let (_, model) = model.rsplit_once("/models/")?;
        return Some((Dialect::Gemini, Some(model.to_owned())));
    }
    let dialect = match path.strip_prefix("/v1").unwrap_or(path) {
        "/chat/completions" => Dialect::Chat,
        "/responses" => Dialect::Responses,
        "/completions" => Dialect::Completions,
        "/embeddings" => Dialect::Embeddings,
        "/messages" => Dialect::Messages,
        "/messages/count_tokens" => Dialect::CountTokens,
        "/api/chat" => Dialect::OllamaChat,
        "/api/generate" => Dialect::OllamaGenerate,
        "/api/embed" => Dialect::OllamaEmbed,
        "/api/show" => Dialect::OllamaShow,
        _ => return None,
    };
    Some((dialect, None))
}
