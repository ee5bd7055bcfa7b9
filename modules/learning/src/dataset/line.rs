//! Canonical lines: the form in which an example lies in a dataset, the same for the same text.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::example::{Example, Message};

/// A line of a dataset, as OpenAI writes chats to train on. Nothing else of an example is in it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// The messages, the answer last.
    pub messages: Vec<Message>,
    /// Tools that the model was offered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tools: Option<Value>,
}

impl Line {
    /// Returns the line of an example.
    #[must_use]
    pub fn of(example: &Example) -> Self {
        let messages = example.messages.iter().map(|message| Message {
            tool_calls: message.tool_calls.as_ref().map(sorted),
            ..message.clone()
        });
        Self { messages: messages.collect(), tools: example.tools.as_ref().map(sorted) }
    }

    /// Returns the line as text: one spelling for one content.
    ///
    /// # Errors
    ///
    /// When it cannot be written as JSON.
    pub fn text(&self) -> serde_json::Result<String> {
        serde_json::to_string(self)
    }
}

/// Returns a value whose objects have their keys in order.
fn sorted(value: &Value) -> Value {
    match value {
        Value::Array(items) => items.iter().map(sorted).collect(),
        Value::Object(object) => {
            let mut keys: Vec<&String> = object.keys().collect();
            keys.sort_unstable();
            let entries = keys.into_iter().map(|key| (key.clone(), sorted(&object[key])));
            Value::Object(entries.collect::<Map<_, _>>())
        }
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::dataset::sample;

    #[test]
    fn one_content_has_one_spelling() {
        let mut example = sample::example(1);
        example.tools = serde_json::from_str(r#"[{"b": 1, "a": {"d": 1, "c": [2]}}]"#).ok();
        let text = Line::of(&example).text().expect("it is JSON");
        assert!(text.ends_with(r#""tools":[{"a":{"c":[2],"d":1},"b":1}]}"#), "{text}");
        assert!(text.starts_with(r#"{"messages":[{"role":"user","content":"What does"#), "{text}");
        let read: Line = serde_json::from_str(&text).expect("it is a line");
        assert_eq!(read.tools, Some(json!([{"a": {"c": [2], "d": 1}, "b": 1}])));
    }
}
