//! The answers that the OTLP specification asks for: the response message of the signal, or a
//! `google.rpc.Status`, in the encoding of the request; over gRPC the latter is the status of the
//! call.

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use opentelemetry_proto::tonic::collector::{
    logs::v1::{ExportLogsPartialSuccess, ExportLogsServiceRequest, ExportLogsServiceResponse},
    metrics::v1::{
        ExportMetricsPartialSuccess, ExportMetricsServiceRequest, ExportMetricsServiceResponse,
    },
    trace::v1::{ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse},
};
use prost::Message;
use serde_json::json;

use super::{
    batch::{self, Around, Batch},
    walk::{RecordIndex, Spot},
};
use crate::{
    app::App,
    server::{BodyError, Encoding},
};

/// The differences between the three signals.
pub(super) trait Signal: Message + Default + Send + 'static {
    type Answer: Message;

    /// Name of the signal in the statistics.
    const NAME: &'static str;

    /// Full name of the signal's request message.
    const REQUEST: &'static str;

    /// Full name of the message that is one record.
    const RECORD: &'static str;

    /// Name of the JSON field with the number of rejected records.
    const REJECTED: &'static str;

    /// Returns the places of its records, and how each is nested in another one.
    fn look(&self, app: &App, project: Option<&str>) -> Vec<Spot>;

    /// Maps the record at a place into the batch, and frees it.
    fn map(&mut self, at: RecordIndex, app: &App, project: Option<&str>, batch: &mut Batch);

    /// Creates the answer with the number of rejected records.
    fn answer(rejected: i64, error_message: String) -> Self::Answer;
}

macro_rules! signal {
    ($request:ident, $answer:ident, $partial:ident, $rejected:ident, $json:literal,
     $resources:ident, $scopes:ident, $records:ident, $look:expr, $map:path,
     $name:literal, $message:literal, $record:literal) => {
        impl Signal for $request {
            type Answer = $answer;
            const NAME: &'static str = $name;
            const REQUEST: &'static str = concat!("opentelemetry.proto.collector.", $message);
            const RECORD: &'static str = concat!("opentelemetry.proto.", $record);
            const REJECTED: &'static str = $json;

            fn look(&self, app: &App, project: Option<&str>) -> Vec<Spot> {
                let mut spots = Vec::new();
                for (resource, within) in self.$resources.iter().enumerate() {
                    let around = Around::new(app, project, within.resource.as_ref());
                    for (scope, within) in within.$scopes.iter().enumerate() {
                        let records = within.$records.iter().enumerate();
                        spots.extend(records.map(|(record, content)| Spot {
                            at: RecordIndex { resource, scope, record },
                            link: $look(content, &around, within.scope.as_ref()),
                        }));
                    }
                }
                spots
            }

            fn map(
                &mut self,
                at: RecordIndex,
                app: &App,
                project: Option<&str>,
                batch: &mut Batch,
            ) {
                let Some(resource) = self.$resources.get_mut(at.resource) else { return };
                let Some(scope) = resource.$scopes.get_mut(at.scope) else { return };
                let Some(record) = scope.$records.get_mut(at.record) else { return };
                let record = std::mem::take(record);
                let around = Around::new(app, project, resource.resource.as_ref());
                $map(&record, &around, scope.scope.as_ref(), batch);
            }

            fn answer(rejected: i64, error_message: String) -> $answer {
                let refused = rejected > 0 || !error_message.is_empty();
                let partial = $partial { $rejected: rejected, error_message };
                $answer { partial_success: refused.then_some(partial) }
            }
        }
    };
}

signal!(
    ExportLogsServiceRequest,
    ExportLogsServiceResponse,
    ExportLogsPartialSuccess,
    rejected_log_records,
    "rejectedLogRecords",
    resource_logs,
    scope_logs,
    log_records,
    |_, _: &Around<'_>, _| None,
    batch::map_record,
    "logs",
    "logs.v1.ExportLogsServiceRequest",
    "logs.v1.LogRecord"
);
signal!(
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
    ExportTracePartialSuccess,
    rejected_spans,
    "rejectedSpans",
    resource_spans,
    scope_spans,
    spans,
    batch::look_at_span,
    batch::map_one_span,
    "traces",
    "trace.v1.ExportTraceServiceRequest",
    "trace.v1.Span"
);
signal!(
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
    ExportMetricsPartialSuccess,
    rejected_data_points,
    "rejectedDataPoints",
    resource_metrics,
    scope_metrics,
    metrics,
    |_, _: &Around<'_>, _| None,
    batch::map_metric,
    "metrics",
    "metrics.v1.ExportMetricsServiceRequest",
    "metrics.v1.Metric"
);

/// Returns the answer 200 with what was rejected.
pub(super) fn success<S: Signal>(encoding: Encoding, batch: &Batch) -> Response {
    let message = batch.rejection_message();
    match encoding {
        Encoding::Protobuf => {
            let answer = S::answer(batch.rejected, message).encode_to_vec();
            respond(StatusCode::OK, encoding, answer)
        }
        Encoding::Json if message.is_empty() => respond(StatusCode::OK, encoding, b"{}".to_vec()),
        // Protobuf's JSON writes numbers of 64 bits as text, which the crate does not do here.
        Encoding::Json => {
            let rejected = batch.rejected.to_string();
            let partial = json!({S::REJECTED: rejected, "errorMessage": message});
            let answer = json!({"partialSuccess": partial}).to_string();
            respond(StatusCode::OK, encoding, answer.into_bytes())
        }
    }
}

