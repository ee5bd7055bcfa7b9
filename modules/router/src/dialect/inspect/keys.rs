//! Keys of a body, looked at while it is read.
//!
//! Providers do not agree on what a key is: some take `Model` for `model`, and the last of several
//! counts. What is decided here by one value must not be answered by another one.

use std::{borrow::Cow, fmt};

use serde::{
    Deserializer,
    de::{
        DeserializeSeed, IgnoredAny, MapAccess, Visitor,
        value::{BorrowedStrDeserializer, StringDeserializer},
    },
    forward_to_deserialize_any,
};
use serde_json::value::RawValue;

use crate::dialect::json_key::Key;

/// Keys besides `model` by which providers and gateways choose the model, or whom they ask for it.
const MODELS: [&str; 18] = [
    "api_base",
    "base_model",
    "base_url",
    "content_policy_fallbacks",
    "context_window_fallback_dict",
    "context_window_fallbacks",
    "custom_llm_provider",
    "default_fallbacks",
    "extra_body",
    "fallback_models",
    "fallbacks",
    "litellm_params",
    "model_list",
    "models",
    "plugins",
    "preset",
    "route",
    "user_config",
];

/// Beginning of the words on a key in another spelling.
pub(super) const SPELLING: &str = "a key is written ";

/// Findings in the keys of a body.
#[derive(Debug, Default)]
pub(super) struct Watch {
    /// First key besides `model` that may choose the model.
    pub(super) names_models: Option<&'static str>,
}

impl Watch {
    fn see<E: serde::de::Error>(
        &mut self,
        key: &str,
        fields: &'static [&'static str],
    ) -> Result<(), E> {
        if let Some(field) = fields.iter().find(|field| **field != key && is_same(field, key)) {
            return Err(E::custom(format_args!("{SPELLING}`{field}`")));
        }
        if self.names_models.is_none() {
            self.names_models = MODELS.iter().copied().find(|name| is_same(name, key));
        }
        Ok(())
    }
}

/// Returns whether two keys are the same but for case, as those compare who do not care.
pub(super) fn is_same(field: &str, key: &str) -> bool {
    if key.is_ascii() {
        return field.eq_ignore_ascii_case(key);
    }
    // Both the Kelvin sign and the long s are letters of ASCII to them.
    let folded = key.chars().flat_map(char::to_lowercase).flat_map(char::to_uppercase);
    folded.eq(field.chars().flat_map(char::to_uppercase))
}

/// Deserializer of an object that looks at its keys.
pub(super) struct Watched<'w, D> {
    pub(super) inner: D,
    pub(super) watch: &'w mut Watch,
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Watched<'_, D> {
    type Error = D::Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.inner.deserialize_any(visitor)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        let visitor = Members { visitor, fields, watch: self.watch };
        self.inner.deserialize_struct(name, fields, visitor)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option
        unit unit_struct newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

struct Members<'w, T> {
    visitor: T,
    fields: &'static [&'static str],
    watch: &'w mut Watch,
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Members<'_, V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.visitor.expecting(f)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<V::Value, A::Error> {
        let Self { visitor, fields, watch } = self;
        visitor.visit_map(Members { visitor: map, fields, watch })
    }
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Members<'_, A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, A::Error> {
        let Some(key) = self.visitor.next_key_seed(Key)? else { return Ok(None) };
        self.watch.see(&key, self.fields)?;
        match key {
            Cow::Borrowed(key) => seed.deserialize(BorrowedStrDeserializer::new(key)),
            Cow::Owned(key) => seed.deserialize(StringDeserializer::new(key)),
        }
        .map(Some)
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, A::Error> {
        self.visitor.next_value_seed(seed)
    }
}

/// Returns whether a tool names a model that is to do its work. One whose keys cannot be read here
/// may, since others may read them.
pub(super) fn tool_names_model(tool: &RawValue) -> bool {
    struct Named(bool);

    impl<'de> Visitor<'de> for Named {
        type Value = bool;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a tool")
        }

        fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<bool, A::Error> {
            while let Some(key) = map.next_key_seed(Key)? {
                map.next_value::<IgnoredAny>()?;
                self.0 |= is_same("model", &key);
            }
            Ok(self.0)
        }
    }

    // Schemas are long, and hardly one has the word.
    let text = tool.get().as_bytes();
    let may_name = memchr::memmem::find(text, b"odel").is_some()
        || memchr::memmem::find(text, b"ODEL").is_some()
        || memchr::memmem::find(text, b"\\u").is_some();
    may_name
        && tool.get().starts_with('{')
        && serde_json::Deserializer::from_str(tool.get())
            .deserialize_map(Named(false))
            .unwrap_or(true)
}

/// Reads a body and looks at its keys.
pub(super) fn read<'a, T: serde::Deserialize<'a>>(
    text: &'a str,
    watch: &mut Watch,
) -> serde_json::Result<T> {
    let mut reader = serde_json::Deserializer::from_str(text);
    let read = T::deserialize(Watched { inner: &mut reader, watch })?;
    reader.end()?;
    Ok(read)
}
