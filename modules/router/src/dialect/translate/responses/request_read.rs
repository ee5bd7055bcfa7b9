//! A response that a client asks for.

use std::borrow::Cow;

use super::{
    super::{
        TranslateError,
        client_tools::{Form, SEARCH, free_tool},
        ids,
        ir::{Block, Effort, Format, Reasoning, Request, Role, Sampling, Tool, ToolChoice},
        json::Json,
    },
    items::{is_of_client, read_call, read_content, read_reasoning, read_search},
};

/// Reads a request.
pub(in super::super) fn read(mut body: Json<'_>) -> Result<Request<'_>, TranslateError> {
    if body.has("previous_response_id") || body.has("conversation") {
        return Err(TranslateError::Unsupported("to go on with an answer of another provider"));
    }
    if body.get("background").bool() == Some(true) {
        return Err(TranslateError::Unsupported("an answer in the background"));
    }
    if body.has("prompt") {
        return Err(TranslateError::Unsupported("a prompt that lies with another provider"));
    }
    let mut request = Request::default();
    if let Some(instructions) = body.take("instructions").into_text() {
        request.push_system(instructions);
    }
    match body.take("input") {
        Json::Text(text) => request.push(Role::User, vec![Block::Text(text)]),
        Json::List(items) => {
            for item in items {
                read_item(item, &mut request)?;
            }
        }
        _ => return Err(TranslateError::Malformed("input must be a text or a list of items")),
    }
    read_tools(body.take("tools"), None, &mut request);
    request.tool_choice = read_tool_choice(body.take("tool_choice"), &mut request);
    request.parallel_tool_calls = body.get("parallel_tool_calls").bool();
    request.max_tokens = body.get("max_output_tokens").u64();
    request.sampling = Sampling {
        temperature: body.take("temperature").into_number(),
        top_p: body.take("top_p").into_number(),
        ..Sampling::default()
    };
    request.reasoning = match body.get("reasoning").get("effort").text() {
        Some("none") => Some(Reasoning::Off),
        Some(name) => Effort::from_name(name).map(Reasoning::Effort),
        None => None,
    };
    let mut text = body.take("text");
    request.format = read_format(text.take("format"));
    request.verbosity = text.take("verbosity").into_text();
    request.user =
        body.take("safety_identifier").into_text().or_else(|| body.take("user").into_text());
    request.prompt_cache_key = body.take("prompt_cache_key").into_text();
    request.metadata = body.take("metadata");
    for part in ["include", "max_tool_calls", "service_tier", "store", "top_logprobs", "truncation"]
    {
        let is_said = match body.get(part) {
            Json::List(items) => !items.is_empty(),
            Json::Bool(value) => *value,
            other => !other.is_null(),
        };
        request.dropped.add_if(is_said, part);
    }
    Ok(request)
}

fn read_item<'a>(mut item: Json<'a>, request: &mut Request<'a>) -> Result<(), TranslateError> {
    let kind = item.take("type").into_text();
    match kind.as_deref() {
        Some("message") => read_message(item, request)?,
        None if item.has("role") => read_message(item, request)?,
        Some("function_call" | "custom_tool_call") => {
            let call = read_call(item)?;
            request.push(Role::Assistant, vec![call]);
        }
        Some("function_call_output" | "custom_tool_call_output") => {
            let id = item.take("call_id").into_text().unwrap_or_default();
            let content = read_content(item.take("output"))?;
            request.push(Role::User, vec![Block::ToolResult { id, content, is_error: false }]);
        }
        Some("tool_search_call") if is_of_client(&item) => {
            request.push(Role::Assistant, vec![read_search(item)]);
        }
        Some("tool_search_output") if is_of_client(&item) => {
            let result = read_found(item, request);
            request.push(Role::User, vec![result]);
        }
        // Codex says all of its tools so to some models.
        Some("additional_tools") => read_tools(item.take("tools"), None, request),
        Some("reasoning") => request.push(Role::Assistant, vec![read_reasoning(item)]),
        Some("item_reference") => {
            return Err(TranslateError::Unsupported("an item that lies with another provider"));
        }
        Some("compaction" | "compaction_summary") => {
            return Err(TranslateError::Unsupported("a conversation that only its provider reads"));
        }
        Some(_) => request.dropped.add("items of the provider's own tools"),
        None => return Err(TranslateError::Malformed("an item of input has no type")),
    }
    Ok(())
}

