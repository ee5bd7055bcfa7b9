//! The memory that a request in OTLP/JSON will take, computed while it arrives: one pass over its
//! bytes, without building anything.
//!
//! Content that takes time and no memory is counted too: space, escapes, and members that are no
//! known field. Text that is not JSON gets some size as well; the decoder is what refuses it.

use super::{
    decoded_size::{REPORT, TooLarge, allocated, grown},
    scalar,
    schema::{Field, Kind, MessageId, Schema},
};

/// Largest depth to which brackets may nest. A record is left out from 80 nested messages on, so
/// only a body that holds no real record comes so far.
const MAX_BRACKETS: usize = 1000;

/// Size counted for a space between values, in bytes.
const SPACE: usize = 6;

/// Size counted for an escape in a text, in bytes.
const ESCAPE: usize = 24;

/// Size counted for a member of an object, or for an element of a list that is not known, in bytes.
const MEMBER: usize = 16;

/// Size counted in addition for a member beyond [`MEMBERS`]: some fields are then stated twice.
const AGAIN: usize = 64;

/// More members than a message has fields.
const MEMBERS: usize = 32;

/// The reason for not reading a body any further.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    TooLarge,
    TooDeep,
}

impl From<TooLarge> for Stop {
    fn from(_: TooLarge) -> Self {
        Self::TooLarge
    }
}

/// The decoded size of a request in JSON, as far as it has arrived.
#[derive(Debug)]
pub(super) struct JsonScale {
    schema: &'static Schema,
    request: MessageId,
    records: MessageId,
    decoded_size: usize,
    /// Offset of the next byte.
    at: usize,
    /// The objects and lists that are open.
    open: Vec<Open>,
    /// Offset where an unfinished text begins.
    text: Option<usize>,
    /// True within a number or a word.
    in_word: bool,
}

#[derive(Debug)]
enum Open {
    Object {
        id: Option<MessageId>,
        /// Field of the next value.
        member: Option<&'static Field>,
        /// True when a name is next.
        named: bool,
        members: usize,
    },
    List {
        of: Option<&'static Field>,
        count: usize,
    },
}

impl JsonScale {
    /// Creates a scale for a request with such records, of which nothing has arrived.
    pub(super) fn new((request, records): (MessageId, MessageId)) -> Self {
        Self {
            schema: Schema::get(),
            request,
            records,
            decoded_size: 0,
            at: 0,
            open: Vec::new(),
            text: None,
            in_word: false,
        }
    }

    /// Reads on in a body of which `bytes` have arrived, and returns the size so far, the body's
    /// own bytes included.
    pub(super) fn read(&mut self, bytes: &[u8], allowed: usize) -> Result<usize, Stop> {
        while let Some(&byte) = bytes.get(self.at) {
            if let Some(start) = self.text {
                self.text(bytes, start);
            } else {
                self.token(byte)?;
                self.at += 1;
            }
            if bytes.len().min(self.at).saturating_add(self.decoded_size) > allowed {
                return Err(Stop::TooLarge);
            }
        }
        let decoded_size = bytes.len().saturating_add(self.decoded_size);
        if decoded_size > allowed { Err(Stop::TooLarge) } else { Ok(decoded_size) }
    }

    /// Reads a byte that is not within a text.
    fn token(&mut self, byte: u8) -> Result<(), Stop> {
        let is_word = !matches!(
            byte,
            b'"' | b'{' | b'}' | b'[' | b']' | b',' | b':' | b' ' | b'\t' | b'\n' | b'\r'
        );
        if is_word {
            if !std::mem::replace(&mut self.in_word, true) {
                self.value();
            }
            return Ok(());
        }
        self.in_word = false;
        match byte {
            b'"' => {
                if !self.is_name_next() {
                    self.value();
                }
                self.text = Some(self.at + 1);
            }
            b'{' | b'[' => self.enter(byte == b'{')?,
            b'}' | b']' => drop(self.open.pop()),
            b',' => match self.open.last_mut() {
                Some(Open::Object { id, named, members, .. }) => {
                    *named = true;
                    *members += 1;
                    let again = id.is_some() && *members > MEMBERS;
                    self.decoded_size += if again { MEMBER + AGAIN } else { MEMBER };
                }
                Some(Open::List { of: None, .. }) => self.decoded_size += MEMBER,
                _ => {}
            },
            b':' => {}
            _ => self.decoded_size += SPACE,
        }
        Ok(())
    }

