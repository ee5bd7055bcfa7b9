//! The messages of OTLP, from their descriptors: their fields, wire formats and sizes in memory.
//!
//! The descriptors come with the crate that has the types, so that no field of a later version is
//! missed.

use std::{
    collections::{BTreeMap, HashMap},
    sync::LazyLock,
};

use foldhash::fast::RandomState;
use opentelemetry_proto::DESCRIPTORS;
use prost::Message as _;
use prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorSet,
    field_descriptor_proto::{Label, Type},
};

/// Index of a message in the [`Schema`].
pub(super) type MessageId = usize;

/// Size of a `String` or a `Vec` without its content, in bytes.
const HANDLE: usize = 24;

static SCHEMA: LazyLock<Schema> = LazyLock::new(|| {
    let files = FileDescriptorSet::decode(DESCRIPTORS).expect("the crate's descriptors decode");
    Schema::new(&files)
});

/// All messages of OTLP.
#[derive(Debug)]
pub(super) struct Schema {
    messages: Vec<Message>,
    ids: HashMap<String, MessageId>,
    enums: Vec<BTreeMap<String, i32>>,
}

/// A message.
#[derive(Debug)]
pub(super) struct Message {
    /// Name without the package.
    pub(super) name: String,
    /// Largest size of a value without what it points to, in bytes.
    pub(super) size: usize,
    pub(super) fields: Vec<Field>,
    by_number: Vec<Option<usize>>,
    by_name: HashMap<String, usize, RandomState>,
}

/// A field of a message.
#[derive(Debug)]
pub(super) struct Field {
    pub(super) number: u32,
    /// Name in the proto file: `log_records`.
    pub(super) name: String,
    /// Name in JSON: `logRecords`.
    pub(super) json_name: String,
    pub(super) kind: Kind,
    pub(super) repeated: bool,
    /// Index among the repeated fields of its message.
    pub(super) slot: usize,
    oneof: Option<i32>,
    optional: bool,
}

/// The type of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Message(MessageId),
    Enum(usize),
    Text,
    Bytes,
    Bool,
    /// `int32` and `int64`.
    Signed(Width),
    /// `uint32` and `uint64`.
    Unsigned(Width),
    /// `sint32` and `sint64`.
    Zigzag(Width),
    /// `fixed32` and `fixed64`.
    Fixed(Width),
    /// `sfixed32` and `sfixed64`.
    SignedFixed(Width),
    /// `float` and `double`.
    Float(Width),
}

/// The width of a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Width {
    Four,
    Eight,
}

impl Kind {
    /// Returns the wire type of a single value.
    pub(super) const fn wire_type(self) -> u32 {
        match self {
            Self::Message(_) | Self::Text | Self::Bytes => 2,
            Self::Fixed(Width::Eight)
            | Self::SignedFixed(Width::Eight)
            | Self::Float(Width::Eight) => 1,
            Self::Fixed(Width::Four)
            | Self::SignedFixed(Width::Four)
            | Self::Float(Width::Four) => 5,
            _ => 0,
        }
    }

    /// Returns whether several values may be packed behind one tag.
    pub(super) const fn is_packable(self) -> bool {
        self.wire_type() != 2
    }
}

