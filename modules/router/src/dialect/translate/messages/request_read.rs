//! A message that a client asks for.

use std::borrow::Cow;

use super::{
    super::{
        TranslateError,
        ir::{
            Arguments, Block, Effort, Format, Media, Reasoning, Request, Role, Sampling, Tool,
            ToolChoice, expect,
        },
        json::Json,
    },
    FOREIGN_SIGNATURE,
};

/// Reads a request.
pub(in super::super) fn read(mut body: Json<'_>) -> Result<Request<'_>, TranslateError> {
    let mut request = Request::default();
    match body.take("system") {
        Json::Text(text) => request.push_system(text),
        parts => {
            for mut part in parts.into_list() {
                request.dropped.add_if(part.has("cache_control"), "cache_control");
                if let Some(text) = part.take("text").into_text() {
                    request.push_system(text);
                }
            }
        }
    }
    let messages = body.take("messages");
    expect(matches!(messages, Json::List(_)), "messages must be a list")?;
    for message in messages.into_list() {
        read_message(message, &mut request)?;
    }
    for tool in body.take("tools").into_list() {
        read_tool(tool, &mut request);
    }
    read_tool_choice(body.take("tool_choice"), &mut request);
    request.max_tokens = body.get("max_tokens").u64();
    request.sampling = Sampling {
        temperature: body.take("temperature").into_number(),
        top_p: body.take("top_p").into_number(),
        top_k: body.take("top_k").into_number(),
        stop: super::super::chat::read_stop(body.take("stop_sequences")),
        ..Sampling::default()
    };
    request.user = body.take("metadata").take("user_id").into_text();
    request.reasoning = read_reasoning(&body);
    request.format = read_format(&mut body);
    for part in [
        "cache_control",
        "container",
        "context_management",
        "inference_geo",
        "mcp_servers",
        "safeguards",
        "service_tier",
    ] {
        request.dropped.add_if(body.has(part), part);
    }
    Ok(request)
}

fn read_message<'a>(
    mut message: Json<'a>,
    request: &mut Request<'a>,
) -> Result<(), TranslateError> {
    let role = message.take("role").into_text();
    let content = message.take("content");
    match role.as_deref() {
        Some("user") => {
            let blocks = read_content(content, request)?;
            request.push(Role::User, blocks);
        }
        Some("assistant") => {
            let blocks = read_content(content, request)?;
            request.push(Role::Assistant, blocks);
        }
        Some("system") => {
            for block in read_content(content, request)? {
                if let Block::Text(text) = block {
                    request.push_system(text);
                }
            }
        }
        _ => return Err(TranslateError::Malformed("a message has no role that is known")),
    }
    Ok(())
}

fn read_content<'a>(
    content: Json<'a>,
    request: &mut Request<'a>,
) -> Result<Vec<Block<'a>>, TranslateError> {
    match content {
        Json::Null => Ok(Vec::new()),
        Json::Text(text) => Ok(Block::text(text).into_iter().collect()),
        Json::List(parts) => {
            let mut blocks = Vec::with_capacity(parts.len());
            for part in parts {
                request.dropped.add_if(part.has("cache_control"), "cache_control");
                read_block(part, request, &mut blocks)?;
            }
            Ok(blocks)
        }
        _ => Err(TranslateError::Malformed("content must be a text or a list of blocks")),
    }
}

fn read_block<'a>(
    mut block: Json<'a>,
    request: &mut Request<'a>,
    blocks: &mut Vec<Block<'a>>,
) -> Result<(), TranslateError> {
    let kind = block.take("type").into_text();
    match kind.as_deref() {
        Some("text") => blocks.extend(block.take("text").into_text().and_then(Block::text)),
        Some("image") => blocks.push(Block::Image(read_source(block.take("source"))?)),
        Some("document") => blocks.extend(read_document(block, request)?),
        Some("tool_use") => blocks.push(read_call(block)?),
        Some("tool_result") => {
            let id = block.take("tool_use_id").into_text().unwrap_or_default();
            let is_error = block.get("is_error").bool() == Some(true);
            let content = read_content(block.take("content"), request)?;
            blocks.push(Block::ToolResult { id, content, is_error });
        }
        Some("thinking") => blocks.extend(read_thinking(block)),
        Some("redacted_thinking") => {
            blocks.push(Block::Thinking { text: Cow::Borrowed(""), is_sealed: true });
        }
        Some("search_result") => {
            for mut part in block.take("content").into_list() {
                blocks.extend(part.take("text").into_text().and_then(Block::text));
            }
        }
        // Calls of Anthropic's own tools and their results: no other provider can go on with them.
        _ => request.dropped.add("blocks of the provider's own tools"),
    }
    Ok(())
}

