//! A request to `/api/chat`.

use std::{borrow::Cow, collections::HashMap};

use super::{
    super::{
        RequestOptions, TranslateError,
        chat::is_lost,
        ir::{Block, Format, Media, Reasoning, Request, Role, ToolChoice, Turn, join},
        json::{Json, Object},
        reasoning::reasons,
    },
    request_read::take_options,
    write_call,
};

/// Names of tools by the ids of their calls.
type Names<'a> = HashMap<Cow<'a, str>, Cow<'a, str>>;

/// Writes a request.
pub(in super::super) fn write<'a>(
    request: &mut Request<'a>,
    options: &RequestOptions<'a>,
) -> Result<Json<'a>, TranslateError> {
    for (is_file, media) in request.media() {
        if is_file {
            return Err(TranslateError::Unsupported("a document"));
        }
        if matches!(media, Media::Url(_)) {
            return Err(TranslateError::Unsupported("an image at an address"));
        }
    }
    let names: Names<'a> = request.tool_names().into_iter().collect();
    let mut messages = Vec::with_capacity(request.turns.len() + 1);
    if !request.system.is_empty() {
        let system = join(std::mem::take(&mut request.system), "\n\n");
        messages.push(Object::new().with("role", "system").with("content", system).into());
    }
    for turn in std::mem::take(&mut request.turns) {
        write_turn(turn, &names, request, &mut messages);
    }
    let mut body = Object::new().with("model", options.model).with("messages", messages);
    write_tools(request, &mut body);
    match std::mem::take(&mut request.format) {
        Format::Text => {}
        Format::Json => body.put("format", "json"),
        Format::Schema { schema, .. } => body.put("format", schema),
    }
    if let Some(think) = think(request, options.model) {
        body.put("think", think);
    }
    if let keep_alive @ (Json::Text(_) | Json::Number(_)) = std::mem::take(&mut request.keep_alive)
    {
        body.put("keep_alive", keep_alive);
    }
    let model_options = write_options(request, options.num_ctx);
    if !model_options.is_empty() {
        body.put("options", model_options);
    }
    for (part, is_there) in [
        ("verbosity", request.verbosity.is_some()),
        ("user", request.user.is_some()),
        ("prompt_cache_key", request.prompt_cache_key.is_some()),
        ("metadata", !request.metadata.is_null()),
    ] {
        request.dropped.add_if(is_there, part);
    }
    body.put("stream", options.stream);
    Ok(body.into())
}

fn write_options<'a>(request: &mut Request<'a>, num_ctx: Option<u32>) -> Object<'a> {
    let sampling = std::mem::take(&mut request.sampling);
    let mut all = take_options(request);
    if Json::from(all.clone()).get("num_ctx").is_null()
        && let Some(num_ctx) = num_ctx
    {
        all.put("num_ctx", num_ctx);
    }
    all.with_some("num_predict", request.max_tokens)
        .with_some("temperature", sampling.temperature)
        .with_some("top_p", sampling.top_p)
        .with_some("top_k", sampling.top_k)
        .with_some("min_p", sampling.min_p)
        .with_some("seed", sampling.seed)
        .with_some("frequency_penalty", sampling.frequency_penalty)
        .with_some("presence_penalty", sampling.presence_penalty)
        .with_items("stop", sampling.stop.into_iter().map(Json::Text).collect())
}

/// Returns `think`. Ollama refuses a request that asks a model to reason which cannot do it, and
/// lets one reason that can where nothing is said.
fn think(request: &mut Request<'_>, model: &str) -> Option<Json<'static>> {
    let wish = request.reasoning?;
    if wish == Reasoning::Off {
        return Some(false.into());
    }
    let effort = wish.effort(model).filter(|_| reasons(model));
    request.dropped.add_if(is_lost(Some(wish), effort.is_some()), "reasoning");
    effort.map(|effort| effort.ollama().into())
}

fn write_tools<'a>(request: &mut Request<'a>, body: &mut Object<'a>) {
    let choice = request.tool_choice.take();
    let mut tools = std::mem::take(&mut request.tools);
    match &choice {
        Some(ToolChoice::None) => tools.clear(),
        Some(ToolChoice::Named(name)) => {
            tools.retain(|tool| tool.name == *name);
            request.dropped.add("tool_choice");
        }
        Some(ToolChoice::Required) => request.dropped.add("tool_choice"),
        Some(ToolChoice::Auto) | None => {}
    }
    request.dropped.add_if(request.parallel_tool_calls == Some(false), "parallel_tool_calls");
    let tools: Vec<Json<'a>> = tools
        .into_iter()
        .map(|mut tool| {
            let function = Object::new()
                .with("name", std::mem::take(&mut tool.name))
                .with("description", tool.description.take().unwrap_or_default())
                .with("parameters", tool.take_schema());
            Object::new().with("type", "function").with("function", function).into()
        })
        .collect();
    if !tools.is_empty() {
        body.put("tools", tools);
    }
}

fn write_turn<'a>(
    turn: Turn<'a>,
    names: &Names<'a>,
    request: &mut Request<'a>,
    messages: &mut Vec<Json<'a>>,
) {
    let role = match turn.role {
        Role::System => "system",
        Role::User => "user",
        Role::Assistant => "assistant",
    };
    let mut words = Words::default();
    let mut calls = Vec::new();
    for block in turn.blocks {
        match block {
            Block::ToolUse { id, name, arguments } => {
                calls.push(write_call(id, calls.len(), name, arguments.into_object()));
            }
            Block::ToolResult { id, content, is_error } => {
                request.dropped.add_if(is_error, "tool_result.is_error");
                let mut result = Words::default();
                for block in content {
                    result.add(block, request);
                }
                let name = names.get(&id).cloned();
                let message = Object::new().with("role", "tool");
                let message = result.write(message).with_some("tool_name", name);
                messages.push(message.with("tool_call_id", id).into());
            }
            other => words.add(other, request),
        }
    }
    if !words.is_empty() || !calls.is_empty() {
        let message = words.write(Object::new().with("role", role));
        messages.push(message.with_items("tool_calls", calls).into());
    }
}

/// Text, images and reasoning of a message.
#[derive(Debug, Default)]
struct Words<'a> {
    texts: Vec<Cow<'a, str>>,
    thoughts: Vec<Cow<'a, str>>,
    images: Vec<Json<'a>>,
}

impl<'a> Words<'a> {
    fn is_empty(&self) -> bool {
        self.texts.is_empty() && self.thoughts.is_empty() && self.images.is_empty()
    }

    fn add(&mut self, block: Block<'a>, request: &mut Request<'a>) {
        match block {
            Block::Text(text) | Block::Refusal(text) => self.texts.push(text),
            Block::Thinking { is_sealed: true, .. } => request.dropped.add("thinking"),
            Block::Thinking { text, .. } => self.thoughts.push(text),
            Block::Image(Media::Base64 { data, .. }) => self.images.push(data.into()),
            _ => {}
        }
    }

    fn write(self, message: Object<'a>) -> Object<'a> {
        let thoughts = (!self.thoughts.is_empty()).then(|| join(self.thoughts, "\n"));
        message
            .with("content", join(self.texts, "\n"))
            .with_some("thinking", thoughts)
            .with_items("images", self.images)
    }
}
