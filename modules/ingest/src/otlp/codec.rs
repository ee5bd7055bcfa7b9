//! The decoder of OTLP messages. Errors name the place, and never quote its content.

use bytes::Bytes;
use prost::DecodeError;

use super::{
    answer::{Failure, Signal},
    decoded_size, json,
    json_decoded_size::{JsonScale, Stop},
    mend,
    refused::Refused,
    rewrite::{Rewritten, Unreadable},
    schema::{MessageId, Schema},
};
use crate::{
    json_text,
    server::{BodyError, Encoding, Probe, Share},
};

/// Decodes a body, and returns what could not be read beside it. The share grows by the memory that
/// this takes before it is allocated.
pub(super) fn decode<S: Signal>(
    encoding: Encoding,
    bytes: Bytes,
    share: &mut Share,
) -> Result<(S, Refused), Failure> {
    let schema = Schema::get();
    let (request, records) = (schema.id(S::REQUEST), schema.id(S::RECORD));
    let rewritten = match encoding {
        Encoding::Protobuf => {
            measure((request, records), bytes.len(), &bytes, share)?;
            let error = match S::decode(bytes.as_ref()) {
                Ok(decoded) => return Ok((decoded, Refused::default())),
                Err(error) => error,
            };
            mend::rewrite(&bytes, request, records, share)
                .map_err(|unreadable| not_protobuf(unreadable, &error))?
        }
        Encoding::Json => read_json(&bytes, request, records, share)?,
    };
    drop(bytes);
    measure((request, records), rewritten.bytes.len(), &rewritten.bytes, share)?;
    let decoded = S::decode(rewritten.bytes.as_slice());
    decoded.map(|decoded| (decoded, rewritten.refused)).map_err(|error| invalid_protobuf(&error))
}

/// Reserves the memory that `bytes` will take once they are decoded, beside `held` bytes.
fn measure(
    request: (MessageId, MessageId),
    held: usize,
    bytes: &[u8],
    share: &mut Share,
) -> Result<(), BodyError> {
    let allowed = share.limit().saturating_sub(held);
    let decoded_size =
        decoded_size::measure(bytes, request, allowed).map_err(|_| share.too_heavy())?;
    share.grow_to(held + decoded_size)
}

/// Returns a probe that checks, while a body arrives, whether the whole will take too much memory.
pub(super) fn probe<S: Signal>(encoding: Encoding) -> impl Probe {
    let schema = Schema::get();
    let ids = (schema.id(S::REQUEST), schema.id(S::RECORD));
    let (mut protobuf, mut json) = (decoded_size::Scale::new(ids), JsonScale::new(ids));
    move |bytes: &[u8], share: &mut Share| match encoding {
        Encoding::Protobuf => {
            let allowed = share.limit().saturating_sub(bytes.len());
            let decoded_size = protobuf.read(bytes, allowed).map_err(|_| share.too_heavy())?;
            share.grow_to(bytes.len() + decoded_size)
        }
        Encoding::Json => match json.read(bytes, share.limit()) {
            Ok(decoded_size) => share.grow_to(decoded_size),
            Err(Stop::TooLarge) => Err(share.too_heavy()),
            Err(Stop::TooDeep) => Err(BodyError::TooDeep),
        },
    }
}

fn read_json(
    bytes: &[u8],
    request: MessageId,
    records: MessageId,
    share: &mut Share,
) -> Result<Rewritten, Failure> {
    let text = json_text::readable(bytes, share)?;
    let unreadable = match json::rewrite(&text, request, records, share) {
        // Half a character where OTLP has no text at all; elsewhere it is read as it comes.
        Err(Unreadable::Syntax(error)) => match json_text::without_halves(&text) {
            Some(mended) => {
                share.grow_to(2 * text.len())?;
                json::rewrite(&mended, request, records, share)
            }
            None => Err(Unreadable::Syntax(error)),
        },
        read => read,
    };
    unreadable.map_err(not_json)
}

