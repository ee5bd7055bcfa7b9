//! Refusals in the shape of OpenAI's errors.

use axum::{
    Json,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};

use crate::failure::{Class, Failure};

/// A request that is not answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    status: StatusCode,
    code: &'static str,
    param: Option<&'static str>,
    message: String,
}

impl Refusal {
    /// Creates the refusal of a field of a request.
    pub(super) fn request(param: &'static str, message: impl Into<String>) -> Self {
        Self {
            status: StatusCode::BAD_REQUEST,
            code: "invalid_value",
            param: Some(param),
            message: message.into(),
        }
    }

    /// Creates the refusal of a body that cannot be read, of which no word is told.
    pub(super) fn body(error: &serde_json::Error) -> Self {
        let message = format!(
            "the body cannot be read at line {}, column {}: it must be JSON of the form that the \
             API describes",
            error.line(),
            error.column()
        );
        Self { status: StatusCode::BAD_REQUEST, code: "invalid_json", param: None, message }
    }

    pub(super) fn size(most: usize) -> Self {
        let message = format!("the body cannot be read, or has more than {most} bytes");
        let (status, code) = (StatusCode::PAYLOAD_TOO_LARGE, "request_too_large");
        Self { status, code, param: None, message }
    }

    pub(super) fn late() -> Self {
        let message = "the body did not come within its time: send it at once".to_owned();
        let status = StatusCode::REQUEST_TIMEOUT;
        Self { status, code: "request_timeout", param: None, message }
    }

    pub(super) fn too_long(tokens: usize, context: usize) -> Self {
        let message = format!(
            "the conversation has {tokens} tokens, and the context length of this model is \
             {context}: send less of it"
        );
        let code = "context_length_exceeded";
        Self { status: StatusCode::BAD_REQUEST, code, param: Some("messages"), message }
    }

    pub(super) fn model(name: &str, known: &[String]) -> Self {
        let message = format!(
            "there is no model {} here; there are {}",
            crate::job::shown(name),
            known.join(", ")
        );
        let code = "model_not_found";
        Self { status: StatusCode::NOT_FOUND, code, param: Some("model"), message }
    }

    pub(super) fn path() -> Self {
        let message = "there is no such endpoint here".to_owned();
        Self { status: StatusCode::NOT_FOUND, code: "unknown_url", param: None, message }
    }

    pub(super) fn busy() -> Self {
        let message = "too many requests wait already; ask again in a moment".to_owned();
        let status = StatusCode::SERVICE_UNAVAILABLE;
        Self { status, code: "overloaded", param: None, message }
    }

    pub(super) fn key() -> Self {
        let message = "adapters are changed, listed and asked for by scales with the key of this \
                       server only; ask for a model that /v1/models lists"
            .to_owned();
        Self { status: StatusCode::UNAUTHORIZED, code: "invalid_api_key", param: None, message }
    }

    pub(super) fn page() -> Self {
        let message = "requests of web pages are not answered here".to_owned();
        Self { status: StatusCode::FORBIDDEN, code: "forbidden", param: None, message }
    }

    pub(super) fn failed(message: impl Into<String>) -> Self {
        let status = StatusCode::INTERNAL_SERVER_ERROR;
        Self { status, code: "server_error", param: None, message: message.into() }
    }

    /// Returns the body.
    pub(super) fn body_of(&self) -> Value {
        let kind =
            if self.status.is_server_error() { "server_error" } else { "invalid_request_error" };
        json!({"error": {
            "message": self.message, "type": kind, "param": self.param, "code": self.code,
        }})
    }
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        match failure.class {
            Class::Job | Class::Data | Class::Missing => Self {
                status: StatusCode::BAD_REQUEST,
                code: "invalid_value",
                param: None,
                message: failure.to_string(),
            },
            _ => Self::failed(failure.to_string()),
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.body_of())).into_response();
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, header::HeaderValue::from_static("1"));
        }
        response
    }
}
