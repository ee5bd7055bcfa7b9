//! The answers to senders of Lynex events that are not accepted.

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use serde_json::json;

use crate::server::BodyError;

/// Largest number of problems in an answer.
const MAX_TOLD: usize = 20;

/// A problem with a field. It never holds the field's value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Problem {
    /// JSON pointer to the field.
    pub(super) path: String,
    pub(super) message: String,
}

/// An answer that is no success.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    status: StatusCode,
    code: &'static str,
    message: String,
    problems: Vec<Problem>,
    retry_after_s: Option<u64>,
}

impl Failure {
    fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), problems: Vec::new(), retry_after_s: None }
    }

    pub(crate) fn not_json(error: &serde_json::Error) -> Self {
        let what = if error.is_eof() { "ends too early" } else { "is not JSON" };
        let (line, column) = (error.line(), error.column());
        let message = format!("the body {what}, at line {line} column {column}");
        Self::new(StatusCode::BAD_REQUEST, "not_json", message)
    }

    pub(crate) fn invalid(path: &str, message: impl Into<String>) -> Self {
        Self::problems(vec![Problem { path: path.to_owned(), message: message.into() }])
    }

    pub(super) fn problems(problems: Vec<Problem>) -> Self {
        let message = match problems.first() {
            Some(first) if first.path.is_empty() => format!("the body {}", first.message),
            Some(first) => format!("{} {}", first.path, first.message),
            None => "the event is not valid".to_owned(),
        };
        let mut failure = Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_event", message);
        failure.problems = problems;
        failure
    }

    pub(super) fn missing_key() -> Self {
        let message = "this server needs an API key; send it as X-API-Key or as Bearer";
        Self::new(StatusCode::UNAUTHORIZED, "missing_key", message)
    }

    pub(super) fn unknown_key() -> Self {
        let message = "no project has this API key; compare it with ingest.projects";
        Self::new(StatusCode::UNAUTHORIZED, "unknown_key", message)
    }

    pub(super) fn wrong_project(path: &str) -> Self {
        let message = "this API key is another project's; use the key of the event's project";
        let mut failure = Self::new(StatusCode::UNAUTHORIZED, "wrong_project", message);
        let message = "is not the project of the API key".to_owned();
        failure.problems = vec![Problem { path: path.to_owned(), message }];
        failure
    }

    pub(crate) fn unsupported_media_type() -> Self {
        let message = "send this as application/json";
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", message)
    }

    pub(super) fn too_many_requests(retry_after_s: u64) -> Self {
        let message = format!("too many requests; come again in {retry_after_s} s");
        let mut failure = Self::new(StatusCode::TOO_MANY_REQUESTS, "too_many_requests", message);
        failure.retry_after_s = Some(retry_after_s);
        failure
    }

    pub(crate) fn unavailable() -> Self {
        let message = "the ledger does not take events at the moment; come again";
        let mut failure = Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", message);
        failure.retry_after_s = Some(1);
        failure
    }
}

impl Failure {
    /// Returns the reason for the refusal without the place, as a row of the statistics is for a
    /// kind of mistake. `None` where the events may be sent again later.
    pub(crate) fn reason(&self) -> Option<String> {
        if self.retry_after_s.is_some() {
            return None;
        }
        Some(match self.problems.first() {
            Some(problem) => {
                let path =
                    problem.path.trim_start_matches(|c: char| c == '/' || c.is_ascii_digit());
                let path = if path.is_empty() { "the body" } else { path };
                format!("{path} {}", problem.message)
            }
            None => match self.message.split_once(", at line ") {
                Some((what, _)) => what.to_owned(),
                None => self.message.clone(),
            },
        })
    }
}

impl From<BodyError> for Failure {
    fn from(error: BodyError) -> Self {
        let mut failure = Self::new(error.status(), error.code(), error.to_string());
        failure.retry_after_s = (error.status() == StatusCode::SERVICE_UNAVAILABLE).then_some(1);
        failure
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let mut error = json!({"code": self.code, "message": self.message});
        if let Some(first) = self.problems.first() {
            error["path"] = json!(first.path);
            error["count"] = json!(self.problems.len());
            error["problems"] = json!(&self.problems[..self.problems.len().min(MAX_TOLD)]);
        }
        let mut response = (self.status, Json(json!({"error": error}))).into_response();
        let headers = response.headers_mut();
        if let Some(seconds) = self.retry_after_s {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}
