//! Files of one setting a line: `NAME=VALUE`, and the top level of YAML.

use std::ops::Range;

use serde_json::{Map, Value};

use super::{EditError, Format, Key, Result, spliced};

/// A line that sets a key.
struct Line {
    /// The line, with its end.
    whole: Range<usize>,
    /// The value, without blanks and comment.
    value: Range<usize>,
}

/// Returns what a YAML text means.
pub(super) fn yaml_tree(text: &str) -> Result<Value> {
    if text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')) {
        return Ok(Value::Null);
    }
    serde_saphyr::from_str(text).map_err(|error| {
        let place = error.location();
        let message = error.without_snippet().to_string();
        let message = message.lines().next().unwrap_or_default().to_owned();
        let at = |number: Option<u64>| number.and_then(|it| usize::try_from(it).ok()).unwrap_or(0);
        EditError::Syntax {
            line: at(place.map(|it| it.line())),
            column: at(place.map(|it| it.column())),
            message,
        }
    })
}

/// Returns the names and values of a file of lines; other lines mean nothing.
pub(super) fn env_tree(text: &str) -> Value {
    let mut map = Map::new();
    for line in text.lines() {
        let begin = line.trim_start();
        let begin = begin.strip_prefix("export ").unwrap_or(begin).trim_start();
        let name = begin.split_once('=').map(|(name, _)| name.trim_end());
        let name = name.filter(|name| !name.is_empty() && !name.starts_with('#'));
        if let Some(name) = name
            && let Some(value) = value_of(line, name, Format::Env)
        {
            map.insert(name.to_owned(), Value::from(unquoted(&line[value])));
        }
    }
    Value::Object(map)
}

fn unquoted(value: &str) -> &str {
    let inner = |quote: char| value.strip_prefix(quote)?.strip_suffix(quote);
    inner('"').or_else(|| inner('\'')).unwrap_or(value)
}

/// Returns the text of a value.
pub(super) fn raw(text: &str, key: &Key, format: Format) -> Option<String> {
    Some(text[find(text, key.first()?, format)?.value].to_owned())
}

/// Sets a value.
pub(super) fn set(text: &str, key: &Key, value: &Value, format: Format) -> String {
    restored(text, key, &rendered(value, format), format)
}

/// Sets a value to a text that [`raw`] gave.
pub(super) fn restored(text: &str, key: &Key, raw: &str, format: Format) -> String {
    let Some(key) = key.first() else { return text.to_owned() };
    let separator = if format == Format::Env { "=" } else { ": " };
    let Some(found) = find(text, key, format) else {
        // A file whose last line does not end stays such a file.
        return if text.is_empty() || text.ends_with('\n') {
            format!("{text}{key}{separator}{raw}\n")
        } else {
            format!("{text}\n{key}{separator}{raw}")
        };
    };
    let is_bare = format == Format::Yaml && text[..found.value.start].ends_with(':');
    let gap = if is_bare { " " } else { "" };
    spliced(text, found.value, &format!("{gap}{raw}"))
}

/// Removes the line of a key.
pub(super) fn removed(text: &str, key: &Key, format: Format) -> String {
    let Some(found) = key.first().and_then(|key| find(text, key, format)) else {
        return text.to_owned();
    };
    let mut whole = found.whole;
    if !text[whole.clone()].ends_with('\n') {
        whole.start = text[..whole.start].strip_suffix('\n').map_or(whole.start, str::len);
    }
    spliced(text, whole, "")
}

/// Finds the last line that sets a key.
fn find(text: &str, key: &str, format: Format) -> Option<Line> {
    let mut start = 0;
    let mut found = None;
    for line in text.split_inclusive('\n') {
        if let Some(value) = value_of(line, key, format) {
            let value = start + value.start..start + value.end;
            found = Some(Line { whole: start..start + line.len(), value });
        }
        start += line.len();
    }
    found
}

/// Returns where the value is in a line that sets a key.
fn value_of(line: &str, key: &str, format: Format) -> Option<Range<usize>> {
    let blank = [' ', '\t'];
    let rest = match format {
        Format::Env => {
            let line = line.trim_start_matches(blank);
            let line = line.strip_prefix("export ").unwrap_or(line);
            line.trim_start_matches(blank).strip_prefix(key)?.trim_start_matches(blank)
        }
        _ => line.strip_prefix(key)?.trim_start_matches(blank),
    };
    let rest = rest.strip_prefix(if format == Format::Env { '=' } else { ':' })?;
    if format != Format::Env && !rest.is_empty() && !rest.starts_with([' ', '\t', '\n']) {
        return None;
    }
    let value = rest.trim_start_matches(blank);
    let start = line.len() - value.len();
    let is_blank = value.is_empty() || value.starts_with(['\n', '#']);
    if is_blank {
        let start = line.len() - rest.len();
        return Some(start..start);
    }
    Some(start..start + value_length(value))
}

/// Returns the length of the value that a text begins with.
fn value_length(text: &str) -> usize {
    let text = text.trim_end();
    let quote = text.chars().next().filter(|c| matches!(c, '"' | '\''));
    if let Some(quote) = quote
        && let Some(end) = closing(&text[1..], quote)
    {
        return 1 + end + 1;
    }
    let comment = text.find(" #").or_else(|| text.find("\t#")).unwrap_or(text.len());
    text[..comment].trim_end().len()
}

/// Returns where a quotation ends.
fn closing(text: &str, quote: char) -> Option<usize> {
    let mut is_escaped = false;
    text.char_indices().find_map(|(index, c)| {
        let ends = c == quote && !is_escaped;
        is_escaped = quote == '"' && c == '\\' && !is_escaped;
        ends.then_some(index)
    })
}

fn rendered(value: &Value, format: Format) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_-.:/".contains(c);
    match value {
        Value::String(text) if format == Format::Env && text.chars().all(is_plain) => text.clone(),
        _ => value.to_string(),
    }
}
