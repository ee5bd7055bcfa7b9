//! A tree of JSON that keeps the order of keys and borrows its text.
//!
//! `serde_json::Value` sorts keys, and the order of a schema's properties is the order in which a
//! model answers them.

use std::{borrow::Cow, fmt};

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{MapAccess, SeqAccess, Visitor},
    ser::{SerializeMap as _, SerializeSeq as _},
};
use serde_json::Number;

use super::TranslateError;

/// A value of JSON.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) enum Json<'a> {
    /// `null`, and what is not there.
    #[default]
    Null,
    /// A boolean.
    Bool(bool),
    /// A number, written as it was read.
    Number(Number),
    /// A string.
    Text(Cow<'a, str>),
    /// An array.
    List(Vec<Json<'a>>),
    /// An object.
    Object(Object<'a>),
}

/// An object of JSON, its keys in their order.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Object<'a>(Vec<(Cow<'a, str>, Json<'a>)>);

/// Stands for whatever is not there.
static ABSENT: Json<'static> = Json::Null;

impl<'a> Json<'a> {
    /// Returns the tree of a body.
    pub(super) fn parse(body: &'a [u8]) -> Result<Self, TranslateError> {
        serde_json::from_slice(body).map_err(|error| TranslateError::not_json(&error))
    }

    /// Returns the value of a key, `Null` where there is none.
    pub(super) fn get(&self, key: &str) -> &Self {
        match self {
            Self::Object(object) => object.get(key),
            _ => &ABSENT,
        }
    }

    /// Takes the value of a key out of the tree, `Null` where there is none.
    pub(super) fn take(&mut self, key: &str) -> Self {
        match self {
            Self::Object(object) => object.take(key),
            _ => Self::Null,
        }
    }

    /// Returns the value of a key to change it.
    pub(super) fn get_mut(&mut self, key: &str) -> Option<&mut Self> {
        match self {
            Self::Object(object) => {
                object.iter_mut().filter(|(name, _)| *name == key).last().map(|(_, value)| value)
            }
            _ => None,
        }
    }

    /// Returns whether a key has a value other than `null`.
    pub(super) fn has(&self, key: &str) -> bool {
        !self.get(key).is_null()
    }

    /// Returns whether it is `null` or not there.
    pub(super) const fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }

    /// Returns the text of a string.
    pub(super) fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Returns the text of a string, without copying it.
    pub(super) fn into_text(self) -> Option<Cow<'a, str>> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Returns the items of an array, none where it is something else.
    pub(super) fn list(&self) -> &[Self] {
        match self {
            Self::List(items) => items,
            _ => &[],
        }
    }

    /// Returns the items of an array, none where it is something else.
    pub(super) fn into_list(self) -> Vec<Self> {
        match self {
            Self::List(items) => items,
            _ => Vec::new(),
        }
    }

    /// Returns a number.
    pub(super) fn into_number(self) -> Option<Number> {
        match self {
            Self::Number(number) => Some(number),
            _ => None,
        }
    }

    /// Returns a whole number that is not negative; `8.0` is one.
    pub(super) fn u64(&self) -> Option<u64> {
        let Self::Number(number) = self else { return None };
        number.as_u64().or_else(|| {
            let float = number.as_f64()?;
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "whole, and within the range that a float holds exactly"
            )]
            (float.fract() == 0.0 && (0.0..9e15).contains(&float)).then_some(float as u64)
        })
    }

    /// Returns a boolean.
    pub(super) const fn bool(&self) -> Option<bool> {
        match self {
            Self::Bool(value) => Some(*value),
            _ => None,
        }
    }

    /// Returns a copy that borrows nothing.
    pub(super) fn into_owned(self) -> Json<'static> {
        match self {
            Self::Null => Json::Null,
            Self::Bool(value) => Json::Bool(value),
            Self::Number(number) => Json::Number(number),
            Self::Text(text) => Json::Text(Cow::Owned(text.into_owned())),
            Self::List(items) => Json::List(items.into_iter().map(Json::into_owned).collect()),
            Self::Object(object) => Json::Object(Object(
                object
                    .0
                    .into_iter()
                    .map(|(key, value)| (Cow::Owned(key.into_owned()), value.into_owned()))
                    .collect(),
            )),
        }
    }

    /// Adds what came later of it: lists go on, also those in objects; anything else is replaced.
    pub(super) fn go_on(&mut self, later: Self) {
        match (self, later) {
            (_, Self::Null) => {}
            (Self::List(items), Self::List(later)) => items.extend(later),
            (Self::Object(object), Self::Object(later)) => {
                for (key, value) in later.0 {
                    match object.0.iter_mut().find(|(known, _)| *known == key) {
                        Some((_, so_far)) => so_far.go_on(value),
                        None => object.put(key, value),
                    }
                }
            }
            (so_far, later) => *so_far = later,
        }
    }

    /// Writes it to the end of `out`.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        serde_json::to_writer(out, self).expect("a tree of JSON can be written to memory");
    }

    /// Returns it as bytes.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.write(&mut out);
        out
    }
}

