//! Answers `GET /spend` with what the models cost since it started: a module that serves HTTP.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use module_http::{
    Guard, Limits, Problem, Server,
    axum::{Json, Router, extract::State, response::IntoResponse as _, routing::get},
    guarded, method_not_allowed, not_found, serve,
};
use module_sdk::{
    Event, Health, Host, Module, NoArgs, Reply, Result, Wiring, events::LlmRequestCompleted,
};

/// Its section of `modules.yaml`; the default stands in `config.yaml`.
#[derive(serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
struct Config {
    /// Where it listens, read by the daemon.
    #[serde(rename = "listen")]
    _listen: Option<String>,
}

/// What the models cost. Money is a whole number of nano-USD.
#[derive(Clone, Copy, Default, serde::Serialize)]
struct Spend {
    requests: u64,
    unpriced_requests: u64,
    cost_nano_usd: i64,
}

type Shared = Arc<Mutex<Spend>>;

struct SpendPage {
    spend: Shared,
    server: Server,
}

impl Module for SpendPage {
    type Config = Config;

    fn start(_: Config, host: &Host) -> Result<Self> {
        let spend = Shared::default();
        let router = Router::new()
            .route("/spend", get(answer))
            .fallback(not_found)
            .method_not_allowed_fallback(method_not_allowed)
            .with_state(spend.clone());
        let refuse = |refused| Problem::from(refused).into_response();
        let router = guarded(router, Guard::default(), refuse);
        Ok(Self { spend, server: serve(host, "http", router, Limits::default())? })
    }

    fn wire(wiring: &mut Wiring<Self>) {
        wiring.on(Self::request_completed).command("status", Self::status);
    }

    fn health(&self) -> Health {
        self.server.figures().trouble().map_or_else(|| Health::ok(""), Health::degraded)
    }

    fn stop(&mut self, grace: Duration) -> Result<()> {
        self.server.stop(grace);
        Ok(())
    }
}

impl SpendPage {
    fn request_completed(&mut self, event: &Event<'_, LlmRequestCompleted>) -> Result<()> {
        let mut spend = self.spend.lock().unwrap_or_else(PoisonError::into_inner);
        spend.requests += 1;
        match event.data.cost_nano_usd {
            Some(cost) => spend.cost_nano_usd = spend.cost_nano_usd.saturating_add(cost),
            None => spend.unpriced_requests += 1,
        }
        Ok(())
    }

    fn status(&mut self, _: NoArgs) -> Result<Reply> {
        Reply::json(&now(&self.spend))
    }
}

async fn answer(State(spend): State<Shared>) -> Json<Spend> {
    Json(now(&spend))
}

fn now(spend: &Shared) -> Spend {
    *spend.lock().unwrap_or_else(PoisonError::into_inner)
}

module_sdk::export!(SpendPage);

#[cfg(test)]
mod tests;
