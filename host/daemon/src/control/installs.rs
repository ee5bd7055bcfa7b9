//! `/v1/modules/install`, `/v1/modules/{name}/remove`, `/v1/verify`.

use std::sync::Arc;

use axum::{
    Json,
    body::Bytes,
    extract::{Query, State},
};
use lodestar_api::{
    InstallQuery, Installed, Operation, RemoveQuery, Verified, VerifyQuery, WaitQuery,
};
use lodestar_library::install::Bundle;

use super::{modules::ask, name::ModuleName};
use crate::{
    refusal::Refusal,
    request::{Actor, Request},
    supervisor::{self, Daemon, Put, change},
};

/// Installs the package in the body, which the client has opened: the daemon opens no path that it
/// named. An installation that was begun is ended, also when the client goes away.
pub(super) async fn install(
    State(daemon): State<Arc<Daemon>>,
    actor: Actor,
    Query(query): Query<InstallQuery>,
    body: Bytes,
) -> Result<Json<Installed>, Refusal> {
    let installed = tokio::spawn(put_and_activate(daemon, actor, query, body)).await;
    installed.map_err(|error| Refusal::failed(error.to_string()))?.map(Json)
}

async fn put_and_activate(
    daemon: Arc<Daemon>,
    actor: Actor,
    query: InstallQuery,
    body: Bytes,
) -> Result<Installed, Refusal> {
    let installing = daemon.clone();
    let put = tokio::task::spawn_blocking(move || {
        let bundle = Bundle::from_archive(&body[..])?;
        drop(body);
        supervisor::install(&installing, &bundle, &query)
    });
    let Put { install_lock, name, locked, declares, previous, directory, notes, warnings } =
        put.await.map_err(|error| Refusal::failed(error.to_string()))??;
    let request = Request::Activate { install_lock, notes, previous: previous.clone() };
    let Json(operation) = ask(&daemon, request, actor, WaitQuery::default()).await?;
    Ok(Installed {
        change: change(previous.as_deref(), &locked.version).to_owned(),
        isolation: supervisor::placed_once_installed(&daemon, &name, &locked.sha256)
            .isolation
            .as_str()
            .to_owned(),
        name,
        version: locked.version,
        previous_version: previous,
        sha256: locked.sha256,
        signer: locked.signer,
        declares,
        directory,
        notes: warnings,
        operation,
    })
}

pub(super) async fn remove(
    State(daemon): State<Arc<Daemon>>,
    ModuleName(module): ModuleName,
    actor: Actor,
    Query(query): Query<RemoveQuery>,
) -> Result<Json<Operation>, Refusal> {
    let RemoveQuery { purge, yes, wait_ms } = query;
    ask(&daemon, Request::Remove { module, purge, yes }, actor, WaitQuery { wait_ms }).await
}

pub(super) async fn verify(
    State(daemon): State<Arc<Daemon>>,
    Query(query): Query<VerifyQuery>,
) -> Result<Json<Vec<Verified>>, Refusal> {
    let verified =
        tokio::task::spawn_blocking(move || supervisor::verify(&daemon, query.module.as_deref()));
    let verified = verified.await.map_err(|error| Refusal::failed(error.to_string()))?;
    Ok(Json(verified?))
}