/// Returns it as text of JSON.
impl fmt::Display for Json<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&serde_json::to_string(self).map_err(|_| fmt::Error)?)
    }
}

impl<'a> Object<'a> {
    /// Returns an object without keys.
    pub(super) const fn new() -> Self {
        Self(Vec::new())
    }

    /// Adds a key.
    pub(super) fn with(mut self, key: &'static str, value: impl Into<Json<'a>>) -> Self {
        self.put(key, value);
        self
    }

    /// Adds a key where there is a value.
    pub(super) fn with_some(
        mut self,
        key: &'static str,
        value: Option<impl Into<Json<'a>>>,
    ) -> Self {
        if let Some(value) = value {
            self.put(key, value);
        }
        self
    }

    /// Adds a key where its list has items.
    pub(super) fn with_items(mut self, key: &'static str, items: Vec<Json<'a>>) -> Self {
        if !items.is_empty() {
            self.put(key, items);
        }
        self
    }

    /// Adds a key.
    pub(super) fn put(&mut self, key: impl Into<Cow<'a, str>>, value: impl Into<Json<'a>>) {
        self.0.push((key.into(), value.into()));
    }

    /// Adds all keys of another object.
    pub(super) fn append(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// Returns whether it has no key.
    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the keys with their values.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &Json<'a>)> {
        self.0.iter().map(|(key, value)| (key.as_ref(), value))
    }

    /// Returns the keys with their values to change.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (&str, &mut Json<'a>)> {
        self.0.iter_mut().map(|(key, value)| (&**key, value))
    }

    /// Returns the values in the order of their keys.
    pub(super) fn into_values(self) -> impl Iterator<Item = Json<'a>> {
        self.0.into_iter().map(|(_, value)| value)
    }

    /// Takes a key out with its value.
    pub(super) fn remove(&mut self, key: &str) {
        self.0.retain(|(name, _)| name != key);
    }

    fn get(&self, key: &str) -> &Json<'a> {
        // The last of duplicate keys counts, as in most readers.
        self.0.iter().rev().find(|(name, _)| name == key).map_or(&ABSENT, |(_, value)| value)
    }

    /// Takes the value of a key out, `Null` where there is none.
    pub(super) fn take(&mut self, key: &str) -> Json<'a> {
        match self.0.iter().rposition(|(name, _)| name == key) {
            Some(at) => std::mem::take(&mut self.0[at].1),
            None => Json::Null,
        }
    }
}

macro_rules! from {
    ($($source:ty => |$value:ident| $json:expr;)*) => {
        $(impl<'a> From<$source> for Json<'a> {
            fn from($value: $source) -> Self {
                $json
            }
        })*
    };
}

from! {
    bool => |value| Self::Bool(value);
    u32 => |value| Self::Number(value.into());
    u64 => |value| Self::Number(value.into());
    i64 => |value| Self::Number(value.into());
    usize => |value| Self::Number(value.into());
    Number => |value| Self::Number(value);
    &'a str => |value| Self::Text(Cow::Borrowed(value));
    String => |value| Self::Text(Cow::Owned(value));
    Cow<'a, str> => |value| Self::Text(value);
    Vec<Json<'a>> => |value| Self::List(value);
    Object<'a> => |value| Self::Object(value);
}

impl<'a, T: Into<Self>> From<Option<T>> for Json<'a> {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

impl Serialize for Json<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_unit(),
            Self::Bool(value) => serializer.serialize_bool(*value),
            Self::Number(number) => number.serialize(serializer),
            Self::Text(text) => serializer.serialize_str(text),
            Self::List(items) => {
                let mut list = serializer.serialize_seq(Some(items.len()))?;
                for item in items {
                    list.serialize_element(item)?;
                }
                list.end()
            }
            Self::Object(object) => {
                let mut map = serializer.serialize_map(Some(object.0.len()))?;
                for (key, value) in &object.0 {
                    map.serialize_entry(key, value)?;
                }
                map.end()
            }
        }
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Json<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyValue)
    }
}

/// Reads any value of JSON.
struct AnyValue;

impl<'de> Visitor<'de> for AnyValue {
    type Value = Json<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Self::Value, E> {
        Ok(Json::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Self::Value, E> {
        Ok(Json::Number(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Self::Value, E> {
        Ok(Json::Number(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Self::Value, E> {
        Ok(Number::from_f64(value).map_or(Json::Null, Json::Number))
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Json::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Json::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Self::Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element()? {
            items.push(item);
        }
        Ok(Json::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Self::Value, A::Error> {
        let mut entries = Vec::new();
        while let Some((Key(key), value)) = access.next_entry()? {
            entries.push((key, value));
        }
        Ok(Json::Object(Object(entries)))
    }
}

/// Name of a key, borrowed where it has no escapes.
struct Key<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Key<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match deserializer.deserialize_str(AnyValue)? {
            Json::Text(text) => Ok(Self(text)),
            _ => Err(serde::de::Error::custom("a key must be a string")),
        }
    }
}
