//! The endpoints.

mod entrance;
mod feedback;
mod models;

use std::{
    sync::{Arc, PoisonError},
    time::Instant,
};

use axum::{
    Extension, Json, Router,
    body::Body,
    extract::{Path, Request, State},
    http::{HeaderValue, Method, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse as _, Response},
    routing::{get, head, post},
};
use module_http::{BodyLimits, Ends, Guard, Hosts, Limits, Refused, Server};
use module_sdk::Result;
use uuid::Uuid;

use entrance::Entrance;

use crate::{
    app::App,
    config::{Config, seconds},
    dialect::{
        Dialect,
        fault::{Fault, FaultKind},
    },
    exchange::{self, Inbound},
};

/// Starts the server on the listener of the manifest.
pub(crate) fn start(app: &Arc<App>) -> Result<Server> {
    module_http::serve(&app.host, "http", entrance(app), limits(&app.config))
}

fn limits(config: &Config) -> Limits {
    Limits {
        connections: usize::from(config.max_connections.get()),
        header_timeout: seconds(config.header_timeout_seconds),
        idle_timeout: seconds(config.idle_timeout_seconds),
        write_timeout: seconds(config.write_timeout_seconds),
        ..Limits::default()
    }
}

fn entrance(app: &Arc<App>) -> Entrance {
    let guard = Guard {
        hosts: Hosts::Own(app.config.allowed_hosts.clone()),
        allowed_origins: app.config.allowed_origins.clone(),
    };
    Entrance::new(app, guard, others(app))
}

/// Returns the endpoints beside those of [`entrance`].
fn others(app: &Arc<App>) -> Router {
    let router = Router::new()
        .route("/v1/messages/count_tokens", post(exchange::count_tokens))
        .route("/v1/decision", post(decision))
        .route("/v1/feedback", post(feedback::give))
        .route("/v1/models", get(models::list))
        .route("/models", get(models::list))
        .route("/v1/models/{*model}", get(models::one))
        .route("/v1beta/models", get(models::gemini))
        .route("/v1beta/models/{model}", post(ask_gemini))
        .route("/models/{model}", post(ask_gemini))
        .route("/api/tags", get(models::tags))
        .route("/api/ps", get(models::ps))
        .route("/api/show", post(models::show))
        .route("/api/version", get(models::version))
        .route("/api/hello", head(hello).get(hello))
        .route("/healthz", get(healthz))
        .route("/", get(hello).head(hello))
        .fallback(unknown)
        .method_not_allowed_fallback(wrong_method)
        .with_state(app.clone());
    router.layer(middleware::from_fn_with_state(app.clone(), known))
}

/// Lets those through who may ask at all; what says nothing of the models is for everybody.
async fn known(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let path = request.uri().path();
    let is_public = matches!(path, "/" | "/healthz" | "/api/hello" | "/api/version");
    // Requests to models are looked at when they are understood.
    if is_public || *request.method() == Method::POST && path != "/api/show" {
        return next.run(request).await;
    }
    let peer = request.extensions().get::<Ends>().map(|ends| ends.peer.ip());
    let query = request.uri().query();
    match exchange::identify(&app, request.headers(), query, peer) {
        Ok(_) => next.run(request).await,
        Err(fault) => exchange::refused(&fault, dialect_of(path), ""),
    }
}

/// Answers a request to a model.
async fn ask(
    app: Arc<App>,
    dialect: Dialect,
    in_path: Option<(String, bool)>,
    request: Request,
) -> Response {
    match take(&app, dialect, in_path, request).await {
        Ok(inbound) => exchange::answer(&app, inbound).await,
        Err(response) => response,
    }
}

/// Reads a request within its limits.
pub(crate) async fn take(
    app: &Arc<App>,
    dialect: Dialect,
    in_path: Option<(String, bool)>,
    request: Request,
) -> std::result::Result<Inbound, Response> {
    let begun = Instant::now();
    let started_at = app.host.now().as_millisecond();
    let id = Uuid::now_v7().simple().to_string();
    let (parts, body) = request.into_parts();
    let limits = BodyLimits {
        max_bytes: app.config.max_body_bytes.get(),
        max_inflated_bytes: app.config.max_body_bytes.get(),
        timeout: seconds(app.config.body_timeout_seconds),
    };
    let read =
        module_http::read(&limits, &app.budget, &parts.headers, body, |_: &[u8], _: &mut _| Ok(()));
    let (body, share) = match read.await {
        Ok(read) => read,
        Err(error) => {
            let kind = match error.status() {
                StatusCode::PAYLOAD_TOO_LARGE => FaultKind::TooLarge,
                StatusCode::SERVICE_UNAVAILABLE => FaultKind::Unavailable,
                _ => FaultKind::InvalidRequest,
            };
            let mut fault = match kind {
                FaultKind::TooLarge => Fault::new(kind, too_large(limits.max_bytes)),
                _ => Fault::new(kind, error.to_string()),
            };
            if kind == FaultKind::Unavailable {
                fault = fault.after(crate::app::COME_AGAIN);
            }
            let mut response = exchange::refused(&fault, dialect, &id);
            *response.status_mut() = error.status();
            return Err(response);
        }
    };
    let ends = parts.extensions.get::<Extension<Ends>>().map(|ends| ends.0);
    let ends = ends.or_else(|| parts.extensions.get::<Ends>().copied());
    Ok(Inbound {
        id,
        dialect,
        query: parts.uri.query().map(str::to_owned),
        peer: ends.map(|ends| ends.peer.ip()),
        headers: parts.headers,
        body,
        share,
        in_path,
        begun,
        started_at,
    })
}

