//! Keys of cached answers: a hash of all that may change the answer.

use std::borrow::Cow;

use http::HeaderMap;
use serde::de::{DeserializeSeed, Deserializer as _, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};

use super::policy::Bypass;
use crate::{
    dialect::{Dialect, json_key::Key},
    target::TargetName,
    upstream,
};

/// Fields of a body that do not change the answer. The model is the one that answers, not the one
/// that was asked for.
const IGNORED: [&str; 7] = [
    "metadata",
    "model",
    "prompt_cache_key",
    "prompt_cache_retention",
    "safety_identifier",
    "stream",
    "user",
];
/// Fields that refer to state of the provider or change it.
const STATEFUL: [&str; 5] =
    ["background", "conversation", "keep_alive", "previous_response_id", "web_search_options"];
/// Fields that offer tools in a form of their own.
const TOOLS: [&str; 1] = ["functions"];

/// Hash of all that may change an answer.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct CacheKey([u8; 32]);

impl std::fmt::Display for CacheKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl std::fmt::Debug for CacheKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self}")
    }
}

/// Those among whom an answer is shared.
#[derive(Clone, Copy)]
pub(crate) struct Sharers<'a> {
    /// Id of the virtual key, `anonymous` without one.
    pub identity: &'a str,
    /// Project.
    pub project: Option<&'a str>,
    /// Credential of the client's own that is forwarded to the provider: whoever has another one
    /// may be somebody else.
    pub credential: Option<&'a str>,
}

impl CacheKey {
    /// Returns the key of a request.
    ///
    /// # Errors
    ///
    /// The reason for which the cache is not asked.
    pub(super) fn of(
        sharers: Sharers<'_>,
        dialect: Dialect,
        target: &TargetName,
        (headers, query): (&HeaderMap, Option<&str>),
        body: &[u8],
    ) -> Result<Self, Bypass> {
        let mut hash = Sha256::new();
        hash.update(b"lodestar answer 2\0");
        text(&mut hash, sharers.identity);
        optional(&mut hash, sharers.project);
        optional(&mut hash, sharers.credential);
        text(&mut hash, &format!("{dialect:?}"));
        text(&mut hash, &target.provider);
        text(&mut hash, &target.model);
        optional(&mut hash, query);
        let mut passed: Vec<_> =
            headers.iter().filter(|(name, _)| upstream::counts(name.as_str())).collect();
        // Stable: of several values of one header the order counts.
        passed.sort_by_key(|(name, _)| name.as_str());
        hash.update((passed.len() as u64).to_le_bytes());
        for (name, value) in passed {
            text(&mut hash, name.as_str());
            bytes(&mut hash, value.as_bytes());
        }
        let mut reader = serde_json::Deserializer::from_slice(body);
        let mut bypass = None;
        let top = Top { hash: &mut hash, bypass: &mut bypass };
        let read = reader.deserialize_map(top).and_then(|()| reader.end());
        match (bypass, read) {
            (Some(reason), _) => Err(reason),
            (None, Err(_)) => Err(Bypass::Unreadable),
            (None, Ok(())) => Ok(Self(hash.finalize().into())),
        }
    }
}

fn text(hash: &mut Sha256, text: &str) {
    bytes(hash, text.as_bytes());
}

fn bytes(hash: &mut Sha256, bytes: &[u8]) {
    hash.update((bytes.len() as u64).to_le_bytes());
    hash.update(bytes);
}

fn optional(hash: &mut Sha256, value: Option<&str>) {
    match value {
        None => hash.update([0]),
        Some(value) => {
            hash.update([1]);
            text(hash, value);
        }
    }
}

/// Members of an object by their keys, each as the hash of its value.
type Members<'de> = Vec<(Cow<'de, str>, [u8; 32])>;

/// Adds the members of an object in the order of their keys.
fn members<E: serde::de::Error>(hash: &mut Sha256, mut members: Members<'_>) -> Result<(), E> {
    members.sort_unstable();
    // Of two values one counts, and which one depends on who reads it.
    if members.windows(2).any(|pair| pair[0].0 == pair[1].0) {
        return Err(E::custom("a key stands there twice"));
    }
    hash.update([b'{']);
    hash.update((members.len() as u64).to_le_bytes());
    for (key, value) in members {
        text(hash, &key);
        hash.update(value);
    }
    Ok(())
}

fn value_hash<'de, A: MapAccess<'de>>(map: &mut A) -> Result<[u8; 32], A::Error> {
    let mut hash = Sha256::new();
    map.next_value_seed(Canonical(&mut hash))?;
    Ok(hash.finalize().into())
}

/// The body itself.
struct Top<'a> {
    hash: &'a mut Sha256,
    bypass: &'a mut Option<Bypass>,
}

impl<'de> Visitor<'de> for Top<'_> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut all = Members::new();
        while let Some(key) = map.next_key_seed(Key)? {
            let name: &str = &key;
            let is_stateful = STATEFUL.contains(&name);
            if is_stateful || TOOLS.contains(&name) {
                let value: &RawValue = map.next_value()?;
                if !matches!(value.get(), "null" | "false" | "[]") {
                    *self.bypass = Some(if is_stateful { Bypass::Stateful } else { Bypass::Tools });
                    return Err(A::Error::custom("it is not kept"));
                }
            } else if IGNORED.contains(&name) {
                map.next_value::<serde::de::IgnoredAny>()?;
            } else {
                let value = value_hash(&mut map)?;
                all.push((key, value));
            }
        }
        members(self.hash, all)
    }
}

/// A value, hashed so that neither spaces nor the order of keys count.
struct Canonical<'a>(&'a mut Sha256);

impl<'de> DeserializeSeed<'de> for Canonical<'_> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Canonical<'_> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        self.0.update([b'n']);
        Ok(())
    }

    fn visit_bool<E>(self, value: bool) -> Result<(), E> {
        self.0.update([if value { b't' } else { b'f' }]);
        Ok(())
    }

    fn visit_u64<E>(self, number: u64) -> Result<(), E> {
        self.0.update([b'u']);
        self.0.update(number.to_le_bytes());
        Ok(())
    }

    fn visit_i64<E>(self, number: i64) -> Result<(), E> {
        self.0.update([b'i']);
        self.0.update(number.to_le_bytes());
        Ok(())
    }

    fn visit_f64<E>(self, number: f64) -> Result<(), E> {
        self.0.update([b'd']);
        self.0.update(number.to_bits().to_le_bytes());
        Ok(())
    }

    fn visit_str<E>(self, value: &str) -> Result<(), E> {
        self.0.update([b's']);
        text(self.0, value);
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        self.0.update([b'[']);
        while seq.next_element_seed(Canonical(&mut *self.0))?.is_some() {}
        self.0.update([b']']);
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut all = Members::new();
        while let Some(key) = map.next_key_seed(Key)? {
            all.push((key, value_hash(&mut map)?));
        }
        members(self.0, all)
    }
}
