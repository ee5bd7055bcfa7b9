//! A chat completion that is asked of a provider.

use std::borrow::Cow;

use super::super::{
    RequestOptions, TranslateError, ids,
    ir::{Block, Format, Media, Reasoning, Request, Role, ToolChoice, Turn, join},
    json::{Json, Object},
    reasoning,
};

/// Writes a request.
pub(in super::super) fn write<'a>(
    request: &mut Request<'a>,
    options: &RequestOptions<'a>,
) -> Result<Json<'a>, TranslateError> {
    if request.media().any(|(is_file, media)| is_file && matches!(media, Media::Url(_))) {
        return Err(TranslateError::Unsupported("a document at an address"));
    }
    let mut messages = Vec::with_capacity(request.turns.len() + 1);
    if !request.system.is_empty() {
        let system = join(std::mem::take(&mut request.system), "\n\n");
        messages.push(Object::new().with("role", "system").with("content", system).into());
    }
    let writer = Messages { keeps_reasoning: keeps_reasoning(options.model) };
    for turn in std::mem::take(&mut request.turns) {
        writer.write(turn, request, &mut messages);
    }
    let mut body = Object::new().with("model", options.model).with("messages", messages);
    write_tools(request, &mut body);
    if let Some(max) = request.max_tokens {
        body.put(max_tokens_key(options.model), max);
    }
    let sampling = std::mem::take(&mut request.sampling);
    request.dropped.add_if(sampling.top_k.is_some(), "top_k");
    request.dropped.add_if(sampling.min_p.is_some(), "min_p");
    let stop = sampling.stop.into_iter().map(Json::Text).collect();
    let effort = request.reasoning.and_then(|wish| wish.effort(options.model));
    request.dropped.add_if(is_lost(request.reasoning, effort.is_some()), "reasoning");
    body = body
        .with_some("temperature", sampling.temperature)
        .with_some("top_p", sampling.top_p)
        .with_some("seed", sampling.seed)
        .with_some("frequency_penalty", sampling.frequency_penalty)
        .with_some("presence_penalty", sampling.presence_penalty)
        .with_items("stop", stop)
        .with_some("response_format", write_format(std::mem::take(&mut request.format)))
        .with_some("reasoning_effort", effort.map(|effort| effort.openai()))
        .with_some("verbosity", request.verbosity.take())
        .with_some("user", request.user.take().map(ids::user))
        .with_some("prompt_cache_key", request.prompt_cache_key.take());
    if let metadata @ Json::Object(_) = std::mem::take(&mut request.metadata) {
        body.put("metadata", metadata);
    }
    if options.stream {
        body.put("stream", true);
        if options.include_usage {
            body.put("stream_options", Object::new().with("include_usage", true));
        }
    }
    Ok(body.into())
}

/// Returns whether a wish for reasoning is lost; the wish to do without it is mere advice.
pub(in super::super) const fn is_lost(wish: Option<Reasoning>, is_written: bool) -> bool {
    matches!(wish, Some(Reasoning::Effort(_) | Reasoning::Budget(_))) && !is_written
}

/// Returns whether a model wants the reasoning of its earlier turns back: DeepSeek refuses a
/// conversation with tools without it, others refuse one with it.
fn keeps_reasoning(model: &str) -> bool {
    model.to_ascii_lowercase().contains("deepseek")
}

/// Returns the key of the limit of tokens: OpenAI's newer models take only the new one, other
/// servers often know only the old one.
fn max_tokens_key(model: &str) -> &'static str {
    let name = reasoning::base_name(model);
    let is_openai = ["gpt-", "chatgpt-", "o1", "o3", "o4"].iter().any(|p| name.starts_with(p));
    if is_openai && !name.starts_with("gpt-oss") { "max_completion_tokens" } else { "max_tokens" }
}

/// Writes the turns.
struct Messages {
    keeps_reasoning: bool,
}

impl Messages {
    fn write<'a>(&self, turn: Turn<'a>, request: &mut Request<'a>, messages: &mut Vec<Json<'a>>) {
        match turn.role {
            Role::System => messages.extend(content_message("system", turn.blocks)),
            Role::User => write_user(turn.blocks, request, messages),
            Role::Assistant => messages.extend(self.assistant(turn.blocks, request)),
        }
    }

    fn assistant<'a>(&self, blocks: Vec<Block<'a>>, request: &mut Request<'a>) -> Option<Json<'a>> {
        let (mut texts, mut refusals, mut thoughts) = (Vec::new(), Vec::new(), Vec::new());
        let mut calls = Vec::new();
        for block in blocks {
            match block {
                Block::Text(text) => texts.push(text),
                Block::Refusal(text) => refusals.push(text),
                Block::Thinking { text, is_sealed } => {
                    if self.keeps_reasoning && !is_sealed {
                        thoughts.push(text);
                    } else {
                        request.dropped.add("thinking");
                    }
                }
                Block::ToolUse { id, name, arguments } => {
                    calls.push(write_call(ids::safe(id, ids::CHAT_ID_MAX), name, arguments));
                }
                Block::Image(_) | Block::File { .. } => request.dropped.add("images of the model"),
                Block::ToolResult { .. } => {}
            }
        }
        if texts.is_empty() && refusals.is_empty() && calls.is_empty() {
            return None;
        }
        let content = (!texts.is_empty()).then(|| join(texts, "\n"));
        let refusal = (!refusals.is_empty()).then(|| join(refusals, "\n"));
        let thoughts = (!thoughts.is_empty()).then(|| join(thoughts, "\n"));
        let message = Object::new()
            .with("role", "assistant")
            .with("content", content)
            .with_some("refusal", refusal)
            .with_some("reasoning_content", thoughts)
            .with_items("tool_calls", calls);
        Some(message.into())
    }
}