/// The reason for refusing a body as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    status: StatusCode,
    message: String,
}

/// `google.rpc.Status`, of which OTLP over HTTP asks for the message only.
#[derive(Clone, PartialEq, Message)]
struct RpcStatus {
    /// A `google.rpc.Code`.
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<prost_types::Any>,
}

/// `google.rpc.RetryInfo`.
#[derive(Clone, PartialEq, Message)]
struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    retry_delay: Option<prost_types::Duration>,
}

/// Time after which a sender may try again, in seconds.
const RETRY_AFTER_S: u8 = 1;

impl Failure {
    pub(super) const fn undecodable(message: String) -> Self {
        Self { status: StatusCode::BAD_REQUEST, message }
    }

    pub(super) fn unavailable() -> Self {
        Self {
            status: StatusCode::SERVICE_UNAVAILABLE,
            message: "the ledger does not take events at the moment; come again".to_owned(),
        }
    }

    pub(super) fn unknown_message_encoding() -> Self {
        Self {
            status: StatusCode::NOT_IMPLEMENTED,
            message: "this grpc-encoding is not understood; send gzip or none".to_owned(),
        }
    }

    pub(super) fn unknown_content_type() -> Self {
        Self {
            status: StatusCode::UNSUPPORTED_MEDIA_TYPE,
            message: "this Content-Type is not understood; set the exporter's protocol to \
                      http/protobuf (application/x-protobuf) or http/json (application/json)"
                .to_owned(),
        }
    }

    /// Returns the reason for the refusal without the place, as a row of the statistics is for a
    /// kind of mistake. `None` where the body may be sent again later.
    pub(super) fn reason(&self) -> Option<String> {
        let what = self.message.split(", at line ").next().unwrap_or_default();
        let what = what.split(" at byte ").next().unwrap_or_default();
        (!self.may_come_again()).then(|| what.to_owned())
    }

    pub(super) fn message(&self) -> &str {
        &self.message
    }

    /// Returns whether the same body may be taken later.
    fn may_come_again(&self) -> bool {
        self.status == StatusCode::SERVICE_UNAVAILABLE
    }

    /// Returns the `google.rpc.Code`, which is that of gRPC.
    pub(super) fn grpc_code(&self) -> i32 {
        const INVALID_ARGUMENT: i32 = 3;
        const DEADLINE_EXCEEDED: i32 = 4;
        const RESOURCE_EXHAUSTED: i32 = 8;
        const UNIMPLEMENTED: i32 = 12;
        const UNAVAILABLE: i32 = 14;
        match self.status {
            StatusCode::SERVICE_UNAVAILABLE => UNAVAILABLE,
            StatusCode::PAYLOAD_TOO_LARGE => RESOURCE_EXHAUSTED,
            StatusCode::REQUEST_TIMEOUT => DEADLINE_EXCEEDED,
            StatusCode::NOT_IMPLEMENTED => UNIMPLEMENTED,
            _ => INVALID_ARGUMENT,
        }
    }

    /// Returns the `google.rpc.Status` of a call of gRPC, in which a client looks for when to come
    /// again; empty where the call says all.
    pub(super) fn grpc_details(&self) -> Vec<u8> {
        if !self.may_come_again() {
            return Vec::new();
        }
        let delay = prost_types::Duration { seconds: RETRY_AFTER_S.into(), nanos: 0 };
        let retry = prost_types::Any {
            type_url: "type.googleapis.com/google.rpc.RetryInfo".to_owned(),
            value: RetryInfo { retry_delay: Some(delay) }.encode_to_vec(),
        };
        let (code, message) = (self.grpc_code(), self.message.clone());
        RpcStatus { code, message, details: vec![retry] }.encode_to_vec()
    }

    /// Creates the response; one that may be tried again says when.
    pub(super) fn respond(&self, encoding: Encoding) -> Response {
        let code = self.grpc_code();
        let message = self.message.clone();
        let body = match encoding {
            Encoding::Protobuf => RpcStatus { code, message, details: Vec::new() }.encode_to_vec(),
            Encoding::Json => json!({"code": code, "message": message}).to_string().into_bytes(),
        };
        let mut response = respond(self.status, encoding, body);
        if self.may_come_again() {
            let seconds = HeaderValue::from(u16::from(RETRY_AFTER_S));
            response.headers_mut().insert(header::RETRY_AFTER, seconds);
        }
        response
    }
}

impl From<BodyError> for Failure {
    fn from(error: BodyError) -> Self {
        Self { status: error.status(), message: error.to_string() }
    }
}

fn respond(status: StatusCode, encoding: Encoding, body: Vec<u8>) -> Response {
    (status, [(header::CONTENT_TYPE, encoding.content_type())], body).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_may_succeed_later_says_when() {
        let check = |failure: Failure, retryable: bool| {
            let response = failure.respond(Encoding::Json);
            assert_eq!(response.headers().contains_key(header::RETRY_AFTER), retryable);
        };
        check(Failure::unavailable(), true);
        check(BodyError::Busy.into(), true);
        check(BodyError::TooLarge(1).into(), false);
        check(Failure::undecodable("no".to_owned()), false);
        check(Failure::unknown_content_type(), false);
    }

    #[test]
    fn partial_success_stands_only_where_something_was_refused() {
        let whole = ExportLogsServiceRequest::answer(0, String::new());
        assert_eq!(whole.partial_success, None);
        let part = ExportLogsServiceRequest::answer(2, "why".to_owned());
        assert_eq!(part.partial_success.map(|part| part.rejected_log_records), Some(2));
    }
}
