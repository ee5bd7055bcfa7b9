//! OTLP over gRPC: the bodies and bounds of OTLP/HTTP, in the frames of gRPC (adr/0103).
//!
//! A call is a request over HTTP/2 with one message behind a prefix of five bytes, and its outcome
//! is a status, in the trailers of the answer or instead of one.

mod message;

use std::sync::Arc;

use axum::{
    body::{Body, Bytes},
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, Version, header},
    response::Response,
};
use http_body_util::{BodyExt as _, Full};
use opentelemetry_proto::tonic::collector::{
    logs::v1::ExportLogsServiceRequest, metrics::v1::ExportMetricsServiceRequest,
    trace::v1::ExportTraceServiceRequest,
};
use prost::Message as _;
use tonic::{Code, Status};

use super::answer::{Failure, Signal};
use crate::{
    app::App,
    misdirected::{self, Misdirected},
    server::{BodyError, Encoding},
};

/// The paths of the methods.
pub(crate) const LOGS: &str = "/opentelemetry.proto.collector.logs.v1.LogsService/Export";
pub(crate) const TRACES: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
pub(crate) const METRICS: &str = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export";
pub(crate) const HEALTH: &str = "/grpc.health.v1.Health/Check";

/// Compressions that a message may have.
static ENCODINGS: HeaderValue = HeaderValue::from_static("gzip,identity");

/// Handles `LogsService.Export`.
pub(crate) async fn logs(State(app): State<Arc<App>>, request: Request) -> Response {
    export::<ExportLogsServiceRequest>(app, request).await
}

/// Handles `TraceService.Export`.
pub(crate) async fn traces(State(app): State<Arc<App>>, request: Request) -> Response {
    export::<ExportTraceServiceRequest>(app, request).await
}

/// Handles `MetricsService.Export`.
pub(crate) async fn metrics(State(app): State<Arc<App>>, request: Request) -> Response {
    export::<ExportMetricsServiceRequest>(app, request).await
}

/// Handles `grpc.health.v1.Health.Check`: the module as a whole, whatever service is named.
pub(crate) async fn health(State(app): State<Arc<App>>, request: Request) -> Response {
    if !is_call(&request) {
        return misdirected::answer(State(app), request).await;
    }
    // The field `status` is SERVING or NOT_SERVING.
    let status = if app.is_accepting() { 1 } else { 2 };
    success(&[8, status])
}

/// Returns whether a request is a call of gRPC.
pub(crate) fn is_call(request: &Request) -> bool {
    let kind = request.headers().get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    // `application/grpc-web` is another protocol, with the same messages.
    let is_grpc = kind.is_some_and(|kind| {
        kind.strip_prefix(b"application/grpc").is_some_and(|rest| !rest.starts_with(b"-"))
    });
    is_grpc && request.version() == Version::HTTP_2
}

/// Answers a call of a method that does not exist, and counts it.
pub(crate) fn unknown_method(app: &App) -> Response {
    Misdirected::Method.count(app);
    Status::unimplemented(Misdirected::Method.advice()).into_http()
}

/// Answers a call that may not be made from where it comes.
pub(crate) fn refuse(message: &str) -> Response {
    Status::permission_denied(message).into_http()
}

async fn export<S: Signal>(app: Arc<App>, request: Request) -> Response {
    if !is_call(&request) {
        return misdirected::answer(State(app), request).await;
    }
    let received = match app.calls.try_acquire() {
        // As many as there may be connections: over HTTP/1.1 each has one request at a time.
        Err(_) => Err(BodyError::Busy.into()),
        Ok(_permit) => receive::<S>(&app, request).await,
    };
    match received {
        Ok(answer) => success(&answer.encode_to_vec()),
        Err(failure) => {
            super::count_refused::<S>(&app, &failure);
            let mut response = status(&failure).into_http();
            response.headers_mut().insert("grpc-accept-encoding", ENCODINGS.clone());
            response
        }
    }
}

async fn receive<S: Signal>(app: &Arc<App>, request: Request) -> Result<S::Answer, Failure> {
    let (mut parts, body) = request.into_parts();
    let (compressed, message) = message::open(body, app.body_timeout()).await?;
    let encoding = parts.headers.remove("grpc-encoding");
    // From here on it is a body as over HTTP, with the length and encoding of the message.
    parts.headers.remove(header::CONTENT_ENCODING);
    parts.headers.insert(header::CONTENT_LENGTH, message.length().into());
    if compressed {
        let encoding = encoding.ok_or_else(|| Failure::undecodable(NO_ENCODING.to_owned()))?;
        if encoding != "gzip" {
            return Err(Failure::unknown_message_encoding());
        }
        parts.headers.insert(header::CONTENT_ENCODING, encoding);
    }
    let body = Body::new(message);
    let batch = super::receive::<S>(app, Encoding::Protobuf, &parts.headers, body).await?;
    Ok(S::answer(batch.rejected, batch.rejection_message()))
}

const NO_ENCODING: &str = "the message is compressed, and no grpc-encoding says how";

/// Returns the answer with a message, and the status OK behind it.
fn success(message: &[u8]) -> Response {
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes();
    let frame = [&[0][..], &length, message].concat();
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let body = Full::new(Bytes::from(frame)).with_trailers(std::future::ready(Some(Ok(trailers))));
    let mut response = Response::new(Body::new(body));
    let kind = HeaderValue::from_static("application/grpc");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response.headers_mut().insert("grpc-accept-encoding", ENCODINGS.clone());
    response
}

/// Returns the status of a failure. One that may be tried again says when, by which a client knows.
fn status(failure: &Failure) -> Status {
    let code = Code::from_i32(failure.grpc_code());
    Status::with_details(code, failure.message(), failure.grpc_details().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_grpc_over_http2_is_a_call() {
        let check = |kind: &str, version: Version, expected: bool| {
            let request = Request::post("/x").version(version).header("content-type", kind);
            let request = request.body(Body::empty()).expect("it is valid");
            assert_eq!(is_call(&request), expected, "{kind} {version:?}");
        };
        check("application/grpc", Version::HTTP_2, true);
        check("application/grpc+proto", Version::HTTP_2, true);
        check("application/grpc;charset=utf-8", Version::HTTP_2, true);
        check("application/grpc-web", Version::HTTP_2, false);
        check("application/x-protobuf", Version::HTTP_2, false);
        check("application/grpc", Version::HTTP_11, false);
    }

    #[test]
    fn failures_have_codes_and_only_what_may_succeed_later_says_when() {
        let check = |failure: Failure, code: Code, retryable: bool| {
            let status = status(&failure);
            assert_eq!(status.code(), code, "{failure:?}");
            let says_when = b"google.rpc.RetryInfo";
            let found = status.details().windows(says_when.len()).any(|it| it == says_when);
            assert_eq!(found, retryable, "{failure:?}");
        };
        check(Failure::unavailable(), Code::Unavailable, true);
        check(BodyError::Busy.into(), Code::Unavailable, true);
        check(BodyError::TooLarge(1).into(), Code::ResourceExhausted, false);
        check(BodyError::InflatesTooFar(1).into(), Code::ResourceExhausted, false);
        check(BodyError::Slow.into(), Code::DeadlineExceeded, false);
        check(BodyError::NotGzip.into(), Code::InvalidArgument, false);
        check(Failure::undecodable("no".to_owned()), Code::InvalidArgument, false);
        check(Failure::unknown_message_encoding(), Code::Unimplemented, false);
    }
}
