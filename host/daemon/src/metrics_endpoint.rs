//! `GET /metrics` for Prometheus.

use std::sync::Arc;

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse as _, Response},
    routing::get,
};
use lodestar_platform::listeners::ListenerKey;
use module_http::{Hosts, Server, Tcp};
use tokio::runtime::Handle;

use crate::{
    http_guard::{METRICS, guarded},
    supervisor::{self, Daemon, OWN},
};

/// Content type of Prometheus' text format.
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Serves the metrics, if they are enabled. An address that cannot be bound is only a warning: the
/// daemon runs without them.
pub fn start(daemon: &Arc<Daemon>) {
    let config = daemon.config();
    if !config.metrics.enabled {
        return;
    }
    let key = ListenerKey::new(OWN, "metrics");
    let socket = daemon.context.listeners.get(&key, &config.metrics.listen);
    let socket = socket
        .map_err(|error| error.to_string())
        .and_then(|socket| Tcp::new(socket).map_err(|error| error.to_string()));
    match socket {
        Ok(socket) => {
            let router = Router::new().route("/metrics", get(metrics)).with_state(daemon.clone());
            let router = guarded(router, Hosts::Addresses);
            let server = Server::start(&Handle::current(), socket, router, METRICS);
            daemon.servers.note("metrics", &server);
        }
        Err(reason) => {
            tracing::warn!(reason, "there is no metrics endpoint (metrics.listen)");
            daemon.set_metrics_error(reason);
        }
    }
}

async fn metrics(State(daemon): State<Arc<Daemon>>) -> Response {
    // The counters are looked up on disk.
    let encode = move || daemon.context.metrics.encode(supervisor::own_metrics(&daemon));
    match tokio::task::spawn_blocking(encode).await {
        Ok(text) => ([(header::CONTENT_TYPE, TEXT)], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "the metrics could not be gathered");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}
