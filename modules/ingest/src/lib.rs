//! Receives what AI tools report and turns it into Lodestar's events.
//!
//! Tools send OTLP over HTTP or gRPC, Lynex events, or LiteLLM's logs. A body is read within its
//! limits (`server`), decoded and walked record by record (`otlp`, `lynex`, `litellm`); one mapper
//! per tool turns a record of one whole request into a report, through an allow-list that lets no
//! text pass (`sources`); reports of one request get one key (`correlate`); and the sender gets its
//! answer when the ledger has the events (`app`). What makes no request is counted and shown
//! (`stats`).

mod app;
mod config;
mod correlate;
mod json_text;
mod litellm;
mod lynex;
mod misdirected;
mod otlp;
mod preface;
mod report;
mod server;
mod sources;
mod stats;

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    http::StatusCode,
    response::{IntoResponse as _, Response},
    routing::{get, post},
};
use module_http::{ConnectionMetrics, Server};
use module_sdk::{Health, HealthStatus, Host, Module, Reply, Result, Wiring};
use schemars::JsonSchema;
use serde::Deserialize;

use app::App;
pub use config::{ApiKey, Config, Grpc, Project, RateLimit};
use otlp::grpc;
use server::GrpcListener;

module_sdk::export!(Ingest);

/// The module.
#[derive(Debug)]
pub struct Ingest {
    app: Arc<App>,
    server: Server,
    connections: ConnectionMetrics,
    grpc: GrpcListener,
}

impl Module for Ingest {
    type Config = Config;

    fn check(config: &Config) -> Result<()> {
        config.check()
    }

    fn start(config: Config, host: &Host) -> Result<Self> {
        let app = Arc::new(App::new(config, host)?);
        let listener = host.listener("http")?;
        let server = server::start(&app, listener, router(&app))?;
        let grpc = GrpcListener::start(&app, router(&app));
        Ok(Self { app, server, connections: ConnectionMetrics::new("lodestar_ingest"), grpc })
    }

    fn wire(wiring: &mut Wiring<Self>) {
        wiring
            .every(Duration::from_secs(60), Self::tidy)
            .every(Duration::from_secs(10), Self::show_connections)
            .command("sources", Self::sources);
    }

    fn health(&self) -> Health {
        let health = self.app.health();
        match self.server.figures().trouble().or_else(|| self.grpc.trouble()) {
            Some(trouble) if health.status == HealthStatus::Ok => Health::degraded(trouble),
            _ => health,
        }
    }

    fn stop(&mut self, grace: Duration) -> Result<()> {
        self.app.drain();
        let servers: Vec<&Server> =
            std::iter::once(&self.server).chain(self.grpc.server()).collect();
        let cut_off = Server::stop_all(&servers, grace);
        if cut_off > 0 {
            tracing::warn!(connections = cut_off, "connections were cut off at the stop");
        }
        Ok(())
    }
}

/// Lists the received records by source, with their outcomes.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct SourcesArgs {
    /// Show only this outcome: request, event, ignored, repeats, unknown or refused.
    #[serde(default)]
    outcome: Option<Outcome>,
    /// List every kind of record that makes no request, not their sums.
    #[serde(default)]
    all: bool,
}

/// The outcome of a record.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Outcome {
    Request,
    Event,
    Ignored,
    Repeats,
    Unknown,
    Refused,
}

impl Ingest {
    fn sources(&mut self, args: SourcesArgs) -> Result<Reply> {
        let outcome = args.outcome.map(|outcome| match outcome {
            Outcome::Request => "request",
            Outcome::Event => "event",
            Outcome::Ignored => "ignored",
            Outcome::Repeats => "repeats",
            Outcome::Unknown => "unknown",
            Outcome::Refused => "refused",
        });
        self.app.stats.reply(outcome, args.all)
    }

    fn tidy(&mut self) -> Result<()> {
        self.app.tidy();
        self.grpc.retry(&self.app, || router(&self.app));
        Ok(())
    }

    fn show_connections(&mut self) -> Result<()> {
        self.connections.show(&self.app.host, &self.server.figures())?;
        self.grpc.show(&self.app.host)
    }
}

fn router(app: &Arc<App>) -> Router {
    let router = Router::new()
        .route("/v1/logs", post(otlp::logs))
        .route("/v1/traces", post(otlp::traces))
        .route("/v1/metrics", post(otlp::metrics))
        .route("/api/v1/event", post(lynex::events))
        .route("/api/v1/events", post(lynex::events))
        .route("/api/v1/events/batch", post(lynex::batch))
        .route("/api/v1/litellm", post(litellm::logs))
        .route("/generic_api", post(litellm::logs))
        .route(grpc::LOGS, post(grpc::logs))
        .route(grpc::TRACES, post(grpc::traces))
        .route(grpc::METRICS, post(grpc::metrics))
        .route(grpc::HEALTH, post(grpc::health))
        .route("/healthz", get(healthz))
        .fallback(misdirected::answer)
        .method_not_allowed_fallback(server::answer_wrong_method)
        .with_state(app.clone());
    server::guarded_and_counted(router, app)
}

async fn healthz(axum::extract::State(app): axum::extract::State<Arc<App>>) -> Response {
    if app.is_accepting() {
        (StatusCode::OK, axum::Json(serde_json::json!({"status": "ok"}))).into_response()
    } else {
        server::json_error(
            StatusCode::SERVICE_UNAVAILABLE,
            "unavailable",
            "events are not accepted at the moment",
        )
    }
}
