//! Changes of a few values in the body of a request, which leave every other byte as it came.

use std::ops::Range;

use bytes::Bytes;

use serde_json::Value;

use super::inspect::Places;

/// Returns a body with another model, with the usage asked for at the end of its stream
/// (`asks_for_usage`), or with no stream asked for (`as_whole`).
pub(crate) fn rewrite(
    body: &[u8],
    places: &Places,
    model: &str,
    asks_for_usage: bool,
    as_whole: bool,
) -> Vec<u8> {
    let mut edits: Vec<(Range<usize>, String)> = Vec::with_capacity(3);
    if as_whole {
        let places = [(&places.stream, "false"), (&places.stream_options, "null")];
        let known = places.into_iter().filter_map(|(at, text)| at.clone().zip(Some(text)));
        edits.extend(known.map(|(at, text)| (at, text.to_owned())));
    }
    // Ollama's clients say nothing and mean a stream.
    let says_whole = as_whole && places.stream.is_none();
    let whole = if says_whole { r#","stream":false"# } else { "" };
    let model = Value::from(model).to_string();
    let mut options = String::new();
    if asks_for_usage {
        match &places.stream_options {
            Some(at) => edits.push((at.clone(), with_usage(&body[at.clone()]))),
            None => options = r#","stream_options":{"include_usage":true}"#.to_owned(),
        }
    }
    match &places.model {
        Some(at) => edits.push((at.clone(), model + &options + whole)),
        None => {
            // Behind the brace, before whatever is first.
            let brace = body.iter().position(|byte| *byte == b'{').map_or(0, |at| at + 1);
            let is_empty = body[brace..].trim_ascii_start().first() == Some(&b'}');
            let comma = if is_empty { "" } else { "," };
            edits.push((brace..brace, format!("\"model\":{model}{options}{whole}{comma}")));
        }
    }
    edits.sort_by_key(|(at, _)| at.start);
    let mut written = Vec::with_capacity(body.len() + 96);
    let mut from = 0;
    for (at, text) in edits {
        written.extend_from_slice(&body[from..at.start]);
        written.extend_from_slice(text.as_bytes());
        from = at.end;
    }
    written.extend_from_slice(&body[from..]);
    written
}

/// Returns a body without a member, by the place of its value.
pub(crate) fn without(body: &[u8], value: &Range<usize>, key: &str) -> Bytes {
    let (before, after) = (&body[..value.start], &body[value.end..]);
    let quoted = format!("\"{key}\"");
    let head = before.trim_ascii_end().strip_suffix(b":").map(<[u8]>::trim_ascii_end);
    let head = head.and_then(|head| head.strip_suffix(quoted.as_bytes()));
    let Some(head) = head else {
        // Its key is written in another way.
        return [before, b"null", after].concat().into();
    };
    let rest = after.trim_ascii_start();
    let (head, rest) = match rest.strip_prefix(b",") {
        Some(rest) => (head, rest),
        None => (head.trim_ascii_end().strip_suffix(b",").unwrap_or(head), rest),
    };
    [head, rest].concat().into()
}

fn with_usage(options: &[u8]) -> String {
    let mut options = match serde_json::from_slice(options) {
        Ok(Value::Object(options)) => options,
        _ => serde_json::Map::new(),
    };
    options.insert("include_usage".to_owned(), Value::Bool(true));
    Value::Object(options).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::{Dialect, inspect::inspect};

    fn check(body: &str, asks_for_usage: bool, expected: &str) {
        let found = inspect(Dialect::Chat, body.as_bytes()).expect("a request");
        let written = rewrite(body.as_bytes(), &found.places, "a\"b", asks_for_usage, false);
        assert_eq!(String::from_utf8_lossy(&written), expected);
        let read: Value = serde_json::from_slice(&written).expect("JSON");
        assert_eq!(read["model"], "a\"b");
    }

    #[test]
    fn a_member_is_taken_out_and_the_rest_stays() {
        let check = |body: &str, expected: &str| {
            let found = inspect(Dialect::Messages, body.as_bytes()).expect("a request");
            let at = found.places.safeguards.expect("it is there");
            let left = without(body.as_bytes(), &at, "safeguards");
            assert_eq!(String::from_utf8_lossy(&left), expected);
            serde_json::from_slice::<Value>(&left).expect("JSON");
        };
        check(r#"{"x": 1.0e0, "safeguards" : {"a": [1]} , "y":2}"#, r#"{"x": 1.0e0,  "y":2}"#);
        check(r#"{"safeguards":{},"y":2}"#, r#"{"y":2}"#);
        check(r#"{"y":2, "safeguards":null }"#, r#"{"y":2}"#);
        check(r#"{ "safeguards":{}}"#, "{ }");
        check(r#"{"safe\u0067uards":{},"y":2}"#, r#"{"safe\u0067uards":null,"y":2}"#);
    }

    #[test]
    fn other_bytes_stay_as_they_came() {
        check(
            r#"{"x": 1.0e0, "model" : "m" ,"y":2}"#,
            false,
            r#"{"x": 1.0e0, "model" : "a\"b" ,"y":2}"#,
        );
        check(r#"{ "x":1}"#, false, r#"{"model":"a\"b", "x":1}"#);
        check("{ }", false, r#"{"model":"a\"b" }"#);
        check(
            r#"{"model":"m","x":1}"#,
            true,
            r#"{"model":"a\"b","stream_options":{"include_usage":true},"x":1}"#,
        );
        check(
            r#"{"stream_options":{"include_usage":false,"z":1},"model":"m"}"#,
            true,
            r#"{"stream_options":{"include_usage":true,"z":1},"model":"a\"b"}"#,
        );
        check(
            r#"{"model":"m","stream_options":null}"#,
            true,
            r#"{"model":"a\"b","stream_options":{"include_usage":true}}"#,
        );
    }
}
