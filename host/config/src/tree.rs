//! YAML as a tree whose nodes know their source locations.

use std::{fmt, ops::Range, path::Path, sync::Arc};

use serde::{Deserialize, Deserializer, de};
use serde_json::{Map, Number, Value};
use serde_saphyr::{Error, Spanned};

use super::error::ConfigError;

/// Maximum size of a file, in bytes. The shipped one has 3 KiB; a generated one with a hundred
/// modules about 60 KiB.
pub(super) const MAX_BYTES: usize = 256 * 1024;

/// Maximum depth of nested maps and lists.
const MAX_DEPTH: usize = 32;

/// Maximum number of nodes that aliases may add. Real files repeat a few sections; a bomb needs
/// millions.
const MAX_ALIASED: usize = 20_000;

/// Location that a node comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum SourceLocation {
    /// Place in the file: line and column from 1.
    File { line: u32, column: u32 },
    /// Layer above the file, in words: an environment variable or `--set`.
    Layer(Arc<str>),
}

impl SourceLocation {
    /// Creates an error at this place of this file.
    pub(super) fn error(
        &self,
        file: &Path,
        key: impl Into<String>,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) -> ConfigError {
        let mut error = ConfigError::of_file(file, message, hint);
        error.key = key.into();
        match self {
            Self::File { line, column } => (error.line, error.column) = (*line, *column),
            Self::Layer(layer) => error.path = layer.to_string(),
        }
        error
    }

    fn of(location: serde_saphyr::Location) -> Self {
        let number = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
        Self::File { line: number(location.line()), column: number(location.column()) }
    }
}

/// A value with its place.
#[derive(Clone)]
pub(super) struct Node {
    pub(super) place: SourceLocation,
    pub(super) value: Yaml,
    bytes: Range<usize>,
}

/// A YAML value. Maps keep the order and places of their keys.
#[derive(Clone)]
pub(super) enum Yaml {
    Null,
    Bool(bool),
    Number(Number),
    String(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// A key with its value.
#[derive(Clone)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) place: SourceLocation,
    pub(super) node: Node,
}

impl Node {
    /// Parses a file. An empty one is null.
    pub(super) fn parse(text: &str, file: &Path) -> Result<Self, ConfigError> {
        if text.len() > MAX_BYTES {
            let message = format!("has {} bytes, the limit is {MAX_BYTES}", text.len());
            return Err(ConfigError::of_file(file, message, "is it the right file?"));
        }
        let options = serde_saphyr::options! {
            // YAML 1.2: `no` and `off` are words.
            strict_booleans: true,
            with_snippet: false,
            budget: serde_saphyr::budget! { max_depth: MAX_DEPTH, max_documents: 2 },
            alias_limits: serde_saphyr::alias_limits! {
                max_total_replayed_events: MAX_ALIASED,
                max_replay_stack_depth: MAX_DEPTH
            },
        };
        let mut node: Self = serde_saphyr::from_str_with_options(text, options)
            .map_err(|error| explain(&error, file))?;
        node.settle(text);
        Ok(node)
    }

    /// Creates a value of a layer, which is in no file.
    pub(super) fn layered(value: Yaml, layer: &Arc<str>) -> Self {
        Self { place: SourceLocation::Layer(Arc::clone(layer)), value, bytes: 0..0 }
    }

    /// Sets a layer as the source of a whole tree.
    pub(super) fn place_all(&mut self, layer: &Arc<str>) {
        self.place = SourceLocation::Layer(Arc::clone(layer));
        match &mut self.value {
            Yaml::List(nodes) => nodes.iter_mut().for_each(|node| node.place_all(layer)),
            Yaml::Map(entries) => entries.iter_mut().for_each(|entry| {
                entry.place = SourceLocation::Layer(Arc::clone(layer));
                entry.node.place_all(layer);
            }),
            Yaml::Null | Yaml::Bool(_) | Yaml::Number(_) | Yaml::String(_) => {}
        }
    }

    /// Returns the entries of a map; null is an empty map.
    pub(super) fn entries(&self) -> Option<&[Entry]> {
        match &self.value {
            Yaml::Map(entries) => Some(entries),
            Yaml::Null => Some(&[]),
            _ => None,
        }
    }

