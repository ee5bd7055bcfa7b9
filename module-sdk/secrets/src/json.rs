//! The strings of a JSON text, replaced where they stand: numbers, order and space stay.

use std::borrow::Cow;

/// Greatest depth of JSON: no reader that we know follows further.
const DEEPEST: usize = 128;

/// Function that returns a string in another form.
type Change<'a> = dyn for<'t> Fn(Of<'_>, &'t str) -> Cow<'t, str> + 'a;

/// Role of a string.
#[derive(Debug, Clone, Copy)]
pub(super) enum Of<'a> {
    /// The name of a member.
    Name,
    /// A value of the member with this name, or an element of it.
    Member(Option<&'a str>),
}

/// An object or a list that has begun.
#[derive(Debug, Default)]
struct Level {
    is_object: bool,
    /// The member whose value comes, or of which this is the list.
    member: Option<String>,
    /// The changed names in this object, in their new form.
    changed: Vec<String>,
}

impl Level {
    /// Returns another form of this name that no other changed name of the object has.
    fn unlike_others(&mut self, name: String) -> String {
        let numbers = (2_usize..).map(|number| format!("{name} {number}"));
        let mut names = std::iter::once(name.clone()).chain(numbers);
        let name = names.find(|name| !self.changed.contains(name)).unwrap_or(name);
        self.changed.push(name.clone());
        name
    }
}

/// Returns the JSON with other strings, `None` where none changes. The name of a member is a string
/// too. What is no JSON is changed as one text.
pub(super) fn redact(bytes: &[u8], change: &Change<'_>) -> Option<Vec<u8>> {
    let mut changed = Vec::new();
    // What is copied up to.
    let (mut copied, mut at) = (0, 0);
    let mut levels = vec![Level::default()];
    while let Some(begin) = bytes[at..].iter().position(|byte| *byte == b'"') {
        let begin = at + begin;
        let Some(level) = follow(&bytes[at..begin], &mut levels) else {
            return as_text(bytes, change);
        };
        let Some(end) = end_of_string(bytes, begin) else {
            return as_text(bytes, change);
        };
        let Ok(text) = serde_json::from_slice::<Cow<'_, str>>(&bytes[begin..end]) else {
            return as_text(bytes, change);
        };
        let next = bytes[end..].iter().find(|byte| !byte.is_ascii_whitespace());
        let is_name = next == Some(&b':');
        let of = if is_name { Of::Name } else { Of::Member(level.member.as_deref()) };
        if let Cow::Owned(mut text) = change(of, &text) {
            if is_name {
                text = level.unlike_others(text);
            }
            changed.extend_from_slice(&bytes[copied..begin]);
            changed.extend_from_slice(serde_json::Value::from(text).to_string().as_bytes());
            copied = end;
        }
        if is_name {
            level.member = Some(text.into_owned());
        }
        at = end;
    }
    if follow(&bytes[at..], &mut levels).is_none() {
        return as_text(bytes, change);
    }
    if copied == 0 {
        return None;
    }
    changed.extend_from_slice(&bytes[copied..]);
    Some(changed)
}

/// Follows what stands between two strings; returns the level of the second, `None` where that is
/// too deep, or where this is no JSON.
fn follow<'a>(bytes: &[u8], levels: &'a mut Vec<Level>) -> Option<&'a mut Level> {
    for byte in bytes {
        match byte {
            b'{' => levels.push(Level { is_object: true, ..Level::default() }),
            b'[' => {
                let member = levels.last()?.member.clone();
                levels.push(Level { member, ..Level::default() });
            }
            b'}' | b']' => drop(levels.pop()),
            b',' => {
                let level = levels.last_mut()?;
                level.member = level.member.take().filter(|_| !level.is_object);
            }
            // A number, a word of JSON, a space.
            b':' | b'+' | b'-' | b'.' | b'0'..=b'9' | b'E' => {}
            letter if b"truefalsn".contains(letter) || letter.is_ascii_whitespace() => {}
            _ => return None,
        }
        if levels.len() > DEEPEST {
            return None;
        }
    }
    levels.last_mut()
}

/// Returns whether a member of this name tells things apart, so that its values must not become
/// one.
pub(super) fn names_id(name: &str) -> bool {
    ["id", "key", "ref", "retry_of"].iter().any(|word| {
        name.strip_suffix(word).is_some_and(|rest| rest.is_empty() || rest.ends_with(['_', '-']))
    })
}

/// Returns the end of the string that begins here, its quotes included.
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
    match change(Of::Member(None), &String::from_utf8_lossy(bytes)) {
        Cow::Owned(text) => Some(text.into_bytes()),
        Cow::Borrowed(_) => None,
    }
}