/// Reads a block of reasoning. One that came from another provider is plain text, one of
/// Anthropic's own is sealed by its signature.
pub(super) fn read_thinking(mut block: Json<'_>) -> Option<Block<'_>> {
    let is_sealed = !matches!(block.get("signature").text(), None | Some("" | FOREIGN_SIGNATURE));
    let text = block.take("thinking").into_text()?;
    Some(Block::Thinking { text, is_sealed })
}

/// Reads a call of a tool, in a request or an answer.
pub(super) fn read_call(mut block: Json<'_>) -> Result<Block<'_>, TranslateError> {
    let id = block.take("id").into_text().unwrap_or_default();
    let name = block.take("name").into_text();
    let name = name.ok_or(TranslateError::Malformed("a call of a tool has no name"))?;
    Ok(Block::ToolUse { id, name, arguments: Arguments::Tree(block.take("input")) })
}

fn read_source(mut source: Json<'_>) -> Result<Media<'_>, TranslateError> {
    let kind = source.take("type").into_text();
    match kind.as_deref() {
        Some("base64") => Ok(Media::Base64 {
            media_type: source.take("media_type").into_text().unwrap_or("image/png".into()),
            data: source.take("data").into_text().unwrap_or_default(),
        }),
        Some("url") => Ok(Media::from_url(source.take("url").into_text().unwrap_or_default())),
        Some("file") => Err(TranslateError::Unsupported("a file that lies with another provider")),
        _ => Err(TranslateError::Malformed("an image or a document has no source that is known")),
    }
}

fn read_document<'a>(
    mut block: Json<'a>,
    request: &mut Request<'a>,
) -> Result<Vec<Block<'a>>, TranslateError> {
    let mut source = block.take("source");
    match source.get("type").text() {
        Some("text") => {
            Ok(source.take("data").into_text().and_then(Block::text).into_iter().collect())
        }
        Some("content") => read_content(source.take("content"), request),
        _ => {
            let name = block.take("title").into_text();
            Ok(vec![Block::File { media: read_source(source)?, name }])
        }
    }
}

fn read_tool<'a>(mut tool: Json<'a>, request: &mut Request<'a>) {
    request.dropped.add_if(tool.has("cache_control"), "cache_control");
    let is_own = matches!(tool.get("type").text(), None | Some("custom"));
    match tool.take("name").into_text().filter(|_| is_own) {
        Some(name) => request.tools.push(Tool {
            name,
            description: tool.take("description").into_text(),
            schema: tool.take("input_schema"),
            is_strict: tool.get("strict").bool(),
        }),
        None => request.dropped.add("tools of the provider"),
    }
}

fn read_tool_choice<'a>(mut choice: Json<'a>, request: &mut Request<'a>) {
    if choice.get("disable_parallel_tool_use").bool() == Some(true) {
        request.parallel_tool_calls = Some(false);
    }
    let name = choice.take("name").into_text();
    request.tool_choice = match choice.get("type").text() {
        Some("auto") => Some(ToolChoice::Auto),
        Some("any") => Some(ToolChoice::Required),
        Some("none") => Some(ToolChoice::None),
        Some("tool") => name.map(ToolChoice::Named),
        _ => None,
    };
}

fn read_reasoning(body: &Json<'_>) -> Option<Reasoning> {
    let thinking = body.get("thinking");
    let effort = body.get("output_config").get("effort").text().and_then(Effort::from_name);
    match thinking.get("type").text() {
        Some("disabled") => Some(Reasoning::Off),
        Some("enabled") => Some(match thinking.get("budget_tokens").u64() {
            Some(tokens) => Reasoning::Budget(tokens),
            None => Reasoning::Adaptive(effort),
        }),
        _ if thinking.is_null() && effort.is_none() => None,
        _ => Some(Reasoning::Adaptive(effort)),
    }
}

fn read_format<'a>(body: &mut Json<'a>) -> Format<'a> {
    let mut format = match body.take("output_config").take("format") {
        Json::Null => body.take("output_format"),
        format => format,
    };
    match format.get("type").text() {
        Some("json_schema") => Format::Schema {
            schema: format.take("schema"),
            name: None,
            description: None,
            is_strict: Some(true),
        },
        _ => Format::Text,
    }
}
