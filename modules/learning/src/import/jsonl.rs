//! Conversations, one a line: `{"messages": […], "model": …, "feedback": …}`.
//!
//! Also read are `tools`, `id`, `session` or `conversation`, `at` (milliseconds, or a time as in
//! RFC 3339) and `finish_reason`. Anything else in a line is left alone.

use module_sdk::{events::ContentRole, jiff::Timestamp};
use serde_json::Value;

use super::{Found, LineError, Lines, Take};
use crate::example::Message;

/// Reads a file of conversations.
pub(super) fn read(mut lines: Lines<'_>, take: Take<'_>) -> module_sdk::Result<()> {
    while let Some((number, line)) = lines.next_line()? {
        take(number, line.and_then(found))?;
    }
    Ok(())
}

/// Returns the conversation of a line.
fn found(line: &str) -> Result<Found, LineError> {
    let value: Value = parse(line)?;
    let messages = value.get("messages").and_then(Value::as_array);
    let messages = messages.ok_or(LineError::NoMessages)?;
    let messages = messages
        .iter()
        .enumerate()
        .map(|(index, it)| message(it).ok_or(LineError::Message(index + 1)))
        .collect::<Result<Vec<_>, _>>()?;
    check(&messages)?;
    let text = |key: &str| value.get(key).and_then(Value::as_str).map(str::to_owned);
    Ok(Found {
        conversation: text("conversation").or_else(|| text("session")),
        id: text("id"),
        at: value.get("at").and_then(time),
        // To name none says that no model wrote it.
        model: match value.get("model") {
            None | Some(Value::Null) => None,
            Some(Value::String(name)) => Some(name.clone()).filter(|it| !it.trim().is_empty()),
            Some(_) => return Err(LineError::Model),
        },
        tools: value.get("tools").filter(|tools| tools.is_array()).cloned(),
        finish_reason: text("finish_reason"),
        truncated: false,
        feedback: match value.get("feedback") {
            None | Some(Value::Null) => None,
            Some(given) => Some(feedback(given).ok_or(LineError::Feedback)?),
        },
        messages,
    })
}

/// Parses a line of JSON. The error shows none of it.
pub(super) fn parse(line: &str) -> Result<Value, LineError> {
    serde_json::from_str(line).map_err(|error| {
        if error.is_eof() { LineError::Cut } else { LineError::NoJson(error.column()) }
    })
}

/// Checks that a conversation ends with an answer to something.
fn check(messages: &[Message]) -> Result<(), LineError> {
    match messages.split_last() {
        None => Err(LineError::NoMessages),
        Some((last, _)) if last.role != ContentRole::Assistant => Err(LineError::NoAnswer),
        Some((_, asked)) if !asked.iter().any(|it| it.role == ContentRole::User) => {
            Err(LineError::NoQuestion)
        }
        Some(_) => Ok(()),
    }
}

fn message(value: &Value) -> Option<Message> {
    let role = role(value.get("role")?.as_str()?)?;
    let tool_calls = value.get("tool_calls").filter(|calls| calls.is_array()).cloned();
    let content = match value.get("content") {
        None | Some(Value::Null) => String::new(),
        Some(content) => text(content)?,
    };
    Some(Message { role, content, tool_calls })
}

/// Returns the role that a word names.
pub(super) fn role(word: &str) -> Option<ContentRole> {
    match word {
        "developer" => Some(ContentRole::System),
        "human" => Some(ContentRole::User),
        "model" => Some(ContentRole::Assistant),
        "function" => Some(ContentRole::Tool),
        word => word.parse().ok(),
    }
}

/// Returns the text of a content: a text, or parts of which each has one.
fn text(content: &Value) -> Option<String> {
    match content {
        Value::String(text) => Some(text.clone()),
        Value::Array(parts) => {
            let texts = parts.iter().map(|part| match part {
                Value::String(text) => Some(text.as_str()),
                part => part.get("text")?.as_str(),
            });
            texts.collect::<Option<Vec<_>>>().map(|texts| texts.join("\n"))
        }
        _ => None,
    }
}

