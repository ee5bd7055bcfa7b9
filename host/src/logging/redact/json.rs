//! The strings of a JSON text, replaced where they stand: numbers, order and space stay.

use std::borrow::Cow;

/// Gives a string in another form, by the name of the member whose value it is.
type Change<'a> = dyn for<'t> Fn(Option<&str>, &'t str) -> Cow<'t, str> + 'a;

/// Returns the JSON with other strings, `None` where none changes. The name of a member is a string
/// too. What is no JSON is changed as one text.
pub(super) fn redact(bytes: &[u8], change: &Change<'_>) -> Option<Vec<u8>> {
    let mut changed = Vec::new();
    // What is copied up to, and the last string of an object that may be a name.
    let (mut copied, mut at) = (0, 0);
    let mut name: Option<String> = None;
    while let Some(begin) = bytes[at..].iter().position(|byte| *byte == b'"') {
        let begin = at + begin;
        if bytes[at..begin].iter().any(|byte| matches!(byte, b',' | b'}')) {
            name = None;
        }
        let Some(end) = end_of_string(bytes, begin) else {
            return as_text(bytes, change);
        };
        let Ok(text) = serde_json::from_slice::<Cow<'_, str>>(&bytes[begin..end]) else {
            return as_text(bytes, change);
        };
        let next = bytes[end..].iter().find(|byte| !byte.is_ascii_whitespace());
        let is_name = next == Some(&b':');
        let of = if is_name { None } else { name.as_deref() };
        if let Cow::Owned(text) = change(of, &text) {
            changed.extend_from_slice(&bytes[copied..begin]);
            changed.extend_from_slice(serde_json::Value::from(text).to_string().as_bytes());
            copied = end;
        }
        if is_name {
            name = Some(text.into_owned());
        }
        at = end;
    }
    if copied == 0 {
        return None;
    }
    changed.extend_from_slice(&bytes[copied..]);
    Some(changed)
}

/// Whether a member of this name tells things apart, so that its values must not become one.
pub(super) fn names_id(name: &str) -> bool {
    ["id", "key", "ref", "retry_of"].iter().any(|word| {
        name.strip_suffix(word).is_some_and(|rest| rest.is_empty() || rest.ends_with(['_', '-']))
    })
}

/// Where the string that begins here ends, its quotes included.
fn end_of_string(bytes: &[u8], begin: usize) -> Option<usize> {
    let mut at = begin + 1;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => return Some(at + 1),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    None
}

fn as_text(bytes: &[u8], change: &Change<'_>) -> Option<Vec<u8>> {
    match change(None, &String::from_utf8_lossy(bytes)) {
        Cow::Owned(text) => Some(text.into_bytes()),
        Cow::Borrowed(_) => None,
    }
}