fn not_json(unreadable: Unreadable) -> Failure {
    let error = match unreadable {
        Unreadable::Budget(error) => return error.into(),
        Unreadable::Form => {
            return Failure::undecodable(format!("the body is not valid OTLP JSON: {unreadable}"));
        }
        Unreadable::Syntax(error) => error,
    };
    let what = if error.is_eof() { "it ends too early" } else { "it is not JSON" };
    Failure::undecodable(format!(
        "the body is not valid OTLP JSON: {what}, at line {} column {}",
        error.line(),
        error.column()
    ))
}

fn not_protobuf(unreadable: Unreadable, error: &DecodeError) -> Failure {
    match unreadable {
        Unreadable::Budget(error) => error.into(),
        Unreadable::Form | Unreadable::Syntax(_) => invalid_protobuf(error),
    }
}

/// Creates the failure for invalid protobuf. The error names the message and field at most.
fn invalid_protobuf(error: &DecodeError) -> Failure {
    Failure::undecodable(format!("the body is not valid OTLP protobuf: {error}"))
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::{
        collector::{
            logs::v1::ExportLogsServiceRequest, metrics::v1::ExportMetricsServiceRequest,
            trace::v1::ExportTraceServiceRequest,
        },
        common::v1::{AnyValue, any_value::Value as Any},
        logs::v1::LogRecord,
        metrics::v1::metric::Data,
    };
    use serde_json::{Value, json};

    use super::*;
    use crate::server::Budget;

    fn read<S: Signal>(encoding: Encoding, body: &[u8]) -> Result<(S, Refused), Failure> {
        let mut share = Budget::new(1 << 26, 1 << 26).share();
        decode(encoding, Bytes::copy_from_slice(body), &mut share)
    }

    fn read_logs(body: &str) -> (Vec<LogRecord>, Refused) {
        let read = read::<ExportLogsServiceRequest>(Encoding::Json, body.as_bytes());
        let (mut request, refused) = read.unwrap_or_else(|error| panic!("{error:?}: {body}"));
        (request.resource_logs.remove(0).scope_logs.remove(0).log_records, refused)
    }

    fn with_record(record: &str) -> String {
        format!("{{\"resourceLogs\":[{{\"scopeLogs\":[{{\"logRecords\":[{record}]}}]}}]}}")
    }

    fn with_attribute(value: &str) -> String {
        with_record(&format!(
            "{{\"timeUnixNano\":\"-5\",\"attributes\":[{{\"key\":\"k\",\"value\":{value}}}]}}"
        ))
    }

    fn attribute(value: &str) -> Option<Any> {
        let (records, refused) = read_logs(&with_attribute(value));
        assert_eq!(refused, Refused::default(), "{value}");
        assert_eq!(records[0].time_unix_nano, 0);
        records[0].attributes[0].value.clone().and_then(|any: AnyValue| any.value)
    }

    #[test]
    fn values_are_read_as_the_mapping_allows() {
        let check = |value: &str, expected: Option<Any>| {
            assert_eq!(attribute(value), expected, "{value}");
        };
        let text = |text: &str| Some(Any::StringValue(text.to_owned()));
        let bytes = |bytes: &[u8]| Some(Any::BytesValue(bytes.to_vec()));
        check("{\"intValue\":\"12\"}", Some(Any::IntValue(12)));
        check("{\"intValue\":12}", Some(Any::IntValue(12)));
        check("{\"intValue\":1.2e1}", Some(Any::IntValue(12)));
        check("{\"intValue\":\"-9223372036854775808\"}", Some(Any::IntValue(i64::MIN)));
        check("{\"int_value\":\"1e3\"}", Some(Any::IntValue(1000)));
        check("{\"intValue\":\"1.0\"}", Some(Any::IntValue(1)));
        check("{\"intValue\":null}", None);
        check("{\"intValue\":\"99999999999999999999\"}", text("99999999999999999999"));
        check("{\"intValue\":18446744073709551615}", text("18446744073709551615"));
        check("{\"intValue\":1.5}", text("1.5"));
        check("{\"intValue\":1e999}", text("1e999"));
        check("{\"boolValue\":true}", Some(Any::BoolValue(true)));
        check("{\"boolValue\":\"false\"}", Some(Any::BoolValue(false)));
        check("{\"boolValue\":7}", text("7"));
        check("{\"doubleValue\":2}", Some(Any::DoubleValue(2.0)));
        check("{\"doubleValue\":\"2.5\"}", Some(Any::DoubleValue(2.5)));
        check("{\"doubleValue\":\"-Infinity\"}", Some(Any::DoubleValue(f64::NEG_INFINITY)));
        check("{\"doubleValue\":\"many\"}", text("many"));
        check("{\"stringValue\":5}", text("5"));
        check("{\"stringValue\":\"a\\n\\u00fc\\ud83d\\ude00\"}", text("a\nü😀"));
        check("{\"bytesValue\":\"+/8=\"}", bytes(&[0xfb, 0xff]));
        check("{\"bytesValue\":\"-_8\"}", bytes(&[0xfb, 0xff]));
        check("{\"bytesValue\":\"\"}", bytes(&[]));
        check("{\"bytesValue\":\"!\"}", text("!"));
        check("{\"futureValue\":{\"a\":[1,{}]}}", None);
        check("{}", None);
        check("null", None);
        assert!(matches!(
            attribute("{\"doubleValue\":\"NaN\"}"),
            Some(Any::DoubleValue(number)) if number.is_nan()
        ));
        for list in ["{}", "null", "{\"values\":null}", "{\"values\":[]}"] {
            let empty = |found: Option<Any>| match found {
                Some(Any::ArrayValue(list)) => list.values.is_empty(),
                Some(Any::KvlistValue(list)) => list.values.is_empty(),
                found => list == "null" && found.is_none(),
            };
            assert!(empty(attribute(&format!("{{\"arrayValue\":{list}}}"))), "{list}");
            assert!(empty(attribute(&format!("{{\"kvlist_value\":{list}}}"))), "{list}");
        }
    }

    #[test]
    fn half_a_character_gives_way_wherever_it_stands() {
        let check = |value: &str, expected: &str| {
            let expected = Some(Any::StringValue(expected.to_owned()));
            assert_eq!(attribute(&format!("{{\"stringValue\":\"{value}\"}}")), expected, "{value}");
        };
        check("see \\ud83d...", "see \u{fffd}...");
        check("\\ude00", "\u{fffd}");
        check("\\ude00\\ud83d", "\u{fffd}\u{fffd}");
        check("end \\uD83D", "end \u{fffd}");
        let (records, refused) = read_logs(&with_record(
            "{\"\\ud83d\":1,\"eventName\":\"e\",\"attributes\":[{\"key\":\"\\ud83d\"}],\
             \"body\":{\"\\ude00\":\"\\ude00\",\"stringValue\":\"b\"}}",
        ));
        assert_eq!(records[0].attributes[0].key, "\u{fffd}");
        assert_eq!((records[0].event_name.as_str(), refused.records), ("e", 0));
        // Where an object belongs it costs the record at most.
        let (records, refused) = read_logs(&with_record("{\"body\":\"\\ud83d\"},{}"));
        assert_eq!((records.len(), refused.records), (1, 1));
        let body = [&b"{\"eventName\":\"a\xed\xa0\xbdb\"}"[..]].concat();
        let body = [b"{\"resourceLogs\":[{\"scopeLogs\":[{\"logRecords\":[", &body[..], b"]}]}]}"];
        let (request, _) = read::<ExportLogsServiceRequest>(Encoding::Json, &body.concat())
            .expect("half a character in bytes");
        let name = &request.resource_logs[0].scope_logs[0].log_records[0].event_name;
        assert_eq!(name, "a\u{fffd}\u{fffd}\u{fffd}b");
    }

    #[test]
    fn null_is_a_value_of_every_field() {
        let schema = Schema::get();
        fn nulls(schema: &Schema, id: MessageId, depth: usize, snake: bool) -> Value {
            let fields = schema.message(id).fields.iter().flat_map(|field| {
                let name = if snake { &field.name } else { &field.json_name };
                let inner = match field.kind {
                    super::super::schema::Kind::Message(inner) if depth > 0 => {
                        nulls(schema, inner, depth - 1, snake)
                    }
                    _ => Value::Null,
                };
                let inner =
                    if field.repeated && !inner.is_null() { json!([null, inner]) } else { inner };
                [(name.clone(), inner)]
            });
            Value::Object(fields.collect())
        }
        fn check<S: Signal>(depth: usize, snake: bool) {
            let schema = Schema::get();
            let body = nulls(schema, schema.id(S::REQUEST), depth, snake).to_string();
            let (_, refused) = read::<S>(Encoding::Json, body.as_bytes()).expect(&body);
            assert_eq!(refused, Refused::default(), "{body}");
        }
        assert!(!schema.message(schema.id(ExportLogsServiceRequest::REQUEST)).fields.is_empty());
        for depth in 0..6 {
            for snake in [false, true] {
                check::<ExportLogsServiceRequest>(depth, snake);
                check::<ExportTraceServiceRequest>(depth, snake);
                check::<ExportMetricsServiceRequest>(depth, snake);
            }
        }
    }

    #[test]
    fn enums_are_words_or_numbers_and_ids_hexadecimal() {
        let check = |kind: &str, code: &str, expected: (i32, i32)| {
            let body = format!(
                "{{\"resource_spans\":[{{\"scope_spans\":[{{\"spans\":[{{\"kind\":{kind},\
                 \"traceId\":\"0102aBcD\",\"parent_span_id\":null,\"status\":{{\"code\":{code}}}\
                 }}]}}]}}]}}"
            );
            let (request, refused) =
                read::<ExportTraceServiceRequest>(Encoding::Json, body.as_bytes()).expect(&body);
            let span = &request.resource_spans[0].scope_spans[0].spans[0];
            let code = span.status.as_ref().map_or(0, |status| status.code);
            assert_eq!((span.kind, code, refused.records), (expected.0, expected.1, 0), "{body}");
            assert_eq!(span.trace_id, [1, 2, 0xab, 0xcd]);
        };
        check("3", "2", (3, 2));
        check("\"SPAN_KIND_CLIENT\"", "\"STATUS_CODE_ERROR\"", (3, 2));
        check("\"3\"", "null", (3, 0));
        check("\"SPAN_KIND_OF_THE_FUTURE\"", "1.0", (0, 1));
        let (records, _) =
            read_logs(&with_record("{\"severityNumber\":\"SEVERITY_NUMBER_ERROR\"}"));
        assert_eq!(records[0].severity_number, 17);
        let body = "{\"resourceMetrics\":[{\"scopeMetrics\":[{\"metrics\":[{\"sum\":{\
                    \"aggregationTemporality\":\"AGGREGATION_TEMPORALITY_DELTA\",\
                    \"dataPoints\":[{\"asInt\":\"5\"}]}},{\"histogram\":{\"dataPoints\":[{\
                    \"bucketCounts\":[\"1\",2,null],\"explicitBounds\":[0.5,\"Infinity\"]}]}\
                    }]}]}]}";
        let (request, refused) =
            read::<ExportMetricsServiceRequest>(Encoding::Json, body.as_bytes()).expect(body);
        assert_eq!(refused, Refused::default());
        let metrics = &request.resource_metrics[0].scope_metrics[0].metrics;
        let Some(Data::Sum(sum)) = &metrics[0].data else { panic!("{metrics:?}") };
        assert_eq!((sum.aggregation_temporality, sum.data_points.len()), (1, 1));
        let Some(Data::Histogram(histogram)) = &metrics[1].data else { panic!("{metrics:?}") };
        let point = &histogram.data_points[0];
        assert_eq!(point.bucket_counts, [1, 2, 0]);
        assert_eq!(point.explicit_bounds, [0.5, f64::INFINITY]);
    }

    #[test]
    fn what_cannot_be_read_costs_its_record() {
        let check = |record: &str, told: &str| {
            let (records, refused) = read_logs(&with_record(&format!(
                "{{\"eventName\":\"a\"}},{record},{{\"eventName\":\"b\"}}"
            )));
            let names: Vec<&str> = records.iter().map(|it| it.event_name.as_str()).collect();
            assert_eq!(names, ["a", "b"], "{record}");
            assert_eq!(refused.records, 1, "{record}");
            let told = format!("resourceLogs[0].scopeLogs[0].logRecords[1]{told}");
            assert_eq!(refused.first.as_deref(), Some(told.as_str()));
        };
        check("5", " must be an object");
        check("[{\"secret\":[]}]", " must be an object");
        check("{\"attributes\":\"secret\"}", ": attributes must be a list");
        check("{\"attributes\":{\"a\":1}}", ": attributes must be a list");
        check("{\"attributes\":[{\"key\":\"k\"},7,{}]}", ": attributes[1] must be an object");
        check("{\"attributes\":[{\"key\":[1]}]}", ": attributes[0].key must be a text");
        check("{\"eventName\":5}", ": eventName must be a text");
        check("{\"traceId\":\"secret\"}", ": traceId must be hexadecimal");
        check("{\"traceId\":\"abc\"}", ": traceId must be hexadecimal");
        check("{\"flags\":-1}", ": flags is out of range");
        check("{\"severityNumber\":{}}", ": severityNumber must be a whole number");
        check(
            "{\"body\":{\"kvlistValue\":{\"values\":[{},{\"value\":{\"stringValue\":[]}}]}}}",
            ": body.kvlistValue.values[1].value.stringValue must be a text",
        );
    }

    #[test]
    fn deep_nesting_costs_its_record() {
        let deep = |levels: usize| {
            let (open, close) = ("{\"arrayValue\":{\"values\":[", "]}}");
            let body = format!("{}{{}}{}", open.repeat(levels), close.repeat(levels));
            read_logs(&with_record(&format!("{{\"body\":{body}}},{{}}")))
        };
        assert_eq!(deep(30).1.records, 0);
        let (records, refused) = deep(5000);
        assert_eq!((records.len(), refused.records), (1, 1));
        assert!(refused.first.is_some_and(|first| first.ends_with("nests too deeply")));
    }

    #[test]
    fn what_surrounds_records_costs_itself() {
        let body = "{\"resourceLogs\":[7,{\"resource\":\"secret\",\"scopeLogs\":[{\"scope\":{\
                    \"name\":5,\"version\":\"1\"},\"logRecords\":[{},{\"flags\":\"x\"}]},\
                    {\"logRecords\":{}}]},{\"scopeLogs\":\"secret\"}]}";
        let read = read::<ExportLogsServiceRequest>(Encoding::Json, body.as_bytes());
        let (request, refused) = read.expect("the rest counts");
        assert_eq!(request.resource_logs.len(), 2);
        let scope = &request.resource_logs[0].scope_logs[0];
        assert_eq!(scope.log_records.len(), 1);
        assert_eq!(scope.scope.as_ref().map(|scope| scope.version.as_str()), Some("1"));
        assert_eq!(refused.first.as_deref(), Some("resourceLogs[0] must be an object"));
        assert_eq!(refused.records, 4, "{refused:?}");
    }

    #[test]
    fn errors_say_where_and_quote_nothing() {
        let check = |body: &str, part: &str| {
            let failure = read::<ExportLogsServiceRequest>(Encoding::Json, body.as_bytes());
            let text = format!("{:?}", failure.expect_err("it is wrong"));
            assert!(text.contains(part), "{text}");
            assert!(!text.contains("secret"), "{text}");
        };
        check("", "it ends too early, at line 1 column 0");
        check("{\"resourceLogs\":", "it ends too early");
        check("secret", "it is not JSON, at line 1 column 1");
        check("{} secret", "it is not JSON");
        check("\u{feff}{\"resourceLogs\":\"secret\"}", "does not have the form that OTLP gives it");
        check("[\"secret\"]", "does not have the form that OTLP gives it");
        check(&with_attribute(&"{\"arrayValue\":{\"values\":[".repeat(1000)), "it is not JSON");
    }

    fn nested(fields: &[u8], mut inner: Vec<u8>) -> Vec<u8> {
        for field in fields.iter().rev() {
            let mut outer = vec![field << 3 | 2];
            prost::encode_length_delimiter(inner.len(), &mut outer).expect("into memory");
            outer.extend_from_slice(&inner);
            inner = outer;
        }
        inner
    }

    #[test]
    fn odd_protobuf_costs_its_record() {
        let check = |record: &[u8], severity: Option<&str>, told: Option<&str>| {
            let scope = [&nested(&[2], vec![0x1a, 1, b'a'])[..], record, &nested(&[2], vec![])];
            let body = nested(&[1, 2], scope.concat());
            let read = read::<ExportLogsServiceRequest>(Encoding::Protobuf, &body);
            let (request, refused) = read.expect("the rest counts");
            let records = &request.resource_logs[0].scope_logs[0].log_records;
            let found: Vec<&str> = records.iter().map(|it| it.severity_text.as_str()).collect();
            let expected: Vec<&str> =
                [Some("a"), severity, Some("")].into_iter().flatten().collect();
            assert_eq!(found, expected, "{record:?}");
            assert_eq!(refused.records, u64::from(told.is_some()));
            let place = |told| format!("resourceLogs[0].scopeLogs[0].logRecords[1]{told}");
            assert_eq!(refused.first, told.map(place), "{record:?}");
        };
        // severity_text is field 3, attributes are 6, time_unix_nano is a fixed 64.
        check(
            &nested(&[2, 3], b"x\xed\xa0\xbdy".to_vec()),
            Some("x\u{fffd}\u{fffd}\u{fffd}y"),
            None,
        );
        check(&nested(&[2, 3], vec![0xff]), Some("\u{fffd}"), None);
        check(&nested(&[2], vec![0x1a, 5, 1]), None, Some(" is not valid protobuf"));
        check(&nested(&[2, 6], vec![0x0a, 9]), None, Some(": attributes[0] is not valid protobuf"));
        check(&nested(&[2], vec![0x08, 1]), None, Some(": timeUnixNano is not valid protobuf"));
        let deep = nested(&[5, 1].repeat(60), vec![]);
        let deep = [deep, vec![0x1a, 1, 0xff]].concat();
        let scope = [nested(&[2, 5], deep), nested(&[2, 3], vec![0xff])].concat();
        let read = read::<ExportLogsServiceRequest>(Encoding::Protobuf, &nested(&[1, 2], scope));
        let (request, refused) = read.expect("the rest counts");
        assert_eq!(request.resource_logs[0].scope_logs[0].log_records.len(), 1);
        assert!(refused.first.is_some_and(|first| first.ends_with("nests too deeply")));
    }

    #[test]
    fn broken_protobuf_is_an_error() {
        for body in [&[0x0a, 0x05, 0x01][..], b"not protobuf at all", &[0x08, 1]] {
            let read = read::<ExportLogsServiceRequest>(Encoding::Protobuf, body);
            assert!(read.is_err(), "{body:?}");
        }
    }
}
