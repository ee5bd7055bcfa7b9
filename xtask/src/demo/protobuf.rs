//! OTLP logs as protobuf, from their JSON form: what an exporter with `http/protobuf` sends.
//!
//! Field numbers are those of `opentelemetry/proto/logs/v1/logs.proto` and
//! `common/v1/common.proto` (OTLP 1.x, stable).

use serde_json::Value;

/// Encodes an `ExportLogsServiceRequest`.
pub(super) fn logs(request: &Value) -> Vec<u8> {
    let mut message = Message::default();
    message.each(1, &request["resourceLogs"], |resource_logs| {
        let mut message = Message::default();
        let mut resource = Message::default();
        resource.each(1, &resource_logs["resource"]["attributes"], key_value);
        message.nested(1, resource);
        message.each(2, &resource_logs["scopeLogs"], scope_logs);
        message
    });
    message.bytes
}

fn scope_logs(scope_logs: &Value) -> Message {
    let mut scope = Message::default();
    scope.text(1, &scope_logs["scope"]["name"]);
    scope.text(2, &scope_logs["scope"]["version"]);
    let mut message = Message::default();
    message.nested(1, scope);
    message.each(2, &scope_logs["logRecords"], log_record);
    message
}

fn log_record(record: &Value) -> Message {
    let mut message = Message::default();
    message.fixed64(1, &record["timeUnixNano"]);
    if record["body"].is_object() {
        message.nested(5, any_value(&record["body"]));
    }
    message.each(6, &record["attributes"], key_value);
    message.fixed64(11, &record["observedTimeUnixNano"]);
    message.text(12, &record["eventName"]);
    message
}

fn key_value(pair: &Value) -> Message {
    let mut message = Message::default();
    message.text(1, &pair["key"]);
    message.nested(2, any_value(&pair["value"]));
    message
}

fn any_value(value: &Value) -> Message {
    let mut message = Message::default();
    message.text(1, &value["stringValue"]);
    if let Some(truth) = value["boolValue"].as_bool() {
        message.tag(2, 0);
        message.varint(u64::from(truth));
    }
    if let Some(number) = value["intValue"].as_i64() {
        message.tag(3, 0);
        message.varint(number.cast_unsigned());
    }
    if let Some(number) = value["doubleValue"].as_f64() {
        message.tag(4, 1);
        message.bytes.extend(number.to_le_bytes());
    }
    message
}

#[derive(Default)]
struct Message {
    bytes: Vec<u8>,
}

impl Message {
    fn tag(&mut self, field: u64, wire_type: u64) {
        self.varint(field << 3 | wire_type);
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.bytes.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.bytes.push(value as u8);
    }

    fn raw(&mut self, field: u64, bytes: &[u8]) {
        self.tag(field, 2);
        self.varint(bytes.len() as u64);
        self.bytes.extend_from_slice(bytes);
    }

    fn nested(&mut self, field: u64, message: Self) {
        self.raw(field, &message.bytes);
    }

    fn text(&mut self, field: u64, value: &Value) {
        if let Some(text) = value.as_str() {
            self.raw(field, text.as_bytes());
        }
    }

    /// Writes a 64-bit number, which OTLP's JSON has as text.
    fn fixed64(&mut self, field: u64, value: &Value) {
        if let Some(number) = value.as_str().and_then(|text| text.parse::<u64>().ok()) {
            self.tag(field, 1);
            self.bytes.extend(number.to_le_bytes());
        }
    }

    fn each(&mut self, field: u64, list: &Value, encode: impl Fn(&Value) -> Self) {
        for item in list.as_array().map(Vec::as_slice).unwrap_or_default() {
            self.nested(field, encode(item));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_are_encoded_as_the_specification_says() {
        let check = |value: Value, expected: &[u8]| {
            assert_eq!(any_value(&value).bytes, expected, "{value}");
        };
        check(json!({"stringValue": "ab"}), &[0x0a, 2, b'a', b'b']);
        check(json!({"boolValue": true}), &[0x10, 1]);
        check(json!({"intValue": 300}), &[0x18, 0xac, 0x02]);
        check(json!({"doubleValue": 1.0}), &[0x21, 0, 0, 0, 0, 0, 0, 0xf0, 0x3f]);
    }

    #[test]
    fn a_record_lies_in_its_scope_and_resource() {
        let record = json!({"timeUnixNano": "1", "attributes": []});
        let request = json!({"resourceLogs": [{
            "resource": {"attributes": []},
            "scopeLogs": [{"scope": {"name": "s"}, "logRecords": [record]}],
        }]});
        let record = [0x09, 1, 0, 0, 0, 0, 0, 0, 0];
        let scope = [0x0a, 3, 0x0a, 1, b's', 0x12, 9].into_iter().chain(record);
        let resource = [0x0a, 0, 0x12, 16].into_iter().chain(scope);
        let expected = [0x0a, 20].into_iter().chain(resource).collect::<Vec<_>>();
        assert_eq!(logs(&request), expected);
    }
}
