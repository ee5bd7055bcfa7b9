//! `/v1/modules`, `/v1/operations`, `/v1/config/reload`.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    Json,
    body::Body,
    extract::{Path, Query, State},
    http::header::CONTENT_TYPE,
    response::{IntoResponse, Response},
};
use futures_util::{StreamExt as _, stream};
use lodestar_api::{LogLine, LogsQuery, Module, ModuleInfo, NDJSON, Operation, WaitQuery, Why};
use tokio::sync::{broadcast::error::RecvError, oneshot};

use super::{blocking, name::ModuleName};
use crate::{
    logging::LogRecord,
    refusal::Refusal,
    request::{Actor, Request},
    supervisor::{self, Daemon},
    wake::Wake,
};

/// The longest wait that a client may ask for.
const MAX_WAIT: Duration = Duration::from_mins(1);

pub(super) async fn list(State(daemon): State<Arc<Daemon>>) -> Result<Json<Vec<Module>>, Refusal> {
    daemon.refresh_health().await;
    let status = blocking(&daemon, supervisor::status).await?;
    Ok(Json(status.modules))
}

pub(super) async fn info(
    State(daemon): State<Arc<Daemon>>,
    ModuleName(name): ModuleName,
) -> Result<Json<ModuleInfo>, Refusal> {
    daemon.refresh_health().await;
    find(&daemon, name).await.map(Json)
}

pub(super) async fn enable(
    State(daemon): State<Arc<Daemon>>,
    ModuleName(name): ModuleName,
    actor: Actor,
    Query(wait): Query<WaitQuery>,
) -> Result<Json<Operation>, Refusal> {
    ask(&daemon, Request::SetEnabled { module: name, enabled: true }, actor, wait).await
}

pub(super) async fn disable(
    State(daemon): State<Arc<Daemon>>,
    ModuleName(name): ModuleName,
    actor: Actor,
    Query(wait): Query<WaitQuery>,
) -> Result<Json<Operation>, Refusal> {
    ask(&daemon, Request::SetEnabled { module: name, enabled: false }, actor, wait).await
}

pub(super) async fn reload(
    State(daemon): State<Arc<Daemon>>,
    ModuleName(name): ModuleName,
    actor: Actor,
    Query(wait): Query<WaitQuery>,
) -> Result<Json<Operation>, Refusal> {
    ask(&daemon, Request::Reload { module: name }, actor, wait).await
}

pub(super) async fn rollback(
    State(daemon): State<Arc<Daemon>>,
    ModuleName(name): ModuleName,
    actor: Actor,
    Query(wait): Query<WaitQuery>,
) -> Result<Json<Operation>, Refusal> {
    ask(&daemon, Request::Rollback { module: name }, actor, wait).await
}

pub(super) async fn why(
    State(daemon): State<Arc<Daemon>>,
    ModuleName(name): ModuleName,
) -> Result<Json<Why>, Refusal> {
    let shown = daemon.clone();
    let asked = name.clone();
    let why = tokio::task::spawn_blocking(move || supervisor::why(&shown, &asked)).await;
    why.ok().flatten().map(Json).ok_or_else(|| unknown(&daemon, &name))
}

pub(super) async fn reload_config(
    State(daemon): State<Arc<Daemon>>,
    actor: Actor,
    Query(wait): Query<WaitQuery>,
) -> Result<Json<Operation>, Refusal> {
    ask(&daemon, Request::ReloadConfig, actor, wait).await
}

pub(super) async fn operation(
    State(daemon): State<Arc<Daemon>>,
    Path(id): Path<String>,
    Query(wait): Query<WaitQuery>,
) -> Result<Json<Operation>, Refusal> {
    let operation = daemon.operations.get(&id, patience(wait)).await;
    operation.map(Json).ok_or_else(|| {
        Refusal::not_found(format!("there is no operation {id:?} in this run of the daemon"))
    })
}

pub(super) async fn ask(
    daemon: &Daemon,
    request: Request,
    actor: Actor,
    wait: WaitQuery,
) -> Result<Json<Operation>, Refusal> {
    let (sender, receiver) = oneshot::channel();
    let ending = || Refusal::failed("the daemon is ending");
    daemon.wakes.send(Wake::Asked(request, actor, sender)).map_err(|_| ending())?;
    let operation = receiver.await.map_err(|_| ending())??;
    let operation = daemon.operations.get(&operation.id, patience(wait)).await;
    operation.map(Json).ok_or_else(ending)
}

fn patience(wait: WaitQuery) -> Duration {
    Duration::from_millis(wait.wait_ms).min(MAX_WAIT)
}

async fn find(daemon: &Arc<Daemon>, name: String) -> Result<ModuleInfo, Refusal> {
    let look = move |daemon: &Daemon| {
        supervisor::module_info(daemon, &name).ok_or_else(|| unknown(daemon, &name))
    };
    blocking(daemon, look).await?
}

pub(super) fn unknown(daemon: &Daemon, name: &str) -> Refusal {
    Refusal(supervisor::unknown_module(daemon, name))
}

pub(super) async fn logs(
    State(daemon): State<Arc<Daemon>>,
    ModuleName(name): ModuleName,
    Query(query): Query<LogsQuery>,
) -> Result<Response, Refusal> {
    let name = find(&daemon, name).await?.module.name;
    // First follow, then read: a line in between is seen twice rather than never.
    let follower = query.follow.then(|| daemon.logging.recorder.follow());
    let lines = usize::try_from(query.lines).unwrap_or(usize::MAX);
    let kept = daemon.logging.recorder.newest(&name, lines);
    let newest = kept.last().map(|record| record.time);
    let kept = stream::iter(kept.into_iter().map(line));
    let new = stream::unfold((follower, name), move |(follower, name)| async move {
        let mut follower = follower?;
        loop {
            match follower.recv().await {
                Ok(record) if record.module == name && Some(record.time) > newest => {
                    return Some((line(record), (Some(follower), name)));
                }
                Ok(_) | Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return None,
            }
        }
    });
    let body = Body::from_stream(kept.chain(new).map(Ok::<_, Infallible>));
    Ok(([(CONTENT_TYPE, NDJSON)], body).into_response())
}

fn line(record: LogRecord) -> String {
    let line = LogLine {
        time: format!("{:.3}", record.time),
        level: record.level.to_lowercase(),
        module: record.module,
        message: record.message,
        fields: record.fields,
    };
    ndjson(&line)
}

/// Formats a value as one line of a stream.
pub(super) fn ndjson(value: &impl serde::Serialize) -> String {
    let mut line = serde_json::to_string(value).unwrap_or_else(|_| "null".to_owned());
    line.push('\n');
    line
}
