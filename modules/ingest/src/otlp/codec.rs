//! Decodes OTLP messages. Errors say where, and never quote what stands there.

use serde_json::Value;

use super::answer::{Failure, Signal};
use crate::server::Encoding;

/// Decodes a body.
pub(super) fn decode<S: Signal>(encoding: Encoding, bytes: &[u8]) -> Result<S, Failure> {
    match encoding {
        Encoding::Protobuf => S::decode(bytes).map_err(|error| {
            // It names the message and field at most.
            Failure::undecodable(format!("the body is not valid OTLP protobuf: {error}"))
        }),
        Encoding::Json => decode_json(bytes),
    }
}

fn decode_json<S: Signal>(bytes: &[u8]) -> Result<S, Failure> {
    // Fields that are not known here are skipped unread, so the whole is checked beforehand.
    if let Err(error) = std::str::from_utf8(bytes) {
        let at = error.valid_up_to();
        let message = format!("the body is not valid OTLP JSON: it is not UTF-8 at byte {at}");
        return Err(Failure::undecodable(message));
    }
    let mut error = match serde_json::from_slice(bytes) {
        Ok(request) => return Ok(request),
        Err(error) => error,
    };
    // One number that does not fit must not cost the whole body: it is turned into text, which
    // the mapper of its record refuses.
    if error.is_data() {
        match serde_json::from_slice::<Value>(bytes) {
            Ok(mut value) => {
                repair(&mut value);
                if let Ok(request) = S::deserialize(value) {
                    return Ok(request);
                }
            }
            Err(syntax) => error = syntax,
        }
    }
    let what = if error.is_data() {
        "a value does not have the form that OTLP gives it"
    } else if error.is_eof() {
        "it ends too early"
    } else {
        "it is not JSON, or nests too deeply"
    };
    Err(Failure::undecodable(format!(
        "the body is not valid OTLP JSON: {what}, at line {} column {}",
        error.line(),
        error.column()
    )))
}

/// Makes attribute values readable that protobuf's JSON mapping allows or that only a broken
/// sender writes: numbers out of range, `NaN`, fields that are not known here, negative times.
fn repair(value: &mut Value) {
    match value {
        Value::Array(values) => values.iter_mut().for_each(repair),
        Value::Object(fields) => {
            fields.retain(|name, _| !is_unknown_value_field(name));
            for name in ["intValue", "doubleValue"] {
                let misfit = match fields.get(name) {
                    Some(Value::String(text)) => {
                        name == "doubleValue" || text.parse::<i64>().is_err()
                    }
                    Some(Value::Number(number)) => name == "intValue" && number.as_i64().is_none(),
                    _ => false,
                };
                if misfit && let Some(value) = fields.remove(name) {
                    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                    fields.insert("stringValue".to_owned(), Value::String(text));
                }
            }
            for (name, value) in fields.iter_mut() {
                if name.ends_with("UnixNano") && !is_u64(value) {
                    *value = Value::String("0".to_owned());
                }
                repair(value);
            }
        }
        _ => {}
    }
}

/// A newer form of an attribute value; the value is then as good as absent.
fn is_unknown_value_field(name: &str) -> bool {
    name.ends_with("Value")
        && !matches!(
            name,
            "stringValue"
                | "boolValue"
                | "intValue"
                | "doubleValue"
                | "arrayValue"
                | "kvlistValue"
                | "bytesValue"
        )
}

fn is_u64(value: &Value) -> bool {
    match value {
        Value::Number(number) => number.as_u64().is_some(),
        Value::String(text) => text.parse::<u64>().is_ok(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::{
        collector::logs::v1::ExportLogsServiceRequest, common::v1::any_value::Value as Any,
    };

    use super::*;

    fn with_attribute(value: &str) -> String {
        format!(
            "{{\"resourceLogs\":[{{\"scopeLogs\":[{{\"logRecords\":[{{\"timeUnixNano\":\"-5\",\
             \"attributes\":[{{\"key\":\"k\",\"value\":{value}}}]}}]}}]}}]}}"
        )
    }

    #[test]
    fn one_odd_value_does_not_cost_the_body() {
        let check = |value: &str, expected: Option<Any>| {
            let body = with_attribute(value);
            let request: ExportLogsServiceRequest =
                decode(Encoding::Json, body.as_bytes()).expect(value);
            let record = &request.resource_logs[0].scope_logs[0].log_records[0];
            let found = record.attributes[0].value.as_ref().and_then(|any| any.value.clone());
            assert_eq!(found, expected, "{value}");
        };
        let text = |text: &str| Some(Any::StringValue(text.to_owned()));
        check("{\"intValue\":\"12\"}", Some(Any::IntValue(12)));
        check("{\"intValue\":\"99999999999999999999\"}", text("99999999999999999999"));
        check("{\"intValue\":18446744073709551615}", text("18446744073709551615"));
        check("{\"doubleValue\":\"NaN\"}", text("NaN"));
        check("{\"futureValue\":{\"a\":1}}", None);
        check("{}", None);
    }

    #[test]
    fn errors_say_where_and_quote_nothing() {
        let check = |body: &str, part: &str| {
            let failure = decode::<ExportLogsServiceRequest>(Encoding::Json, body.as_bytes());
            let text = format!("{:?}", failure.expect_err("it is wrong"));
            assert!(text.contains(part), "{text}");
            assert!(!text.contains("secret"), "{text}");
        };
        check("", "it ends too early, at line 1 column 0");
        check("{\"resourceLogs\":", "it ends too early");
        check("secret", "it is not JSON, or nests too deeply, at line 1 column 1");
        check("{\"resourceLogs\":\"secret\"}", "does not have the form that OTLP gives it");
        let bomb = "{\"arrayValue\":{\"values\":[".repeat(100_000);
        check(&with_attribute(&bomb), "nests too deeply");
    }

    #[test]
    fn broken_protobuf_is_an_error() {
        let check = |body: &[u8]| {
            let failure = decode::<ExportLogsServiceRequest>(Encoding::Protobuf, body);
            assert!(failure.is_err(), "{body:?}");
        };
        check(&[0x0a, 0x05, 0x01]);
        check(b"not protobuf at all");
        // resource_logs { scope_logs { log_records { severity_text: <0xff> } } }
        check(&[0x0a, 7, 0x12, 5, 0x12, 3, 0x1a, 1, 0xff]);
    }
}
