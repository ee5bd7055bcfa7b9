//! How much memory a body takes once it is decoded, told before it is decoded.
//!
//! A message of two bytes becomes a structure of a hundred or more, so that a small body of empty
//! messages would fill the memory. The estimate is taken out of the budget of all requests.

use super::answer::Signal;
use crate::server::Encoding;

/// What a decoded message takes without its text, bytes; the largest common one is a log record.
const MESSAGE: usize = 160;

/// The smallest JSON object is an empty record.
const JSON_OBJECT: usize = 256;

/// How deep the messages of attribute values are followed; deeper ones do not decode (prost's
/// own limit is 100).
const MAX_DEPTH: usize = 100;

/// How the messages of a signal nest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    Logs,
    Traces,
    Metrics,
}

impl Shape {
    /// What the tally calls the signal.
    pub(super) const fn signal(self) -> &'static str {
        match self {
            Self::Logs => "logs",
            Self::Traces => "traces",
            Self::Metrics => "metrics",
        }
    }
}

/// A rough upper bound, bytes.
pub(super) fn of_decoded<S: Signal>(encoding: Encoding, bytes: &[u8]) -> usize {
    match encoding {
        Encoding::Json => {
            let objects = bytes.iter().filter(|byte| **byte == b'{').count();
            objects.saturating_mul(JSON_OBJECT).saturating_add(bytes.len())
        }
        Encoding::Protobuf => {
            let mut weight = bytes.len();
            weigh(bytes, Message::Request(S::SHAPE), MAX_DEPTH, &mut weight);
            weight
        }
    }
}

/// The kinds of message that may come often.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Message {
    Request(Shape),
    /// `ResourceLogs` and its like.
    PerResource(Shape),
    /// `Resource` and `InstrumentationScope`: attributes in this field.
    Holder(u64),
    /// `ScopeLogs` and its like.
    PerScope(Shape),
    LogRecord,
    Span,
    SpanEvent,
    Metric,
    MetricData,
    /// A data point, whose attributes and exemplars have different fields by kind.
    Point,
    KeyValue,
    AnyValue,
    /// `ArrayValue` and `KeyValueList`.
    List(bool),
    Leaf,
}

impl Message {
    /// The message in a field, by the numbers of `opentelemetry/proto`.
    const fn child(self, field: u64) -> Option<Self> {
        Some(match (self, field) {
            (Self::Request(shape), 1) => Self::PerResource(shape),
            (Self::PerResource(_), 1) => Self::Holder(1),
            (Self::PerResource(shape), 2) => Self::PerScope(shape),
            (Self::PerScope(_), 1) => Self::Holder(3),
            (Self::PerScope(Shape::Logs), 2) => Self::LogRecord,
            (Self::PerScope(Shape::Traces), 2) => Self::Span,
            (Self::PerScope(Shape::Metrics), 2) => Self::Metric,
            (Self::LogRecord, 5) | (Self::KeyValue, 2) => Self::AnyValue,
            (Self::LogRecord, 6) | (Self::Span, 9) => Self::KeyValue,
            (Self::Span, 11) => Self::SpanEvent,
            (Self::Span, 13) => Self::Holder(4),
            (Self::SpanEvent, 3) | (Self::Metric, 12) => Self::KeyValue,
            (Self::Metric, 5 | 7 | 9 | 10 | 11) => Self::MetricData,
            (Self::MetricData, 1) => Self::Point,
            (Self::Point, 1 | 7 | 9) => Self::KeyValue,
            (Self::Point, 5 | 6 | 8 | 11) => Self::Leaf,
            (Self::AnyValue, 5) => Self::List(false),
            (Self::AnyValue, 6) => Self::List(true),
            (Self::List(false), 1) => Self::AnyValue,
            (Self::List(true), 1) => Self::KeyValue,
            (Self::Holder(attributes), _) if field == attributes => Self::KeyValue,
            _ => return None,
        })
    }
}

/// Adds up the messages in `bytes`. What cannot be read adds nothing: it will not decode either.
fn weigh(mut bytes: &[u8], message: Message, depth: usize, weight: &mut usize) {
    if depth == 0 {
        return;
    }
    while let Some((field, wire_type)) = varint(&mut bytes).map(|tag| (tag >> 3, tag & 7)) {
        let skipped = match wire_type {
            0 => varint(&mut bytes).map(|_| ()),
            1 => skip(&mut bytes, 8).map(drop),
            5 => skip(&mut bytes, 4).map(drop),
            2 => varint(&mut bytes)
                .and_then(|length| skip(&mut bytes, usize::try_from(length).ok()?))
                .map(|inner| {
                    if let Some(child) = message.child(field) {
                        *weight += MESSAGE;
                        weigh(inner, child, depth - 1, weight);
                    }
                }),
            _ => None,
        };
        if skipped.is_none() {
            return;
        }
    }
}

fn skip<'a>(bytes: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (skipped, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(skipped)
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::{
        collector::logs::v1::ExportLogsServiceRequest,
        common::v1::{AnyValue, ArrayValue, KeyValue, any_value::Value},
        logs::v1::{LogRecord, ResourceLogs, ScopeLogs},
    };
    use prost::Message as _;

    use super::*;

    fn weight(record: LogRecord, times: usize) -> usize {
        let log_records = vec![record; times];
        let scope_logs = vec![ScopeLogs { log_records, ..ScopeLogs::default() }];
        let resource_logs = vec![ResourceLogs { scope_logs, ..ResourceLogs::default() }];
        let bytes = ExportLogsServiceRequest { resource_logs }.encode_to_vec();
        of_decoded::<ExportLogsServiceRequest>(Encoding::Protobuf, &bytes)
    }

    #[test]
    fn empty_messages_have_their_weight() {
        let check = |record: LogRecord, per_record: usize| {
            let found = weight(record, 1000);
            assert!(found >= 1000 * per_record * MESSAGE, "{found}");
            assert!(found < 1000 * (per_record + 1) * MESSAGE + 100_000, "{found}");
        };
        check(LogRecord::default(), 1);
        let attributes = vec![KeyValue::default(); 10];
        check(LogRecord { attributes, ..LogRecord::default() }, 11);
        let list = ArrayValue { values: vec![AnyValue::default(); 20] };
        let body = Some(AnyValue { value: Some(Value::ArrayValue(list)) });
        check(LogRecord { body, ..LogRecord::default() }, 23);
    }

    #[test]
    fn garbage_weighs_what_it_is() {
        let check = |bytes: &[u8]| {
            let found = of_decoded::<ExportLogsServiceRequest>(Encoding::Protobuf, bytes);
            assert_eq!(found, bytes.len());
        };
        check(b"");
        check(&[0xff; 100]);
        check(b"plain text");
    }
}
