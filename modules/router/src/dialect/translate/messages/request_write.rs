//! A message that is asked of a provider.

use std::borrow::Cow;

use super::super::{
    RequestOptions, TranslateError, ids,
    ir::{Block, Effort, Format, Media, Reasoning, Request, Role, Tool, ToolChoice},
    json::{Json, Object},
    reasoning,
};

/// Oldest Claude that answers in JSON of a schema.
const SCHEMA_SINCE: (u32, u32) = (4, 5);

/// Oldest Claude that decides itself how much to reason, and is told an effort.
const ADAPTIVE_SINCE: (u32, u32) = (4, 6);

/// Writes a request.
pub(in super::super) fn write<'a>(
    request: &mut Request<'a>,
    options: &RequestOptions<'a>,
) -> Result<Json<'a>, TranslateError> {
    if request.tools.is_empty() {
        declare_called_tools(request);
    }
    let max_tokens = request.max_tokens.unwrap_or(options.default_max_tokens.into());
    let thinking = thinking(request, options.model, max_tokens);
    if request.turns.is_empty() {
        // A conversation must have a turn of the person.
        let words = std::mem::take(&mut request.system);
        request.push(Role::User, words.into_iter().map(Block::Text).collect());
    }
    let mut messages: Vec<(Role, Vec<Json<'a>>)> = Vec::with_capacity(request.turns.len());
    for turn in std::mem::take(&mut request.turns) {
        // Words of the system may not stand among the turns.
        let role = if turn.role == Role::Assistant { turn.role } else { Role::User };
        let blocks: Vec<_> =
            turn.blocks.into_iter().filter_map(|block| write_block(block, request)).collect();
        match messages.last_mut() {
            _ if blocks.is_empty() => {}
            Some((last, all)) if *last == role => all.extend(blocks),
            _ => messages.push((role, blocks)),
        }
    }
    let messages = messages.into_iter().map(|(role, blocks)| write_message(role, blocks)).collect();
    let mut body = Object::new().with("model", options.model).with("max_tokens", max_tokens);
    write_system(std::mem::take(&mut request.system), &mut body);
    body.put("messages", Json::List(messages));
    write_tools(request, &mut body);
    write_sampling(request, thinking.is_some(), &mut body);
    let (thinking, effort) = thinking.map_or((None, None), Thinking::write);
    let output = Object::new()
        .with_some("effort", effort.map(Effort::anthropic))
        .with_some("format", write_format(request, options.model));
    if let Some(thinking) = thinking {
        body.put("thinking", thinking);
    }
    if !output.is_empty() {
        body.put("output_config", output);
    }
    if let Some(user) = request.user.take() {
        body.put("metadata", Object::new().with("user_id", ids::user(user)));
    }
    for (part, is_there) in [
        ("verbosity", request.verbosity.is_some()),
        ("prompt_cache_key", request.prompt_cache_key.is_some()),
        ("metadata", !request.metadata.is_null()),
    ] {
        request.dropped.add_if(is_there, part);
    }
    body.put("stream", options.stream);
    Ok(body.into())
}

/// Adds the tools that the conversation has called where it has none any more: their calls are
/// refused otherwise. They may not be called again.
fn declare_called_tools(request: &mut Request<'_>) {
    for (_, name) in request.tool_names() {
        if request.tools.iter().all(|tool| tool.name != name) {
            let schema = Json::Null;
            request.tools.push(Tool { name, description: None, schema, is_strict: None });
            request.tool_choice = Some(ToolChoice::None);
        }
    }
}

fn write_system<'a>(mut parts: Vec<Cow<'a, str>>, body: &mut Object<'a>) {
    match parts.len() {
        0 => {}
        1 => body.put("system", parts.swap_remove(0)),
        _ => body.put("system", parts.into_iter().map(text_block).collect::<Vec<_>>()),
    }
}

