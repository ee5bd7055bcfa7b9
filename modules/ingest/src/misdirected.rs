//! Requests that reach the wrong place: a path that does not exist, or a protocol that is not
//! supported.
//!
//! A tool that is configured wrongly keeps sending, and nobody looks at its log. So the request is
//! counted in `ingest sources`, and the answer says what to set.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    http::{HeaderMap, Method, StatusCode, Uri, header},
    response::Response,
};

use crate::{
    app::App,
    otlp::grpc,
    server::json_error,
    sources::{Mapper, unnamed},
    stats::Kind,
};

/// A mistake of a sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Misdirected {
    /// OTLP over gRPC where only HTTP is spoken, by its content type or its path.
    Grpc,
    /// A method of gRPC that does not exist.
    Method,
    /// HTTP/2 from the first byte, which is gRPC as a rule.
    Http2,
    /// The path of a signal behind another path, as when the base URL already had one.
    Below(&'static str),
    /// OTLP to the root: the URL of one signal lacks its path.
    Root,
    /// Any other path.
    Elsewhere,
}

const SIGNALS: [(&str, &str); 3] =
    [("logs", "/v1/logs"), ("traces", "/v1/traces"), ("metrics", "/v1/metrics")];

impl Misdirected {
    fn of(uri: &Uri, headers: &HeaderMap) -> Self {
        let path = uri.path().trim_end_matches('/');
        let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        let is_grpc = kind.is_some_and(|kind| kind.starts_with("application/grpc"));
        if is_grpc || path.starts_with("/opentelemetry.proto.collector.") {
            return Self::Grpc;
        }
        match SIGNALS.iter().find(|(_, known)| path.ends_with(known)) {
            Some((signal, _)) => Self::Below(signal),
            None if path.is_empty() => Self::Root,
            None => Self::Elsewhere,
        }
    }

    const fn signal(self) -> &'static str {
        match self {
            Self::Below(signal) => signal,
            _ => "http",
        }
    }

    /// Returns the name that stands for the record in the statistics: never the path itself, which
    /// the sender chose.
    fn record(self) -> String {
        match self {
            Self::Grpc => "(gRPC)".to_owned(),
            Self::Method => "(gRPC method)".to_owned(),
            Self::Http2 => "(HTTP/2)".to_owned(),
            Self::Below(signal) => format!("(path …/v1/{signal})"),
            Self::Root => "(path /)".to_owned(),
            Self::Elsewhere => "(other path)".to_owned(),
        }
    }

    /// Returns the mistake and the setting to change, in one sentence.
    pub(crate) const fn advice(self) -> &'static str {
        match self {
            Self::Grpc | Self::Http2 => {
                "this port speaks OTLP over HTTP/1.1 and not gRPC, which has port 4317 \
                 (ingest.grpc.listen); send it there, or set \
                 OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf, or the like of the tool"
            }
            Self::Method => {
                "there is no such service or method here; OTLP has Export of LogsService, \
                 TraceService and MetricsService, in version 1"
            }
            Self::Below(_) => {
                "there is nothing at this path; OTLP goes to /v1/logs, /v1/traces and \
                 /v1/metrics, which exporters append to OTEL_EXPORTER_OTLP_ENDPOINT: set that to \
                 scheme, host and port only"
            }
            Self::Root => {
                "there is nothing at this path; the URL of one signal is taken as it is: end it \
                 in /v1/logs, /v1/traces or /v1/metrics, or set OTEL_EXPORTER_OTLP_ENDPOINT alone"
            }
            Self::Elsewhere => {
                "there is nothing at this path; OTLP goes to /v1/logs, /v1/traces and \
                 /v1/metrics, Lynex events to /api/v1/event, /api/v1/events and \
                 /api/v1/events/batch"
            }
        }
    }

    /// Counts the mistake for `ingest sources`.
    pub(crate) fn count(self, app: &App) {
        let kind = Kind {
            source: unnamed(),
            signal: self.signal(),
            record: self.record(),
            outcome: "refused",
            reason: self.advice().to_owned(),
        };
        app.stats.records(Mapper::None.as_str(), kind, 1);
    }
}

/// Answers requests that have no handler.
pub(crate) async fn answer(State(app): State<Arc<App>>, request: Request) -> Response {
    if grpc::is_call(&request) {
        return grpc::unknown_method(&app);
    }
    let mistake = Misdirected::of(request.uri(), request.headers());
    // A look with a browser or a probe is no lost record.
    if request.method() == Method::POST {
        mistake.count(&app);
    }
    let (status, code) = match mistake {
        Misdirected::Grpc => (StatusCode::UNSUPPORTED_MEDIA_TYPE, "grpc_not_spoken"),
        _ => (StatusCode::NOT_FOUND, "not_found"),
    };
    json_error(status, code, mistake.advice())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mistakes_are_told_apart() {
        let check = |path: &str, kind: &str, expected: Misdirected| {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_TYPE, kind.parse().expect("a header"));
            let uri = path.parse().expect("a path");
            assert_eq!(Misdirected::of(&uri, &headers), expected, "{path} {kind}");
        };
        use Misdirected::{Below, Elsewhere, Grpc, Root};
        let protobuf = "application/x-protobuf";
        check("/v1/logs/v1/logs", protobuf, Below("logs"));
        check("/v1/logs/v1/traces", protobuf, Below("traces"));
        check("/v1/metrics/", protobuf, Below("metrics"));
        check("/otlp/v1/metrics?key=1", protobuf, Below("metrics"));
        check("//v1/logs", protobuf, Below("logs"));
        check("/", protobuf, Root);
        check("/v1/nothing", protobuf, Elsewhere);
        check("/v1/log", protobuf, Elsewhere);
        check("/v1/x", "application/grpc", Grpc);
        check("/v1/x", "application/grpc+proto", Grpc);
        check("/v1/x", "application/grpc-web", Grpc);
        let service = "/opentelemetry.proto.collector.logs.v1.LogsService/Export";
        check(service, protobuf, Grpc);
    }
}
