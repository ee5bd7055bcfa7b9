//! Bombs for every list of OTLP, made from the descriptors.

use std::collections::{BTreeMap, BTreeSet};

use opentelemetry_proto::DESCRIPTORS;
use prost::Message as _;
use prost_types::{
    DescriptorProto, FieldDescriptorProto, FileDescriptorSet,
    field_descriptor_proto::{Label, Type},
};

/// A body: the bytes before the repeated unit, the unit, and the bytes after it.
pub(crate) struct Bomb {
    pub(crate) name: String,
    pub(crate) path: &'static str,
    pub(crate) is_json: bool,
    pub(crate) before: Box<dyn Fn(usize) -> Vec<u8>>,
    pub(crate) unit: Vec<u8>,
    pub(crate) after: Vec<u8>,
}

type Messages = BTreeMap<String, DescriptorProto>;

/// Returns a bomb of every list: in protobuf one by one and packed, in JSON, and each also as many
/// messages that hold one element.
pub(crate) fn bombs() -> Vec<Bomb> {
    let files = FileDescriptorSet::decode(DESCRIPTORS).expect("the descriptors decode");
    let mut messages = Messages::new();
    for file in &files.file {
        for message in &file.message_type {
            gather(&format!(".{}", file.package()), message, &mut messages);
        }
    }
    let mut bombs = Vec::new();
    for (path, request) in [
        ("/v1/logs", "logs.v1.ExportLogsServiceRequest"),
        ("/v1/traces", "trace.v1.ExportTraceServiceRequest"),
        ("/v1/metrics", "metrics.v1.ExportMetricsServiceRequest"),
    ] {
        let request = format!(".opentelemetry.proto.collector.{request}");
        let mut seen = BTreeSet::new();
        let mut roads = vec![(request, Vec::new())];
        // From the outside in, so that each message is reached on its shortest road.
        for step in 0.. {
            let Some((name, road)) = roads.get(step).cloned() else { break };
            if !seen.insert(name.clone()) {
                continue;
            }
            for field in &messages[&name].field {
                let mut road: Vec<FieldDescriptorProto> = road.clone();
                road.push(field.clone());
                if field.label() == Label::Repeated {
                    bombs.extend(of_list(path, &road));
                }
                if field.r#type() == Type::Message {
                    roads.push((field.type_name().to_owned(), road));
                }
            }
        }
    }
    bombs
}

fn gather(around: &str, message: &DescriptorProto, messages: &mut Messages) {
    let name = format!("{around}.{}", message.name());
    message.nested_type.iter().for_each(|nested| gather(&name, nested, messages));
    messages.insert(name, message.clone());
}

fn of_list(path: &'static str, road: &[FieldDescriptorProto]) -> Vec<Bomb> {
    let names: Vec<&str> = road.iter().map(FieldDescriptorProto::json_name).collect();
    let name = |form: &str| format!("{path} {} {form}", names.join("."));
    let (list, around) = road.split_last().expect("a road ends in a list");
    let protobuf = |form: &str, around: &[FieldDescriptorProto], unit: Vec<u8>| Bomb {
        name: name(form),
        path,
        is_json: false,
        before: {
            let (around, length) = (around.to_vec(), unit.len());
            Box::new(move |times| heads(&around, times * length))
        },
        unit,
        after: Vec::new(),
    };
    let json = |form: &str, depth: usize, unit: String| {
        let (outer, inner) = road.split_at(depth);
        let (open, close) = text_around(outer);
        let (inner_open, inner_close) = text_around(inner);
        let unit = format!("{inner_open}{unit}{inner_close}");
        Bomb {
            name: name(form),
            path,
            is_json: true,
            // The last element has no comma behind it.
            after: format!("{unit}{close}").into_bytes(),
            before: Box::new(move |_| open.clone().into_bytes()),
            unit: format!("{unit},").into_bytes(),
        }
    };
    let mut bombs = vec![
        protobuf("protobuf", around, single(list)),
        json("JSON", road.len(), text_of(list).to_owned()),
    ];
    if is_packable(list) {
        let packed = [around, std::slice::from_ref(list)].concat();
        bombs.push(protobuf("packed", &packed, value(list)));
    }
    if let Some(outer) = around.iter().rposition(|field| field.label() == Label::Repeated) {
        let inner = &around[outer + 1..];
        let mut unit = single(list);
        unit = [heads(inner, unit.len()), unit].concat();
        unit = [heads(std::slice::from_ref(&around[outer]), unit.len()), unit].concat();
        bombs.push(protobuf("protobuf, one in each", &around[..outer], unit));
        bombs.push(json("JSON, one in each", outer + 1, text_of(list).to_owned()));
    }
    bombs
}

/// Returns the tags and lengths of the messages around so many bytes.
fn heads(road: &[FieldDescriptorProto], mut length: usize) -> Vec<u8> {
    let mut heads = Vec::new();
    for field in road.iter().rev() {
        let mut head = tag(field, 2);
        prost::encode_length_delimiter(length, &mut head).expect("into memory");
        length += head.len();
        heads = [head, heads].concat();
    }
    heads
}

fn tag(field: &FieldDescriptorProto, wire_type: usize) -> Vec<u8> {
    let mut tag = Vec::new();
    let number = usize::try_from(field.number()).expect("a positive number");
    prost::encode_length_delimiter(number << 3 | wire_type, &mut tag).expect("into memory");
    tag
}

/// Returns the smallest element of a list with its tag.
fn single(field: &FieldDescriptorProto) -> Vec<u8> {
    let wire_type = match value(field).len() {
        _ if !is_packable(field) => 2,
        8 => 1,
        4 => 5,
        _ => 0,
    };
    [tag(field, wire_type), value(field)].concat()
}

/// Returns the smallest value; for messages and texts, their length.
fn value(field: &FieldDescriptorProto) -> Vec<u8> {
    match field.r#type() {
        Type::Double | Type::Fixed64 | Type::Sfixed64 => vec![0; 8],
        Type::Float | Type::Fixed32 | Type::Sfixed32 => vec![0; 4],
        _ => vec![0],
    }
}

fn is_packable(field: &FieldDescriptorProto) -> bool {
    !matches!(field.r#type(), Type::Message | Type::String | Type::Bytes)
}

fn text_of(field: &FieldDescriptorProto) -> &'static str {
    match field.r#type() {
        Type::Message => "{}",
        Type::String | Type::Bytes => "\"\"",
        _ => "0",
    }
}

/// Returns the text before and after the elements of a path's last list, or the members of its last
/// message.
fn text_around(road: &[FieldDescriptorProto]) -> (String, String) {
    let (mut open, mut close) = (String::new(), String::new());
    for field in road {
        let list = field.label() == Label::Repeated;
        open += &format!("{{\"{}\":{}", field.json_name(), if list { "[" } else { "" });
        close = format!("{}}}{close}", if list { "]" } else { "" });
    }
    (open, close)
}
