//! Ids of answers and calls.

use std::{borrow::Cow, fmt::Write as _};

use sha2::{Digest as _, Sha256};

/// Longest id of a call that OpenAI's chat completions take.
pub(super) const CHAT_ID_MAX: usize = 40;

/// Longest id of a call that the other dialects take.
pub(super) const ID_MAX: usize = 64;

/// Longest name of a function that every provider takes.
const FUNCTION_MAX: usize = 64;

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

/// Returns the name of the function for a tool, which stands in a namespace where one is given: it
/// is always the same, and a name that providers take as it is stays.
pub(super) fn function<'a>(namespace: Option<&str>, name: Cow<'a, str>) -> Cow<'a, str> {
    let Some(namespace) = namespace else { return name };
    let between = if namespace.ends_with("__") { "" } else { "__" };
    let whole = format!("{namespace}{between}{name}");
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    if whole.len() <= FUNCTION_MAX && whole.chars().all(is_plain) {
        return whole.into();
    }
    let plain: String = whole.chars().map(|c| if is_plain(c) { c } else { '_' }).collect();
    // 1 and 24 characters follow; what is left is ASCII.
    let kept = plain.len().min(FUNCTION_MAX - 25);
    digest(&format!("{}_", &plain[..kept]), &[&whole]).into()
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