impl Schema {
    /// Returns the messages of the version in use.
    pub(super) fn get() -> &'static Self {
        &SCHEMA
    }

    /// Returns the index of the message with a full name, without a leading dot.
    pub(super) fn id(&self, name: &str) -> MessageId {
        *self.ids.get(name).expect("OTLP has the messages of its signals")
    }

    /// Returns a message.
    pub(super) fn message(&self, id: MessageId) -> &Message {
        &self.messages[id]
    }

    /// Returns for each message whether such records can be in it, at any depth.
    pub(super) fn leading_to(&self, records: MessageId) -> Vec<bool> {
        let mut leads = vec![false; self.messages.len()];
        leads[records] = true;
        let mut found = true;
        while std::mem::take(&mut found) {
            for (id, message) in self.messages.iter().enumerate() {
                let leading = |field: &Field| matches!(field.kind, Kind::Message(id) if leads[id]);
                if !leads[id] && message.fields.iter().any(leading) {
                    leads[id] = true;
                    found = true;
                }
            }
        }
        leads
    }

    /// Returns the number of an enum value by its name.
    pub(super) fn word(&self, of: usize, word: &str) -> Option<i32> {
        self.enums[of].get(word).copied()
    }

    /// Returns the memory that one value of a kind takes in a list, without what it points to, in
    /// bytes.
    pub(super) fn size_of(&self, kind: Kind) -> usize {
        match kind {
            Kind::Message(id) => self.messages[id].size,
            Kind::Text | Kind::Bytes => HANDLE,
            Kind::Bool => 1,
            Kind::Enum(_)
            | Kind::Signed(Width::Four)
            | Kind::Unsigned(Width::Four)
            | Kind::Zigzag(Width::Four)
            | Kind::Fixed(Width::Four)
            | Kind::SignedFixed(Width::Four)
            | Kind::Float(Width::Four) => 4,
            _ => 8,
        }
    }

    fn new(files: &FileDescriptorSet) -> Self {
        let mut found = Found::default();
        for file in &files.file {
            let package = format!(".{}", file.package());
            file.message_type.iter().for_each(|message| found.message(&package, message));
            file.enum_type.iter().for_each(|words| found.words(&package, words));
        }
        let messages: Vec<Message> =
            found.messages.iter().map(|(_, message)| found.read(message)).collect();
        let ids = found.messages.iter().enumerate();
        let ids = ids.map(|(id, (name, _))| (name.trim_start_matches('.').to_owned(), id));
        let mut schema = Self { messages, ids: ids.collect(), enums: found.enums };
        for id in 0..schema.messages.len() {
            schema.messages[id].size = schema.layout(id);
        }
        schema
    }

    /// Returns the largest size of a message. A message that holds itself other than in a list
    /// would recurse without end here; it cannot exist in Rust either.
    fn layout(&self, id: MessageId) -> usize {
        let message = &self.messages[id];
        let mut alternatives: BTreeMap<i32, usize> = BTreeMap::new();
        let mut size = 0;
        for field in &message.fields {
            let inner = match field.kind {
                _ if field.repeated => HANDLE,
                // With the room for what says whether there is one.
                Kind::Message(inner) => self.layout(inner) + 8,
                kind if field.optional => 2 * self.size_of(kind),
                kind => self.size_of(kind),
            };
            match field.oneof {
                Some(oneof) => {
                    let largest = alternatives.entry(oneof).or_default();
                    *largest = inner.max(*largest);
                }
                None => size += inner,
            }
        }
        let size: usize = size + alternatives.values().map(|largest| largest + 8).sum::<usize>();
        size.next_multiple_of(8)
    }
}

impl Message {
    /// Returns the field with a number.
    pub(super) fn field(&self, number: u32) -> Option<&Field> {
        let index = (*self.by_number.get(usize::try_from(number).ok()?)?)?;
        Some(&self.fields[index])
    }

    /// Returns the field with a name, of JSON or of the proto file.
    pub(super) fn named(&self, name: &str) -> Option<&Field> {
        Some(&self.fields[*self.by_name.get(name)?])
    }

    /// Returns the field that takes the text of an odd value, which its mapper then judges: only an
    /// attribute's value has such a field.
    pub(super) fn text_of_odd_value(&self) -> Option<&Field> {
        if self.name == "AnyValue" { self.named("string_value") } else { None }
    }
}

/// The messages and enums collected from the descriptors.
#[derive(Default)]
struct Found<'d> {
    messages: Vec<(String, &'d DescriptorProto)>,
    enums: Vec<BTreeMap<String, i32>>,
    enum_names: HashMap<String, usize>,
}

impl<'d> Found<'d> {
    fn message(&mut self, around: &str, message: &'d DescriptorProto) {
        let name = format!("{around}.{}", message.name());
        message.nested_type.iter().for_each(|nested| self.message(&name, nested));
        message.enum_type.iter().for_each(|words| self.words(&name, words));
        self.messages.push((name, message));
    }

    fn words(&mut self, around: &str, words: &EnumDescriptorProto) {
        self.enum_names.insert(format!("{around}.{}", words.name()), self.enums.len());
        let words = words.value.iter().map(|word| (word.name().to_owned(), word.number()));
        self.enums.push(words.collect());
    }

    fn read(&self, message: &DescriptorProto) -> Message {
        let mut slots = 0..;
        let fields: Vec<Field> = message
            .field
            .iter()
            .map(|field| {
                let repeated = field.label() == Label::Repeated;
                Field {
                    number: u32::try_from(field.number()).expect("fields have positive numbers"),
                    name: field.name().to_owned(),
                    json_name: field.json_name().to_owned(),
                    kind: self.kind(field),
                    repeated,
                    slot: if repeated { slots.next().unwrap_or_default() } else { 0 },
                    oneof: field.oneof_index.filter(|_| !field.proto3_optional()),
                    optional: field.proto3_optional(),
                }
            })
            .collect();
        let mut by_number = Vec::new();
        let mut by_name = HashMap::default();
        for (index, field) in fields.iter().enumerate() {
            let number = field.number as usize;
            by_number.resize(by_number.len().max(number + 1), None);
            by_number[number] = Some(index);
            by_name.insert(field.name.clone(), index);
            by_name.insert(field.json_name.clone(), index);
        }
        Message { name: message.name().to_owned(), size: 0, fields, by_number, by_name }
    }

