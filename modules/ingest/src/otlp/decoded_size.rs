//! The memory that a message takes once it is decoded, computed before it is decoded.
//!
//! A message of two bytes becomes a structure of a hundred or more, so that a small body of empty
//! messages would fill the memory.

use super::{
    schema::{Field, Kind, Message, MessageId, Schema},
    walk::Spot,
    wire,
};
use crate::correlate::REMEMBERED;

/// Largest depth to which messages are followed; deeper ones do not decode (prost's own limit).
const MAX_DEPTH: usize = 100;

/// More repeated fields than any message has; elements of further ones would count four times.
const SLOTS: usize = 8;

/// Size counted for a message without fields, for the time that it takes, in bytes.
const EMPTY: usize = 32;

/// Size counted for a number with a tag of its own where writers pack them, for the time that it
/// takes, in bytes.
const ALONE: usize = 16;

/// Size counted for a field that is not known, for the time that it takes to skip it, in bytes.
const UNKNOWN: usize = 32;

/// More bytes than the tag and length before the content of a field take.
const HEAD: usize = 20;

/// The error for a decoded size beyond what is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TooLarge;

/// Memory that a record takes besides its decoded form, in bytes: its place in the walk, once more
/// while places are sorted, and what is remembered of it to correlate others. Reports and events
/// exist for some records at a time only.
pub(super) const REPORT: usize = 4 * size_of::<Spot>() + REMEMBERED;

/// Returns the most memory that a request with such records takes, in bytes, and stops where that
/// is more than `allowed`. `bytes` may be only the beginning of the request.
pub(super) fn measure(
    bytes: &[u8],
    ids: (MessageId, MessageId),
    allowed: usize,
) -> Result<usize, TooLarge> {
    let mut scale = Scale::new(ids);
    scale.open[0].end = bytes.len();
    scale.read(bytes, allowed)
}

/// The decoded size of a request, as far as it has arrived.
#[derive(Debug)]
pub(super) struct Scale {
    schema: &'static Schema,
    records: MessageId,
    decoded_size: usize,
    allowed: usize,
    /// Offset of the next field.
    at: usize,
    /// The messages that are not read to their end, the request first.
    open: Vec<Open>,
}

/// A message or a packed list that is not read to its end.
#[derive(Debug)]
struct Open {
    /// A message, a group, or numbers behind one tag that are elements of this field of the message
    /// around.
    what: What,
    end: usize,
    /// Number of elements of each repeated field.
    counts: [usize; SLOTS],
}

