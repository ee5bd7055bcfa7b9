//! Text that tools put around what a person says.

use std::borrow::Cow;

/// Elements that tools write by themselves: what is in them is not a person's.
const OWN: [&str; 16] = [
    "additional_data",
    "command-args",
    "command-message",
    "command-name",
    "context",
    "environment_context",
    "environment_details",
    "ide_opened_file",
    "ide_selection",
    "local-command-stdout",
    "reminderInstructions",
    "system-reminder",
    "task-notification",
    "user_info",
    "user_instructions",
    "workspace_info",
];

/// Elements in which tools put what a person says.
const PERSONS: [&str; 5] = ["user_message", "user_query", "userRequest", "user-prompt", "task"];

/// Returns what a person says in a text.
pub(super) fn strip(text: &str) -> Cow<'_, str> {
    let text = text.trim();
    if !text.contains('<') {
        return Cow::Borrowed(text);
    }
    for name in PERSONS {
        if let Some((_, inside, _)) = element(text, name) {
            return Cow::Borrowed(inside.trim());
        }
    }
    let mut left = Cow::Borrowed(text);
    for name in OWN {
        if element(&left, name).is_some() {
            left = Cow::Owned(without(&left, name));
        }
    }
    match left {
        Cow::Borrowed(text) => Cow::Borrowed(text),
        Cow::Owned(text) => Cow::Owned(text.trim().to_owned()),
    }
}

/// Returns a text without the elements of a name, in one pass.
fn without(text: &str, name: &str) -> String {
    let mut left = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, _, after)) = element(rest, name) {
        left.push_str(before.trim_end());
        rest = after;
    }
    left + rest
}

/// Returns what is before, in and after the first element of a name.
fn element<'a>(text: &'a str, name: &str) -> Option<(&'a str, &'a str, &'a str)> {
    let open = format!("<{name}>");
    let close = format!("</{name}>");
    let start = text.find(&open)?;
    let inside = &text[start + open.len()..];
    let end = inside.find(&close)?;
    Some((&text[..start], &inside[..end], &inside[end + close.len()..]))
}