    fn kind(&self, field: &FieldDescriptorProto) -> Kind {
        use Width::{Eight, Four};
        match field.r#type() {
            Type::Message => {
                let id = self.messages.iter().position(|(name, _)| name == field.type_name());
                Kind::Message(id.expect("the descriptors hold every message that they name"))
            }
            Type::Enum => {
                let id = self.enum_names.get(field.type_name()).copied();
                Kind::Enum(id.expect("the descriptors hold every enum that they name"))
            }
            Type::String => Kind::Text,
            // OTLP has no groups; one would be bytes that nobody reads.
            Type::Bytes | Type::Group => Kind::Bytes,
            Type::Bool => Kind::Bool,
            Type::Int32 => Kind::Signed(Four),
            Type::Int64 => Kind::Signed(Eight),
            Type::Uint32 => Kind::Unsigned(Four),
            Type::Uint64 => Kind::Unsigned(Eight),
            Type::Sint32 => Kind::Zigzag(Four),
            Type::Sint64 => Kind::Zigzag(Eight),
            Type::Fixed32 => Kind::Fixed(Four),
            Type::Fixed64 => Kind::Fixed(Eight),
            Type::Sfixed32 => Kind::SignedFixed(Four),
            Type::Sfixed64 => Kind::SignedFixed(Eight),
            Type::Float => Kind::Float(Four),
            Type::Double => Kind::Float(Eight),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use opentelemetry_proto::tonic::{
        collector::{
            logs::v1::ExportLogsServiceRequest, metrics::v1::ExportMetricsServiceRequest,
            trace::v1::ExportTraceServiceRequest,
        },
        common::v1::*,
        logs::v1::*,
        metrics::v1::{exponential_histogram_data_point::Buckets, summary_data_point::*, *},
        resource::v1::Resource,
        trace::v1::{
            span::{Event, Link},
            *,
        },
    };

    use super::*;

    /// Collects the names of all messages that a request can hold.
    fn reachable(schema: &Schema, id: MessageId, names: &mut BTreeSet<String>) {
        if !names.insert(schema.message(id).name.clone()) {
            return;
        }
        for field in &schema.message(id).fields {
            if let Kind::Message(inner) = field.kind {
                reachable(schema, inner, names);
            }
        }
    }

    #[test]
    fn messages_take_no_more_than_is_told() {
        macro_rules! sizes {
            ($($message:ident),* $(,)?) => {
                [$((stringify!($message), size_of::<$message>())),*]
            };
        }
        let sizes = sizes![
            ExportLogsServiceRequest,
            ExportTraceServiceRequest,
            ExportMetricsServiceRequest,
            ResourceLogs,
            ScopeLogs,
            LogRecord,
            ResourceSpans,
            ScopeSpans,
            Span,
            Event,
            Link,
            Status,
            ResourceMetrics,
            ScopeMetrics,
            Metric,
            Gauge,
            Sum,
            Histogram,
            ExponentialHistogram,
            Summary,
            NumberDataPoint,
            HistogramDataPoint,
            ExponentialHistogramDataPoint,
            Buckets,
            SummaryDataPoint,
            ValueAtQuantile,
            Exemplar,
            Resource,
            EntityRef,
            InstrumentationScope,
            KeyValue,
            AnyValue,
            ArrayValue,
            KeyValueList,
        ];
        let schema = Schema::get();
        let mut names = BTreeSet::new();
        for signal in ["logs.v1.ExportLogs", "trace.v1.ExportTrace", "metrics.v1.ExportMetrics"] {
            let name = format!("opentelemetry.proto.collector.{signal}ServiceRequest");
            reachable(schema, schema.id(&name), &mut names);
        }
        let known: BTreeSet<String> = sizes.iter().map(|(name, _)| (*name).to_owned()).collect();
        assert_eq!(names, known, "messages of another version; add their sizes");
        for (name, size) in sizes {
            let mut told = schema.messages.iter().filter(|message| message.name == name);
            let told = told.next().expect("it is reachable").size;
            assert!((size..=size + size / 2 + 16).contains(&told), "{name}: {told} for {size}");
        }
    }

    #[test]
    fn every_list_has_a_slot_of_its_own() {
        for message in &Schema::get().messages {
            let lists: Vec<usize> =
                message.fields.iter().filter(|it| it.repeated).map(|it| it.slot).collect();
            assert_eq!(lists, (0..lists.len()).collect::<Vec<_>>(), "{}", message.name);
        }
    }

    #[test]
    fn names_of_both_forms_are_known() {
        let schema = Schema::get();
        let record = schema.message(schema.id("opentelemetry.proto.logs.v1.LogRecord"));
        let number = |name: &str| record.named(name).map(|field| field.number);
        assert_eq!(number("timeUnixNano"), Some(1));
        assert_eq!(number("time_unix_nano"), Some(1));
        assert_eq!(number("time"), None);
        assert_eq!(record.field(6).map(|field| field.name.as_str()), Some("attributes"));
        assert!(record.field(4).is_none() && record.field(4_000_000).is_none());
    }
}