fn too_large(most: usize) -> String {
    format!("the body is larger than {most} bytes; send less, or raise router.max_body_bytes")
}

/// Answers `models/M:generateContent` and `:streamGenerateContent`.
async fn ask_gemini(
    State(app): State<Arc<App>>,
    Path(path): Path<String>,
    request: Request,
) -> Response {
    let is_stream = match path.rsplit_once(':') {
        Some((_, "generateContent")) => false,
        Some((_, "streamGenerateContent")) => true,
        _ => return unknown(request).await,
    };
    let model = path.rsplit_once(':').map_or("", |(model, _)| model).to_owned();
    ask(app, Dialect::Gemini, Some((model, is_stream)), request).await
}

/// Decides who would answer a chat request, without asking anybody.
async fn decision(State(app): State<Arc<App>>, request: Request) -> Response {
    let inbound = match take(&app, Dialect::Chat, None, request).await {
        Ok(inbound) => inbound,
        Err(response) => return response,
    };
    let Inbound { id, headers, body, peer, .. } = inbound;
    match exchange::Plan::decide_only(&app, Dialect::Chat, &headers, peer, &body) {
        Ok(decision) => match serde_json::to_value(&decision) {
            Ok(shown) => json(&shown),
            Err(error) => {
                let fault = Fault::new(FaultKind::Upstream, error.to_string());
                exchange::refused(&fault, Dialect::Chat, &id)
            }
        },
        Err(fault) => exchange::refused(&fault, Dialect::Chat, &id),
    }
}

/// Refuses a WebSocket at once, so that the client turns to plain requests.
async fn refuse_upgrade(request: Request) -> Response {
    if request.headers().contains_key(header::UPGRADE) {
        let message = "WebSockets are not spoken here; send POST requests";
        let fault = Fault::new(FaultKind::InvalidRequest, message);
        let mut response = exchange::refused(&fault, Dialect::Responses, "");
        *response.status_mut() = StatusCode::UPGRADE_REQUIRED;
        return response;
    }
    wrong_method(request).await
}

async fn hello() -> Response {
    (StatusCode::OK, Json(serde_json::json!({"name": "lodestar", "status": "ok"}))).into_response()
}

async fn healthz(State(app): State<Arc<App>>) -> Response {
    if app.is_draining() {
        let body = Json(serde_json::json!({"status": "stopping"}));
        return (StatusCode::SERVICE_UNAVAILABLE, body).into_response();
    }
    (StatusCode::OK, Json(serde_json::json!({"status": "ok"}))).into_response()
}

async fn unknown(request: Request) -> Response {
    let path = request.uri().path();
    let hint = if path.starts_with("/v1/v1/") || path.contains("/v1/chat/completions/") {
        "; the base URL of the client has its path twice"
    } else {
        "; the endpoints are in the README of the module"
    };
    let fault = Fault::new(FaultKind::InvalidRequest, format!("there is no such path{hint}"));
    let mut response = exchange::refused(&fault, dialect_of(path), "");
    *response.status_mut() = StatusCode::NOT_FOUND;
    response
}

async fn wrong_method(request: Request) -> Response {
    let allowed = if *request.method() == Method::GET { "POST" } else { "GET" };
    let message = format!("this path takes {allowed} only");
    let fault = Fault::new(FaultKind::InvalidRequest, message);
    let mut response = exchange::refused(&fault, dialect_of(request.uri().path()), "");
    *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allowed));
    response
}

/// Returns the dialect of a path, for an error on it.
fn dialect_of(path: &str) -> Dialect {
    if path.starts_with("/api/") {
        Dialect::OllamaChat
    } else if path.starts_with("/v1/messages") {
        Dialect::Messages
    } else if path.starts_with("/v1beta/") {
        Dialect::Gemini
    } else {
        Dialect::Chat
    }
}

fn refusal(refused: Refused) -> Response {
    let hint = match refused {
        Refused::HostNotAllowed => "; or add the name to router.allowed_hosts",
        Refused::OriginNotAllowed => "; add its origin to router.allowed_origins if it should",
        _ => "",
    };
    let fault = Fault::new(FaultKind::Permission, format!("{refused}{hint}"));
    let mut response = exchange::refused(&fault, Dialect::Chat, "");
    *response.status_mut() = refused.status();
    response
}

/// Returns an answer in JSON.
fn json(body: &serde_json::Value) -> Response {
    let mut response = Response::new(Body::from(body.to_string()));
    let kind = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

/// Returns why a provider's models are not known.
pub(crate) fn trouble(state: &crate::target::ProviderState) -> Option<String> {
    state.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
}
