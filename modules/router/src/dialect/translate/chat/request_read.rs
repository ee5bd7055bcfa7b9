//! A chat completion that a client asks for.

use std::borrow::Cow;

use super::{
    super::{
        TranslateError,
        client_tools::{FREE_INPUT, Form, free_tool},
        ir::{
            Arguments, Block, Effort, Format, Media, Reasoning, Request, Role, Sampling, Tool,
            ToolChoice, expect,
        },
        json::Json,
    },
    take_reasoning,
};

/// Reads a request.
pub(in super::super) fn read(mut body: Json<'_>) -> Result<Request<'_>, TranslateError> {
    let mut request = Request::default();
    let messages = body.take("messages");
    expect(matches!(messages, Json::List(_)), "messages must be a list")?;
    for message in messages.into_list() {
        read_message(message, &mut request)?;
    }
    refuse_what_has_no_word(&body)?;
    for tool in body.take("tools").into_list() {
        read_tool(tool, &mut request);
    }
    request.tool_choice = read_tool_choice(body.take("tool_choice"), &mut request);
    request.parallel_tool_calls = body.get("parallel_tool_calls").bool();
    request.max_tokens =
        body.get("max_completion_tokens").u64().or_else(|| body.get("max_tokens").u64());
    request.sampling = read_sampling(&mut body);
    request.format = read_format(body.take("response_format"));
    request.reasoning = read_reasoning(&body);
    request.verbosity = body.take("verbosity").into_text();
    request.user =
        body.take("safety_identifier").into_text().or_else(|| body.take("user").into_text());
    request.prompt_cache_key = body.take("prompt_cache_key").into_text();
    request.metadata = body.take("metadata");
    for part in ["logit_bias", "logprobs", "top_logprobs", "prediction", "store", "service_tier"] {
        request.dropped.add_if(body.has(part), part);
    }
    Ok(request)
}

/// Takes what steers the choice of words.
pub(in super::super) fn read_sampling<'a>(body: &mut Json<'a>) -> Sampling<'a> {
    Sampling {
        temperature: body.take("temperature").into_number(),
        top_p: body.take("top_p").into_number(),
        top_k: body.take("top_k").into_number(),
        min_p: body.take("min_p").into_number(),
        seed: body.take("seed").into_number(),
        frequency_penalty: body.take("frequency_penalty").into_number(),
        presence_penalty: body.take("presence_penalty").into_number(),
        stop: read_stop(body.take("stop")),
    }
}

/// Refuses what changes the answer as a whole.
fn refuse_what_has_no_word(body: &Json<'_>) -> Result<(), TranslateError> {
    if body.get("n").u64().is_some_and(|choices| choices > 1) {
        return Err(TranslateError::Unsupported("more than one answer to a request (n)"));
    }
    if body.get("modalities").list().iter().any(|kind| kind.text() == Some("audio")) {
        return Err(TranslateError::Unsupported("an answer in sound"));
    }
    if !body.get("functions").list().is_empty() {
        return Err(TranslateError::Unsupported("functions in their old form (tools can)"));
    }
    Ok(())
}

fn read_message<'a>(
    mut message: Json<'a>,
    request: &mut Request<'a>,
) -> Result<(), TranslateError> {
    let role = message.take("role").into_text();
    let content = message.take("content");
    match role.as_deref() {
        Some("system" | "developer") => {
            for block in read_content(content)? {
                if let Block::Text(text) = block {
                    request.push_system(text);
                }
            }
        }
        Some("user") => request.push(Role::User, read_content(content)?),
        Some("assistant") => {
            let blocks = read_assistant(&mut message, content)?;
            request.push(Role::Assistant, blocks);
        }
        Some("tool") => {
            let id = message.take("tool_call_id").into_text().unwrap_or_default();
            let content = read_content(content)?;
            request.push(Role::User, vec![Block::ToolResult { id, content, is_error: false }]);
        }
        Some("function") => {
            return Err(TranslateError::Unsupported("functions in their old form (tools can)"));
        }
        _ => return Err(TranslateError::Malformed("a message has no role that is known")),
    }
    Ok(())
}

fn read_assistant<'a>(
    message: &mut Json<'a>,
    content: Json<'a>,
) -> Result<Vec<Block<'a>>, TranslateError> {
    let mut blocks = Vec::new();
    let reasoning = take_reasoning(message);
    blocks.extend(reasoning.map(|text| Block::Thinking { text, is_sealed: false }));
    blocks.extend(read_content(content)?);
    let refusal = message.take("refusal").into_text().filter(|text| !text.is_empty());
    blocks.extend(refusal.map(Block::Refusal));
    for call in message.take("tool_calls").into_list() {
        blocks.push(read_call(call)?);
    }
    Ok(blocks)
}

