//! Content that is asked of Google.

use std::{borrow::Cow, collections::HashMap};

use super::super::{
    RequestOptions, TranslateError, chat,
    ir::{Block, Format, Media, Reasoning, Request, Role, ToolChoice, Turn, join},
    json::{Json, Object},
    reasoning::reasons,
};

/// Signature that Gemini 3 takes for a call that another model made; it refuses one without any.
const NO_SIGNATURE: &str = "skip_thought_signature_validator";

/// Writes a request. The model stands in the path, and so does whether it streams.
pub(in super::super) fn write<'a>(
    request: &mut Request<'a>,
    options: &RequestOptions<'a>,
) -> Result<Json<'a>, TranslateError> {
    let names: HashMap<_, _> = request.tool_names().into_iter().collect();
    let mut contents: Vec<Json<'a>> = Vec::with_capacity(request.turns.len());
    for turn in std::mem::take(&mut request.turns) {
        contents.extend(write_turn(turn, &names, request));
    }
    let mut body = Object::new();
    if !request.system.is_empty() {
        let system = request.system.drain(..);
        let parts: Vec<Json<'a>> =
            system.map(|text| Object::new().with("text", text).into()).collect();
        body.put("systemInstruction", Object::new().with("parts", parts));
    }
    body.put("contents", contents);
    write_tools(request, &mut body);
    let config = write_generation(request, options.model);
    if !config.is_empty() {
        body.put("generationConfig", config);
    }
    for (part, is_there) in [
        ("verbosity", request.verbosity.is_some()),
        ("user", request.user.is_some()),
        ("prompt_cache_key", request.prompt_cache_key.is_some()),
        ("metadata", !request.metadata.is_null()),
    ] {
        request.dropped.add_if(is_there, part);
    }
    Ok(body.into())
}

fn write_turn<'a>(
    turn: Turn<'a>,
    names: &HashMap<Cow<'a, str>, Cow<'a, str>>,
    request: &mut Request<'a>,
) -> Option<Json<'a>> {
    let role = if turn.role == Role::Assistant { "model" } else { "user" };
    let mut parts: Vec<Json<'a>> = Vec::with_capacity(turn.blocks.len());
    for block in turn.blocks {
        match block {
            Block::ToolResult { id, content, is_error } => {
                let (texts, media): (Vec<_>, Vec<_>) =
                    content.into_iter().partition(|block| matches!(block, Block::Text(_)));
                let text = join(texts.into_iter().filter_map(chat::into_text).collect(), "\n");
                let key = if is_error { "error" } else { "output" };
                let name = names.get(&id).cloned().unwrap_or_default();
                let response = Object::new()
                    .with("id", id)
                    .with("name", name)
                    .with("response", Object::new().with(key, text));
                parts.push(Object::new().with("functionResponse", response).into());
                parts.extend(media.into_iter().filter_map(write_part));
            }
            Block::Thinking { .. } => request.dropped.add("thinking"),
            other => parts.extend(write_part(other)),
        }
    }
    let content = Object::new().with("role", role);
    (!parts.is_empty()).then(|| content.with("parts", parts).into())
}

fn write_part(block: Block<'_>) -> Option<Json<'_>> {
    Some(match block {
        Block::Text(text) | Block::Refusal(text) => Object::new().with("text", text).into(),
        Block::Image(media) | Block::File { media, .. } => match media {
            Media::Base64 { media_type, data } => {
                let data = Object::new().with("mimeType", media_type).with("data", data);
                Object::new().with("inlineData", data).into()
            }
            Media::Url(url) => {
                Object::new().with("fileData", Object::new().with("fileUri", url)).into()
            }
        },
        Block::ToolUse { id, name, arguments } => {
            let call = Object::new()
                .with("id", id)
                .with("name", name)
                .with("args", arguments.into_object());
            Object::new().with("functionCall", call).with("thoughtSignature", NO_SIGNATURE).into()
        }
        Block::Thinking { .. } | Block::ToolResult { .. } => return None,
    })
}

fn write_tools<'a>(request: &mut Request<'a>, body: &mut Object<'a>) {
    let functions: Vec<Json<'a>> = request
        .tools
        .drain(..)
        .map(|mut tool| {
            Object::new()
                .with("name", std::mem::take(&mut tool.name))
                .with_some("description", tool.description.take())
                .with("parametersJsonSchema", tool.take_schema())
                .into()
        })
        .collect();
    if functions.is_empty() {
        return;
    }
    let tool = Object::new().with("functionDeclarations", functions);
    body.put("tools", vec![tool.into()]);
    request.dropped.add_if(request.parallel_tool_calls == Some(false), "parallel_tool_calls");
    let config = match request.tool_choice.take() {
        None => return,
        Some(ToolChoice::Auto) => Object::new().with("mode", "AUTO"),
        Some(ToolChoice::None) => Object::new().with("mode", "NONE"),
        Some(ToolChoice::Required) => Object::new().with("mode", "ANY"),
        Some(ToolChoice::Named(name)) => {
            Object::new().with("mode", "ANY").with("allowedFunctionNames", vec![name.into()])
        }
    };
    body.put("toolConfig", Object::new().with("functionCallingConfig", config));
}

fn write_generation<'a>(request: &mut Request<'a>, model: &str) -> Object<'a> {
    let sampling = std::mem::take(&mut request.sampling);
    request.dropped.add_if(sampling.min_p.is_some(), "min_p");
    let (mime_type, schema) = match std::mem::take(&mut request.format) {
        Format::Text => (None, None),
        Format::Json => (Some("application/json"), None),
        Format::Schema { schema, .. } => (Some("application/json"), Some(schema)),
    };
    let budget = match request.reasoning.filter(|_| reasons(model)) {
        Some(Reasoning::Off) => Some(0),
        Some(Reasoning::Budget(tokens)) => Some(tokens),
        Some(Reasoning::Effort(effort) | Reasoning::Adaptive(Some(effort))) => {
            Some(effort.budget())
        }
        Some(Reasoning::Adaptive(None)) | None => None,
    };
    request.dropped.add_if(chat::is_lost(request.reasoning, budget.is_some()), "reasoning");
    let thinking = budget.map(|tokens| {
        Object::new().with("thinkingBudget", tokens).with("includeThoughts", tokens > 0)
    });
    Object::new()
        .with_some("maxOutputTokens", request.max_tokens)
        .with_some("temperature", sampling.temperature)
        .with_some("topP", sampling.top_p)
        .with_some("topK", sampling.top_k)
        .with_some("seed", sampling.seed)
        .with_some("frequencyPenalty", sampling.frequency_penalty)
        .with_some("presencePenalty", sampling.presence_penalty)
        .with_items("stopSequences", sampling.stop.into_iter().map(Json::Text).collect())
        .with_some("responseMimeType", mime_type)
        .with_some("responseJsonSchema", schema)
        .with_some("thinkingConfig", thinking)
}
