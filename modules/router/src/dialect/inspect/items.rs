//! Lists of which only so many items are taken.

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// Largest number of messages, or of tools: each takes some bytes of ours whatever is in it.
const MOST_ITEMS: usize = 20_000;

/// Items of a list, not too many.
pub(super) struct Items<'a>(pub Vec<&'a RawValue>);

impl<'de: 'a, 'a> Deserialize<'de> for Items<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor<'a>(std::marker::PhantomData<&'a ()>);

        impl<'de: 'a, 'a> serde::de::Visitor<'de> for Visitor<'a> {
            type Value = Items<'a>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, "a list of at most {MOST_ITEMS} items")
            }

            fn visit_seq<A: serde::de::SeqAccess<'de>>(
                self,
                mut list: A,
            ) -> Result<Items<'a>, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = list.next_element::<&'de RawValue>()? {
                    if items.len() == MOST_ITEMS {
                        return Err(serde::de::Error::invalid_length(MOST_ITEMS + 1, &self));
                    }
                    items.push(item);
                }
                Ok(Items(items))
            }
        }

        deserializer.deserialize_seq(Visitor(std::marker::PhantomData))
    }
}
