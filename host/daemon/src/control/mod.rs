//! The control API: HTTP/1.1 with JSON on a Unix socket.

mod actor;
mod commands;
mod config;
mod events;
mod files;
mod installs;
mod module_requests;
mod modules;
mod name;
mod peer;
mod socket;
mod tcp;

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, State},
    middleware,
    routing::{get, post},
};
use module_http::{Hosts, Server};
use tokio::{net::UnixListener, runtime::Handle};

pub use module_requests::serve_modules;
pub use peer::{Peer, is_allowed};
pub use socket::{SocketError, bind};
pub use tcp::start as start_tcp;

use lodestar_api::{Healthz, Status};

use crate::{
    http_guard::{CONTROL_SOCKET, guarded},
    refusal::Refusal,
    supervisor::{self, Daemon},
};

/// Answers on the socket until the daemon ends.
pub fn serve(listener: UnixListener, daemon: &Arc<Daemon>) {
    let named = daemon
        .config()
        .control
        .group
        .as_deref()
        .and_then(lodestar_platform::accounts::group_number);
    let group = named.unwrap_or_else(|| rustix::process::getegid().as_raw());
    let router = routes(daemon.clone()).layer(middleware::from_fn_with_state(group, peer::check));
    // No browser reaches it, and clients name whatever host they like.
    let router = guarded(router, Hosts::Any);
    let listener = socket::Control(listener);
    let server = Server::start(&Handle::current(), listener, router, CONTROL_SOCKET);
    daemon.servers.note("socket", &server);
}

fn routes(daemon: Arc<Daemon>) -> Router {
    Router::new()
        .route("/v1/healthz", get(healthz))
        .route("/v1/status", get(status))
        .route("/v1/modules", get(modules::list))
        .route("/v1/modules/install", post(installs::install).layer(package_limit()))
        .route("/v1/modules/{name}", get(modules::info))
        .route("/v1/modules/{name}/remove", post(installs::remove))
        .route("/v1/modules/{name}/enable", post(modules::enable))
        .route("/v1/modules/{name}/disable", post(modules::disable))
        .route("/v1/modules/{name}/reload", post(modules::reload))
        .route("/v1/modules/{name}/rollback", post(modules::rollback))
        .route("/v1/modules/{name}/why", get(modules::why))
        .route("/v1/modules/{name}/logs", get(modules::logs))
        .route("/v1/modules/{name}/commands/{command}", post(commands::run))
        .route("/v1/modules/{name}/commands/{command}/files", post(commands::run_with_files))
        .route("/v1/verify", get(installs::verify))
        .route("/v1/operations/{id}", get(modules::operation))
        .route("/v1/module-commands", get(commands::module_commands))
        .route("/v1/config", get(config::show))
        .route("/v1/config/modules/{name}", get(config::settings))
        .route("/v1/config/diff", get(config::diff))
        .route("/v1/config/check", post(config::check))
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

/// Returns the limit for a package, which may be as large as it may be unpacked; every other body
/// has axum's limit of 2 MiB.
fn package_limit() -> DefaultBodyLimit {
    DefaultBodyLimit::max(
        usize::try_from(lodestar_library::install::MAX_BUNDLE).unwrap_or(usize::MAX),
    )
}

async fn healthz() -> Json<Healthz> {
    Json(Healthz { status: "ok".to_owned() })
}

async fn status(State(daemon): State<Arc<Daemon>>) -> Result<Json<Status>, Refusal> {
    daemon.refresh_health().await;
    blocking(&daemon, supervisor::status).await.map(Json)
}

/// Runs work that reads the disk away from the runtime's few threads, which the module's listeners
/// and every other client need.
async fn blocking<T: Send + 'static>(
    daemon: &Arc<Daemon>,
    work: impl FnOnce(&Daemon) -> T + Send + 'static,
) -> Result<T, Refusal> {
    let daemon = Arc::clone(daemon);
    let done = tokio::task::spawn_blocking(move || work(&daemon)).await;
    done.map_err(|error| Refusal::failed(format!("the answer could not be made: {error}")))
}