#[derive(Debug, Clone, Copy)]
enum What {
    Message(&'static Message),
    /// Fields that are not known, in so many groups.
    Group(usize),
    Packed(&'static Field),
}

impl Scale {
    /// Creates a scale for a request with such records, of which nothing has arrived.
    pub(super) fn new((request, records): (MessageId, MessageId)) -> Self {
        let schema = Schema::get();
        let message = schema.message(request);
        let whole = Open { what: What::Message(message), end: usize::MAX, counts: [0; SLOTS] };
        let open = vec![whole];
        Self { schema, records, decoded_size: message.size, allowed: 0, at: 0, open }
    }

    /// Reads on in a body of which `bytes` have arrived, and returns the decoded size so far.
    pub(super) fn read(&mut self, bytes: &[u8], allowed: usize) -> Result<usize, TooLarge> {
        self.allowed = allowed;
        self.put(0)?;
        while let Some(open) = self.open.last() {
            if self.at >= open.end {
                self.open.pop();
                continue;
            }
            let (what, end) = (open.what, open.end);
            let rest = bytes.get(self.at..end.min(bytes.len())).unwrap_or_default();
            if rest.is_empty() {
                break;
            }
            let read = match what {
                What::Packed(field) => {
                    self.at += rest.len();
                    let more = rest.iter().filter(|byte| **byte & 0x80 == 0).count();
                    self.elements(self.open.len() - 2, field, more)?;
                    continue;
                }
                What::Group(depth) => self.grouped(depth, end, rest)?,
                What::Message(message) => self.field(message, end, rest)?,
            };
            if read.is_some() {
                continue;
            }
            if end > bytes.len() && rest.len() < HEAD {
                break;
            }
            // What cannot be read does not decode.
            self.at = end;
        }
        Ok(self.decoded_size)
    }

    fn put(&mut self, bytes: usize) -> Result<(), TooLarge> {
        self.decoded_size = self.decoded_size.saturating_add(bytes);
        if self.decoded_size > self.allowed { Err(TooLarge) } else { Ok(()) }
    }

    /// Adds elements to a list of a message that is open.
    fn elements(&mut self, of: usize, field: &Field, more: usize) -> Result<(), TooLarge> {
        let size = self.schema.size_of(field.kind);
        let decoded_size = match self.open[of].counts.get_mut(field.slot) {
            Some(count) => grown(count, more, size),
            None => more.saturating_mul(allocated(FIRST * size)),
        };
        if decoded_size == 0 { Ok(()) } else { self.put(decoded_size) }
    }

    /// Reads the next field of a message that ends at `end`; `None` where it cannot be read.
    fn field(
        &mut self,
        message: &'static Message,
        end: usize,
        rest: &[u8],
    ) -> Result<Option<()>, TooLarge> {
        let Some(head) = wire::head(rest) else { return Ok(None) };
        if head.wire_type == wire::GROUP {
            return self.begin_group(1, end, &head);
        }
        if head.wire_type == wire::GROUP_END {
            return Ok(None);
        }
        let start = self.at + head.length;
        let field_end = start.saturating_add(head.payload).min(end);
        self.at = field_end;
        let Some(field) = message.field(head.number) else {
            self.put(UNKNOWN)?;
            return Ok(Some(()));
        };
        let packed = head.wire_type == 2 && field.kind.is_packable();
        let inner = match field.kind {
            _ if packed && field.repeated && field.kind.wire_type() == 0 => {
                Some(What::Packed(field))
            }
            Kind::Message(_) if field_end == start => {
                self.put(EMPTY)?;
                None
            }
            Kind::Message(inner) if head.wire_type == 2 => {
                Some(What::Message(self.schema.message(inner)))
            }
            _ => None,
        };
        if field.repeated && !matches!(inner, Some(What::Packed(_))) {
            let more = if packed { elements(field.kind, field_end - start) } else { 1 };
            self.elements(self.open.len() - 1, field, more)?;
        }
        if field.repeated && field.kind.is_packable() && !packed {
            self.put(ALONE)?;
        }
        if field.kind == Kind::Message(self.records) {
            self.put(REPORT)?;
        }
        if matches!(field.kind, Kind::Text | Kind::Bytes) && head.wire_type == 2 {
            self.put(allocated(field_end - start))?;
        }
        if let Some(what) = inner.filter(|_| self.open.len() < MAX_DEPTH) {
            self.at = start;
            self.open.push(Open { what, end: field_end, counts: [0; SLOTS] });
        }
        Ok(Some(()))
    }

    /// Reads the next field of a group within a message that ends at `end`; `None` where it cannot
    /// be read. What has not come yet is read on from there, as in a message.
    fn grouped(&mut self, depth: usize, end: usize, rest: &[u8]) -> Result<Option<()>, TooLarge> {
        let Some(head) = wire::head(rest) else { return Ok(None) };
        match head.wire_type {
            wire::GROUP => return self.begin_group(depth + 1, end, &head),
            wire::GROUP_END => {
                self.at += head.length;
                self.open.pop();
            }
            _ => {
                self.at = (self.at + head.length).saturating_add(head.payload).min(end);
                self.put(UNKNOWN)?;
            }
        }
        Ok(Some(()))
    }

    /// Goes into a group, which no field of a message is.
    fn begin_group(
        &mut self,
        depth: usize,
        end: usize,
        head: &wire::Head,
    ) -> Result<Option<()>, TooLarge> {
        if depth > wire::MAX_GROUPS {
            return Ok(None);
        }
        self.put(UNKNOWN)?;
        self.at += head.length;
        self.open.push(Open { what: What::Group(depth), end, counts: [0; SLOTS] });
        Ok(Some(()))
    }
}

/// Returns the number of elements of a fixed width in so many bytes.
const fn elements(kind: Kind, bytes: usize) -> usize {
    if kind.wire_type() == 1 { bytes.div_ceil(8) } else { bytes.div_ceil(4) }
}

/// Number of elements that a list has room for as soon as it has one.
const FIRST: usize = 4;

/// Adds `more` elements to a list and returns how much more memory the list then takes.
pub(super) fn grown(count: &mut usize, more: usize, size: usize) -> usize {
    let room = |count: usize| match count {
        0 => 0,
        _ => {
            let count = count.checked_next_power_of_two().unwrap_or(usize::MAX).max(FIRST);
            allocated(count.saturating_mul(size))
        }
    };
    // Most elements find room.
    if more == 1 && *count > 0 && (*count < FIRST || !count.is_power_of_two()) {
        *count += 1;
        return 0;
    }
    let before = room(*count);
    *count = count.saturating_add(more);
    room(*count) - before
}

/// Returns the memory that the allocator takes for `bytes`.
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

    fn of_bytes(bytes: &[u8], allowed: usize) -> Result<usize, TooLarge> {
        let schema = Schema::get();
        let request = "opentelemetry.proto.collector.logs.v1.ExportLogsServiceRequest";
        let records = "opentelemetry.proto.logs.v1.LogRecord";
        measure(bytes, (schema.id(request), schema.id(records)), allowed)
    }

    fn decoded_size(record: LogRecord, times: usize) -> usize {
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
            let found = decoded_size(record, TIMES);
            assert!(found >= TIMES * per_record, "{found} for {per_record}");
            assert!(found < TIMES * 2 * per_record + 10_000, "{found}");
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
            let found = of_bytes(garbage, usize::MAX).expect("it has no limit");
            assert!(found <= empty + garbage.len() / 2 * UNKNOWN, "{found}");
        }
        // The beginning of a message weighs what is there.
        let part = of_bytes(&[0x0a, 100, 0x12, 90, 0x12, 0], usize::MAX).expect("it has no limit");
        assert!(part > empty + size_of::<LogRecord>(), "{part}");
        // An empty group of a field that is not known, then empty entries.
        let mut bytes = vec![0x7b, 0x7c];
        bytes.extend(std::iter::repeat_n([0x0a, 0], 1000).flatten());
        let found = of_bytes(&bytes, usize::MAX).expect("it has no limit");
        assert!(found >= 1000 * size_of::<ResourceLogs>(), "{found}");
        assert_eq!(of_bytes(&bytes, found - 1), Err(TooLarge));
        assert_eq!(of_bytes(&bytes, found), Ok(found));
    }

