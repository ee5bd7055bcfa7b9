//! Requests that do something: asked twice they do it twice.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::items::Items;

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
        || read.tools.is_some_and(|tools| tools.0.iter().any(|tool| is_of_provider(tool.get())))
}

/// Returns whether the provider calls a tool itself: those that the client calls have no type, or
/// one of these.
fn is_of_provider(tool: &str) -> bool {
    let read = serde_json::from_str::<Tool<'_>>(tool);
    let kind = read.ok().and_then(|tool| tool.kind);
    kind.is_some_and(|kind| !matches!(&*kind, "function" | "custom"))
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
}
