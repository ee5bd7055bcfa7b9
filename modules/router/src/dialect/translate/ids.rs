//! Ids of answers and calls.

use std::{borrow::Cow, fmt::Write as _};

use sha2::{Digest as _, Sha256};

/// Longest id of a call that OpenAI's chat completions take.
pub(super) const CHAT_ID_MAX: usize = 40;

/// Longest id of a call that the other dialects take.
pub(super) const ID_MAX: usize = 64;

/// Mark of ids that were made here: their provider does not know them.
pub(super) const OWN: &str = "lodestar";

/// Returns an id that every provider takes: one with odd characters or too many of them is
/// replaced, always by the same.
pub(super) fn safe(id: Cow<'_, str>, max: usize) -> Cow<'_, str> {
    let is_plain = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'_' | b'-');
    if !id.is_empty() && id.len() <= max && id.bytes().all(is_plain) {
        return id;
    }
    digest("call_", &[&id]).into()
}

/// Returns an id for the call at a place, where its provider gives none.
pub(super) fn call(scope: &str, place: usize) -> String {
    digest("call_", &[scope, &place.to_string()])
}

/// Returns the id under which a person is known to another provider: the client's own where it is
/// short and plain, else a digest, since some clients write devices and accounts into it.
pub(super) fn user(id: Cow<'_, str>) -> Cow<'_, str> {
    if id.len() <= 64 && !id.contains('{') { id } else { digest("user_", &[&id]).into() }
}

/// Returns a prefix and 24 hexadecimal digits made of texts.
fn digest(prefix: &str, texts: &[&str]) -> String {
    let mut hash = Sha256::new();
    for text in texts {
        hash.update(text.as_bytes());
        hash.update([0]);
    }
    let mut id = prefix.to_owned();
    for byte in &hash.finalize()[..12] {
        let _ = write!(id, "{byte:02x}");
    }
    id
}
