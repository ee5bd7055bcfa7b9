//! Answers `GET /spend` with what the models have cost since it was installed, and what
//! `usage_tracker` says of the last seven days: a module that serves HTTP, keeps a table and asks
//! another module.

use std::{path::PathBuf, time::Duration};

use module_http::{
    Guard, Limits, Problem, Server,
    axum::{
        Json, Router,
        extract::State,
        http::StatusCode,
        response::{IntoResponse as _, Response},
        routing::get,
    },
    guarded, method_not_allowed, not_found, serve,
};
use module_sdk::{
    Event, Health, HealthStatus, Host, Module, NoArgs, Reply, Result, Wiring,
    events::LlmRequestCompleted,
};
use module_sqlite::{
    Database, DatabaseError, Reader, Spec,
    rusqlite::{self, Connection},
};
use serde_json::{Value, json};

const SPEND: Spec = Spec::new(
    "database of spend",
    "spend.db",
    *b"SPND",
    &[include_str!("../migrations/0001_requests.sql")],
);

/// Its section of `modules.yaml`; the default stands in `config.yaml`.
#[derive(serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
struct Config {
    /// Address that it listens on, read by the daemon.
    #[serde(rename = "listen")]
    _listen: Option<String>,
}

/// Cost of the models' requests. Money is a whole number of nano-USD.
#[derive(serde::Serialize)]
struct Spend {
    requests: i64,
    unpriced_requests: i64,
    cost_nano_usd: i64,
}

/// State that the handler of a request needs.
#[derive(Clone)]
struct Page {
    host: Host,
    database: PathBuf,
}

struct SpendPage {
    database: Database,
    server: Server,
}

impl Module for SpendPage {
    type Config = Config;

    fn start(_: Config, host: &Host) -> Result<Self> {
        let database = Database::open(host, SPEND)?;
        let page = Page { host: host.clone(), database: database.path().to_owned() };
        let router = Router::new()
            .route("/spend", get(answer))
            .fallback(not_found)
            .method_not_allowed_fallback(method_not_allowed)
            .with_state(page);
        let refuse = |refused| Problem::from(refused).into_response();
        let router = guarded(router, Guard::default(), refuse);
        Ok(Self { database, server: serve(host, "http", router, Limits::default())? })
    }

    fn wire(wiring: &mut Wiring<Self>) {
        wiring.on(Self::request_completed).command("status", Self::status);
    }

    fn health(&self) -> Health {
        let database = self.database.health();
        match self.server.figures().trouble() {
            Some(trouble) if database.status == HealthStatus::Ok => Health::degraded(trouble),
            _ => database,
        }
    }

    fn stop(&mut self, grace: Duration) -> Result<()> {
        self.server.stop(grace);
        Ok(self.database.close()?)
    }
}

impl SpendPage {
    fn request_completed(&mut self, event: &Event<'_, LlmRequestCompleted>) -> Result<()> {
        let row = (event.id.as_bytes(), event.data.cost_nano_usd);
        let sql = "INSERT OR IGNORE INTO request VALUES (?1, ?2)";
        self.database.write(|transaction| transaction.prepare_cached(sql)?.execute(row))?;
        Ok(())
    }

    fn status(&mut self, _: NoArgs) -> Result<Reply> {
        Reply::json(&self.database.read(spend)?)
    }
}

fn spend(connection: &Connection) -> rusqlite::Result<Spend> {
    let sql = "SELECT count(*), count(*) - count(cost_nano_usd), \
               coalesce(sum(cost_nano_usd), 0) FROM request";
    connection.prepare_cached(sql)?.query_row([], |row| {
        let (requests, unpriced_requests) = (row.get(0)?, row.get(1)?);
        Ok(Spend { requests, unpriced_requests, cost_nano_usd: row.get(2)? })
    })
}

async fn answer(State(page): State<Page>) -> Response {
    let week = page.host.call::<_, Value>("usage_tracker", "summary", &json!({"since": "7d"}));
    // Without the tracker the page shows what it knows itself.
    let week = week.await.map(|summary| summary["total"]["cost_usd"].clone());
    // Opened for each answer: another file may be in its place.
    match Reader::open(&page.database, &SPEND).and_then(|reader| reader.read(spend)) {
        Ok(spend) => Json(json!({"all": spend, "week_cost_usd": week.ok()})).into_response(),
        Err(error) => unavailable(&error).into_response(),
    }
}

fn unavailable(error: &DatabaseError) -> Problem {
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", error.to_string())
}

module_sdk::export!(SpendPage);

#[cfg(test)]
mod tests;