    /// Returns the entry of a key of this map.
    pub(super) fn get(&self, name: &str) -> Option<&Entry> {
        self.entries()?.iter().find(|entry| entry.name == name)
    }

    /// Returns an item of this list.
    pub(super) fn item(&self, index: usize) -> Option<&Self> {
        match &self.value {
            Yaml::List(nodes) => nodes.get(index),
            _ => None,
        }
    }

    /// Returns whether two values are equal regardless of their places and the order of keys.
    pub(super) fn same(&self, other: &Self) -> bool {
        match (&self.value, &other.value) {
            (Yaml::Null, Yaml::Null) => true,
            (Yaml::Bool(one), Yaml::Bool(two)) => one == two,
            (Yaml::Number(one), Yaml::Number(two)) => one == two,
            (Yaml::String(one), Yaml::String(two)) => one == two,
            (Yaml::List(one), Yaml::List(two)) => {
                one.len() == two.len() && one.iter().zip(two).all(|(one, two)| one.same(two))
            }
            (Yaml::Map(one), Yaml::Map(two)) => {
                let found = |entry: &Entry| other.get(&entry.name).map(|other| &other.node);
                one.len() == two.len()
                    && one.iter().all(|one| found(one).is_some_and(|two| one.node.same(two)))
            }
            _ => false,
        }
    }

    /// Returns the range of bytes of the value in the text; empty if the value is left out.
    pub(super) fn bytes(&self) -> Range<usize> {
        self.bytes.clone()
    }

    /// Returns the text of a string.
    pub(super) fn text(&self) -> Option<&str> {
        match &self.value {
            Yaml::String(text) => Some(text),
            _ => None,
        }
    }

    /// Returns the type of the value, in words.
    pub(super) const fn kind(&self) -> &'static str {
        match &self.value {
            Yaml::Null => "nothing",
            Yaml::Bool(_) => "a boolean",
            Yaml::Number(_) => "a number",
            Yaml::String(_) => "a text",
            Yaml::List(_) => "a list",
            Yaml::Map(_) => "a map",
        }
    }

    /// Returns the value without places. A null within a map is left out: it means "not given".
    pub(super) fn to_json(&self) -> Value {
        match &self.value {
            Yaml::Null => Value::Null,
            Yaml::Bool(value) => Value::Bool(*value),
            Yaml::Number(value) => Value::Number(value.clone()),
            Yaml::String(value) => Value::String(value.clone()),
            Yaml::List(nodes) => nodes.iter().map(Self::to_json).collect(),
            Yaml::Map(entries) => Value::Object(json_map(entries)),
        }
    }

    /// Reads whole numbers as YAML 1.2 does. The parser takes `010` for an octal of YAML 1.1, which
    /// it must not read, and returns the float 10.0; here it becomes the number 10.
    fn settle(&mut self, text: &str) {
        match &mut self.value {
            Yaml::List(nodes) => nodes.iter_mut().for_each(|node| node.settle(text)),
            Yaml::Map(entries) => entries.iter_mut().for_each(|entry| entry.node.settle(text)),
            Yaml::Number(number) if number.is_f64() => {
                let source = text.get(self.bytes.clone()).unwrap_or_default();
                if let Ok(whole) = source.parse::<u64>() {
                    *number = whole.into();
                } else if let Ok(whole) = source.parse::<i64>() {
                    *number = whole.into();
                }
            }
            Yaml::Null | Yaml::Bool(_) | Yaml::Number(_) | Yaml::String(_) => {}
        }
    }
}

/// Returns the entries without places and nulls.
pub(super) fn json_map<'a>(entries: impl IntoIterator<Item = &'a Entry>) -> Map<String, Value> {
    entries
        .into_iter()
        .filter(|entry| !matches!(entry.node.value, Yaml::Null))
        .map(|entry| (entry.name.clone(), entry.node.to_json()))
        .collect()
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Yaml>::deserialize(deserializer)?;
        let span = spanned.defined.span();
        let start = usize::try_from(span.byte_offset().unwrap_or(0)).unwrap_or(0);
        let length = usize::try_from(span.byte_len().unwrap_or(0)).unwrap_or(0);
        Ok(Self {
            place: SourceLocation::of(spanned.defined),
            value: spanned.value,
            bytes: start..start.saturating_add(length),
        })
    }
}