    #[test]
    fn what_comes_in_parts_weighs_the_same() {
        let schema = Schema::get();
        let request = "opentelemetry.proto.collector.metrics.v1.ExportMetricsServiceRequest";
        let ids = (schema.id(request), schema.id("opentelemetry.proto.metrics.v1.Metric"));
        // Of a resource and a scope: a name, and a histogram whose point has buckets, three of them
        // packed and one alone, and a field of no message.
        let point = [&[0x12, 4, 1, 0x80, 1, 2, 0x10, 7][..], &[0x7a, 1, 9]].concat();
        let mut bytes = [vec![0x42, point.len() as u8], point].concat();
        for tag in [0x0a, 0x52] {
            bytes = [vec![tag, bytes.len() as u8], bytes].concat();
        }
        bytes.extend_from_slice(b"\x0a\x03abc");
        for tag in [0x12, 0x12, 0x0a] {
            bytes = [vec![tag, bytes.len() as u8], bytes].concat();
        }
        let bytes = bytes.repeat(3);
        let whole = measure(&bytes, ids, usize::MAX).expect("it has no limit");
        assert!(whole > 3 * (REPORT + ALONE + UNKNOWN + 4 * 8), "{whole}");
        for length in 1..bytes.len() {
            let mut scale = Scale::new(ids);
            for end in (0..bytes.len()).step_by(length) {
                scale.read(&bytes[..end], usize::MAX).expect("it has no limit");
            }
            assert_eq!(scale.read(&bytes, usize::MAX), Ok(whole), "{length}");
        }
    }

    /// A group of which not all has come must not hide what comes behind it.
    #[test]
    fn a_group_that_comes_in_parts_hides_nothing() {
        let schema = Schema::get();
        let request = "opentelemetry.proto.collector.logs.v1.ExportLogsServiceRequest";
        let ids = (schema.id(request), schema.id("opentelemetry.proto.logs.v1.LogRecord"));
        // A text of 100 bytes, another group with a number, one of eight bytes and one of four.
        let mut group = [vec![0x7b, 0x1a, 100], vec![b'x'; 100], vec![0x23, 0x08, 9]].concat();
        group.extend([vec![0x11], vec![0; 8], vec![0x1d], vec![0; 4], vec![0x24, 0x7c]].concat());
        let mut bytes = group.clone();
        bytes.extend(std::iter::repeat_n([0x0a, 0], 1000).flatten());
        // And one within a message.
        bytes.extend([vec![0x0a, u8::try_from(group.len()).expect("it is short")], group].concat());
        bytes.extend(std::iter::repeat_n([0x0a, 0], 1000).flatten());
        let whole = measure(&bytes, ids, usize::MAX).expect("it has no limit");
        assert!(whole >= 2000 * size_of::<ResourceLogs>(), "{whole}");
        for length in (1..300).chain([bytes.len() - 1]) {
            let mut scale = Scale::new(ids);
            for end in (0..bytes.len()).step_by(length) {
                scale.read(&bytes[..end], usize::MAX).expect("it has no limit");
            }
            assert_eq!(scale.read(&bytes, usize::MAX), Ok(whole), "{length}");
        }
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
