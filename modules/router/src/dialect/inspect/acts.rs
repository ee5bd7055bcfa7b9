//! Requests that do something: asked twice they do it twice.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{items::Items, offered::offers};

#[derive(Deserialize, Default)]
#[serde(default)]
struct Acting<'a> {
    #[serde(borrow)]
    background: Option<&'a RawValue>,
    #[serde(borrow)]
    container: Option<&'a RawValue>,
    #[serde(borrow)]
    conversation: Option<&'a RawValue>,
    #[serde(borrow)]
    input: Option<&'a RawValue>,
    #[serde(borrow)]
    keep_alive: Option<&'a RawValue>,
    #[serde(borrow)]
    mcp_servers: Option<&'a RawValue>,
    #[serde(borrow)]
    previous_response_id: Option<&'a RawValue>,
    #[serde(borrow)]
    tools: Option<Items<'a>>,
}

#[derive(Deserialize)]
struct Tool<'a> {
    #[serde(borrow, rename = "type", default)]
    kind: Option<Cow<'a, str>>,
}

/// Returns whether a request changes something besides its answer, or refers to what its provider
/// keeps: a conversation, work in the background, tools that the provider itself calls.
pub(crate) fn acts(body: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(body) else { return false };
    let Ok(read) = serde_json::from_str::<Acting<'_>>(text) else { return false };
    let kept = [
        read.background,
        read.container,
        read.conversation,
        read.keep_alive,
        read.mcp_servers,
        read.previous_response_id,
    ];
    let is_said = |raw: &RawValue| !matches!(raw.get(), "null" | "false" | "[]");
    kept.into_iter().flatten().any(is_said)
        || offers(read.tools.as_ref(), read.input, is_of_provider)
}

/// Returns whether the provider calls a tool itself: those that the client calls have no type, or
/// one of these. A namespace is what stands in it.
fn is_of_provider(tool: &RawValue) -> bool {
    let read = serde_json::from_str::<Tool<'_>>(tool.get());
    let kind = read.ok().and_then(|tool| tool.kind);
    kind.is_some_and(|kind| !matches!(&*kind, "function" | "custom" | "namespace"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_something_twice_is_known() {
        let check = |body: &str, expected| assert_eq!(acts(body.as_bytes()), expected, "{body}");
        check(r#"{"messages": [], "background": false, "container": null}"#, false);
        check(r#"{"previous_response_id": "resp_1"}"#, true);
        check(r#"{"conversation": {"id": "1"}}"#, true);
        check(r#"{"background": true}"#, true);
        check(r#"{"mcp_servers": [{"url": "https://a.example"}]}"#, true);
        check(r#"{"mcp_servers": []}"#, false);
        check(r#"{"tools": [{"name": "f", "input_schema": {}}]}"#, false);
        check(r#"{"tools": [{"type": "function", "function": {"name": "f"}}]}"#, false);
        check(r#"{"tools": [{"type": "custom", "name": "f"}, {"type": "mcp"}]}"#, true);
        check(r#"{"tools": [{"type": "code_execution_20250825", "name": "x"}]}"#, true);
        check(r#"{"tools": [{"functionDeclarations": []}]}"#, false);
    }

    #[test]
    fn a_tool_counts_wherever_it_is_offered() {
        let check = |tools: &str, expected| {
            let namespace = format!(r#"{{"type": "namespace", "name": "n", "tools": [{tools}]}}"#);
            for tools in [tools, namespace.as_str()] {
                let item = format!(r#"{{"type": "additional_tools", "tools": [{tools}]}}"#);
                let of_body = format!(r#"{{"input": "x", "tools": [{tools}]}}"#);
                let of_item = format!(r#"{{"input": [{{"role": "user"}}, {item}], "tools": []}}"#);
                for body in [of_body, of_item] {
                    assert_eq!(acts(body.as_bytes()), expected, "{body}");
                }
            }
        };
        check("", false);
        check(r#"{"type": "function", "name": "f", "parameters": {"type": "mcp"}}"#, false);
        check(r#"{"type": "custom", "name": "f"}, {"name": "g"}"#, false);
        check(r#"{"type": "mcp", "server_url": "https://a.example"}"#, true);
        check(r#"{"type": "custom", "name": "f"}, {"type": "web_search"}"#, true);
    }

    #[test]
    fn what_was_done_before_is_no_act() {
        let body = r#"{"input": [{"type": "mcp_list_tools", "tools": [{"name": "f"}]},
            {"type": "function_call_output", "output": "{\"tools\": [{\"type\": \"mcp\"}]}"}]}"#;
        assert!(!acts(body.as_bytes()));
    }
}
