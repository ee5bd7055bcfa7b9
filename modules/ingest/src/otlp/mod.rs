//! OTLP/HTTP: `POST /v1/logs`, `/v1/traces` and `/v1/metrics`.

mod answer;
mod batch;
mod codec;
mod json;
mod json_weight;
mod mend;
mod refused;
mod rewrite;
mod scalar;
mod schema;
mod weight;
mod wire;

use std::sync::Arc;

use axum::{
    body::Body,
    extract::State,
    http::{HeaderMap, HeaderName},
    response::Response,
};
use opentelemetry_proto::tonic::collector::{
    logs::v1::ExportLogsServiceRequest, metrics::v1::ExportMetricsServiceRequest,
    trace::v1::ExportTraceServiceRequest,
};

use crate::{
    app::App,
    server::{Encoding, Share, read},
    sources::{Mapper, unnamed},
    tally::Kind,
};
use answer::{Failure, Signal};
use batch::Batch;

/// A sender's own word for its project.
static PROJECT_HEADER: HeaderName = HeaderName::from_static("x-lodestar-project");

/// From this size on a body is decoded beside the other requests, bytes.
const LARGE: usize = 32 * 1024;

/// `POST /v1/logs`
pub(crate) async fn logs(State(app): State<Arc<App>>, headers: HeaderMap, body: Body) -> Response {
    export::<ExportLogsServiceRequest>(app, headers, body).await
}

/// `POST /v1/traces`
pub(crate) async fn traces(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    export::<ExportTraceServiceRequest>(app, headers, body).await
}

/// `POST /v1/metrics`
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

/// Answers for a body that cannot be read, and counts it: who sent it is not known.
fn refuse<S: Signal>(app: &App, failure: &Failure, encoding: Encoding) -> Response {
    if let Some(reason) = failure.reason() {
        let (source, record) = (unnamed(), "(body)".to_owned());
        let kind = Kind { source, signal: S::NAME, record, outcome: "refused", reason };
        app.tally.records(Mapper::None.label(), kind, 1);
    }
    failure.respond(encoding)
}

async fn receive<S: Signal>(
    app: &Arc<App>,
    encoding: Encoding,
    headers: &HeaderMap,
    body: Body,
) -> Result<Batch, Failure> {
    let (bytes, mut share) = read(app, headers, body, codec::probe::<S>(encoding)).await?;
    let large = bytes.len() > LARGE;
    let project = project(app, headers);
    let decoding = {
        let app = app.clone();
        move || -> Result<(Batch, Share), Failure> {
            let (request, refused) = codec::decode::<S>(encoding, bytes, &mut share)?;
            let mut batch = Batch::after(refused, S::NAME);
            request.map(&app, project.as_deref(), &mut batch);
            Ok((batch, share))
        }
    };
    // The share is held until the answer is there.
    let (mut batch, _share) = if large {
        // It can only fail when the runtime ends.
        tokio::task::spawn_blocking(decoding).await.map_err(|_| Failure::unavailable())??
    } else {
        decoding()?
    };
    let (reports, links) = (std::mem::take(&mut batch.reports), std::mem::take(&mut batch.links));
    let joined = app.publish(reports, links, Vec::new()).await;
    batch.note_sums(&joined.map_err(|_| Failure::unavailable())?);
    batch.count(&app.tally);
    Ok(batch)
}

/// The project that a key or a header of the sender stands for.
fn project(app: &App, headers: &HeaderMap) -> Option<String> {
    let stated = || headers.get(&PROJECT_HEADER)?.to_str().ok().map(str::to_owned);
    app.keys.project_of(headers).or_else(stated)
}
