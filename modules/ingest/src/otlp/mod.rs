//! OTLP: `POST /v1/logs`, `/v1/traces` and `/v1/metrics` over HTTP, and the same over gRPC.

mod answer;
mod batch;
mod codec;
mod decoded_size;
pub(crate) mod grpc;
mod json;
mod json_decoded_size;
mod mend;
mod refused;
mod rewrite;
mod scalar;
mod schema;
mod walk;
mod wire;

use std::sync::Arc;

use axum::{body::Body, extract::State, http::HeaderMap, response::Response};
use opentelemetry_proto::tonic::collector::{
    logs::v1::ExportLogsServiceRequest, metrics::v1::ExportMetricsServiceRequest,
    trace::v1::ExportTraceServiceRequest,
};

use crate::{
    app::{App, Told},
    server::{Encoding, Share, read},
    sources::{Mapper, unnamed},
    stats::Kind,
};
use answer::{Failure, Signal};
use batch::Batch;
use walk::Walk;

/// Body size above which a body is decoded on a thread for blocking work, beside the other
/// requests, in bytes.
const LARGE: usize = 32 * 1024;

/// Body size above which the memory that a body took is returned to the system at once, in bytes.
const HUGE: usize = 1024 * 1024;

/// Handles `POST /v1/logs`.
pub(crate) async fn logs(State(app): State<Arc<App>>, headers: HeaderMap, body: Body) -> Response {
    export::<ExportLogsServiceRequest>(app, headers, body).await
}

/// Handles `POST /v1/traces`.
pub(crate) async fn traces(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    export::<ExportTraceServiceRequest>(app, headers, body).await
}

/// Handles `POST /v1/metrics`.
pub(crate) async fn metrics(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    export::<ExportMetricsServiceRequest>(app, headers, body).await
}

async fn export<S: Signal>(app: Arc<App>, headers: HeaderMap, body: Body) -> Response {
    let Some(encoding) = Encoding::of(&headers) else {
        return refuse::<S>(&app, &Failure::unknown_content_type(), Encoding::Json);
    };
    match receive::<S>(&app, encoding, &headers, body).await {
        Ok(batch) => answer::success::<S>(encoding, &batch),
        Err(failure) => refuse::<S>(&app, &failure, encoding),
    }
}

/// Answers for a body that cannot be read, and counts it.
fn refuse<S: Signal>(app: &App, failure: &Failure, encoding: Encoding) -> Response {
    count_refused::<S>(app, failure);
    failure.respond(encoding)
}

/// Counts a body that cannot be read; its sender is not known.
fn count_refused<S: Signal>(app: &App, failure: &Failure) {
    if let Some(reason) = failure.reason() {
        let (source, record) = (unnamed(), "(body)".to_owned());
        let kind = Kind { source, signal: S::NAME, record, outcome: "refused", reason };
        app.stats.records(Mapper::None.as_str(), kind, 1);
    }
}

async fn receive<S: Signal>(
    app: &Arc<App>,
    encoding: Encoding,
    headers: &HeaderMap,
    body: Body,
) -> Result<Batch, Failure> {
    let (bytes, mut share) = read(app, headers, body, codec::probe::<S>(encoding)).await?;
    let (large, huge) = (bytes.len() > LARGE, bytes.len() > HUGE);
    let project = app.keys.project_of(headers).or_else(|| app.stated_project(headers));
    let decoding = {
        let app = app.clone();
        move || -> Result<(Walk<S>, Share), Failure> {
            let decoded = codec::decode::<S>(encoding, bytes, &mut share)?;
            Ok((Walk::new(decoded, &app, project), share))
        }
    };
    let (walk, share) = beside(large, decoding).await??;
    let batch = publish(app, walk, large).await;
    // The share is held until the records are gone.
    drop(share);
    if huge {
        // The allocator would keep what one body took for the next one.
        beside(true, module_sdk::return_free_memory).await?;
    }
    batch
}

/// Maps, correlates and publishes the records, some at a time, so that each is freed once it is
/// published.
async fn publish<S: Signal>(
    app: &Arc<App>,
    mut walk: Walk<S>,
    large: bool,
) -> Result<Batch, Failure> {
    let links = walk.links();
    if !links.is_empty() {
        app.publish(Told { links, ..Told::default() }).await.map_err(|_| Failure::unavailable())?;
        let app = app.clone();
        walk = beside(true, move || walk.inner_first(&app)).await?;
    }
    loop {
        let mapping = {
            let app = app.clone();
            move || (walk.next(&app), walk)
        };
        let (mapped, rest) = beside(large, mapping).await?;
        walk = rest;
        let Some((reports, steps)) = mapped else { break };
        let joined = app.publish(Told { reports, steps, ..Told::default() }).await;
        walk.batch.note_joined(&joined.map_err(|_| Failure::unavailable())?);
    }
    walk.batch.count(&app.stats);
    Ok(walk.batch)
}

/// Runs `work` on a thread for blocking work where it is `large`, and else at once.
async fn beside<T: Send + 'static>(
    large: bool,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Failure> {
    if large {
        // It can only fail when the runtime ends.
        tokio::task::spawn_blocking(work).await.map_err(|_| Failure::unavailable())
    } else {
        Ok(work())
    }
}
