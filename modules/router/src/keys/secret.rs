//! Secrets of virtual keys: made from the system's randomness, kept as their SHA-256.

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// Beginning of every secret.
pub(crate) const PREFIX: &str = "lk_";
/// Random characters of a secret: 190 bits.
const RANDOM: usize = 32;
/// Random characters of a secret that are shown, so that a person can tell keys apart.
const SHOWN: usize = 5;
const LETTERS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// A new secret. It is shown once and never kept.
pub(super) struct NewSecret(String);

impl NewSecret {
    /// Makes a secret.
    ///
    /// # Errors
    ///
    /// When the system gives no random bytes.
    pub(super) fn make() -> module_sdk::Result<Self> {
        Ok(Self(format!("{PREFIX}{}", random_text(RANDOM)?)))
    }

    /// Returns the secret itself.
    pub(super) fn expose(&self) -> &str {
        &self.0
    }

    /// Returns its beginning, which is shown.
    pub(super) fn shown(&self) -> String {
        self.0[..PREFIX.len() + SHOWN].to_owned()
    }

    /// Returns its hash.
    pub(super) fn digest(&self) -> Digest {
        Digest::of(&self.0)
    }
}

/// Returns random letters and digits.
pub(super) fn random_text(length: usize) -> module_sdk::Result<String> {
    let mut text = String::with_capacity(length);
    while text.len() < length {
        let mut bytes = [0; 64];
        getrandom::fill(&mut bytes).map_err(|error| {
            module_sdk::Error::unavailable(format!("the system gives no random bytes: {error}"))
        })?;
        // 248 is the largest multiple of 62: beyond it some letters would be likelier.
        let fair = bytes.iter().filter(|&&byte| byte < 248);
        text.extend(fair.map(|byte| char::from(LETTERS[usize::from(byte % 62)])));
    }
    text.truncate(length);
    Ok(text)
}

/// The SHA-256 of a secret.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Digest([u8; 32]);

impl Digest {
    /// Returns the hash of a text.
    pub(super) fn of(text: &str) -> Self {
        Self(Sha256::digest(text.as_bytes()).into())
    }

    /// Returns its first bytes as a number, to find it by.
    pub(super) fn bucket(self) -> u64 {
        let (head, _) = self.0.split_first_chunk().expect("there are 32 bytes");
        u64::from_le_bytes(*head)
    }

    /// Returns whether both are the same, in a time that does not depend on where they differ.
    pub(super) fn equals(self, other: Self) -> bool {
        let difference = self.0.iter().zip(&other.0).fold(0, |sum, (a, b)| sum | (a ^ b));
        std::hint::black_box(difference) == 0
    }
}

impl std::fmt::Debug for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[hash]")
    }
}

impl Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let hex: String = self.0.iter().map(|byte| format!("{byte:02x}")).collect();
        to.serialize_str(&hex)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        let byte = |index: usize| {
            text.get(index * 2..index * 2 + 2).and_then(|hex| u8::from_str_radix(hex, 16).ok())
        };
        let mut digest = [0; 32];
        for (index, slot) in digest.iter_mut().enumerate() {
            let error = || serde::de::Error::custom("is no SHA-256 in hexadecimal digits");
            *slot = byte(index).ok_or_else(error)?;
        }
        Ok(Self(digest))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn secrets_are_random_and_found_by_their_hash() {
        let mut seen = HashSet::new();
        for _ in 0..100 {
            let secret = NewSecret::make().expect("there is randomness");
            let text = secret.expose();
            let random = text.strip_prefix(PREFIX).expect("it begins so");
            assert_eq!(random.len(), RANDOM);
            assert!(random.bytes().all(|byte| byte.is_ascii_alphanumeric()));
            assert!(text.starts_with(&secret.shown()) && secret.shown().len() == 8);
            assert!(secret.digest().equals(Digest::of(text)));
            assert!(!secret.digest().equals(Digest::of("lk_other")));
            assert!(seen.insert(text.to_owned()));
        }
    }

    #[test]
    fn a_hash_is_read_as_it_was_written() {
        let digest = Digest::of("a");
        let json = serde_json::to_string(&digest).expect("it is written");
        assert!(json.starts_with("\"ca978112ca1bbdca"), "{json}");
        assert_eq!(serde_json::from_str::<Digest>(&json).expect("it is read"), digest);
        for wrong in ["\"ca97\"", "\"zz\"", "\"äöüäöüäöüäöüäöüäöüäöüäöüäöüäöüäöü\"", "7"]
        {
            assert!(serde_json::from_str::<Digest>(wrong).is_err(), "{wrong}");
        }
    }
}
