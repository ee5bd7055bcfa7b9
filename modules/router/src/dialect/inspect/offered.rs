//! Tools that a request offers, wherever they stand: in its list of tools, in the items of its
//! conversation that bring some, and a level further in, where one is a namespace of others.

use std::{fmt, sync::LazyLock};

use memchr::memmem::Finder;
use serde::{
    Deserializer,
    de::{IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

use super::{items::Items, keys::is_same};
use crate::dialect::json_key::Key;

/// A searched-for text, prepared once: conversations are long.
type Needle = LazyLock<Finder<'static>>;

// The key `tools`, with a capital too.
static LOWER: Needle = LazyLock::new(|| Finder::new("ools\""));
static UPPER: Needle = LazyLock::new(|| Finder::new("OOLS\""));
/// Beginning of the escapes of ASCII and Latin-1.
static ESCAPE: Needle = LazyLock::new(|| Finder::new("\\u00"));

/// Returns whether something holds of a tool that a request offers. It holds of what hides its
/// tools in a form that cannot be read here, since others may read it.
pub(super) fn offers(
    tools: Option<&Items<'_>>,
    input: Option<&RawValue>,
    holds: fn(&RawValue) -> bool,
) -> bool {
    let is_one = |tool: &RawValue| holds(tool) || is_brought(tool, holds);
    let mut of_body = tools.into_iter().flat_map(|tools| &tools.0).copied();
    of_body.any(is_one)
        || input.is_some_and(|input| {
            may_bring(input.get()) && is_in(input, |item: &RawValue| is_brought(item, is_one))
        })
}

/// Returns whether something holds of a tool that stands in `tools` of an item or a namespace.
fn is_brought(holder: &RawValue, holds: impl Fn(&RawValue) -> bool) -> bool {
    if !holder.get().starts_with('{') || !may_bring(holder.get()) {
        return false;
    }
    let Ok(brought) = brought(holder) else { return true };
    brought.into_iter().any(|list| is_in(list, &holds))
}

/// Returns whether a piece of JSON may have the key `tools`, without reading it.
fn may_bring(json: &str) -> bool {
    let is_key = |needle: &'static Needle| {
        let length = needle.needle().len();
        let mut places = needle.find_iter(json.as_bytes());
        places.any(|at| json[at + length..].trim_start().starts_with(':'))
    };
    // A letter that is written as an escape has its reasons.
    let is_letter = |at: usize| matches!(json.as_bytes().get(at + 4), Some(b'4'..=b'7'));
    is_key(&LOWER) || is_key(&UPPER) || ESCAPE.find_iter(json.as_bytes()).any(is_letter)
}

/// Returns the values of `tools` in an object: which one counts depends on who reads it.
fn brought(holder: &RawValue) -> serde_json::Result<Vec<&RawValue>> {
    struct Brought;

    impl<'de> Visitor<'de> for Brought {
        type Value = Vec<&'de RawValue>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut values = Vec::new();
            while let Some(key) = map.next_key_seed(Key)? {
                if is_same("tools", &key) {
                    values.push(map.next_value::<&'de RawValue>()?);
                } else {
                    map.next_value::<IgnoredAny>()?;
                }
            }
            Ok(values)
        }
    }

    serde_json::Deserializer::from_str(holder.get()).deserialize_map(Brought)
}

/// Returns whether something holds of an item of a list, of which none is kept.
fn is_in(list: &RawValue, holds: impl Fn(&RawValue) -> bool) -> bool {
    struct Any<F>(F);

    impl<'de, F: Fn(&RawValue) -> bool> Visitor<'de> for Any<F> {
        type Value = bool;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<bool, A::Error> {
            let mut is_found = false;
            while let Some(item) = list.next_element::<&'de RawValue>()? {
                is_found = is_found || (self.0)(item);
            }
            Ok(is_found)
        }
    }

    list.get().starts_with('[')
        && serde_json::Deserializer::from_str(list.get())
            .deserialize_seq(Any(holds))
            .unwrap_or(true)
}
