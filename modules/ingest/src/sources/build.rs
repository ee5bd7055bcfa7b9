//! Builders of telemetry for the tests.

use std::{path::Path, sync::Arc};

use module_sdk::{Host, testing::FakeHost};
use opentelemetry_proto::tonic::{
    common::v1::{AnyValue, KeyValue, any_value::Value},
    logs::v1::LogRecord,
    trace::v1::{Span, Status},
};

use super::{Attributes, Clock, Context, Conversations, Outcome};
use crate::report::Report;

pub(crate) const NOW_NS: u64 = 1_795_218_560_000_000_000;

pub(crate) fn text(text: &str) -> Value {
    Value::StringValue(text.to_owned())
}

pub(crate) const fn int(number: i64) -> Value {
    Value::IntValue(number)
}

pub(crate) const fn double(number: f64) -> Value {
    Value::DoubleValue(number)
}

pub(crate) const fn flag(flag: bool) -> Value {
    Value::BoolValue(flag)
}

pub(crate) const fn any(value: Value) -> AnyValue {
    AnyValue { value: Some(value) }
}

pub(crate) fn attr(key: &str, value: Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(any(value)), ..KeyValue::default() }
}

pub(crate) fn log(time_ns: u64, attributes: &[KeyValue]) -> LogRecord {
    LogRecord {
        time_unix_nano: time_ns,
        observed_time_unix_nano: time_ns,
        attributes: attributes.to_vec(),
        ..LogRecord::default()
    }
}

pub(crate) fn span(name: &str, start: u64, end: u64, attributes: &[KeyValue]) -> Span {
    Span {
        name: name.to_owned(),
        trace_id: vec![7; 16],
        span_id: vec![8; 8],
        start_time_unix_nano: start,
        end_time_unix_nano: end,
        attributes: attributes.to_vec(),
        ..Span::default()
    }
}

pub(crate) fn failed(mut span: Span, message: &str) -> Span {
    span.status = Some(Status { code: 2, message: message.to_owned() });
    span
}

pub(crate) fn request_of(outcome: Outcome) -> Report {
    match outcome {
        Outcome::Request(report) => *report,
        other => panic!("no request: {other:?}"),
    }
}

pub(crate) fn with_context<T>(
    service: &str,
    scope: &str,
    run: impl FnOnce(&Context<'_>) -> T,
) -> T {
    let host = host();
    let resource = [
        attr("service.name", text(service)),
        attr("service.version", text("1.2.3")),
        attr("host.name", text("workstation")),
    ];
    let conversations = Conversations::default();
    run(&Context {
        host: &host,
        clock: Clock { now_ns: NOW_NS },
        project: None,
        resource: Attributes::new(&resource),
        scope: (scope, ""),
        conversations: &conversations,
    })
}

/// Creates a fake host, which stores no data.
pub(crate) fn host() -> Host {
    Arc::new(FakeHost::new(Path::new("/nowhere"))).host().expect("it tells about itself")
}
