//! Errors of the control API, as `application/problem+json`.

use axum::{
    http::{HeaderValue, StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
};

use lodestar_api::{PROBLEM_JSON, Problem, ProblemCode};

/// A request that is not answered, with the reason.
#[derive(Debug)]
pub struct Refusal(pub Problem);

impl Refusal {
    /// Creates the refusal for something that does not exist.
    pub fn not_found(detail: impl Into<String>) -> Self {
        Self(Problem::new(ProblemCode::NotFound, detail))
    }

    /// Creates the refusal for a request that is not valid.
    pub fn invalid(detail: impl Into<String>) -> Self {
        Self(Problem::new(ProblemCode::Invalid, detail))
    }

    /// Creates the refusal for a request that failed.
    pub fn failed(detail: impl Into<String>) -> Self {
        Self(Problem::new(ProblemCode::Failed, detail))
    }
}

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        Self(problem)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status =
            StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, axum::Json(self.0)).into_response();
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        response
    }
}