    const fn is_name_next(&self) -> bool {
        matches!(self.open.as_slice().last(), Some(Open::Object { named: true, .. }))
    }

    /// Counts a value where it begins.
    fn value(&mut self) {
        if self.open.is_empty() {
            // There is only one, unless it is no JSON.
            self.decoded_size += MEMBER;
        }
        let Some(Open::List { of: Some(field), count }) = self.open.last_mut() else { return };
        let report = if field.kind == Kind::Message(self.records) { REPORT } else { 0 };
        self.decoded_size += grown(count, 1, self.schema.size_of(field.kind)) + report;
    }

    /// Opens an object or a list.
    fn enter(&mut self, is_object: bool) -> Result<(), Stop> {
        self.value();
        if self.open.len() >= MAX_BRACKETS {
            return Err(Stop::TooDeep);
        }
        let (field, is_element) = match self.open.last() {
            Some(Open::Object { member, .. }) => (*member, false),
            Some(Open::List { of, .. }) => (*of, true),
            None => (None, false),
        };
        let is_request = self.open.is_empty();
        let field = field.filter(|field| is_object == (field.repeated == is_element));
        // Skipping takes a byte for each.
        self.decoded_size += 1;
        self.open.push(if is_object {
            let id = match field.map(|field| field.kind) {
                Some(Kind::Message(id)) => Some(id),
                _ if is_request => Some(self.request),
                _ => None,
            };
            Open::Object { id, member: None, named: true, members: 0 }
        } else {
            Open::List { of: field.filter(|field| field.repeated && !is_element), count: 0 }
        });
        Ok(())
    }

    /// Reads on in a text that begins at `start`.
    fn text(&mut self, bytes: &[u8], start: usize) {
        let rest = bytes.get(self.at..).unwrap_or_default();
        let is_name = self.is_name_next();
        let is_end = rest.first() == Some(&b'"');
        let found = if is_end { Some(0) } else { memchr::memchr2(b'"', b'\\', rest) };
        let length = found.unwrap_or(rest.len());
        // It is written anew, and then decoded; a name is compared.
        self.decoded_size += if is_name { length } else { 2 * length };
        self.at += length;
        match found.and_then(|found| rest.get(found)) {
            None => {}
            Some(b'\\') => {
                self.decoded_size += ESCAPE;
                self.at += 2;
            }
            Some(_) => {
                self.text = None;
                let text = bytes.get(start..self.at).unwrap_or_default();
                self.at += 1;
                self.end_of_text(text, is_name);
            }
        }
    }

