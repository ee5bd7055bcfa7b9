//! The key of a request, as it is remembered.

use std::ops::Deref;

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

/// A key that is mostly stored inline: if each key had an allocation of its own among the records
/// of a large body, each could keep a page of memory in use after the body is gone.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub(super) struct Key(SmallVec<[u8; 48]>);

impl Deref for Key {
    type Target = str;

    fn deref(&self) -> &str {
        std::str::from_utf8(&self.0).expect("it is made of a text")
    }
}

impl From<String> for Key {
    fn from(text: String) -> Self {
        Self(SmallVec::from_slice(text.as_bytes()))
    }
}

impl From<Key> for String {
    fn from(key: Key) -> Self {
        Self::from(&*key)
    }
}