fn write_message(role: Role, mut blocks: Vec<Json<'_>>) -> Json<'_> {
    let name = if role == Role::Assistant { "assistant" } else { "user" };
    // After joining turns, results of tools come first again.
    blocks.sort_by_key(|block| block.get("type").text() != Some("tool_result"));
    let content = match blocks.as_mut_slice() {
        [only] if only.get("type").text() == Some("text") => only.take("text"),
        _ => blocks.into(),
    };
    Object::new().with("role", name).with("content", content).into()
}

fn text_block(text: Cow<'_, str>) -> Json<'_> {
    Object::new().with("type", "text").with("text", text).into()
}

fn write_block<'a>(block: Block<'a>, request: &mut Request<'a>) -> Option<Json<'a>> {
    match block {
        // Blocks of white space alone are refused.
        Block::Text(text) | Block::Refusal(text) => {
            (!text.trim().is_empty()).then(|| text_block(text))
        }
        Block::Thinking { .. } => {
            request.dropped.add("thinking");
            None
        }
        Block::Image(media) => {
            let source = write_source(media);
            Some(Object::new().with("type", "image").with("source", source).into())
        }
        Block::File { media, name } => Some(write_document(media, name)),
        Block::ToolUse { id, name, arguments } => Some(
            Object::new()
                .with("type", "tool_use")
                .with("id", ids::safe(id, ids::ID_MAX))
                .with("name", name)
                .with("input", arguments.into_object())
                .into(),
        ),
        Block::ToolResult { id, content, is_error } => {
            let content: Vec<_> =
                content.into_iter().filter_map(|block| write_block(block, request)).collect();
            let result = Object::new()
                .with("type", "tool_result")
                .with("tool_use_id", ids::safe(id, ids::ID_MAX))
                .with_items("content", content)
                .with_some("is_error", is_error.then_some(true));
            Some(result.into())
        }
    }
}

fn write_source(media: Media<'_>) -> Object<'_> {
    match media {
        Media::Base64 { media_type, data } => {
            Object::new().with("type", "base64").with("media_type", media_type).with("data", data)
        }
        Media::Url(url) => Object::new().with("type", "url").with("url", url),
    }
}

fn write_document<'a>(media: Media<'a>, name: Option<Cow<'a, str>>) -> Json<'a> {
    Object::new()
        .with("type", "document")
        .with("source", write_source(media))
        .with_some("title", name)
        .into()
}

fn write_tools<'a>(request: &mut Request<'a>, body: &mut Object<'a>) {
    let mut tools: Vec<Json<'a>> = Vec::with_capacity(request.tools.len());
    for mut tool in request.tools.drain(..) {
        request.dropped.add_if(tool.is_strict == Some(true), "tools.strict");
        let tool = Object::new()
            .with("name", std::mem::take(&mut tool.name))
            .with_some("description", tool.description.take())
            .with("input_schema", tool.take_schema());
        tools.push(tool.into());
    }
    if tools.is_empty() {
        return;
    }
    body.put("tools", tools);
    let is_single = request.parallel_tool_calls == Some(false);
    let choice = match request.tool_choice.take() {
        None if is_single => Object::new().with("type", "auto"),
        None => return,
        Some(ToolChoice::Auto) => Object::new().with("type", "auto"),
        Some(ToolChoice::None) => Object::new().with("type", "none"),
        Some(ToolChoice::Required) => Object::new().with("type", "any"),
        Some(ToolChoice::Named(name)) => Object::new().with("type", "tool").with("name", name),
    };
    let is_single = is_single && Json::from(choice.clone()).get("type").text() != Some("none");
    body.put(
        "tool_choice",
        choice.with_some("disable_parallel_tool_use", is_single.then_some(true)),
    );
}

/// Writes the sampling. A temperature goes only to 1 here, stands alone, and may not go with
/// reasoning.
fn write_sampling<'a>(request: &mut Request<'a>, is_thinking: bool, body: &mut Object<'a>) {
    let sampling = std::mem::take(&mut request.sampling);
    let dropped = &mut request.dropped;
    dropped.add_if(sampling.seed.is_some(), "seed");
    dropped.add_if(sampling.min_p.is_some(), "min_p");
    dropped.add_if(sampling.frequency_penalty.is_some(), "frequency_penalty");
    dropped.add_if(sampling.presence_penalty.is_some(), "presence_penalty");
    if is_thinking {
        dropped.add_if(sampling.temperature.is_some(), "temperature");
        dropped.add_if(sampling.top_p.is_some(), "top_p");
        dropped.add_if(sampling.top_k.is_some(), "top_k");
    } else {
        if let Some(temperature) = sampling.temperature {
            let is_high = temperature.as_f64().is_some_and(|value| value > 1.0);
            dropped.add_if(is_high, "temperature above 1");
            dropped.add_if(sampling.top_p.is_some(), "top_p");
            body.put("temperature", if is_high { 1_u32.into() } else { Json::Number(temperature) });
        } else if let Some(top_p) = sampling.top_p {
            body.put("top_p", top_p);
        }
        if let Some(top_k) = sampling.top_k {
            body.put("top_k", top_k);
        }
    }
    let (stop, blank): (Vec<_>, Vec<_>) =
        sampling.stop.into_iter().partition(|text| !text.trim().is_empty());
    dropped.add_if(!blank.is_empty(), "stop sequences of white space");
    let stop: Vec<Json<'a>> = stop.into_iter().map(Json::Text).collect();
    if !stop.is_empty() {
        body.put("stop_sequences", stop);
    }
}

/// Reasoning that is asked for.
#[derive(Debug, Clone, Copy)]
enum Thinking {
    Off,
    Budget(u64),
    Adaptive(Option<Effort>),
}

impl Thinking {
    fn write(self) -> (Option<Object<'static>>, Option<Effort>) {
        match self {
            Self::Off => (Some(Object::new().with("type", "disabled")), None),
            Self::Budget(tokens) => {
                (Some(Object::new().with("type", "enabled").with("budget_tokens", tokens)), None)
            }
            Self::Adaptive(effort) => (Some(Object::new().with("type", "adaptive")), effort),
        }
    }
}

/// Returns the reasoning to ask for. An older Claude that is asked for it wants its sealed
/// reasoning back in the turn whose tools it waits for, which other dialects do not carry, and
/// no Claude reasons where a tool is forced on it.
fn thinking(request: &mut Request<'_>, model: &str, max_tokens: u64) -> Option<Thinking> {
    let wish = request.reasoning?;
    if wish == Reasoning::Off {
        return None;
    }
    let is_forced =
        matches!(request.tool_choice, Some(ToolChoice::Required | ToolChoice::Named(_)));
    let version = reasoning::claude_version(model);
    let is_adaptive = version.is_some_and(|version| version >= ADAPTIVE_SINCE);
    let thinking = match wish {
        _ if is_forced => None,
        Reasoning::Off => Some(Thinking::Off),
        Reasoning::Effort(effort) if is_adaptive => Some(Thinking::Adaptive(Some(effort))),
        Reasoning::Adaptive(effort) if is_adaptive => Some(Thinking::Adaptive(effort)),
        Reasoning::Budget(tokens) if is_adaptive => {
            Some(Thinking::Adaptive(Some(Effort::of_budget(tokens))))
        }
        _ if version.is_some_and(|version| version < (3, 7)) || awaits_tools(request) => None,
        Reasoning::Effort(effort) => budget(effort.budget(), max_tokens),
        Reasoning::Budget(tokens) => budget(tokens, max_tokens),
        Reasoning::Adaptive(effort) => effort.and_then(|e| budget(e.budget(), max_tokens)),
    };
    request.dropped.add_if(thinking.is_none(), "reasoning");
    thinking
}

fn budget(wanted: u64, max_tokens: u64) -> Option<Thinking> {
    reasoning::budget_within(wanted, max_tokens).map(Thinking::Budget)
}

/// Returns whether the model goes on after results of its tools.
fn awaits_tools(request: &Request<'_>) -> bool {
    let last = request.turns.last();
    last.is_some_and(|turn| turn.blocks.iter().any(|b| matches!(b, Block::ToolResult { .. })))
}

fn write_format<'a>(request: &mut Request<'a>, model: &str) -> Option<Json<'a>> {
    let has_schemas =
        reasoning::claude_version(model).is_some_and(|version| version >= SCHEMA_SINCE);
    match std::mem::take(&mut request.format) {
        Format::Schema { schema, .. } if has_schemas => {
            Some(Object::new().with("type", "json_schema").with("schema", schema).into())
        }
        Format::Text => None,
        _ => {
            request.dropped.add("response_format");
            None
        }
    }
}