impl<'de> Deserialize<'de> for Yaml {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(YamlVisitor)
    }
}

struct YamlVisitor;

impl<'de> de::Visitor<'de> for YamlVisitor {
    type Value = Yaml;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_unit<E>(self) -> Result<Yaml, E> {
        Ok(Yaml::Null)
    }

    fn visit_none<E>(self) -> Result<Yaml, E> {
        Ok(Yaml::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Yaml, E> {
        Ok(Yaml::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Yaml, E> {
        Ok(Yaml::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Yaml, E> {
        Ok(Yaml::Number(value.into()))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Yaml, E> {
        Number::from_f64(value)
            .map(Yaml::Number)
            .ok_or_else(|| E::custom("a number must be finite"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Yaml, E> {
        Ok(Yaml::String(value.to_owned()))
    }

    fn visit_seq<A: de::SeqAccess<'de>>(self, mut access: A) -> Result<Yaml, A::Error> {
        let mut nodes = Vec::new();
        while let Some(node) = access.next_element()? {
            nodes.push(node);
        }
        Ok(Yaml::List(nodes))
    }

    fn visit_map<A: de::MapAccess<'de>>(self, mut access: A) -> Result<Yaml, A::Error> {
        let mut entries = Vec::new();
        while let Some((name, node)) = access.next_entry::<Spanned<String>, Node>()? {
            entries.push(Entry { name: name.value, place: SourceLocation::of(name.defined), node });
        }
        Ok(Yaml::Map(entries))
    }
}

/// Converts the parser's error into our words: its own words name settings of the parser that
/// operators do not have.
fn explain(error: &Error, file: &Path) -> ConfigError {
    let error = error.without_snippet();
    let (message, hint) = match error {
        Error::DuplicateMappingKey { key, .. } => (
            key.as_ref().map_or_else(
                || "a key is given twice".to_owned(),
                |key| format!("the key `{key}` is given twice in the same map"),
            ),
            "keep one of them",
        ),
        Error::MultipleDocuments { .. } => (
            "the file holds more than one YAML document".to_owned(),
            "remove the second `---` or `...` and what follows",
        ),
        Error::UnknownAnchor { .. } => (
            "an alias names an anchor that is not in the file".to_owned(),
            "define it with `&name` before it is used, or quote a text that begins with `*`",
        ),
        Error::NullIntoString { .. } | Error::Unexpected { expected: "string scalar", .. } => {
            ("a key must be a text".to_owned(), "give it a name, or quote it")
        }
        Error::NonFiniteFloat { .. } => ("a number must be finite".to_owned(), ""),
        _ if is_over_budget(error) => (
            format!(
                "the file expands beyond its limits ({MAX_DEPTH} levels, {MAX_ALIASED} nodes \
                 through aliases)"
            ),
            "write repeated sections out, or nest less",
        ),
        other => (format!("not valid YAML: {}", without_position(&other.to_string())), ""),
    };
    match error.location() {
        Some(location) => SourceLocation::of(location).error(file, "", message, hint),
        None => ConfigError::of_file(file, message, hint),
    }
}

fn is_over_budget(error: &Error) -> bool {
    match error {
        Error::Budget { .. }
        | Error::AliasReplayCounterOverflow { .. }
        | Error::AliasReplayLimitExceeded { .. }
        | Error::AliasExpansionLimitExceeded { .. }
        | Error::AliasReplayStackDepthExceeded { .. } => true,
        Error::AliasError { error, .. } => is_over_budget(error),
        // The scanner's own limit for `[[[[…` has no kind of its own.
        other => other.to_string().contains("recursion limit"),
    }
}

/// Returns the parser's text without its own " at line …", which precedes the message here.
fn without_position(text: &str) -> &str {
    text.split(" at line ").next().unwrap_or(text)
}

#[cfg(test)]
mod tests;
