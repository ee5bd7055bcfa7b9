//! Errors in the form of each dialect.

use std::time::Duration;

use http::StatusCode;
use serde_json::{Value, json};

use super::Dialect;

/// Kind of an error that a client gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FaultKind {
    /// A request that cannot be understood.
    InvalidRequest,
    /// A request that no target could take: too long, or with what no model can do.
    ContextLength,
    /// No key, or a wrong one.
    Authentication,
    /// A key that may not do this.
    Permission,
    /// A model or a path that is not there.
    NotFound,
    /// A body that is too large.
    TooLarge,
    /// A limit of the client's key, or of the provider.
    RateLimited,
    /// A budget that is used up.
    Budget,
    /// No target is available just now.
    Unavailable,
    /// A provider that did not answer in time.
    Timeout,
    /// A provider that failed.
    Upstream,
    /// A provider that refuses what the operator has set for it: its key, or its address.
    Misconfigured,
}

/// An error for a client. The message holds nothing that a provider sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Fault {
    /// Kind.
    pub kind: FaultKind,
    /// Sentence for a person, with what to do.
    pub message: String,
    /// Time after which the same request may work.
    pub retry_after: Option<Duration>,
    /// Name of the error, where it is finer than its kind.
    pub code: Option<&'static str>,
}

impl Fault {
    /// Creates an error.
    pub(crate) fn new(kind: FaultKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), retry_after: None, code: None }
    }

    /// Sets the time after which the same request may work.
    pub(crate) fn after(mut self, time: Duration) -> Self {
        self.retry_after = Some(time);
        self
    }

    /// Sets the name of the error.
    pub(crate) fn coded(mut self, code: &'static str) -> Self {
        self.code = Some(code);
        self
    }

    /// Returns the status of the answer.
    pub(crate) const fn status(&self) -> StatusCode {
        match self.kind {
            FaultKind::InvalidRequest | FaultKind::ContextLength => StatusCode::BAD_REQUEST,
            FaultKind::Authentication => StatusCode::UNAUTHORIZED,
            FaultKind::Permission => StatusCode::FORBIDDEN,
            FaultKind::NotFound => StatusCode::NOT_FOUND,
            FaultKind::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            FaultKind::RateLimited | FaultKind::Budget => StatusCode::TOO_MANY_REQUESTS,
            FaultKind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            FaultKind::Timeout => StatusCode::GATEWAY_TIMEOUT,
            FaultKind::Upstream => StatusCode::BAD_GATEWAY,
            // Not 5xx: tools would ask again for minutes, and tell nobody why.
            FaultKind::Misconfigured => StatusCode::FAILED_DEPENDENCY,
        }
    }

    /// Returns the word for it in events (`error.type`).
    pub(crate) const fn word(&self) -> &'static str {
        match self.kind {
            FaultKind::InvalidRequest => "invalid_request",
            FaultKind::ContextLength => "context_length_exceeded",
            FaultKind::Authentication => "authentication",
            FaultKind::Permission => "permission",
            FaultKind::NotFound => "not_found",
            FaultKind::TooLarge => "too_large",
            FaultKind::RateLimited => "rate_limited",
            FaultKind::Budget => "budget_exceeded",
            FaultKind::Unavailable => "unavailable",
            FaultKind::Timeout => "timeout",
            FaultKind::Upstream => "upstream",
            FaultKind::Misconfigured => "provider_misconfigured",
        }
    }

    /// Returns the body of the answer.
    pub(crate) fn body(&self, dialect: Dialect, request_id: &str) -> Vec<u8> {
        let body = match dialect {
            Dialect::Messages => json!({
                "type": "error",
                "error": {"type": self.anthropic(), "message": self.message},
                "request_id": request_id,
            }),
            Dialect::Gemini => json!({"error": {
                "code": self.status().as_u16(),
                "message": self.message,
                "status": self.gemini(),
            }}),
            Dialect::OllamaChat | Dialect::OllamaGenerate | Dialect::OllamaEmbed => {
                json!({"error": self.message})
            }
            _ => json!({"error": self.openai()}),
        };
        body.to_string().into_bytes()
    }

    /// Returns the event that ends a stream with this error.
    pub(crate) fn event(&self, dialect: Dialect, request_id: &str) -> Vec<u8> {
        let event = match dialect {
            Dialect::Messages => {
                let data = json!({
                    "type": "error",
                    "error": {"type": self.anthropic(), "message": self.message},
                });
                format!("event: error\ndata: {data}\n\n")
            }
            Dialect::Responses => {
                let data = json!({"type": "response.failed", "response": {
                    "id": format!("resp_{request_id}"),
                    "object": "response",
                    "status": "failed",
                    "error": {"code": "server_error", "message": self.message},
                }});
                format!("event: response.failed\ndata: {data}\n\n")
            }
            Dialect::OllamaChat | Dialect::OllamaGenerate | Dialect::OllamaEmbed => {
                format!("{}\n", json!({"error": self.message}))
            }
            _ => {
                let body = String::from_utf8_lossy(&self.body(dialect, request_id)).into_owned();
                format!("data: {body}\n\n")
            }
        };
        event.into_bytes()
    }

    fn openai(&self) -> Value {
        let (kind, code) = match self.kind {
            FaultKind::InvalidRequest | FaultKind::TooLarge => ("invalid_request_error", None),
            FaultKind::ContextLength => ("invalid_request_error", Some("context_length_exceeded")),
            FaultKind::Authentication => ("authentication_error", Some("invalid_api_key")),
            FaultKind::Permission => ("permission_error", None),
            FaultKind::NotFound => ("invalid_request_error", Some("model_not_found")),
            FaultKind::RateLimited => ("rate_limit_error", Some("rate_limit_exceeded")),
            FaultKind::Budget => ("insufficient_quota", Some("insufficient_quota")),
            FaultKind::Unavailable | FaultKind::Upstream => ("server_error", None),
            FaultKind::Timeout => ("server_error", Some("timeout")),
            // Some tools ask again after any `server_error`, whatever its status.
            FaultKind::Misconfigured => ("invalid_request_error", Some("provider_misconfigured")),
        };
        let code = self.code.or(code);
        json!({"message": self.message, "type": kind, "param": null, "code": code})
    }

    const fn anthropic(&self) -> &'static str {
        match self.kind {
            FaultKind::InvalidRequest | FaultKind::ContextLength => "invalid_request_error",
            FaultKind::Authentication => "authentication_error",
            FaultKind::Permission => "permission_error",
            FaultKind::NotFound => "not_found_error",
            FaultKind::TooLarge => "request_too_large",
            FaultKind::RateLimited | FaultKind::Budget => "rate_limit_error",
            FaultKind::Unavailable => "overloaded_error",
            FaultKind::Timeout => "timeout_error",
            FaultKind::Upstream | FaultKind::Misconfigured => "api_error",
        }
    }

    const fn gemini(&self) -> &'static str {
        match self.kind {
            FaultKind::InvalidRequest | FaultKind::ContextLength | FaultKind::TooLarge => {
                "INVALID_ARGUMENT"
            }
            FaultKind::Authentication => "UNAUTHENTICATED",
            FaultKind::Permission => "PERMISSION_DENIED",
            FaultKind::NotFound => "NOT_FOUND",
            FaultKind::RateLimited | FaultKind::Budget => "RESOURCE_EXHAUSTED",
            FaultKind::Unavailable => "UNAVAILABLE",
            FaultKind::Timeout => "DEADLINE_EXCEEDED",
            FaultKind::Upstream => "INTERNAL",
            FaultKind::Misconfigured => "FAILED_PRECONDITION",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIALECTS: [Dialect; 9] = [
        Dialect::Chat,
        Dialect::Responses,
        Dialect::Completions,
        Dialect::Embeddings,
        Dialect::Messages,
        Dialect::Gemini,
        Dialect::OllamaChat,
        Dialect::OllamaGenerate,
        Dialect::OllamaEmbed,
    ];

    #[test]
    fn every_dialect_has_its_own_error() {
        let fault = Fault::new(FaultKind::RateLimited, "too \"many\"\n\ndata: x");
        for dialect in DIALECTS {
            let body: Value = serde_json::from_slice(&fault.body(dialect, "r")).expect("JSON");
            let error = &body["error"];
            let message = error.get("message").unwrap_or(error);
            assert_eq!(message, &json!(fault.message), "{dialect:?}");
            let event = fault.event(dialect, "r");
            let event = String::from_utf8(event).expect("text");
            assert!(!event.contains("[DONE]") && event.ends_with('\n'), "{event}");
            let lines = if dialect.is_json_lines() { 1 } else { 3 };
            assert!(event.matches('\n').count() <= lines, "one event: {event}");
        }
    }
}
