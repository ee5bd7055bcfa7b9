//! Error responses in the form `application/problem+json` (RFC 9457).

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;

use crate::{BodyError, Refused};

const PROBLEM_JSON: HeaderValue = HeaderValue::from_static("application/problem+json");

/// An error response for programs and people.
///
/// ```
/// use module_http::{Problem, axum::http::StatusCode};
///
/// async fn page(days: u32) -> Result<String, Problem> {
///     match days {
///         1..=366 => Ok(format!("the last {days} days")),
///         _ => Err(Problem::new(StatusCode::BAD_REQUEST, "invalid", "`days` is no number of days")
///             .help("give 1 to 366")),
///     }
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    #[serde(rename = "type")]
    kind: &'static str,
    title: String,
    #[serde(serialize_with = "number")]
    status: StatusCode,
    code: &'static str,
    detail: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    help: Option<String>,
}

impl Problem {
    /// Creates a problem: `code` is for programs, `detail` a sentence without its end for people.
    /// Neither holds a secret or content of the request.
    pub fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        let (title, detail) = (code.replace('_', " "), detail.into());
        Self { kind: "about:blank", title, status, code, detail, help: None }
    }

    /// Adds the remedy.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Returns the status of the response.
    #[must_use]
    pub const fn status(&self) -> StatusCode {
        self.status
    }
}

fn number<S: serde::Serializer>(status: &StatusCode, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_u16(status.as_u16())
}

impl IntoResponse for Problem {
    /// Converts the problem; if the request may succeed later, the response has a `Retry-After`
    /// header.
    fn into_response(self) -> Response {
        let status = self.status;
        let mut response = (status, Json(self)).into_response();
        response.headers_mut().insert(header::CONTENT_TYPE, PROBLEM_JSON);
        if status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

impl From<Refused> for Problem {
    fn from(refused: Refused) -> Self {
        Self::new(refused.status(), refused.code(), refused.to_string())
    }
}

impl From<BodyError> for Problem {
    fn from(error: BodyError) -> Self {
        Self::new(error.status(), error.code(), error.to_string())
    }
}

/// Answers a request for an unknown path; for `Router::fallback`.
pub async fn not_found() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "not_found", "there is nothing at this path")
}

/// Answers a method that a path does not support; for `Router::method_not_allowed_fallback`.
pub async fn method_not_allowed() -> Problem {
    let detail = "this path does not take this method";
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", detail)
}

#[cfg(test)]
mod tests {
    use axum::body::to_bytes;

    use super::*;
    use crate::server::NO_ROOM;

    async fn sent(problem: Problem) -> (StatusCode, Option<HeaderValue>, String) {
        let response = problem.into_response();
        assert_eq!(response.headers()[header::CONTENT_TYPE], PROBLEM_JSON);
        let (parts, body) = response.into_parts();
        let body = to_bytes(body, usize::MAX).await.expect("it is in memory");
        let text = String::from_utf8(body.to_vec()).expect("JSON is text");
        (parts.status, parts.headers.get(header::RETRY_AFTER).cloned(), text)
    }

    #[tokio::test]
    async fn a_problem_has_a_word_and_a_sentence() {
        let problem = Problem::new(StatusCode::BAD_REQUEST, "too_many", "that is too much");
        let (status, later, text) = sent(problem.help("send less")).await;
        assert_eq!((status, later), (StatusCode::BAD_REQUEST, None));
        let expected = concat!(
            r#"{"type":"about:blank","title":"too many","status":400,"code":"too_many","#,
            r#""detail":"that is too much","help":"send less"}"#
        );
        assert_eq!(text, expected);
    }

    #[tokio::test]
    async fn what_is_refused_for_want_of_room_looks_the_same() {
        let problem = Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "unavailable",
            "all connections are in use",
        )
        .help("try again in a second");
        let (status, later, text) = sent(problem).await;
        assert_eq!((status.as_u16(), later.as_ref()), (503, Some(&HeaderValue::from_static("1"))));
        let raw = std::str::from_utf8(NO_ROOM).expect("it is text");
        let (head, body) = raw.split_once("\r\n\r\n").expect("a head and a body");
        assert_eq!(body.trim_end(), text);
        let length = format!("content-length: {}", body.len());
        assert!(head.lines().any(|line| line == length), "{head}");
    }

    #[tokio::test]
    async fn refusals_and_bodies_are_problems() {
        let (status, later, text) = sent(BodyError::Busy.into()).await;
        assert_eq!((status.as_u16(), later.is_some()), (503, true), "{text}");
        let (status, _, text) = sent(Refused::OriginNotAllowed.into()).await;
        assert_eq!(status, StatusCode::FORBIDDEN);
        assert!(text.contains("\"origin_not_allowed\""), "{text}");
    }
}