    fn end_of_text(&mut self, text: &[u8], is_name: bool) {
        match self.open.last_mut() {
            Some(Open::Object { id, member, named, .. }) if is_name => {
                let name = std::str::from_utf8(text).ok().and_then(scalar::unquoted_name);
                let of = id.map(|id| self.schema.message(id));
                *member = of.zip(name).and_then(|(of, name)| of.named(&name));
                *named = false;
            }
            Some(Open::Object { member: Some(field), .. } | Open::List { of: Some(field), .. })
                if matches!(field.kind, Kind::Text | Kind::Bytes) =>
            {
                self.decoded_size += allocated(text.len()).saturating_sub(text.len());
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REQUEST: &str = "opentelemetry.proto.collector.logs.v1.ExportLogsServiceRequest";
    const RECORDS: &str = "opentelemetry.proto.logs.v1.LogRecord";

    fn scale() -> JsonScale {
        let schema = Schema::get();
        JsonScale::new((schema.id(REQUEST), schema.id(RECORDS)))
    }

    fn decoded_size(text: &str) -> usize {
        scale().read(text.as_bytes(), usize::MAX).expect("it has no limit")
    }

    /// Returns the decoded size of one `element`, measured in a text that repeats it many times.
    fn of_each(before: &str, element: &str) -> usize {
        const TIMES: usize = 1024;
        let whole = format!("{before}{}", element.repeat(TIMES));
        (decoded_size(&whole) - decoded_size(before)) / TIMES
    }

    #[test]
    fn elements_weigh_what_becomes_of_them() {
        let size = |name: &str| Schema::get().message(Schema::get().id(name)).size;
        let record = "{\"resourceLogs\":[{\"scopeLogs\":[{\"logRecords\":[";
        let check = |before: &str, element: &str, least: usize| {
            let found = of_each(before, element);
            assert!((least..least + least / 4 + 40).contains(&found), "{element}: {found}");
        };
        check(record, "{},", size(RECORDS) + REPORT);
        check(record, "null,", size(RECORDS) + REPORT);
        check(record, " { \"flags\" : 1 } ,", size(RECORDS) + REPORT + 6 * SPACE);
        let pair = size("opentelemetry.proto.common.v1.KeyValue");
        check(&format!("{record}{{\"attributes\":["), "{},", pair);
        check(&format!("{record}{{\"\\u0061ttributes\":["), "{},", pair);
        let value = size("opentelemetry.proto.common.v1.AnyValue");
        let values = format!("{record}{{\"body\":{{\"array_value\":{{\"values\":[");
        check(&values, "{\"stringValue\":\"ab\\\"\"},", value + ESCAPE + 12 + 32);
        check("{\"resourceLogs\":[{\"resource\":{\"entityRefs\":[{\"idKeys\":[", "\"\",", 24);
        check("{\"unknown\":[", "0,", MEMBER);
        check("{\"unknown\":{", "\"a\":0,", MEMBER);
        check("{\"resourceLogs\":{", "\"a\":0,", MEMBER);
        check("{", "\"resourceLogs\":0,", MEMBER + AGAIN * 9 / 10);
        check("", " ", SPACE);
        check("", "{}", MEMBER);
    }

    #[test]
    fn what_comes_in_parts_weighs_the_same() {
        let text = r#"{"resourceLogs" : [{"scopeLogs":[{"log\u0052ecords":[
            {"body":{"stringValue":"a\\\"b"},"x":[1,-2.5e3,true]},null]}]}]}"#;
        for length in 1..text.len() {
            let mut scale = scale();
            for end in (0..text.len()).step_by(length) {
                scale.read(&text.as_bytes()[..end], usize::MAX).expect("it has no limit");
            }
            assert_eq!(scale.read(text.as_bytes(), usize::MAX), Ok(decoded_size(text)), "{length}");
        }
    }

    #[test]
    fn it_stops_at_the_limit_and_in_the_depth() {
        let whole = decoded_size("{\"a\":[1,2]}");
        assert_eq!(scale().read(b"{\"a\":[1,2]}", whole), Ok(whole));
        assert_eq!(scale().read(b"{\"a\":[1,2]}", whole - 1), Err(Stop::TooLarge));
        for bracket in ["[", "{\"a\":", "[{\"arrayValue\":{\"values\":"] {
            let deep = bracket.repeat(MAX_BRACKETS + 1);
            assert_eq!(scale().read(deep.as_bytes(), usize::MAX), Err(Stop::TooDeep));
        }
        let flat = "[[[]]]".repeat(MAX_BRACKETS);
        assert!(scale().read(flat.as_bytes(), usize::MAX).is_ok());
        for garbage in ["]]]}}}", "\"\\", "::,,", "\u{fc}{\"\"\"", "nul\"\"1"] {
            assert!(scale().read(garbage.as_bytes(), usize::MAX).is_ok(), "{garbage}");
        }
    }
}
