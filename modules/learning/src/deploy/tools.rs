//! Answers that may call tools, in the forms of OpenAI's and of Ollama's chat.

use std::fmt;

use serde_json::{Value, json};

use super::{DeployError, Kind, Model, Server, Unreadable, WORK, llama_server, read};

/// A call of a tool. Its `Debug` shows the name alone.
#[derive(Clone, PartialEq)]
pub struct Call {
    /// Name of the tool.
    pub name: String,
    /// Its arguments; none where they are no JSON.
    pub arguments: Option<Value>,
}

impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Call({})", if self.arguments.is_some() { "with JSON" } else { "no JSON" })
    }
}

/// An answer with the calls that it makes.
#[derive(Debug, Clone, PartialEq)]
pub struct Called {
    /// The calls.
    pub calls: Vec<Call>,
}

impl Server {
    /// Asks a model that may call tools. `messages` and `tools` are in the form of OpenAI's chat.
    ///
    /// # Errors
    ///
    /// When there is no answer.
    pub async fn answer_with_tools(
        &self,
        model: Model<'_>,
        messages: &Value,
        tools: &Value,
        max_tokens: u32,
    ) -> Result<Called, DeployError> {
        let no_message = DeployError::Unreadable(Unreadable("an answer without a message"));
        let message = if self.kind == Kind::Ollama {
            let body = json!({
                "model": self.named(model), "messages": for_ollama(messages), "tools": tools,
                "stream": false,
                "options": {"num_predict": max_tokens, "temperature": 0, "seed": 0},
            });
            read(&self.post("/api/chat", &body, WORK).await?)?["message"].take()
        } else {
            let mut body = json!({
                "messages": messages, "tools": tools, "max_tokens": max_tokens,
                "temperature": 0, "seed": 0,
            });
            if self.kind == Kind::Vllm {
                body["model"] = self.named(model).into();
            } else {
                body["lora"] = llama_server::scales_of(self, model).await?;
            }
            let mut answer = read(&self.post("/v1/chat/completions", &body, WORK).await?)?;
            answer["choices"][0]["message"].take()
        };
        if !message.is_object() {
            return Err(no_message);
        }
        let calls = message["tool_calls"].as_array().map(Vec::as_slice).unwrap_or_default();
        Ok(Called { calls: calls.iter().map(call).collect() })
    }
}

/// Returns a call. OpenAI writes the arguments as a text of JSON, Ollama as JSON.
fn call(value: &Value) -> Call {
    let function = &value["function"];
    let arguments = match &function["arguments"] {
        Value::String(text) => serde_json::from_str(text).ok(),
        Value::Null => None,
        value => Some(value.clone()),
    };
    Call { name: function["name"].as_str().unwrap_or_default().to_owned(), arguments }
}

/// Returns messages as Ollama reads them: the arguments of earlier calls are JSON there.
fn for_ollama(messages: &Value) -> Value {
    let mut messages = messages.clone();
    let calls = messages
        .as_array_mut()
        .into_iter()
        .flatten()
        .filter_map(|message| message["tool_calls"].as_array_mut())
        .flatten();
    for value in calls {
        let arguments = &mut value["function"]["arguments"];
        let parsed = arguments.as_str().and_then(|text| serde_json::from_str(text).ok());
        if let Some(parsed) = parsed {
            *arguments = parsed;
        }
    }
    messages
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_read_in_both_forms() {
        for (arguments, expected) in [
            (json!("{\"order\": 7}"), Some(json!({"order": 7}))),
            (json!({"order": 7}), Some(json!({"order": 7}))),
            (json!("{\"order\":"), None),
            (Value::Null, None),
        ] {
            let value = json!({"function": {"name": "price", "arguments": arguments}});
            let found = call(&value);
            assert_eq!((found.name.as_str(), found.arguments), ("price", expected));
        }
        assert_eq!(call(&Value::Null).name, "");
    }

    #[test]
    fn ollama_gets_arguments_as_json() {
        let call = |arguments: Value| json!({"function": {"name": "a", "arguments": arguments}});
        let with = |calls: Value| json!([{"role": "assistant", "tool_calls": calls}]);
        let given = with(json!([call(json!("{\"b\":1}")), call(json!("no JSON"))]));
        let expected = with(json!([call(json!({"b": 1})), call(json!("no JSON"))]));
        assert_eq!(for_ollama(&given)[0]["tool_calls"], expected[0]["tool_calls"]);
    }
}
