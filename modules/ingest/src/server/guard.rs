//! The layers before every handler: the checks of Host and Origin, and the count of answers.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{Request, State},
    http::{HeaderValue, StatusCode, Uri, header},
    middleware::{self, Next},
    response::{IntoResponse as _, Response},
};

use module_http::{Guard, Hosts, Refused, guarded};
use tonic::Status;

use crate::{app::App, otlp::grpc};

/// Adds the checks that refuse what a web page in a browser may have sent, and counts all answers.
pub(crate) fn guarded_and_counted(router: Router, app: &Arc<App>) -> Router {
    let guard = Guard {
        hosts: Hosts::Own(app.config.allowed_hosts.clone()),
        allowed_origins: app.config.allowed_origins.clone(),
    };
    guarded(router, guard, refusal).layer(middleware::from_fn_with_state(app.clone(), count))
}

async fn count(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let endpoint = endpoint(request.uri().path());
    let is_call = grpc::is_call(&request);
    let mut response = next.run(request).await;
    if is_call && let Some(refused) = response.extensions().get::<Refused>().copied() {
        response = grpc::refuse(&advice(refused));
    }
    // Over gRPC every answer is a 200, and its status says what it is.
    let status = response.extensions().get::<Status>().map(|status| i32::from(status.code()));
    let code = if is_call { status.unwrap_or(0) } else { response.status().as_u16().into() };
    app.stats.request(endpoint, code);
    response
}

fn refusal(refused: Refused) -> Response {
    let mut response = json_error(refused.status(), refused.code(), &advice(refused));
    response.extensions_mut().insert(refused);
    response
}

/// Returns the reason of a refusal, and what to do about it.
fn advice(refused: Refused) -> String {
    let hint = match refused {
        Refused::HostNotAllowed => ", or add the name to ingest.allowed_hosts",
        Refused::OriginNotAllowed => {
            "; add its origin to ingest.allowed_origins if it should be able to post"
        }
        _ => "",
    };
    format!("{refused}{hint}")
}

/// Creates an error in the format of all endpoints but OTLP's.
pub(crate) fn json_error(status: StatusCode, code: &str, message: &str) -> Response {
    let body = serde_json::json!({"error": {"code": code, "message": message}});
    (status, Json(body)).into_response()
}

/// Answers a method that a path does not have.
pub(crate) async fn answer_wrong_method(uri: Uri) -> Response {
    let allowed = if uri.path() == "/healthz" { "GET" } else { "POST" };
    let message = format!("this path takes {allowed} only");
    let mut response = json_error(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", &message);
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allowed));
    response
}

/// Returns the label of a path in the metrics.
fn endpoint(path: &str) -> &'static str {
    match path {
        "/v1/logs" => "/v1/logs",
        "/v1/traces" => "/v1/traces",
        "/v1/metrics" => "/v1/metrics",
        "/api/v1/event" => "/api/v1/event",
        "/api/v1/events" => "/api/v1/events",
        "/api/v1/events/batch" => "/api/v1/events/batch",
        "/api/v1/litellm" | "/generic_api" => "/api/v1/litellm",
        "/healthz" => "/healthz",
        grpc::LOGS => "LogsService",
        grpc::TRACES => "TraceService",
        grpc::METRICS => "MetricsService",
        grpc::HEALTH => "Health",
        _ => "other",
    }
}
