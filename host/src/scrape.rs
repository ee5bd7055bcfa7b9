//! `GET /metrics` for Prometheus.

use std::{net::TcpListener, sync::Arc};

use axum::{
    Router,
    extract::{Request, State},
    http::{StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse as _, Response},
    routing::get,
};

use crate::{
    listeners::ListenerKey,
    supervisor::{Daemon, OWN},
};

/// The text format of Prometheus.
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Serves the metrics, where the configuration asks for it. An address that cannot be had is a
/// warning: the daemon runs without.
pub fn start(daemon: &Arc<Daemon>) {
    let config = daemon.config();
    if !config.metrics.enabled {
        return;
    }
    let key = ListenerKey::new(OWN, "metrics");
    let socket = daemon.context.listeners.get(&key, &config.metrics.listen);
    let socket = socket.map_err(|error| error.to_string()).and_then(|socket| {
        into_tokio(socket).map_err(|error| error.to_string())
    });
    match socket {
        Ok(socket) => {
            let router = Router::new()
                .route("/metrics", get(metrics))
                .layer(middleware::from_fn(check_host))
                .with_state(daemon.clone());
            tokio::spawn(async move {
                if let Err(error) = axum::serve(socket, router).await {
                    tracing::error!(%error, "the metrics endpoint ended");
                }
            });
        }
        Err(reason) => {
            tracing::warn!(reason, "there is no metrics endpoint (metrics.listen)");
            daemon.set_metrics_error(reason);
        }
    }
}

fn into_tokio(socket: TcpListener) -> std::io::Result<tokio::net::TcpListener> {
    socket.set_nonblocking(true)?;
    tokio::net::TcpListener::from_std(socket)
}

async fn metrics(State(daemon): State<Arc<Daemon>>) -> Response {
    let text = daemon.context.metrics.encode(daemon.own_metrics());
    ([(header::CONTENT_TYPE, TEXT)], text).into_response()
}

/// A web page must not reach the endpoint through a name that it lets point here: the host must be
/// an address or `localhost`, and no page of another origin may ask.
async fn check_host(request: Request, next: Next) -> Response {
    let headers = request.headers();
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let host = text(header::HOST).unwrap_or_default();
    if text(header::ORIGIN).is_some() || !is_address(host) {
        let message = "ask by address or as localhost, and not from a web page\n";
        return (StatusCode::FORBIDDEN, message).into_response();
    }
    next.run(request).await
}

fn is_address(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.parse::<u16>().is_ok() => name,
        _ => host,
    };
    let name = name.trim_start_matches('[').trim_end_matches(']');
    name == "localhost" || name.parse::<std::net::IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_addresses_from_names() {
        let check = |host: &str, expected| assert_eq!(is_address(host), expected, "{host}");
        check("127.0.0.1:9464", true);
        check("[::1]:9464", true);
        check("localhost", true);
        check("10.0.0.5", true);
        check("evil.example:9464", false);
        check("", false);
    }
}
