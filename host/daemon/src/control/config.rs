//! `/v1/config`: what runs, and what the file says.

use std::sync::Arc;

use axum::{Json, extract::State};
use lodestar_api::{Change, ConfigCheck, ConfigReport, ConfigView, Setting};

use super::{blocking, modules::unknown, name::ModuleName};
use crate::{
    refusal::Refusal,
    supervisor::{self, Daemon},
};

pub(super) async fn show(State(daemon): State<Arc<Daemon>>) -> Result<Json<ConfigView>, Refusal> {
    blocking(&daemon, supervisor::config_view).await.map(Json)
}

pub(super) async fn diff(State(daemon): State<Arc<Daemon>>) -> Result<Json<Vec<Change>>, Refusal> {
    let changes = blocking(&daemon, supervisor::config_diff).await?;
    changes.map(Json).map_err(|errors| Refusal::invalid(errors.to_string()))
}

pub(super) async fn check(
    State(daemon): State<Arc<Daemon>>,
    Json(check): Json<ConfigCheck>,
) -> Result<Json<ConfigReport>, Refusal> {
    let check = move |daemon: &Daemon| supervisor::check_config(daemon, &check);
    blocking(&daemon, check).await.map(Json)
}

pub(super) async fn settings(
    State(daemon): State<Arc<Daemon>>,
    ModuleName(name): ModuleName,
) -> Result<Json<Vec<Setting>>, Refusal> {
    let answer = blocking(&daemon, move |daemon| settings_of(daemon, &name)).await?;
    answer.map(Json)
}

/// Returns the settings of a module that the configuration names, as they count now.
fn settings_of(daemon: &Daemon, name: &str) -> Result<Vec<Setting>, Refusal> {
    let config = daemon.config();
    let section = config.module(name).ok_or_else(|| unknown(daemon, name))?;
    let package = supervisor::package_of(daemon, section);
    let schema = package.as_ref().and_then(|package| supervisor::config_schema(daemon, package));
    let defaults = package.map_or(Ok(None), |package| package.defaults());
    let defaults = defaults.map_err(|error| Refusal::failed(error.to_string()))?;
    let origins = config.origins(name, &schema.unwrap_or_default(), defaults.as_deref());
    let origins = origins.map_err(|errors| Refusal::failed(errors.to_string()))?;
    let setting = |(key, (value, origin))| Setting { key, value, origin };
    Ok(origins.into_iter().map(setting).collect())
}
