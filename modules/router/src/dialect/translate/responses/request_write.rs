//! A response that is asked of a provider.

use super::super::{
    RequestOptions, TranslateError,
    chat::is_lost,
    ids,
    ir::{Block, Format, Media, Request, Role, ToolChoice, Turn, join},
    json::{Json, Object},
};

/// Writes a request.
pub(in super::super) fn write<'a>(
    request: &mut Request<'a>,
    options: &RequestOptions<'a>,
) -> Result<Json<'a>, TranslateError> {
    let mut input = Vec::with_capacity(request.turns.len());
    for turn in std::mem::take(&mut request.turns) {
        write_turn(turn, request, &mut input);
    }
    let mut body = Object::new().with("model", options.model);
    if !request.system.is_empty() {
        body.put("instructions", join(std::mem::take(&mut request.system), "\n\n"));
    }
    body.put("input", input);
    write_tools(request, &mut body);
    let sampling = std::mem::take(&mut request.sampling);
    for (part, is_there) in [
        ("top_k", sampling.top_k.is_some()),
        ("min_p", sampling.min_p.is_some()),
        ("seed", sampling.seed.is_some()),
        ("frequency_penalty", sampling.frequency_penalty.is_some()),
        ("presence_penalty", sampling.presence_penalty.is_some()),
        ("stop", !sampling.stop.is_empty()),
    ] {
        request.dropped.add_if(is_there, part);
    }
    let effort = request.reasoning.and_then(|wish| wish.effort(options.model));
    request.dropped.add_if(is_lost(request.reasoning, effort.is_some()), "reasoning");
    let text = Object::new()
        .with_some("format", write_format(std::mem::take(&mut request.format)))
        .with_some("verbosity", request.verbosity.take());
    body = body
        .with_some("max_output_tokens", request.max_tokens)
        .with_some("temperature", sampling.temperature)
        .with_some("top_p", sampling.top_p)
        .with_some("reasoning", effort.map(|effort| Object::new().with("effort", effort.openai())))
        .with_some("text", (!text.is_empty()).then_some(text))
        .with_some("user", request.user.take().map(ids::user))
        .with_some("prompt_cache_key", request.prompt_cache_key.take());
    if let metadata @ Json::Object(_) = std::mem::take(&mut request.metadata) {
        body.put("metadata", metadata);
    }
    Ok(body.with("store", false).with("stream", options.stream).into())
}

fn write_turn<'a>(turn: Turn<'a>, request: &mut Request<'a>, input: &mut Vec<Json<'a>>) {
    let role = match turn.role {
        Role::System => "developer",
        Role::User => "user",
        Role::Assistant => "assistant",
    };
    let mut parts = Vec::new();
    for block in turn.blocks {
        let item = match block {
            Block::ToolUse { id, name, arguments } => Object::new()
                .with("type", "function_call")
                .with("call_id", ids::safe(id, ids::ID_MAX))
                .with("name", name)
                .with("arguments", arguments.into_text()),
            Block::ToolResult { id, content, is_error } => {
                request.dropped.add_if(is_error, "tool_result.is_error");
                Object::new()
                    .with("type", "function_call_output")
                    .with("call_id", ids::safe(id, ids::ID_MAX))
                    .with("output", write_output(content))
            }
            Block::Thinking { .. } => {
                request.dropped.add("thinking");
                continue;
            }
            other => {
                parts.extend(write_part(other, turn.role));
                continue;
            }
        };
        flush(role, &mut parts, input);
        input.push(item.into());
    }
    flush(role, &mut parts, input);
}

/// Writes the parts so far as a message of their own, so that items keep their order.
fn flush<'a>(role: &'static str, parts: &mut Vec<Json<'a>>, input: &mut Vec<Json<'a>>) {
    if !parts.is_empty() {
        let message = Object::new().with("type", "message").with("role", role);
        input.push(message.with("content", std::mem::take(parts)).into());
    }
}

fn write_output(content: Vec<Block<'_>>) -> Json<'_> {
    if content.iter().all(|block| matches!(block, Block::Text(_))) {
        let texts = content.into_iter().filter_map(super::super::chat::into_text).collect();
        return join(texts, "\n").into();
    }
    let parts = content.into_iter().filter_map(|block| write_part(block, Role::User));
    parts.collect::<Vec<_>>().into()
}

fn write_part(block: Block<'_>, role: Role) -> Option<Json<'_>> {
    let part = Object::new();
    let part = match block {
        Block::Text(text) if role == Role::Assistant => {
            part.with("type", "output_text").with("text", text)
        }
        Block::Text(text) => part.with("type", "input_text").with("text", text),
        Block::Refusal(text) => part.with("type", "refusal").with("refusal", text),
        Block::Image(media) => part
            .with("type", "input_image")
            .with("detail", "auto")
            .with("image_url", media.into_url()),
        Block::File { media: Media::Url(url), .. } => {
            part.with("type", "input_file").with("file_url", url)
        }
        Block::File { media, name } => part
            .with("type", "input_file")
            .with("filename", name.unwrap_or("document.pdf".into()))
            .with("file_data", media.into_url()),
        _ => return None,
    };
    Some(part.into())
}

fn write_tools<'a>(request: &mut Request<'a>, body: &mut Object<'a>) {
    let tools: Vec<Json<'a>> = request
        .tools
        .drain(..)
        .map(|mut tool| {
            Object::new()
                .with("type", "function")
                .with("name", std::mem::take(&mut tool.name))
                .with_some("description", tool.description.take())
                .with("parameters", tool.take_schema())
                // Left out, it would mean `true`.
                .with("strict", tool.is_strict == Some(true))
                .into()
        })
        .collect();
    if tools.is_empty() {
        return;
    }
    body.put("tools", tools);
    let choice: Option<Json<'a>> = request.tool_choice.take().map(|choice| match choice {
        ToolChoice::Auto => "auto".into(),
        ToolChoice::None => "none".into(),
        ToolChoice::Required => "required".into(),
        ToolChoice::Named(name) => Object::new().with("type", "function").with("name", name).into(),
    });
    if let Some(choice) = choice {
        body.put("tool_choice", choice);
    }
    if let Some(is_parallel) = request.parallel_tool_calls {
        body.put("parallel_tool_calls", is_parallel);
    }
}

fn write_format(format: Format<'_>) -> Option<Object<'_>> {
    match format {
        Format::Text => None,
        Format::Json => Some(Object::new().with("type", "json_object")),
        Format::Schema { schema, name, description, is_strict } => Some(
            Object::new()
                .with("type", "json_schema")
                .with("name", name.unwrap_or("answer".into()))
                .with_some("description", description)
                .with_some("strict", is_strict)
                .with("schema", schema),
        ),
    }
}