/// Returns a time in milliseconds: a number of them, or a text as in RFC 3339.
pub(super) fn time(value: &Value) -> Option<i64> {
    match value {
        Value::Number(number) => number.as_i64().filter(|ms| *ms > 0),
        Value::String(text) => text.parse::<Timestamp>().ok().map(Timestamp::as_millisecond),
        _ => None,
    }
}

fn feedback(value: &Value) -> Option<f64> {
    match value {
        Value::Bool(good) => Some(f64::from(*good)),
        Value::String(word) => match &**word {
            "good" | "up" => Some(1.0),
            "bad" | "down" => Some(0.0),
            _ => None,
        },
        Value::Number(number) => number.as_f64().filter(|it| (0.0..=1.0).contains(it)),
        Value::Object(object) => {
            object.get("rating").or_else(|| object.get("good")).and_then(feedback)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const CHAT: &str = r#"[{"role":"user","content":"q"},{"role":"assistant","content":"a"}]"#;

    #[test]
    fn a_line_says_what_it_knows() {
        let check = |rest: &str, expected: fn(&Found) -> bool| {
            let line = format!(r#"{{"messages":{CHAT}{rest}}}"#);
            let found = found(&line).expect(&line);
            assert!(expected(&found), "{found:?}");
        };
        check("", |it| it.messages.len() == 2 && it.model.is_none() && it.feedback.is_none());
        check(r#","model":" ""#, |it| it.model.is_none());
        check(r#","model":"m","tools":[{}]"#, |it| it.model.is_some() && it.tools.is_some());
        check(r#","feedback":true"#, |it| it.feedback == Some(1.0));
        check(r#","feedback":"bad""#, |it| it.feedback == Some(0.0));
        check(r#","feedback":0.25"#, |it| it.feedback == Some(0.25));
        check(r#","feedback":{"good":false}"#, |it| it.feedback == Some(0.0));
        check(r#","feedback":null,"extra":[1]"#, |it| it.feedback.is_none());
        check(r#","at":1790000000000"#, |it| it.at == Some(1_790_000_000_000));
        check(r#","at":"2026-11-30T12:00:00Z""#, |it| it.at.is_some());
        check(r#","session":"s","id":"i""#, |it| it.conversation.as_deref() == Some("s"));
    }

    #[test]
    fn a_bad_line_has_its_reason() {
        let check = |line: &str, expected: LineError| {
            assert_eq!(found(line).expect_err(line), expected, "{line}");
        };
        check("nonsense", LineError::NoJson(2));
        check(r#"{"messages":[{"role":"user""#, LineError::Cut);
        check("[]", LineError::NoMessages);
        check(r#"{"messages":[]}"#, LineError::NoMessages);
        check(r#"{"messages":[{"role":"user","content":"q"}]}"#, LineError::NoAnswer);
        check(r#"{"messages":[{"role":"assistant","content":"q"}]}"#, LineError::NoQuestion);
        check(r#"{"messages":[{"role":"wizard","content":"q"}]}"#, LineError::Message(1));
        check(r#"{"messages":[{"role":"user","content":7}]}"#, LineError::Message(1));
        check(&format!(r#"{{"messages":{CHAT},"feedback":7}}"#), LineError::Feedback);
        check(&format!(r#"{{"messages":{CHAT},"model":["m"]}}"#), LineError::Model);
        let secret = "sk-ant-very-secret";
        let shown = found(&format!("{{\"{secret}")).expect_err("it is cut").to_string();
        assert!(!shown.contains(secret), "{shown}");
    }

    #[test]
    fn contents_are_texts_or_parts() {
        let check = |content: Value, expected: Option<&str>| {
            let read = message(&json!({"role": "user", "content": content}));
            assert_eq!(read.map(|it| it.content).as_deref(), expected);
        };
        check(json!("x"), Some("x"));
        check(json!(null), Some(""));
        check(json!([{"type": "text", "text": "a"}, "b"]), Some("a\nb"));
        check(json!([{"type": "image_url", "image_url": {}}]), None);
        check(json!({}), None);
        for word in ["developer", "human", "model", "function", "tool", "user"] {
            assert!(role(word).is_some(), "{word}");
        }
    }
}
