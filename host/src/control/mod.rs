//! The control API: HTTP/1.1 with JSON on a Unix socket.

pub mod api;
mod commands;
mod events;
mod modules;
mod peer;
mod problem;
mod socket;
mod tcp;

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::State,
    middleware,
    routing::{get, post},
};
use tokio::net::UnixListener;

pub use peer::{Peer, is_allowed};
pub use problem::Refusal;
pub use socket::{SocketError, bind};
pub use tcp::start as start_tcp;

use crate::supervisor::Daemon;
use api::{ConfigCheck, Healthz, Status};

/// Answers on the socket until the daemon ends.
///
/// # Errors
///
/// When the socket fails.
pub async fn serve(listener: UnixListener, daemon: Arc<Daemon>) -> std::io::Result<()> {
    let named = daemon.config().control.group.as_deref().and_then(socket::group_number);
    let group = named.unwrap_or_else(|| rustix::process::getegid().as_raw());
    let router = routes(daemon).layer(middleware::from_fn_with_state(group, peer::check));
    let service = router.into_make_service_with_connect_info::<Peer>();
    axum::serve(listener, service).await
}

fn routes(daemon: Arc<Daemon>) -> Router {
    Router::new()
        .route("/v1/healthz", get(healthz))
        .route("/v1/status", get(status))
        .route("/v1/modules", get(modules::list))
        .route("/v1/modules/{name}", get(modules::info))
        .route("/v1/modules/{name}/enable", post(modules::enable))
        .route("/v1/modules/{name}/disable", post(modules::disable))
        .route("/v1/modules/{name}/reload", post(modules::reload))
        .route("/v1/modules/{name}/rollback", post(modules::rollback))
        .route("/v1/modules/{name}/why", get(modules::why))
        .route("/v1/modules/{name}/logs", get(modules::logs))
        .route("/v1/modules/{name}/commands/{command}", post(commands::run))
        .route("/v1/operations/{id}", get(modules::operation))
        .route("/v1/nouns", get(commands::nouns))
        .route("/v1/config", get(config))
        .route("/v1/config/diff", get(diff))
        .route("/v1/config/check", post(check))
        .route("/v1/config/reload", post(modules::reload_config))
        .route("/v1/events/tail", get(events::tail))
        .route("/v1/events/lag", get(events::lag))
        .route("/v1/events/dead", get(events::dead))
        .route("/v1/events/replay", post(events::replay))
        .route("/v1/events/audit", get(events::audit))
        .fallback(async || Refusal::not_found("there is no such path in the control API"))
        .method_not_allowed_fallback(async || {
            Refusal::invalid("this path of the control API takes another method")
        })
        .with_state(daemon)
}

async fn healthz() -> Json<Healthz> {
    Json(Healthz { status: "ok".to_owned() })
}

async fn status(State(daemon): State<Arc<Daemon>>) -> Json<Status> {
    daemon.refresh_health().await;
    Json(daemon.status())
}

async fn config(State(daemon): State<Arc<Daemon>>) -> Result<Json<api::ConfigView>, Refusal> {
    Ok(Json(daemon.config_view()))
}

async fn diff(State(daemon): State<Arc<Daemon>>) -> Result<Json<Vec<api::Change>>, Refusal> {
    daemon.config_diff().map(Json).map_err(|errors| Refusal::invalid(errors.to_string()))
}

async fn check(
    State(daemon): State<Arc<Daemon>>,
    Json(check): Json<ConfigCheck>,
) -> Result<Json<api::ConfigReport>, Refusal> {
    let report = tokio::task::spawn_blocking(move || daemon.check_config(check.text.as_deref()));
    report.await.map(Json).map_err(|error| Refusal::failed(error.to_string()))
}