/// Offers the tools that a search of the client has found, and returns what it tells of them.
fn read_found<'a>(mut item: Json<'a>, request: &mut Request<'a>) -> Block<'a> {
    let found = item.take("tools").into_list();
    let mut known = request.tools.len();
    let mut names: Vec<String> = Vec::new();
    for tool in found {
        let name = tool.get("name").text().unwrap_or_default().to_owned();
        read_tools(Json::List(vec![tool]), None, request);
        let new = request.tools[known..].iter().map(|tool| tool.name.as_ref().to_owned());
        let before = names.len();
        names.extend(new);
        if names.len() == before && !name.is_empty() {
            // It was found before.
            names.push(name);
        }
        known = request.tools.len();
    }
    let text = match names.as_slice() {
        [] => "No tool was found.".to_owned(),
        names => format!("Found, and offered from now on: {}", names.join(", ")),
    };
    let id = item.take("call_id").into_text().unwrap_or_default();
    Block::ToolResult { id, content: vec![Block::Text(text.into())], is_error: false }
}

fn read_message<'a>(mut item: Json<'a>, request: &mut Request<'a>) -> Result<(), TranslateError> {
    let role = item.take("role").into_text();
    let blocks = read_content(item.take("content"))?;
    match role.as_deref() {
        Some("user") => request.push(Role::User, blocks),
        Some("assistant") => request.push(Role::Assistant, blocks),
        Some("system" | "developer") => {
            for block in blocks {
                if let Block::Text(text) = block {
                    request.push_system(text);
                }
            }
        }
        _ => return Err(TranslateError::Malformed("a message has no role that is known")),
    }
    Ok(())
}

/// Reads a list of tools, which stand in a namespace where one is given. None is offered twice: a
/// search may find one again and again.
fn read_tools<'a>(tools: Json<'a>, namespace: Option<&str>, request: &mut Request<'a>) {
    for mut tool in tools.into_list() {
        let kind = tool.take("type").into_text();
        let name = tool.take("name").into_text();
        match (kind.as_deref(), name) {
            (Some("function"), Some(name)) => {
                let name = request.client_tools.add(namespace, name, Form::Function);
                // Strictness is the default here alone, and advice only where a schema does not
                // fit.
                let is_strict = tool.get("strict").bool().filter(|is_strict| *is_strict);
                offer(function(name, tool, is_strict), request);
            }
            (Some("custom"), Some(name)) => {
                let name = request.client_tools.add(namespace, name, Form::Free);
                let mut format = tool.take("format");
                let tool = free_tool(
                    name,
                    tool.take("description").into_text(),
                    format.take("syntax").into_text(),
                    format.take("definition").into_text(),
                );
                offer(tool, request);
            }
            (Some("tool_search"), _) if is_of_client(&tool) => {
                let name = request.client_tools.add(None, SEARCH.into(), Form::Search);
                offer(function(name, tool, None), request);
            }
            // One within another would have no name for its calls.
            (Some("namespace"), Some(name)) if namespace.is_none() => {
                read_tools(tool.take("tools"), Some(&name), request);
            }
            _ => request.dropped.add("tools of the provider"),
        }
    }
}

fn function<'a>(name: Cow<'a, str>, mut tool: Json<'a>, is_strict: Option<bool>) -> Tool<'a> {
    Tool {
        name,
        description: tool.take("description").into_text(),
        schema: tool.take("parameters"),
        is_strict,
    }
}

fn offer<'a>(tool: Tool<'a>, request: &mut Request<'a>) {
    if !request.tools.iter().any(|known| known.name == tool.name) {
        request.tools.push(tool);
    }
}

fn read_tool_choice<'a>(mut choice: Json<'a>, request: &mut Request<'a>) -> Option<ToolChoice<'a>> {
    match choice.text() {
        Some("auto") => return Some(ToolChoice::Auto),
        Some("none") => return Some(ToolChoice::None),
        Some("required") => return Some(ToolChoice::Required),
        _ => {}
    }
    let kind = choice.take("type").into_text();
    match kind.as_deref() {
        Some("function" | "custom") => {
            let name = choice.take("name").into_text()?;
            Some(ToolChoice::Named(ids::function(choice.get("namespace").text(), name)))
        }
        Some(kind) => {
            request.dropped.add("tool_choice");
            let is_required =
                kind == "allowed_tools" && choice.get("mode").text() == Some("required");
            is_required.then_some(ToolChoice::Required)
        }
        None => None,
    }
}

fn read_format(mut format: Json<'_>) -> Format<'_> {
    let kind = format.take("type").into_text();
    match kind.as_deref() {
        Some("json_object") => Format::Json,
        Some("json_schema") => Format::Schema {
            name: format.take("name").into_text(),
            description: format.take("description").into_text(),
            is_strict: format.get("strict").bool(),
            schema: format.take("schema"),
        },
        _ => Format::Text,
    }
}