/// Writes a call of a tool, in a request or an answer.
pub(super) fn write_call<'a>(
    id: Cow<'a, str>,
    name: Cow<'a, str>,
    arguments: super::super::ir::Arguments<'a>,
) -> Json<'a> {
    let function = Object::new().with("name", name).with("arguments", arguments.into_text());
    Object::new().with("id", id).with("type", "function").with("function", function).into()
}

/// Writes results of tools, each as a message of its own, then the words of the person. A result
/// may hold text alone: its images follow in the person's message.
fn write_user<'a>(blocks: Vec<Block<'a>>, request: &mut Request<'a>, messages: &mut Vec<Json<'a>>) {
    let mut words = Vec::new();
    let mut images = Vec::new();
    for block in blocks {
        let Block::ToolResult { id, content, is_error } = block else {
            words.push(block);
            continue;
        };
        request.dropped.add_if(is_error, "tool_result.is_error");
        let (texts, others): (Vec<_>, Vec<_>) =
            content.into_iter().partition(|block| matches!(block, Block::Text(_)));
        let mut texts: Vec<_> = texts.into_iter().filter_map(into_text).collect();
        if texts.is_empty() && !others.is_empty() {
            texts.push("(see the image below)".into());
        }
        images.extend(others);
        let message = Object::new()
            .with("role", "tool")
            .with("tool_call_id", ids::safe(id, ids::CHAT_ID_MAX))
            .with("content", join(texts, "\n"));
        messages.push(message.into());
    }
    images.extend(words);
    messages.extend(content_message("user", images));
}

/// Returns the text of a block of text.
pub(in super::super) fn into_text(block: Block<'_>) -> Option<Cow<'_, str>> {
    match block {
        Block::Text(text) => Some(text),
        _ => None,
    }
}

/// Writes a message: one text where there is nothing else, since many servers take only that.
fn content_message<'a>(role: &'static str, blocks: Vec<Block<'a>>) -> Option<Json<'a>> {
    if blocks.is_empty() {
        return None;
    }
    let content: Json<'a> = if blocks.iter().all(|block| matches!(block, Block::Text(_))) {
        join(blocks.into_iter().filter_map(into_text).collect(), "\n").into()
    } else {
        blocks.into_iter().filter_map(write_part).collect::<Vec<_>>().into()
    };
    Some(Object::new().with("role", role).with("content", content).into())
}

fn write_part(block: Block<'_>) -> Option<Json<'_>> {
    let part = Object::new();
    Some(match block {
        Block::Text(text) => part.with("type", "text").with("text", text).into(),
        Block::Image(media) => {
            let image = Object::new().with("url", media.into_url());
            part.with("type", "image_url").with("image_url", image).into()
        }
        Block::File { media, name } => {
            let file = Object::new()
                .with("filename", name.unwrap_or("document.pdf".into()))
                .with("file_data", media.into_url());
            part.with("type", "file").with("file", file).into()
        }
        _ => return None,
    })
}

fn write_tools<'a>(request: &mut Request<'a>, body: &mut Object<'a>) {
    let tools: Vec<Json<'a>> = request
        .tools
        .drain(..)
        .map(|mut tool| {
            let function = Object::new()
                .with("name", std::mem::take(&mut tool.name))
                .with_some("description", tool.description.take())
                .with("parameters", tool.take_schema())
                .with_some("strict", tool.is_strict);
            Object::new().with("type", "function").with("function", function).into()
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
        ToolChoice::Named(name) => {
            let function = Object::new().with("name", name);
            Object::new().with("type", "function").with("function", function).into()
        }
    });
    if let Some(choice) = choice {
        body.put("tool_choice", choice);
    }
    if let Some(is_parallel) = request.parallel_tool_calls {
        body.put("parallel_tool_calls", is_parallel);
    }
}

fn write_format(format: Format<'_>) -> Option<Json<'_>> {
    match format {
        Format::Text => None,
        Format::Json => Some(Object::new().with("type", "json_object").into()),
        Format::Schema { schema, name, description, is_strict } => {
            let schema = Object::new()
                .with("name", name.unwrap_or("answer".into()))
                .with_some("description", description)
                .with_some("strict", is_strict)
                .with("schema", schema);
            Some(Object::new().with("type", "json_schema").with("json_schema", schema).into())
        }
    }
}
