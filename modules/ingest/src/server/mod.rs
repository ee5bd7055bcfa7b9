//! The listeners for HTTP and for gRPC, built on the server that all listeners share, with this
//! module's configuration.

mod encoding;
mod grpc_listener;
mod guard;

use std::{net::TcpListener, num::NonZeroU16, sync::Arc, time::Duration};

use axum::{Router, body::Body, http::HeaderMap};
use bytes::Bytes;
use module_http::{BodyLimits, Limits, Server, Tcp};
use module_sdk::Result;

pub(crate) use encoding::Encoding;
pub(crate) use grpc_listener::GrpcListener;
pub(crate) use guard::{answer_wrong_method, guarded_and_counted, json_error};
pub(crate) use module_http::{BodyError, Budget, Ends, Probe, Share};

use crate::{app::App, config::Config, preface::Prefaced};

/// Starts the server for HTTP.
pub(crate) fn start(app: &Arc<App>, listener: TcpListener, router: Router) -> Result<Server> {
    let runtime = app.host.runtime()?;
    let listener = {
        let _context = runtime.enter();
        Prefaced { tcp: Tcp::new(listener)?, app: app.clone() }
    };
    Ok(Server::start(&runtime, listener, router, limits(&app.config)))
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

/// Reads and inflates a body. The share must live as long as the bytes.
pub(crate) async fn read(
    app: &Arc<App>,
    headers: &HeaderMap,
    body: Body,
    probe: impl Probe,
) -> Result<(Bytes, Share), BodyError> {
    let limits = BodyLimits {
        max_bytes: app.config.max_body_bytes.get(),
        max_inflated_bytes: app.config.max_inflated_bytes.get(),
        timeout: app.body_timeout(),
    };
    module_http::read(&limits, &app.budget, headers, body, probe).await
}

fn seconds(number: NonZeroU16) -> Duration {
    Duration::from_secs(u64::from(number.get()))
}
