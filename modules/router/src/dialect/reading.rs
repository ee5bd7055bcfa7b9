//! Text and calls of a whole answer, and the tools of a request, for a check of the answer.

use serde_json::{Value, json};

use super::Dialect;

/// A whole answer, taken apart.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Reading {
    /// Text, without reasoning.
    pub text: String,
    /// Calls of tools: name and arguments, as JSON.
    pub calls: Vec<(String, String)>,
    /// Reason for its end, in the words of its dialect.
    pub finish: Option<String>,
}

/// Tool that a request offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Offered {
    /// Its name.
    pub name: String,
    /// JSON schema of its arguments.
    pub schema: Option<String>,
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// Returns arguments as JSON, whether they are a text that holds it or the object itself.
fn arguments(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Takes a whole answer apart. One in another form has no text.
pub(crate) fn read(dialect: Dialect, body: &[u8]) -> Reading {
    let Ok(answer) = serde_json::from_slice::<Value>(body) else { return Reading::default() };
    let finish = match dialect {
        Dialect::Messages => &answer["stop_reason"],
        Dialect::Responses => match &answer["incomplete_details"]["reason"] {
            Value::Null => &answer["status"],
            reason => reason,
        },
        Dialect::Gemini => &answer["candidates"][0]["finishReason"],
        Dialect::OllamaChat | Dialect::OllamaGenerate => &answer["done_reason"],
        _ => &answer["choices"][0]["finish_reason"],
    };
    let finish = finish.as_str().map(str::to_owned);
    let mut reading = Reading { finish, ..Reading::default() };
    match dialect {
        Dialect::Messages => {
            for block in list(&answer["content"]) {
                match text(&block["type"]) {
                    "text" => reading.text.push_str(text(&block["text"])),
                    "tool_use" => reading
                        .calls
                        .push((text(&block["name"]).to_owned(), arguments(&block["input"]))),
                    _ => {}
                }
            }
        }
        Dialect::Responses => {
            for item in list(&answer["output"]) {
                match text(&item["type"]) {
                    "message" => list(&item["content"])
                        .iter()
                        .for_each(|part| reading.text.push_str(text(&part["text"]))),
                    "function_call" => reading
                        .calls
                        .push((text(&item["name"]).to_owned(), arguments(&item["arguments"]))),
                    "custom_tool_call" => reading.calls.push((
                        text(&item["name"]).to_owned(),
                        json!({"input": item["input"]}).to_string(),
                    )),
                    _ => {}
                }
            }
        }
        Dialect::Gemini => {
            for part in list(&answer["candidates"][0]["content"]["parts"]) {
                reading.text.push_str(text(&part["text"]));
                if let Some(call) = part.get("functionCall") {
                    reading.calls.push((text(&call["name"]).to_owned(), arguments(&call["args"])));
                }
            }
        }
        Dialect::Completions => text(&answer["choices"][0]["text"]).clone_into(&mut reading.text),
        Dialect::OllamaGenerate => text(&answer["response"]).clone_into(&mut reading.text),
        Dialect::Chat | Dialect::OllamaChat => {
            let message = match dialect {
                Dialect::Chat => &answer["choices"][0]["message"],
                _ => &answer["message"],
            };
            text(&message["content"]).clone_into(&mut reading.text);
            for call in list(&message["tool_calls"]) {
                let (inner, arguments) = match call.get("custom") {
                    Some(custom) => (custom, json!({"input": custom["input"]}).to_string()),
                    None => (&call["function"], arguments(&call["function"]["arguments"])),
                };
                reading.calls.push((text(&inner["name"]).to_owned(), arguments));
            }
        }
        Dialect::Embeddings | Dialect::OllamaEmbed => {}
    }
    reading
}

/// Returns the tools that a request offers, and the JSON schema that its answer must have.
pub(crate) fn offered(dialect: Dialect, body: &[u8]) -> (Vec<Offered>, Option<String>) {
    let Ok(request) = serde_json::from_slice::<Value>(body) else { return (Vec::new(), None) };
    let schema_of = |value: &Value| (!value.is_null()).then(|| value.to_string());
    // Codex brings tools in the conversation, and puts some of them in namespaces.
    let brought = list(&request["input"]).iter().flat_map(|item| list(&item["tools"]));
    let tools = list(&request["tools"]).iter().chain(brought);
    let tools = tools.flat_map(|tool| match &tool["tools"] {
        Value::Array(tools) => tools.as_slice(),
        _ => std::slice::from_ref(tool),
    });
    let tools = tools.map(|tool| {
        // Chat and Ollama have it inside, the others beside the type.
        let inner = tool.get("function").or_else(|| tool.get("custom")).unwrap_or(tool);
        let schema = inner.get("parameters").or_else(|| inner.get("input_schema"));
        Offered { name: text(&inner["name"]).to_owned(), schema: schema.and_then(schema_of) }
    });
    let schema = match dialect {
        Dialect::Responses => &request["text"]["format"]["schema"],
        Dialect::OllamaChat | Dialect::OllamaGenerate => &request["format"],
        _ => &request["response_format"]["json_schema"]["schema"],
    };
    let schema = Some(schema).filter(|schema| schema.is_object()).and_then(schema_of);
    (tools.filter(|tool| !tool.name.is_empty()).collect(), schema)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_of_every_dialect_are_taken_apart() {
        let check = |dialect, body: Value| {
            let reading = read(dialect, body.to_string().as_bytes());
            assert_eq!(reading.text, "hi", "{dialect:?}");
            assert_eq!(reading.calls, [("f".to_owned(), r#"{"a":1}"#.to_owned())], "{dialect:?}");
        };
        check(
            Dialect::Chat,
            json!({"choices": [{"message": {"content": "hi", "tool_calls": [
                {"function": {"name": "f", "arguments": "{\"a\":1}"}}]}}]}),
        );
        check(
            Dialect::OllamaChat,
            json!({"message": {"content": "hi", "tool_calls": [
                {"function": {"name": "f", "arguments": {"a": 1}}}]}}),
        );
        check(
            Dialect::Messages,
            json!({"content": [{"type": "thinking", "thinking": "x"},
                {"type": "text", "text": "hi"},
                {"type": "tool_use", "name": "f", "input": {"a": 1}}]}),
        );
        check(
            Dialect::Responses,
            json!({"output": [{"type": "message", "content": [{"text": "hi"}]},
                {"type": "function_call", "name": "f", "arguments": "{\"a\":1}"}]}),
        );
        assert_eq!(read(Dialect::Chat, b"<html>"), Reading::default());
        assert_eq!(read(Dialect::Chat, b"[]"), Reading::default());
    }

    #[test]
    fn tools_and_schemas_are_found() {
        let chat = json!({"tools": [{"type": "function", "function": {"name": "f",
            "parameters": {"type": "object"}}}],
            "response_format": {"json_schema": {"schema": {"type": "object"}}}});
        let (tools, schema) = offered(Dialect::Chat, chat.to_string().as_bytes());
        let object = Some(r#"{"type":"object"}"#.to_owned());
        assert_eq!(tools, [Offered { name: "f".to_owned(), schema: object.clone() }]);
        assert_eq!(schema, object);
        let messages = json!({"tools": [{"name": "f", "input_schema": {"type": "object"}}]});
        let (tools, schema) = offered(Dialect::Messages, messages.to_string().as_bytes());
        assert_eq!((tools[0].schema.clone(), schema), (object, None));
    }
}
