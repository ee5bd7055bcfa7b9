//! The listener for gRPC, which may be off, and whose port may be somebody else's: HTTP goes on.

use std::sync::Arc;

use axum::Router;
use module_http::{ConnectionMetrics, Server, Tcp};
use module_sdk::{Host, Result};

use super::limits;
use crate::app::App;

/// Calls at once on one connection. Exporters have one for each signal.
const CALLS: u32 = 32;

/// The listener for gRPC.
#[derive(Debug)]
pub(crate) struct GrpcListener {
    state: State,
    connections: ConnectionMetrics,
}

#[derive(Debug)]
enum State {
    Off,
    On(Server),
    /// The port cannot be had, and why.
    Waiting(String),
}

impl GrpcListener {
    /// Starts to listen, where the configuration wants that.
    pub(crate) fn start(app: &Arc<App>, router: Router) -> Self {
        let state = if app.config.grpc.enabled { open(app, router) } else { State::Off };
        if let State::Waiting(why) = &state {
            tracing::warn!(error = %why, "OTLP over gRPC is not received");
        }
        Self { state, connections: ConnectionMetrics::new("lodestar_ingest_grpc") }
    }

    /// Tries once more to have the port, where it could not be had.
    pub(crate) fn retry(&mut self, app: &Arc<App>, router: impl FnOnce() -> Router) {
        if matches!(self.state, State::Waiting(_)) {
            self.state = open(app, router());
        }
    }

    /// Returns the server, if it listens.
    pub(crate) fn server(&self) -> Option<&Server> {
        match &self.state {
            State::On(server) => Some(server),
            State::Off | State::Waiting(_) => None,
        }
    }

    /// Returns what keeps calls out, a sentence without its end.
    pub(crate) fn trouble(&self) -> Option<String> {
        match &self.state {
            State::Off => None,
            State::On(server) => server.figures().trouble(),
            State::Waiting(why) => Some(format!(
                "OTLP over gRPC is not received: {why} (ingest.grpc.listen), or set \
                 ingest.grpc.enabled to false"
            )),
        }
    }

    /// Adds its connections to the metrics.
    pub(crate) fn show(&self, host: &Host) -> Result<()> {
        self.server().map_or(Ok(()), |server| self.connections.show(host, &server.figures()))
    }
}

fn open(app: &Arc<App>, router: Router) -> State {
    serve(app, router).map_or_else(|error| State::Waiting(error.to_string()), State::On)
}

/// Speaks HTTP/1.1 as well: a tool that has the right port for another protocol is served too.
fn serve(app: &Arc<App>, router: Router) -> Result<Server> {
    let runtime = app.host.runtime()?;
    let socket = app.host.listener("grpc")?;
    let listener = {
        let _context = runtime.enter();
        Tcp::new(socket)?
    };
    let limits = limits(&app.config);
    Ok(Server::start_with_http2(&runtime, listener, router, limits, CALLS))
}