/// Reads a call of a tool, in a request or an answer.
pub(super) fn read_call(mut call: Json<'_>) -> Result<Block<'_>, TranslateError> {
    let id = call.take("id").into_text().unwrap_or_default();
    let mut function = call.take("function");
    if let Some(name) = function.take("name").into_text() {
        let arguments = match function.take("arguments") {
            Json::Text(text) => Arguments::Text(text),
            tree => Arguments::Tree(tree),
        };
        return Ok(Block::ToolUse { id, name, arguments });
    }
    let mut custom = call.take("custom");
    let name = custom.take("name").into_text();
    let name = name.ok_or(TranslateError::Malformed("a call of a tool has no name"))?;
    let input = super::super::json::Object::new().with(FREE_INPUT, custom.take("input"));
    Ok(Block::ToolUse { id, name, arguments: Arguments::Tree(input.into()) })
}

/// Reads the content of a message: a text, or a list of parts.
pub(super) fn read_content(content: Json<'_>) -> Result<Vec<Block<'_>>, TranslateError> {
    match content {
        Json::Null => Ok(Vec::new()),
        Json::Text(text) => Ok(Block::text(text).into_iter().collect()),
        Json::List(parts) => {
            let mut blocks = Vec::with_capacity(parts.len());
            for part in parts {
                blocks.extend(read_part(part)?);
            }
            Ok(blocks)
        }
        _ => Err(TranslateError::Malformed("content must be a text or a list of parts")),
    }
}

fn read_part(mut part: Json<'_>) -> Result<Option<Block<'_>>, TranslateError> {
    if let Json::Text(text) = part {
        return Ok(Block::text(text));
    }
    let kind = part.take("type").into_text();
    Ok(match kind.as_deref() {
        Some("text") => part.take("text").into_text().and_then(Block::text),
        Some("refusal") => part.take("refusal").into_text().map(Block::Refusal),
        Some("image_url") => {
            let mut image = part.take("image_url");
            let url = image.take("url").into_text().or_else(|| image.into_text());
            let url = url.ok_or(TranslateError::Malformed("an image has no url"))?;
            Some(Block::Image(Media::from_url(url)))
        }
        Some("file") => {
            let mut file = part.take("file");
            let name = file.take("filename").into_text();
            let data = file
                .take("file_data")
                .into_text()
                .ok_or(TranslateError::Unsupported("a file that lies with another provider"))?;
            Some(Block::File { media: file_media(data), name })
        }
        Some("input_audio") => return Err(TranslateError::Unsupported("sound")),
        // Reasoning of other servers, and what is not known.
        _ => None,
    })
}

/// Returns the media of the data of a file, which is a `data:` URL or bare base64.
pub(in super::super) fn file_media(data: Cow<'_, str>) -> Media<'_> {
    if data.starts_with("data:") || data.starts_with("http") {
        return Media::from_url(data);
    }
    Media::Base64 { media_type: "application/pdf".into(), data }
}

fn read_tool<'a>(mut tool: Json<'a>, request: &mut Request<'a>) {
    let mut custom = tool.take("custom");
    if let Some(name) = custom.take("name").into_text() {
        let name = request.client_tools.add(None, name, Form::Free);
        let mut grammar = custom.take("format").take("grammar");
        request.tools.push(free_tool(
            name,
            custom.take("description").into_text(),
            grammar.take("syntax").into_text(),
            grammar.take("definition").into_text(),
        ));
        return;
    }
    let mut function = tool.take("function");
    match function.take("name").into_text() {
        Some(name) => request.tools.push(Tool {
            name,
            description: function.take("description").into_text(),
            schema: function.take("parameters"),
            is_strict: function.get("strict").bool(),
        }),
        None => request.dropped.add("tools of the provider"),
    }
}

fn read_tool_choice<'a>(mut choice: Json<'a>, request: &mut Request<'a>) -> Option<ToolChoice<'a>> {
    match choice.text() {
        Some("auto") => return Some(ToolChoice::Auto),
        Some("none") => return Some(ToolChoice::None),
        Some("required" | "any") => return Some(ToolChoice::Required),
        _ => {}
    }
    for key in ["function", "custom"] {
        if let Some(name) = choice.take(key).take("name").into_text() {
            return Some(ToolChoice::Named(name));
        }
    }
    let mut allowed = choice.take("allowed_tools");
    request.dropped.add_if(!allowed.is_null(), "tool_choice.allowed_tools");
    match allowed.take("mode").text() {
        Some("required") => Some(ToolChoice::Required),
        Some(_) => Some(ToolChoice::Auto),
        None => None,
    }
}

/// Reads one stop sequence or a list of them.
pub(in super::super) fn read_stop(stop: Json<'_>) -> Vec<Cow<'_, str>> {
    match stop {
        Json::Text(text) => vec![text],
        other => other.into_list().into_iter().filter_map(Json::into_text).collect(),
    }
}

fn read_format(mut format: Json<'_>) -> Format<'_> {
    match format.get("type").text() {
        Some("json_object") => Format::Json,
        Some("json_schema") => {
            let mut schema = format.take("json_schema");
            Format::Schema {
                name: schema.take("name").into_text(),
                description: schema.take("description").into_text(),
                is_strict: schema.get("strict").bool(),
                schema: schema.take("schema"),
            }
        }
        _ => Format::Text,
    }
}

/// Reads the wish for reasoning in the forms of OpenAI, OpenRouter and DeepSeek.
fn read_reasoning(body: &Json<'_>) -> Option<Reasoning> {
    let nested = body.get("reasoning");
    let name = body.get("reasoning_effort").text().or_else(|| nested.get("effort").text());
    match name {
        Some("none") => return Some(Reasoning::Off),
        Some(name) => return Effort::from_name(name).map(Reasoning::Effort),
        None => {}
    }
    if let Some(tokens) = nested.get("max_tokens").u64() {
        return Some(Reasoning::Budget(tokens));
    }
    match body.get("thinking").get("type").text() {
        Some("disabled") => Some(Reasoning::Off),
        Some("enabled") => Some(Reasoning::Adaptive(None)),
        _ => None,
    }
}
