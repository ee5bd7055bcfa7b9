//! What a message takes in memory once it is decoded, told before it is decoded.
//!
//! A message of two bytes becomes a structure of a hundred or more, so that a small body of empty
//! messages would fill the memory.

use super::{
    schema::{Kind, MessageId, Schema},
    wire::{self, Payload},
};
use crate::report::Report;

/// How deep messages are followed; deeper ones do not decode (prost's own limit).
const MAX_DEPTH: usize = 100;

/// More repeated fields than any message has; elements of further ones would weigh four times.
const SLOTS: usize = 8;

/// The weight is beyond what is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TooHeavy;

/// What a record becomes besides: the report of a request, with its texts.
pub(super) const REPORT: usize = size_of::<Report>() + 256;

/// Returns what a request with such records takes at most, bytes, and stops where that is more than
/// `allowed`. What stands in `bytes` may be the beginning of it.
pub(super) fn weigh(
    bytes: &[u8],
    (request, records): (MessageId, MessageId),
    allowed: usize,
) -> Result<usize, TooHeavy> {
    let mut scale = Scale { schema: Schema::get(), records, weight: 0, allowed };
    scale.put(scale.schema.message(request).size)?;
    scale.message(bytes, request, MAX_DEPTH)?;
    Ok(scale.weight)
}

struct Scale {
    schema: &'static Schema,
    records: MessageId,
    weight: usize,
    allowed: usize,
}

impl Scale {
    fn put(&mut self, bytes: usize) -> Result<(), TooHeavy> {
        self.weight = self.weight.saturating_add(bytes);
        if self.weight > self.allowed { Err(TooHeavy) } else { Ok(()) }
    }

    /// Adds what a message points to. What cannot be read adds nothing: it does not decode.
    fn message(&mut self, mut bytes: &[u8], id: MessageId, depth: usize) -> Result<(), TooHeavy> {
        let message = self.schema.message(id);
        let mut counts = [0; SLOTS];
        while let Some(piece) = wire::next_of_part(&mut bytes) {
            let Some(field) = message.field(piece.number) else { continue };
            if field.repeated {
                let more = elements(field.kind, piece.payload);
                let size = self.schema.size_of(field.kind);
                self.put(match counts.get_mut(field.slot) {
                    Some(count) => grown(count, more, size),
                    None => more.saturating_mul(allocated(FIRST * size)),
                })?;
            }
            if field.kind == Kind::Message(self.records) {
                self.put(REPORT)?;
            }
            match (field.kind, piece.payload) {
                (Kind::Message(inner), Payload::Bytes(bytes)) if depth > 1 => {
                    self.message(bytes, inner, depth - 1)?;
                }
                (Kind::Text | Kind::Bytes, Payload::Bytes(bytes)) => {
                    self.put(allocated(bytes.len()))?;
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// How many elements of a repeated field stand behind one tag.
fn elements(kind: Kind, payload: Payload<'_>) -> usize {
    match payload {
        Payload::Bytes(packed) if kind.is_packable() => match kind.wire_type() {
            1 => packed.len().div_ceil(8),
            5 => packed.len().div_ceil(4),
            _ => packed.iter().filter(|byte| **byte & 0x80 == 0).count(),
        },
        _ => 1,
    }
}

/// How many elements a list has room for as soon as it has one.
const FIRST: usize = 4;

/// Adds `more` elements to a list and returns how much more memory it then takes.
pub(super) fn grown(count: &mut usize, more: usize, size: usize) -> usize {
    let room = |count: usize| match count {
        0 => 0,
        _ => {
            let count = count.checked_next_power_of_two().unwrap_or(usize::MAX).max(FIRST);
            allocated(count.saturating_mul(size))
        }
    };
    let before = room(*count);
    *count = count.saturating_add(more);
    room(*count) - before
}

/// What the allocator takes for `bytes`.
pub(super) const fn allocated(bytes: usize) -> usize {
    match bytes {
        0 => 0,
        1..=24 => 32,
        _ => bytes.saturating_add(8 + 15) & !15,
    }
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

    fn of_bytes(bytes: &[u8], allowed: usize) -> Result<usize, TooHeavy> {
        let schema = Schema::get();
        let request = "opentelemetry.proto.collector.logs.v1.ExportLogsServiceRequest";
        let records = "opentelemetry.proto.logs.v1.LogRecord";
        weigh(bytes, (schema.id(request), schema.id(records)), allowed)
    }

    fn weight(record: LogRecord, times: usize) -> usize {
        let log_records = vec![record; times];
        let scope_logs = vec![ScopeLogs { log_records, ..ScopeLogs::default() }];
        let resource_logs = vec![ResourceLogs { scope_logs, ..ResourceLogs::default() }];
        let bytes = ExportLogsServiceRequest { resource_logs }.encode_to_vec();
        of_bytes(&bytes, usize::MAX).expect("it has no limit")
    }

    #[test]
    fn empty_messages_have_their_weight() {
        // As many as a list of this length has room for.
        const TIMES: usize = 1024;
        let record = size_of::<LogRecord>() + REPORT;
        let check = |record: LogRecord, per_record: usize| {
            let found = weight(record, TIMES);
            assert!(found >= TIMES * per_record, "{found} for {per_record}");
            assert!(found < TIMES * (per_record + per_record / 2) + 10_000, "{found}");
        };
        check(LogRecord::default(), record);
        let attributes = vec![KeyValue::default(); 8];
        check(LogRecord { attributes, ..LogRecord::default() }, record + 8 * size_of::<KeyValue>());
        let list = ArrayValue { values: vec![AnyValue::default(); 32] };
        let body = Some(AnyValue { value: Some(Value::ArrayValue(list)) });
        check(LogRecord { body, ..LogRecord::default() }, record + 32 * size_of::<AnyValue>());
        let severity_text = "x".repeat(100);
        check(LogRecord { severity_text, ..LogRecord::default() }, record + 100);
    }

    #[test]
    fn garbage_weighs_little_and_hides_nothing() {
        let empty = of_bytes(b"", usize::MAX).expect("it has no limit");
        for garbage in [&[0xff; 100][..], b"plain text"] {
            assert_eq!(of_bytes(garbage, usize::MAX), Ok(empty));
        }
        // The beginning of a message weighs what is there.
        let part = of_bytes(&[0x0a, 100, 0x12, 90, 0x12, 0], usize::MAX).expect("it has no limit");
        assert!(part > empty + size_of::<LogRecord>(), "{part}");
        // An empty group of a field that is not known, then empty entries.
        let mut bytes = vec![0x7b, 0x7c];
        bytes.extend(std::iter::repeat_n([0x0a, 0], 1000).flatten());
        let found = of_bytes(&bytes, usize::MAX).expect("it has no limit");
        assert!(found >= 1000 * size_of::<ResourceLogs>(), "{found}");
        assert_eq!(of_bytes(&bytes, found - 1), Err(TooHeavy));
        assert_eq!(of_bytes(&bytes, found), Ok(found));
    }

    #[test]
    fn lists_grow_by_doubling() {
        let mut count = 0;
        let mut sum = 0;
        for _ in 0..5 {
            sum += grown(&mut count, 1, 100);
        }
        assert_eq!((count, sum), (5, allocated(800)));
        assert_eq!(grown(&mut count, 3, 100), 0);
        assert_eq!(grown(&mut 0, usize::MAX, 100), usize::MAX & !15);
    }
}
